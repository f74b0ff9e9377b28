#!/usr/bin/env python3
"""A child that is never there for long: it forks, its parent ends, again and again."""

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
