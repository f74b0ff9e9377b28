#!/usr/bin/env -S python3 -u
"""A script with the same behaviours as the jobs in shop/jobs.py."""

import json
import os
import signal
import subprocess
import sys
import time

job = sys.argv[1]
with open(os.environ["JOBCLOUD_SHARDING_CONTEXT_FILE"]) as file:
    parameter = json.load(file)["shardingParameter"]
cancelled = False


def cancel(*_):
    global cancelled
    cancelled = True


def until_cancelled(do=lambda: None):
    signal.signal(signal.SIGTERM, cancel)
    print("waiting")
    while not cancelled:
        do()
        time.sleep(0.01)


def beat():
    with open(parameter, "a") as file:
        file.write(".")


if job == "wait_for_kill":
    until_cancelled()
elif job == "polite":
    until_cancelled()
    print("bye")
elif job == "beats":
    until_cancelled(beat)
elif job == "never_returns":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(0.01)
elif job == "leaves_children":
    subprocess.Popen(["sleep", parameter], start_new_session=parameter == "600")
    until_cancelled()
elif job == "raise":
    raise ValueError("no stock")
elif job == "import":
    __import__("no_such_module")
elif job == "exit":
    sys.exit(int(sys.argv[2]))
elif job == "dies":
    os._exit(9)
elif job == "segfaults":
    os.kill(os.getpid(), signal.SIGSEGV)
elif job == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
elif job == "changes_process":
    os.chdir("/")
    os.environ["CHANGED"] = "1"
elif job == "sees_process":
    print(json.dumps([os.getcwd(), os.environ.get("CHANGED"), None]))
elif job == "prints_with_child":
    subprocess.run(["echo", "from a child"], check=True)
    print("from", os.environ["JOBCLOUD_TASK_ID"])
elif job == "takes_memory":
    bytearray(int(parameter) << 20)
elif job == "burns_cpu":
    while True:
        pass
elif job == "opens_files":
    files = []
    while True:
        files.append(os.open(os.devnull, os.O_RDONLY))
