#!/bin/sh
# uvicorn 0.38.0 on asyncio sends the second small part of an answer at once if it opens its port itself (TCP_NODELAY is
# on), but not if it gets a socket that was made by `socket.create_server`. asyncio sets TCP_NODELAY only if the protocol
# number of the accepted socket is IPPROTO_TCP (6). A socket made with the default protocol has the number 0, and so have
# the connections that it accepts, although they are TCP too. A server that binds early, to learn its port or to share
# the socket with workers, then waits for the delayed acknowledgement of its client, about 40 ms on Linux, for each
# answer on a kept connection whose head and body are written apart. aiohttp 3.13.2 sets the option itself, and
# uvloop 0.22.1 sets it in both cases.
# Seen on 2026-12-01 with the output below. The script fails if the behaviour changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip install -q uvicorn==0.38.0 aiohttp==3.13.2 uvloop==0.22.1 2>/dev/null
venv/bin/python - >seen <<'PYTHON'
import asyncio
import socket

import uvicorn
import uvloop
from aiohttp import web
from uvicorn.protocols.http.h11_impl import H11Protocol

seen = []


def note(connection):
    seen.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0)


class Noting(H11Protocol):
    def connection_made(self, transport):
        note(transport.get_extra_info("socket"))
        super().connection_made(transport)


async def application(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"1"})


async def call(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert b"200" in await reader.read()
    writer.close()


def sockets_of(given):
    return [socket.create_server(("127.0.0.1", 0))] if given else None


async def with_uvicorn(given):
    config = uvicorn.Config(application, "127.0.0.1", 0, http=Noting, lifespan="off", log_level="error")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets_of(given)))
    while not server.started:
        await asyncio.sleep(0.01)
    await call(server.servers[0].sockets[0].getsockname()[1])
    server.should_exit = True
    await serving


async def with_aiohttp(given):
    async def answer(request):
        note(request.transport.get_extra_info("socket"))
        return web.Response(text="1")

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    sockets = sockets_of(given)
    site = web.SockSite(runner, sockets[0]) if sockets else web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    await call(runner.addresses[0][1])
    await runner.cleanup()


for name, loop in ("asyncio", asyncio.new_event_loop), ("uvloop", uvloop.new_event_loop):
    for server in with_uvicorn, with_aiohttp:
        for given in False, True:
            with asyncio.Runner(loop_factory=loop) as runner:
                runner.run(server(given))
            kind = "given a socket" if given else "its own port"
            print(f"{name}, {server.__name__[5:]}, {kind}: TCP_NODELAY {'on' if seen.pop() else 'off'}")
PYTHON
cat seen
diff - seen <<'EXPECTED'
asyncio, uvicorn, its own port: TCP_NODELAY on
asyncio, uvicorn, given a socket: TCP_NODELAY off
asyncio, aiohttp, its own port: TCP_NODELAY on
asyncio, aiohttp, given a socket: TCP_NODELAY on
uvloop, uvicorn, its own port: TCP_NODELAY on
uvloop, uvicorn, given a socket: TCP_NODELAY on
uvloop, aiohttp, its own port: TCP_NODELAY on
uvloop, aiohttp, given a socket: TCP_NODELAY on
EXPECTED
