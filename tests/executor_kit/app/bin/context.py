#!/usr/bin/env python3
"""Print what a script can see of its shard, and what other users can see of the script."""

import json
import os
import stat

path = os.environ["JOBCLOUD_SHARDING_CONTEXT_FILE"]
with open(path) as file:
    context = json.load(file)
with open("/proc/self/cmdline", "rb") as file:
    arguments = file.read().decode().split("\0")[:-1]
print(
    json.dumps(
        {
            "path": path,
            "mode": stat.S_IMODE(os.stat(path).st_mode),
            "folder": stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode),
            "context": context,
            "arguments": arguments[2:],
            "env": {name: value for name, value in os.environ.items() if name.startswith("JOBCLOUD_")},
        }
    )
)
