"""A worker that speaks the protocol, and knows no secrets: each run succeeds."""

import json
import os
import sys

orders, answers = (int(text) for text in sys.argv[-2:])
with os.fdopen(orders) as lines, os.fdopen(answers, "w", buffering=1) as out:
    for line in lines:
        order = json.loads(line)
        if order["type"] == "hello":
            print(json.dumps({"type": "ready", "protocol": 2}), file=out)
        elif order["type"] == "run":
            assert "secrets" not in order
            about = {"task": order["task"], "run": order["run"]}
            print(json.dumps({"type": "started", **about}), file=out)
            end = {"state": "finished", "cause": None, "message": "", "exitCode": None, "result": None}
            print(json.dumps({"type": "ended", **about, **end}), file=out)
        elif order["type"] == "stop":
            break
