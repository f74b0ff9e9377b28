"""Commands and the client over TLS: authorities, certificates of the user, and errors that name a fix."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.api_kit import make_api, serving
from tests.tls_kit import Authority, server_tls

from jobcloud.client import cli, context
from jobcloud.client.http import Client, NotReachable
from jobcloud.errors import ConfigError
from jobcloud.ports import TlsFiles
from jobcloud.server.api import Access, ApiOptions


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def url(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    app = make_api(tmp_path_factory.mktemp("api"))
    with serving(app, tls=server_tls(authority.issue())) as url:
        yield url


def refusal(url: str, tls: TlsFiles) -> NotReachable:
    with Client(url, tls=tls) as client, pytest.raises(NotReachable) as caught:
        client.health()
    return caught.value


def test_server_of_a_private_authority_is_trusted_with_its_file(url: str, authority: Authority) -> None:
    with Client(url, tls=TlsFiles(str(authority.file))) as client:
        assert client.health()["version"]


def test_unknown_authority_is_explained(url: str, tmp_path: Path) -> None:
    for files in (TlsFiles(), TlsFiles(str(Authority(tmp_path).file))):
        error = refusal(url, files)
        assert "certificate is not trusted" in str(error)
        assert "--ca-file" in error.fix


def test_other_name_and_expired_certificate_are_explained(authority: Authority, tmp_path: Path) -> None:
    trust = TlsFiles(str(authority.file))
    with serving(make_api(tmp_path), tls=server_tls(authority.issue("other.test", file="other"))) as url:
        assert "--server https://NAME" in refusal(url, trust).fix
    old = authority.issue("127.0.0.1", file="old", not_after=datetime(2020, 1, 1, tzinfo=UTC))
    with serving(make_api(tmp_path), tls=server_tls(old)) as url:
        error = refusal(url, trust)
        assert "expired" in str(error)
        assert "tls_cert_file" in error.fix


def test_server_without_tls_is_explained(tmp_path: Path) -> None:
    with serving(make_api(tmp_path)) as url:
        error = refusal(url.replace("http://", "https://"), TlsFiles())
    assert "does not use TLS" in str(error)
    assert "http://" in error.fix


def test_missing_certificate_of_the_user_is_explained_and_can_be_given(authority: Authority, tmp_path: Path) -> None:
    files = dataclasses.replace(authority.issue(), client_ca=authority.file, clients="required")
    options = ApiOptions(access=Access(token="t"), client_name="cn")
    ana = authority.issue(common_name="ana", file="ana")
    with serving(make_api(tmp_path, options=options), tls=server_tls(files)) as url:
        assert "--cert-file" in refusal(url, TlsFiles(str(authority.file))).fix
        with Client(url, tls=TlsFiles(str(authority.file), str(ana.cert), str(ana.key))) as client:
            assert client.who_am_i()["subject"] == "user:ana"


@pytest.mark.parametrize(
    ("files", "field"),
    [
        (TlsFiles("/nowhere.pem"), "--ca-file"),
        (TlsFiles("", "/nowhere.pem"), "--cert-file"),
        (TlsFiles(os.devnull), "--ca-file"),
    ],
)
def test_file_that_cannot_be_used_is_named(files: TlsFiles, field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Client("https://127.0.0.1:1", tls=files)
    assert caught.value.field == field


def test_authority_comes_from_the_option_the_variable_or_the_file_of_the_server(
    url: str, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main([*arguments, "app", "list"])
        return int(ended.value.code or 0), capsys.readouterr().err

    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("JOBCLOUD_SERVER", url)
    for name in ("JOBCLOUD_TOKEN", "JOBCLOUD_TEAM", "JOBCLOUD_CA_FILE"):
        monkeypatch.delenv(name, raising=False)
    code, text = run()
    assert (code, "JOBCLOUD_CA_FILE" in text, "is the server running" in text) == (3, True, False)
    assert run("--ca-file", str(authority.file))[0] == 0
    path = context.write(context.Context(url, "", os.getpid(), str(authority.file)))
    assert run()[0] == 0
    context.remove(path, os.getpid())
    monkeypatch.setenv("JOBCLOUD_CA_FILE", str(authority.file))
    assert run()[0] == 0


def test_file_of_an_older_server_has_no_authority(tmp_path: Path) -> None:
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    path = context.write(context.Context("http://127.0.0.1:1", "t", os.getpid()), environ)
    path.write_text(path.read_text().replace(', "ca_file": ""', ""))
    assert context.find(environ=environ) == context.Context("http://127.0.0.1:1", "t", os.getpid())


def test_authorities_are_loaded_only_for_servers_that_may_use_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    class Loaded(Exception):
        pass

    def load(*_: object, **__: object) -> None:
        raise Loaded

    monkeypatch.setattr("ssl.create_default_context", load)
    for url in ("http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"):
        with Client(url):
            pass
    for url in ("https://127.0.0.1:1", "http://jobs.test"):
        with pytest.raises(Loaded):
            Client(url)
