"""A network namespace for one scheduler, joined to this machine by a link that can be cut.

While the link is cut, packets vanish: nobody gets an error or the end of a connection. Each namespace is named after
the soak's process, so that a later soak finds what a killed one has left.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

_NAME = re.compile(r"jcsoak(\d+)")
# 198.18.0.0/15 is reserved for tests of networks (RFC 2544). Each soak takes four of its addresses.
_BLOCKS = 1 << 15
_MAC = "02:00:00:00:00:01"
_CONNECT_S = 2


class Impossible(Exception):
    """This machine allows no network namespace. The text says why."""


class Namespace:
    """A namespace with one link. `outside` is the address of this machine there, `inside` that of the namespace."""

    def __init__(self, pid: int) -> None:
        block = pid % _BLOCKS * 4
        network, self.outside, self.inside = (f"198.{18 + (n >> 16)}.{n >> 8 & 255}.{n & 255}" for n in
                                              (block, block + 1, block + 2))  # fmt: skip
        self.name = f"jcsoak{pid}"
        # While the link is cut, this route keeps packets for the namespace away from the default route.
        self._route = ("unreachable", f"{network}/30", "metric", "9000")
        #: precedes a command that runs in the namespace; `ip` replaces itself with the command, which keeps its pid
        self.wrapper = ("ip", "netns", "exec", self.name)

    def make(self) -> None:
        _ip("netns", "add", self.name)
        _ip("link", "add", self.name, "address", _MAC, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        _ip("addr", "add", f"{self.outside}/30", "dev", self.name)
        _ip("-n", self.name, "addr", "add", f"{self.inside}/30", "dev", "eth0")
        _ip("-n", self.name, "link", "set", "lo", "up")
        _ip("-n", self.name, "link", "set", "eth0", "up")
        # Without it, the namespace would notice that this machine is gone, and connections would fail with an error.
        _ip("-n", self.name, "neigh", "add", self.outside, "lladdr", _MAC, "dev", "eth0")
        _ip("route", "add", *self._route)
        self.mend()

    def cut(self) -> None:
        _ip("link", "set", self.name, "down")

    def mend(self) -> None:
        _ip("link", "set", self.name, "up")

    def remove(self) -> None:
        """Remove all of it that exists. The name goes last: as long as it exists, a later soak can repeat this."""
        for arguments in (("route", "del", *self._route), ("link", "del", self.name), ("netns", "del", self.name)):
            with contextlib.suppress(Impossible):
                _ip(*arguments)


@contextlib.contextmanager
def namespace() -> Iterator[Namespace]:
    """A namespace of this process. Raises Impossible."""
    _remove_stale()
    made = Namespace(os.getpid())
    try:
        made.make()
        yield made
    finally:
        made.remove()


def _remove_stale() -> None:
    """Remove the namespaces of soaks that were killed, with the processes in them."""
    for name in _ip("netns", "list").split():
        found = _NAME.fullmatch(name)
        if found is None or (int(found[1]) != os.getpid() and Path(f"/proc/{found[1]}").exists()):
            continue
        with contextlib.suppress(Impossible, ProcessLookupError):
            for pid in _ip("netns", "pids", name).split():
                os.kill(int(pid), signal.SIGKILL)
        Namespace(int(found[1])).remove()


def _ip(*arguments: str) -> str:
    try:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError:
        raise Impossible("needs `ip`: apt-get install iproute2") from None
    if done.returncode:
        raise Impossible(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


class Forwarder(socketserver.ThreadingTCPServer):
    """Forwards connections to `address` to the same port of another address, until both ends have closed."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: str, port: int, target: str) -> None:
        super().__init__((address, port), _Forward)
        self.target = (target, port)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class _Forward(socketserver.BaseRequestHandler):
    server: Forwarder

    def handle(self) -> None:
        with contextlib.suppress(OSError), socket.create_connection(self.server.target, _CONNECT_S) as there:
            there.settimeout(None)
            for end in (self.request, there):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=_pump, args=(there, self.request), daemon=True)
            back.start()
            _pump(self.request, there)
            back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Forward what comes from `source`. If `sink` takes nothing more, `source` is told at once."""
    with contextlib.suppress(OSError):
        while piece := source.recv(65_536):
            sink.sendall(piece)
    for end, how in ((sink, socket.SHUT_WR), (source, socket.SHUT_RD)):
        with contextlib.suppress(OSError):
            end.shutdown(how)
