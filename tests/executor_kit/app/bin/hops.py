#!/usr/bin/env python3
"""A chain of short-lived children: each forks the next one and ends."""

import os
import time

if os.fork() == 0:
    if "own" in os.environ["JOBCLOUD_SHARDING_PARAMETER"]:
        os.setsid()
    print("hops", flush=True)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if os.fork():
            os._exit(0)
    os._exit(0)
time.sleep(600)
