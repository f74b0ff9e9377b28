#!/bin/sh
# kazoo 2.11.0. A client with a session timeout of 6 s is given one ZooKeeper server, then the name of the same server
# three times. If the server does not accept the connection (its machine is off, or its queue is full), kazoo waits 6 s
# for each attempt in both cases: the whole session timeout. If the server accepts and is silent (it is stopped, or
# still starts), kazoo waits 6 s with one name and 2 s with three: here the timeout is divided by the number of names.
# ZooKeeper's own Java client divides both. So with kazoo, a client that lost its connection and meets one machine that
# is off has no time left for the other servers: its session, and each lock and leadership in it, ends although a
# majority of the servers is well.
# Seen on 2026-12-01 with the output below. The script fails if the behaviour changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat >ask.py <<'PYTHON'
import logging
import socket
import time

from kazoo.client import KazooClient
from kazoo.retry import KazooRetry

TIMEOUT_S = 6.0
logging.disable(logging.CRITICAL)


def attempts(port, names):
    """The seconds, rounded, from the first to the second attempt of a client to connect."""
    at = []
    client = KazooClient(
        hosts=",".join([f"127.0.0.1:{port}"] * names), timeout=TIMEOUT_S,
        connection_retry=KazooRetry(max_tries=-1, delay=0.01, backoff=1),
    )
    connect = client._connection._connect
    client._connection._connect = lambda *arguments: at.append(time.monotonic()) or connect(*arguments)
    client.start_async()
    while len(at) < 2:
        time.sleep(0.05)
    client.stop()
    client.close()
    return round(at[1] - at[0])


silent = socket.create_server(("127.0.0.1", 0), backlog=64)
full = socket.create_server(("127.0.0.1", 0), backlog=0)
port = full.getsockname()[1]
# The system completes no further connection until one of these is accepted.
waiting = [socket.socket() for _ in range(4)]
for one in waiting:
    one.setblocking(False)
    one.connect_ex(("127.0.0.1", port))
time.sleep(0.5)
for names in (1, 3):
    print(f"{names} name(s): not accepted {attempts(port, names)} s, silent {attempts(silent.getsockname()[1], names)} s")
PYTHON
python3 -m venv venv
venv/bin/python -m pip install -q kazoo==2.11.0
venv/bin/python ask.py | tee seen
cat >expected <<'END'
1 name(s): not accepted 6 s, silent 6 s
3 name(s): not accepted 6 s, silent 2 s
END
diff expected seen
