"""Import of crontabs, systemd timers and Quartz's XML files as a manifest for `jobcloud apply`.

The readers in this package only read text: nothing is executed, and no file is read apart from the given ones. Each
line, unit and trigger becomes one `Item` of the report. Items with a job become the jobs of the manifest.
"""
