#!/usr/bin/env python3
import json
import os
import sys

folder = os.environ.get("JOBCLOUD_SECRET_FILES", "")
files = {}
for name in os.listdir(folder) if folder else ():
    with open(os.path.join(folder, name)) as file:
        files[name] = [file.read()[::-1], os.fstat(file.fileno()).st_mode & 0o777, os.fstat(file.fileno()).st_uid]
seen = {
    "password": os.environ.get("PASSWORD", "")[::-1],
    "folder": folder,
    "mode": os.stat(folder).st_mode & 0o777 if folder else 0,
    "files": files,
}
print(json.dumps(seen))
sys.exit(int(os.environ.get("SECRET_EXIT", "0")))
