#!/usr/bin/env python3
"""A script that prints digests of its parameters, and what remains of its environment."""

import hashlib
import json
import os
import sys

with open(os.environ["JOBCLOUD_SHARDING_CONTEXT_FILE"]) as file:
    context = json.load(file)
print(*(hashlib.sha256(context[name].encode()).hexdigest() for name in ("jobParameter", "shardingParameter")))
assert os.environ["JOBCLOUD_JOB_PARAMETER"] == context["jobParameter"]
assert os.environ["JOBCLOUD_SHARDING_PARAMETER"] == context["shardingParameter"]
assert json.loads(sys.argv[-1])["shardingItem"] == 1
