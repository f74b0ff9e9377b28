"""Certificates of listeners: loading, replacement while they are in use, expiry."""

from __future__ import annotations

import dataclasses
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from tests.tls_kit import Authority, server_tls

from jobcloud.errors import ConfigError
from jobcloud.server.tls import Demand, ServerFiles, ServerTls, load

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DAY = 86_400_000


class Watch:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Connect two contexts in memory. Returns both ends. Raises ssl.SSLError if an end refuses the other one."""
    sent, received = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(sent, received, server_side=True)
    theirs = client.wrap_bio(received, sent, server_hostname="localhost")
    for side in (theirs, ours, theirs, ours):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return ours, theirs


def in_use(tls: ServerTls, authority: Authority) -> int:
    """The serial number of the certificate that a new connection gets."""
    _, theirs = shake_hands(tls.context(), authority.trust())
    found = theirs.getpeercert(binary_form=True)
    assert found is not None
    return x509.load_der_x509_certificate(found).serial_number


def serial(files: ServerFiles) -> int:
    return x509.load_pem_x509_certificate(files.cert.read_bytes()).serial_number


def test_replaced_certificate_is_used_for_new_connections(authority: Authority) -> None:
    watch = Watch()
    files = authority.issue()
    tls = server_tls(files, monotonic=watch)
    first = serial(files)
    assert in_use(tls, authority) == first
    authority.issue()
    assert in_use(tls, authority) == first, "the files are not looked at more than once in 5 s"
    watch.at += 5
    assert in_use(tls, authority) == serial(files) != first
    assert (tls.warnings(), tls.counts()) == ((), (1, 0))


def test_half_of_a_new_pair_keeps_the_old_one_until_the_other_half_is_there(authority: Authority) -> None:
    watch = Watch()
    files = authority.issue()
    tls = server_tls(files, monotonic=watch)
    first, other = serial(files), authority.issue(file="other")
    other.cert.replace(files.cert)
    watch.at += 5
    assert in_use(tls, authority) == first
    (warning,) = tls.warnings()
    assert "http.tls_cert_file" in warning
    assert "key values mismatch" in warning
    assert "stays in use" in warning
    other.key.replace(files.key)
    watch.at += 5
    assert in_use(tls, authority) == serial(files) != first
    assert (tls.warnings(), tls.counts()) == ((), (1, 1))


@pytest.mark.parametrize("broken", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", None])
def test_certificate_that_cannot_be_read_keeps_the_old_one(authority: Authority, broken: bytes | None) -> None:
    watch = Watch()
    files = authority.issue()
    tls = server_tls(files, monotonic=watch)
    first = serial(files)
    if broken is None:
        files.cert.unlink()
    else:
        files.cert.write_bytes(broken)
    watch.at += 5
    assert in_use(tls, authority) == first
    assert str(files.cert) in tls.warnings()[0]
    assert tls.counts() == (0, 1)
    watch.at += 5
    tls.warnings()
    assert tls.counts() == (0, 1), "files that have not changed are not read again"


def test_key_that_becomes_readable_for_all_is_not_taken_over(authority: Authority) -> None:
    watch = Watch()
    files = authority.issue()
    tls = server_tls(files, monotonic=watch)
    files.key.chmod(0o644)
    watch.at += 5
    assert "chmod 600" in tls.warnings()[0]
    files.key.chmod(0o600)
    watch.at += 5
    assert tls.warnings() == ()


def test_certificate_is_warned_of_from_14_days_before_its_end(authority: Authority) -> None:
    files = authority.issue(not_after=NOW)
    now = [0]
    tls = server_tls(files, now_ms=lambda: now[0])
    end = tls.expires_ms()
    assert end == NOW.timestamp() * 1_000
    now[0] = end - 14 * DAY - 1
    assert tls.warnings() == ()
    now[0] = end - 14 * DAY
    assert "expires at 2026-01-01 00:00:00 UTC" in tls.warnings()[0]
    now[0] = end
    assert "has expired at 2026-01-01 00:00:00 UTC" in tls.warnings()[0]


def test_key_with_a_password_is_refused_without_a_question_on_the_terminal(authority: Authority) -> None:
    from cryptography.hazmat.primitives import serialization

    files = authority.issue()
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    secret = serialization.BestAvailableEncryption(b"secret")
    files.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret))
    with pytest.raises(ConfigError, match="without a password"):
        load(files)


def test_wrong_files_are_named_with_their_setting(authority: Authority, tmp_path: Path) -> None:
    files = authority.issue()
    empty = tmp_path / "empty.pem"
    empty.touch()
    wrong = {
        "http.tls_cert_file": dataclasses.replace(files, cert=files.key),
        "http.tls_key_file": dataclasses.replace(files, key=tmp_path / "missing"),
        "http.client_ca_file": dataclasses.replace(files, client_ca=empty),
        "http.client_crl_file": dataclasses.replace(files, client_ca=authority.file, client_crl=empty),
        "http.tls_ca_file": dataclasses.replace(files, peer_ca=empty),
    }
    for setting, one in wrong.items():
        with pytest.raises(ConfigError) as caught:
            load(one)
        assert caught.value.field == setting
        assert caught.value.fix


def test_old_versions_of_tls_are_refused(authority: Authority) -> None:
    loaded = load(authority.issue())
    assert loaded.server.minimum_version == ssl.TLSVersion.TLSv1_2
    assert loaded.server.options & ssl.OP_NO_RENEGOTIATION
    assert loaded.peers.check_hostname


@pytest.mark.parametrize(("clients", "sent"), [("off", False), ("optional", False), ("required", True)])
def test_standby_sends_its_certificate_only_if_the_leader_requires_one(
    authority: Authority, tmp_path: Path, clients: Demand, sent: bool
) -> None:
    staff = authority if sent else Authority(tmp_path / "staff")
    files = dataclasses.replace(authority.issue(), clients=clients, client_ca=staff.file, peer_ca=authority.file)
    loaded = load(files)
    leader, _ = shake_hands(loaded.server, loaded.peers)
    assert (leader.getpeercert(binary_form=True) is not None) == sent


def test_certificate_for_a_year_is_no_reason_for_a_warning(authority: Authority) -> None:
    files = authority.issue(not_after=NOW + timedelta(days=365), key_type=trustme.KeyType.RSA)
    assert server_tls(files, now_ms=lambda: int(NOW.timestamp() * 1_000)).warnings() == ()
