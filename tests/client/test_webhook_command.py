"""`jobcloud job webhook`: the URL of a webhook, and deliveries for tests."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.client.test_apply import Shell

from jobcloud.server.clock import wall_ms

KEY = b"a key of at least sixteen bytes\n"
BARE = ("--set", "webhookSecrets=[]", "--set", "webhookScheme=null")


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    def keys(team: str, names: Sequence[str]) -> tuple[list[bytes], list[str]]:
        return [KEY for name in names if name == "hook-key"], []

    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    found = Shell(tmp_path, monkeypatch, capsys, missing_secrets=lambda names: [], webhook_keys=keys)
    found.loop.now = wall_ms()  # the command asks the clock of this machine
    assert found("app", "add", found.app())[0] == 0
    update(found, "standard")
    (tmp_path / "key").write_bytes(KEY)
    return found


def update(shell: Shell, scheme: str) -> None:
    fields = ("--set", 'webhookSecrets=["hook-key"]', "--set", f"webhookScheme={scheme}")
    assert shell("job", "update", "hello", *fields)[0] == 0


def test_webhook_of_a_job_is_shown(shell: Shell) -> None:
    code, out, _ = shell("job", "webhook", "hello")
    assert code == 0
    assert "/api/v1/hooks/hello" in out
    assert "hook-key" in out
    shown = json.loads(shell("job", "webhook", "hello", "--json")[1])
    assert list(shown) == ["jobName", "url", "webhookScheme", "webhookSecrets", "webhookParameters"]


@pytest.mark.parametrize("scheme", ["standard", "github", "stripe"])
def test_delivery_is_signed_and_fires_the_job_once(shell: Shell, tmp_path: Path, scheme: str) -> None:
    update(shell, scheme)
    send = ("job", "webhook", "hello", "--key-file", str(tmp_path / "key"))
    code, out, err = shell(*send, "--id", "d-1")
    assert (code, "is started" in out) == (0, True), err
    assert "was started before" in shell(*send, "--id", "d-1")[1]
    assert json.loads(shell(*send, "--json")[1])["existed"] is False
    assert len(shell.loop.scheduler.firings) == 2


def test_body_of_a_file_or_of_standard_input_is_sent_as_it_is(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shell("job", "update", "hello", "--set", 'webhookParameters=["a=/a"]')[0] == 0
    (tmp_path / "body").write_bytes(b'{ "a" :\r\n 1}')
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b'{"a": 2}')))
    for body in (str(tmp_path / "body"), "-"):
        assert shell("job", "webhook", "hello", "--key-file", str(tmp_path / "key"), "--body", body)[0] == 0
    terms = {firing.terms.parameter for firing in shell.loop.scheduler.firings.values()}
    assert terms == {'{"a":1}', '{"a":2}'}


def test_wrong_key_missing_file_and_job_without_a_webhook_are_told(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_bytes(b"another key of sixteen bytes")
    code, _, err = shell("job", "webhook", "hello", "--key-file", str(tmp_path / "wrong"))
    assert (code, "accepts the signature" in err) == (5, True)
    assert "cannot read" in shell("job", "webhook", "hello", "--key-file", str(tmp_path / "none"))[2]
    assert "--key-file" in shell("job", "webhook", "hello", "--id", "d")[2]
    assert shell("job", "update", "hello", *BARE)[0] == 0
    assert "has no webhook" in shell("job", "webhook", "hello")[2]
