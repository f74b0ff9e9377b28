# ruff: noqa: E402, SIM117 - skipped before anything is imported; the master first, then what talks to it
"""TLS to a scripted master with test certificates (p15: pymesos has no TLS)."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

trustme = pytest.importorskip("trustme", reason="the dev group is not installed")
pytest.importorskip(
    "jobcloud.adapters.mesos.driver", reason="the extra [server] with compat/http-parser is not installed"
)

from tests.mesos_kit import FakeMaster, Running, offer, offers, until

from jobcloud.messages import OffersReceived, Revive, SendFailed, Subscribed
from jobcloud.ports import TlsFiles


@pytest.fixture(scope="module")
def authority() -> Any:
    return trustme.CA()


def server(authority: Any, name: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def trusting(authority: Any, folder: Path, **more: str) -> TlsFiles:
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    return TlsFiles(ca_file=str(folder / "ca.pem"), **more)


def test_p15_events_and_calls_use_tls(authority: Any, tmp_path: Path) -> None:
    with FakeMaster(tls=server(authority)) as master:
        with Running(master.address, tls=trusting(authority, tmp_path)) as running:
            running.wait(Subscribed)
            for _ in range(5):
                running.driver.send(Revive())
            master.call(4)
            assert len({id(one.connection) for one in master.calls}) == 1
            # Larger than one TLS record.
            master.stream().send(offers(*(offer(number) for number in range(200))))
            assert len(running.wait(OffersReceived).offers) == 200
            master.stream().close()
            running.wait(Subscribed, 2)
    assert running.receiver.all(SendFailed) == []


def test_p15_stop_ends_a_tls_session_at_once(authority: Any, tmp_path: Path) -> None:
    with FakeMaster(tls=server(authority)) as master:
        with Running(master.address, tls=trusting(authority, tmp_path)) as running:
            running.wait(Subscribed)
            running.driver.stop()
        until(lambda: not running.driver._driver._io_thread.is_alive())


@pytest.mark.parametrize("name", ["mesos.example", "127.0.0.2"])
def test_p15_certificate_for_another_host_is_refused(
    authority: Any, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with FakeMaster(tls=server(authority, name)) as master:
        with Running(master.address, tls=trusting(authority, tmp_path)) as running:
            until(lambda: caplog.text.count("certificate verify failed") >= 2)
    assert running.receiver.events == []
    assert master.streams == []


def test_p15_unknown_authority_is_refused(tmp_path: Path, authority: Any, caplog: pytest.LogCaptureFixture) -> None:
    with FakeMaster(tls=server(trustme.CA())) as master, Running(master.address, tls=trusting(authority, tmp_path)):
        until(lambda: caplog.text.count("certificate verify failed") >= 2)
    assert master.streams == []


def test_p15_master_without_tls_gets_no_credentials(tmp_path: Path, authority: Any) -> None:
    with FakeMaster() as master:
        tls = trusting(authority, tmp_path)
        with Running(master.address, tls=tls, principal="me", secret="x", answer_timeout_s=0.2) as running:
            until(lambda: len(master._open) >= 2)
        assert running.receiver.events == []
        master.problems.clear()
    assert master.streams == []


def test_p15_client_certificate_is_sent(tmp_path: Path, authority: Any) -> None:
    demanding = server(authority)
    authority.configure_trust(demanding)
    demanding.verify_mode = ssl.CERT_REQUIRED
    client = authority.issue_cert("jobcloud.example")
    client.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    client.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    files = {"cert_file": str(tmp_path / "cert.pem"), "key_file": str(tmp_path / "key.pem")}
    with FakeMaster(tls=demanding) as master:
        with Running(master.address, tls=trusting(authority, tmp_path, **files)) as running:
            running.wait(Subscribed)
