"""Elastic-Job-Cloud's forms of apps and jobs: read and written, without I/O.

`conversion` reads the JSON that its clients send and that its ZooKeeper holds. `forms` writes the JSON that its clients
expect. Names, fields and defaults are those of its releases 2.1.5 and 3.0.x.
"""
