"""The archive: logs of ended attempts, in a directory or an S3-compatible store.

`names` makes the names of objects, `form` their content. `stores` and `s3` keep objects. `index` knows the stored ones
and selects those to delete, `backlog` holds the attempts that wait, `service` copies and reads.
"""
