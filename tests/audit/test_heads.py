"""The export of heads: a file, and syslog over UDP, TCP and TLS."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
from tests.audit_kit import CHAIN, START, FakeDisk, auditing, make_entry

from jobcloud.audit.entries import Head
from jobcloud.audit.heads import Exporter, HeadFile, Syslog
from jobcloud.audit.verify import read_heads

HEAD = Head(CHAIN, 7, "ab" * 32)
_MESSAGE = re.compile(rb"<109>1 2023-11-14T22:13:20\.000Z sched-1 jobcloud \d+ audit-head - chain=.*")


def test_file_gets_a_line_for_each_head(tmp_path: Path) -> None:
    receiver = HeadFile(tmp_path / "heads")
    receiver.send(START, HEAD)
    receiver.send(START, HEAD._replace(seq=8))
    assert [head.seq for head in read_heads([tmp_path / "heads"])] == [7, 8]
    assert (tmp_path / "heads").stat().st_mode & 0o777 == 0o600


def test_long_file_gives_way_to_a_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobcloud.audit.heads._FILE_BYTES", 200)
    receiver = HeadFile(tmp_path / "heads")
    for seq in range(1, 6):
        receiver.send(START, HEAD._replace(seq=seq))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["heads", "heads.1"]
    assert [head.seq for head in read_heads([tmp_path / "heads"])] == [5]


def test_message_over_udp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(30)
        sender = Syslog(f"udp://127.0.0.1:{server.getsockname()[1]}", hostname="sched-1")
        sender.send(START, HEAD)
        message = server.recv(4_096)
        sender.close()
    assert _MESSAGE.fullmatch(message), message
    assert message.endswith(str(HEAD).encode())


def _frame(stream: socket.socket) -> bytes:
    """One message with its length in front of it."""
    length = b""
    while not length.endswith(b" "):
        length += stream.recv(1)
    message = b""
    while len(message) < int(length):
        message += stream.recv(int(length) - len(message))
    return message


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
    )
    return cert, key


@pytest.mark.parametrize("kind", ["tcp", "tls"])
def test_messages_over_a_connection_that_the_server_closes(kind: str, certificate: tuple[Path, Path]) -> None:
    messages: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        closed = threading.Event()

        def serve() -> None:
            for count in (2, 1):
                plain = server.accept()[0]
                if kind == "tls":
                    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                    context.load_cert_chain(*certificate)
                    plain = context.wrap_socket(plain, server_side=True)
                plain.settimeout(30)
                messages.extend(_frame(plain) for _ in range(count))
                plain.close()
                closed.set()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        port = server.getsockname()[1]
        sender = Syslog(f"{kind}://localhost:{port}", certificate[0] if kind == "tls" else None, hostname="sched-1")
        sender.send(START, HEAD)
        sender.send(START, HEAD)
        assert closed.wait(30)
        with pytest.raises(OSError, match=r"closed|EOF|reset"):
            sender.send(START, HEAD)
        sender.send(START, HEAD)
        thread.join(30)
        sender.close()
    assert len(messages) == 3
    assert all(_MESSAGE.fullmatch(message) for message in messages)


def test_server_with_a_wrong_certificate_is_refused(certificate: tuple[Path, Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)

        def serve() -> None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            plain = server.accept()[0]
            try:
                context.wrap_socket(plain, server_side=True)
            except OSError:
                plain.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(ssl.SSLCertVerificationError):
            Syslog(f"tls://localhost:{server.getsockname()[1]}").send(START, HEAD)
        thread.join(30)


class Receiver:
    """A receiver that fails until it is told to work."""

    def __init__(self) -> None:
        self.heads: list[Head] = []
        self.failing = True
        self.attempted, self.received, self.closed = threading.Event(), threading.Event(), threading.Event()

    def send(self, at: int, head: Head) -> None:
        self.attempted.set()
        if self.failing:
            raise ConnectionError("no server")
        self.heads.append(head)
        self.received.set()

    def close(self) -> None:
        self.closed.set()


def test_newest_head_is_sent_again_until_it_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobcloud.audit.heads._RETRY_S", 0.01)
    receiver = Receiver()
    exporter = Exporter(receiver, lambda: START)
    with auditing(FakeDisk(), exporters=[exporter]) as audit:
        for number in range(3):
            audit.record(make_entry(number))
        assert audit.flush()
        assert receiver.attempted.wait(30)
        receiver.attempted.clear()
        assert receiver.attempted.wait(30)
        assert audit.warnings() == ("the head of the audit log is not exported: no server",)
        receiver.failing = False
        assert receiver.received.wait(30)
    assert receiver.heads[-1].seq == 4
    assert receiver.closed.is_set()
