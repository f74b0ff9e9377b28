"""Vault's HTTP API, against a server made from its published documentation. No Vault server was used."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from tests.vault_kit import Answer, Vault, read_answer

from jobcloud.server.secrets.sources import MAX_BYTES, Missing, SourceFailed
from jobcloud.server.secrets.vault import VaultOptions, VaultSource


@pytest.fixture
def vault() -> Iterator[Vault]:
    made = Vault()
    yield made
    made.close()


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("hvs.first\n")
    path.chmod(0o600)
    return path


def source(vault: Vault, token_file: Path, **more: Any) -> VaultSource:
    return VaultSource(VaultOptions(vault.url, token_file, **more), pause=lambda seconds: None)


def test_secret_is_read_with_the_token_and_the_namespace(vault: Vault, token_file: Path) -> None:
    reader = source(vault, token_file, namespace="team/ops", mount="kv", prefix="jobs/prod")
    assert reader.read("shop", "db-password") == b"s3cret"
    path, headers = vault.asked[0]
    assert path == "/v1/kv/data/jobs/prod/shop/db-password"
    assert (headers["X-Vault-Token"], headers["X-Vault-Namespace"]) == ("hvs.first", "team/ops")
    assert headers["X-Vault-Request"] == "true"
    token_file.write_text("hvs.renewed\n")
    reader.read("shop", "db-password")
    assert vault.asked[1][1]["X-Vault-Token"] == "hvs.renewed"


def test_path_has_no_prefix_and_no_namespace_if_they_are_empty(vault: Vault, token_file: Path) -> None:
    vault.answers = [read_answer(field="password")]
    assert source(vault, token_file, prefix="", field="password").read("a", "b") == b"s3cret"
    path, headers = vault.asked[0]
    assert (path, headers["X-Vault-Namespace"]) == ("/v1/secret/data/a/b", None)


def test_unknown_or_deleted_secret_is_missing(vault: Vault, token_file: Path) -> None:
    deleted = {"data": {"data": None, "metadata": {"deletion_time": "2026-01-01T00:00:00Z", "version": 1}}}
    bodies: list[Any] = [{"errors": []}, deleted]
    for body in bodies:
        vault.answers = [(404, body)]
        with pytest.raises(Missing):
            source(vault, token_file).read("shop", "db-password")


@pytest.mark.parametrize("status", [412, 429, 500, 502, 503])
def test_passing_failure_is_tried_again(vault: Vault, token_file: Path, status: int) -> None:
    vault.answers = [(status, {"errors": ["Vault is sealed"]}), (status, {}), read_answer()]
    assert source(vault, token_file).read("shop", "db-password") == b"s3cret"
    assert len(vault.asked) == 3
    vault.answers = [(status, {})]
    with pytest.raises(SourceFailed, match=f"status {status}"):
        source(vault, token_file).read("shop", "db-password")
    assert len(vault.asked) == 6, "three tries, not more"


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ((403, {"errors": ["permission denied"]}), "403 for db-password: the token may not read it"),
        ((307, {}), "307 for db-password: set secrets.vault_url to the active server"),
        ((400, {}), "400 for db-password"),
        ((200, b"s3cret but no JSON"), "db-password has no field 'value'"),
        ((200, {"data": {"data": {"other": "s3cret"}}}), "db-password has no field 'value'"),
        (read_answer({"nested": "s3cret"}), "is no text"),
        (read_answer("\ud800s3cret"), "is not Unicode"),
        (read_answer("s3cret" * MAX_BYTES), "too large|more than"),
        ((200, b"[" * 100_000), "has no field"),
    ],
)
def test_refusal_or_malformed_answer_names_the_secret_and_shows_no_value(
    vault: Vault, token_file: Path, answer: Answer, problem: str
) -> None:
    vault.answers = [answer]
    with pytest.raises(SourceFailed, match=problem) as error:
        source(vault, token_file).read("shop", "db-password")
    assert "s3cret" not in str(error.value)
    assert error.value.__cause__ is None
    assert len(vault.asked) == 1


def test_server_that_answers_byte_by_byte_is_given_up_at_the_deadline(vault: Vault, token_file: Path) -> None:
    over = threading.Event()

    def drip(handler: Any) -> None:
        while not over.wait(0.02):
            handler.wfile.write(b"x")

    vault.before = drip
    try:
        with pytest.raises(SourceFailed, match=r"does not answer within 0\.3 s"):
            source(vault, token_file, timeout_s=0.3).read("shop", "db-password")
    finally:
        over.set()


def test_server_that_is_down_is_named(vault: Vault, token_file: Path) -> None:
    reader = VaultSource(VaultOptions("http://127.0.0.1:1", token_file), pause=lambda seconds: None)
    with pytest.raises(SourceFailed, match="cannot be reached: ConnectionRefusedError"):
        reader.read("shop", "db-password")


def test_token_file_that_is_missing_or_open_to_others_is_named(vault: Vault, token_file: Path) -> None:
    token_file.chmod(0o644)
    with pytest.raises(SourceFailed, match=r"the token: .* every user"):
        source(vault, token_file).read("shop", "db-password")
    token_file.unlink()
    with pytest.raises(SourceFailed, match="No such file"):
        source(vault, token_file).read("shop", "db-password")
    assert vault.asked == []


def test_token_is_sent_only_to_a_server_with_a_trusted_certificate(token_file: Path, tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    vault = Vault(context)
    try:
        files = {}
        for name, ca in (("own", authority), ("other", stranger)):
            ca.cert_pem.write_to_path(str(tmp_path / name))
            files[name] = str(tmp_path / name)
        assert source(vault, token_file, ca_file=files["own"]).read("shop", "x") == b"s3cret"
        with pytest.raises(SourceFailed, match="CERTIFICATE_VERIFY_FAILED"):
            source(vault, token_file, ca_file=files["other"]).read("shop", "x")
        assert len(vault.asked) == 1
    finally:
        vault.close()
