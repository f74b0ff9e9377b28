"""The commands of `jobcloud`, one module per group. `jobcloud.client.cli` joins them.

Modules that are slow to import (httpx, numpy, the server) are imported inside the commands that use them, so that
`--help` and shell completion are fast, and the client works without the server's libraries.
"""
