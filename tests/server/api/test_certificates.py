"""Clients that a certificate identifies: names, defects of certificates, revocation, and standbys."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.api_kit import FakeLoop, make_api, serving
from tests.server.api.test_standby import Group
from tests.tls_kit import Authority, server_tls

from jobcloud.access.directory import EMPTY, Directory, Principal
from jobcloud.messages import PutAccess
from jobcloud.model import EVERY_TEAM, Member, Team, User
from jobcloud.server.api import Access, ApiOptions
from jobcloud.server.api.certificates import Certificates, NameOf
from jobcloud.server.api.forward import HOP_HEADER
from jobcloud.server.api.problems import Problem
from jobcloud.server.tls import CERTIFICATE, ServerFiles

NOW_MS = 1_767_225_600_000  # 2026-01-01
ACCESS = Access(token="of-the-server")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


def der(files: ServerFiles) -> bytes:
    return x509.load_pem_x509_certificate(files.cert.read_bytes()).public_bytes(serialization.Encoding.DER)


def identified(
    content: bytes | None,
    name_of: NameOf,
    *headers: tuple[bytes, bytes],
    directory: Directory = EMPTY,
    at: int = NOW_MS,
) -> Principal | None:
    scope: dict[str, Any] = {"type": "http", "headers": list(headers)}
    if content is not None:
        scope[CERTIFICATE] = content
    return asyncio.run(Certificates(name_of, lambda: at).identify(scope, directory))


def refusal(*arguments: Any, **more: Any) -> str:
    with pytest.raises(Problem) as caught:
        identified(*arguments, **more)
    assert caught.value.slug == "unauthenticated"
    return caught.value.detail


def test_name_of_a_certificate_is_its_subject(authority: Authority) -> None:
    by_cn = der(authority.issue(common_name="ana", file="cn"))
    by_email = der(authority.issue("ana@example.org", file="email"))
    by_dns = der(authority.issue("Build.Example.ORG", file="dns"))
    assert [found.subject for found in (
        identified(by_cn, "cn"), identified(by_email, "email"), identified(by_dns, "dns"),
    ) if found] == ["user:ana", "user:ana@example.org", "user:build.example.org"]  # fmt: skip
    found = identified(by_cn, "cn")
    assert found is not None
    assert found.via.startswith("certificate ")


@pytest.mark.parametrize(
    ("uri", "subject"),
    [
        ("urn:jobcloud:user:ana", "user:ana"),
        ("urn:jobcloud:service:billing/nightly", "service:billing/nightly"),
        ("urn:jobcloud:service:nightly", ""),
        ("urn:jobcloud:service:../nightly", ""),
        ("urn:jobcloud:group:admins", ""),
        ("urn:jobcloud:token:server", ""),
        ("urn:jobcloud:user:", ""),
        ("spiffe://example.org/ana", ""),
    ],
)
def test_uri_names_a_user_or_a_service_account(authority: Authority, uri: str, subject: str) -> None:
    content = signed(authority, x509.UniformResourceIdentifier(uri))
    if subject:
        found = identified(content, "uri")
        assert found is not None
        assert found.subject == subject
    else:
        assert "certificate" in refusal(content, "uri")


@pytest.mark.parametrize("name", ["a b", "user:ana", "ana/x", "é", "a\nb", ".."])
def test_name_that_no_user_can_have_is_refused(authority: Authority, name: str) -> None:
    content = der(authority.issue(common_name=name, file="odd"))
    assert "not the name of a user" in refusal(content, "cn")


def test_certificate_without_a_name_or_with_two_identifies_nobody(authority: Authority) -> None:
    two = der(authority.issue("a@example.org", "b@example.org", file="two"))
    assert "has 2 names" in refusal(two, "email")
    assert "has 0 names" in refusal(two, "cn")
    assert "has 0 names" in refusal(two, "uri")
    assert "malformed" in refusal(b"\x30\x00", "cn")


def test_certificate_proves_nothing_beside_a_token_or_behind_a_standby(authority: Authority) -> None:
    content = der(authority.issue(common_name="ana", file="cn"))
    assert identified(None, "cn") is None
    for header in ((b"authorization", b"Bearer wrong"), (b"accesstoken", b"x"), (HOP_HEADER, b"1")):
        assert identified(content, "cn", header) is None


def test_expired_certificate_and_disabled_user_are_refused(authority: Authority) -> None:
    content = der(authority.issue(common_name="ana", file="old", not_after=datetime(2026, 1, 1, tzinfo=UTC)))
    assert identified(content, "cn", at=NOW_MS - 1) is not None
    assert "expired" in refusal(content, "cn")
    users = {"ana": User("ana", 1, disabled=True)}
    assert "disabled" in refusal(content, "cn", directory=Directory({}, {}, users, {}, {}), at=NOW_MS - 1)


def test_client_with_a_certificate_has_the_rights_of_its_user(authority: Authority, tmp_path: Path) -> None:
    loop = FakeLoop()
    loop.feed(PutAccess(loop.now, Team(EVERY_TEAM, (Member("user:ana", "viewer"),))))
    app = make_api(tmp_path, loop, options=ApiOptions(access=ACCESS, client_name="cn"))
    with serving(app, tls=server_tls(asks(authority))) as url:
        statuses = {}
        for name in ("ana", "bob", ""):
            files = authority.issue(common_name=name, file="client") if name else None
            with httpx.Client(verify=authority.trust(files), trust_env=False) as client:
                statuses[name] = [
                    client.get(f"{url}/api/v1/cluster").status_code,
                    client.post(f"{url}/api/v1/cluster/pause").status_code,
                    client.get(f"{url}/api/v1/jobs", headers={"Authorization": "Bearer wrong"}).status_code,
                ]
    assert statuses == {"ana": [200, 403, 401], "bob": [403, 403, 401], "": [401, 401, 401]}


def test_revoked_certificate_is_refused(authority: Authority, tmp_path: Path) -> None:
    good, bad = (authority.issue(common_name=name, file=name) for name in ("good", "bad"))
    crl = tmp_path / "crl.pem"
    crl.write_bytes(revocation(authority, bad))
    app = make_api(tmp_path, options=ApiOptions(access=ACCESS, client_name="cn"))
    files = dataclasses.replace(asks(authority), client_crl=crl)
    with serving(app, tls=server_tls(files)) as url:
        with httpx.Client(verify=authority.trust(good), trust_env=False) as client:
            assert client.get(f"{url}/api/v1/cron/next").status_code != 401
        with httpx.Client(verify=authority.trust(bad), trust_env=False) as client, pytest.raises(httpx.TransportError):
            client.get(f"{url}/api/v1/cron/next")


def test_standby_cannot_pass_on_a_certificate_and_names_the_leader(authority: Authority, tmp_path: Path) -> None:
    group = Group(tmp_path)
    group.address = "https://leader.test:8899"
    app = group.standby(client_name="cn")
    client = authority.issue(common_name="ana", file="ana")
    caller = httpx.Client(verify=authority.trust(client), trust_env=False)
    with serving(app, tls=server_tls(asks(authority))) as url, caller:
        refused = caller.post(f"{url}/api/v1/cluster/pause")
        group.address = "https://127.0.0.1:1"
        own = {"Cookie": "jobcloud=x", "Origin": url, "Jobcloud-Request": "1"}
        assert caller.post(f"{url}/api/v1/cluster/pause", headers=own).status_code == 503, "a session is passed on"
        assert caller.post(f"{url}/api/v1/cluster/pause", headers={"Cookie": "other=x"}).status_code == 403
    assert refused.status_code == 403
    assert "https://leader.test:8899" in refused.json()["detail"]


def asks(authority: Authority) -> ServerFiles:
    return dataclasses.replace(authority.issue(), client_ca=authority.file, clients="optional")


def key_of(authority: Authority) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(authority.ca.private_key_pem.bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def signed(authority: Authority, name: x509.GeneralName) -> bytes:
    """A certificate with one alternative name, which trustme cannot make."""
    key = key_of(authority)
    builder = x509.CertificateBuilder(
        x509.Name([]), x509.Name([]), key.public_key(), 7, datetime(2025, 1, 1), datetime(2030, 1, 1)
    )
    builder = builder.add_extension(x509.SubjectAlternativeName([name]), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def revocation(authority: Authority, files: ServerFiles) -> bytes:
    """A list of the authority that revokes one certificate."""
    issuer = x509.load_pem_x509_certificate(authority.file.read_bytes())
    key = key_of(authority)
    today = datetime.now(UTC)
    serial = x509.load_pem_x509_certificate(files.cert.read_bytes()).serial_number
    revoked = x509.RevokedCertificateBuilder(serial, today).build()
    builder = x509.CertificateRevocationListBuilder(issuer.subject, today, today + timedelta(days=1))
    return builder.add_revoked_certificate(revoked).sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
