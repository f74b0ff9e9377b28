"""`jobcloud session` and `jobcloud login-link`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.api_kit import FakeLoop, InProcess, make_api
from tests.client.test_apply import Shell

from jobcloud.client.http import Client
from jobcloud.messages import PutAccess
from jobcloud.model import Session, User
from jobcloud.server.api import Access, ApiOptions

TOKEN = "t0ken-of-the-test"


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    found = Shell(tmp_path, monkeypatch, capsys)
    loop: FakeLoop = found.loop
    options = ApiOptions(access=Access(token=TOKEN))
    api = make_api(tmp_path / "guarded", loop, options=options, clock=lambda: loop.now)
    transport = InProcess(api)
    monkeypatch.setattr(
        "jobcloud.client.http.Client",
        lambda url, token="", **more: Client("http://127.0.0.1", TOKEN, transport=transport),
    )
    loop.feed(PutAccess(loop.now, User("ann", loop.now), create=True))
    for name, subject in (("s1", "user:ann"), ("s2", "user:ann"), ("s3", "user:bob"), ("s4", "token:server")):
        session = Session(name, "0" * 64, subject, "password", loop.now, loop.now, loop.now + 3_600_000)
        loop.feed(PutAccess(loop.now, session, create=True))
    return found


def left(shell: Shell) -> list[str]:
    return sorted(shell.loop.scheduler.directory.sessions)


def test_sessions_are_listed_and_ended(shell: Shell) -> None:
    code, out, _ = shell("session", "list")
    assert code == 0
    assert out.splitlines()[0].split() == ["ID", "WHO", "BY", "SINCE", "USED", "ENDS"]
    assert "user:bob" in out
    assert [item["id"] for item in json.loads(shell("session", "list", "--json")[1])] == ["s4", "s1", "s2", "s3"]
    assert shell("session", "end", "s1")[:2] == (0, "session s1 has ended\n")
    assert left(shell) == ["s2", "s3", "s4"]
    assert shell("session", "end", "s1")[0] == 4
    assert shell("session", "end", "--all", "--user", "bob")[:2] == (0, "bob: signed out everywhere\n")
    assert left(shell) == ["s2", "s4"]
    assert shell("session", "end", "--all")[:2] == (0, "you: signed out everywhere\n")
    assert left(shell) == ["s2"]


@pytest.mark.parametrize("arguments", [(), ("s1", "--all"), ("s1", "--user", "ann"), ("--user", "ann")])
def test_unclear_end_of_sessions_is_refused(shell: Shell, arguments: tuple[str, ...]) -> None:
    code, _, problem = shell("session", "end", *arguments)
    assert code == 2
    assert "give the id of one session, or --all" in problem
    assert len(left(shell)) == 4


def test_login_link_is_one_line_that_can_be_opened(shell: Shell) -> None:
    code, out, _ = shell("login-link")
    assert code == 0
    assert out.startswith("http://127.0.0.1/login/link#")
    assert len(out.split()) == 1
    assert len(out) < 70, "it fits into a line of a terminal, also with a port"
    assert json.loads(shell("login-link", "--user", "ann", "--json")[1])["subject"] == "user:ann"
    assert shell("login-link", "--user", "nobody")[0] == 4
