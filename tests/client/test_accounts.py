"""`jobcloud user`, `team`, `role`, `service`, `token` and `whoami`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from argon2.profiles import CHEAPEST
from tests.client.test_apply import Shell

from jobcloud.access.directory import Directory
from jobcloud.client import render
from jobcloud.server.identity import passwords

PASSWORD = "correct horse battery"


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """As an admin: the API has no token."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.delenv("JOBCLOUD_TOKEN", raising=False)
    monkeypatch.setattr(passwords, "_HASHER", PasswordHasher.from_parameters(CHEAPEST))
    return Shell(tmp_path, monkeypatch, capsys)


@pytest.fixture
def password_file(tmp_path: Path) -> str:
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    return str(file)


def directory(shell: Shell) -> Directory:
    found: Directory = shell.loop.scheduler.directory
    return found


def out(shell: Shell, *arguments: str) -> str:
    code, printed, problem = shell(*arguments)
    assert code == 0, problem
    return str(printed)


def in_json(shell: Shell, *arguments: str) -> Any:
    return json.loads(out(shell, *arguments, "--json"))


def test_first_admin_takes_two_commands(shell: Shell, password_file: str) -> None:
    out(shell, "user", "add", "ann", "--password-file", password_file)
    assert out(shell, "team", "member", "add", "*", "user:ann", "admin") == (
        "user:ann is admin in the whole installation\n"
    )
    assert passwords.verify(directory(shell).users["ann"].password, PASSWORD)
    assert "*:admin" in out(shell, "user", "show", "ann")


def test_user_is_disabled_enabled_and_removed(shell: Shell, password_file: str) -> None:
    assert out(shell, "user", "list") == "there is no local user\n"
    out(shell, "user", "add", "ann", "--no-password")
    assert directory(shell).users["ann"].password == ""
    out(shell, "user", "password", "ann", "--password-file", password_file)
    assert passwords.verify(directory(shell).users["ann"].password, PASSWORD)
    out(shell, "user", "disable", "ann")
    assert "disabled" in out(shell, "user", "list")
    out(shell, "user", "enable", "ann")
    assert in_json(shell, "user", "list")[0]["disabled"] is False
    assert in_json(shell, "user", "rm", "ann") == {"name": "ann", "removed": True}
    assert shell("user", "show", "ann")[0] == 4


def test_password_comes_from_a_file_or_a_prompt_only(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, problem = shell("user", "add", "ann")
    assert (code, "--password-file" in problem) == (2, True)
    code, _, problem = shell("user", "add", "ann", "--password-file", str(tmp_path / "absent"))
    assert (code, "absent" in problem) == (2, True)
    monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": lambda self: True})())
    asked: list[tuple[str, bool, bool]] = []

    def prompt(text: str, *, hide_input: bool, confirmation_prompt: bool, err: bool) -> str:
        asked.append((text, hide_input, confirmation_prompt))
        return PASSWORD

    monkeypatch.setattr("typer.prompt", prompt)
    out(shell, "user", "add", "ann")
    assert asked == [("Password", True, True)]
    assert passwords.verify(directory(shell).users["ann"].password, PASSWORD)


def test_own_password_is_changed_with_the_present_one(
    shell: Shell, password_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out(shell, "user", "add", "ann", "--password-file", password_file)
    new = tmp_path / "new"
    new.write_text("another good password")
    monkeypatch.setattr(type(shell.client), "who_am_i", lambda self: {"subject": "user:ann"})
    code, _, problem = shell("user", "password", "ann", "--password-file", str(new))
    assert (code, "--current-file" in problem) == (2, True)
    out(shell, "user", "password", "ann", "--password-file", str(new), "--current-file", password_file)
    assert passwords.verify(directory(shell).users["ann"].password, "another good password")


def test_team_keeps_what_is_not_given(shell: Shell) -> None:
    out(shell, "team", "set", "web", "--cpus", "4.5", "--jobs", "10", "--weight", "3")
    out(shell, "team", "set", "web", "--jobs", "none", "--memory-mb", "1024")
    web = directory(shell).teams["web"]
    assert (web.weight, web.quota.cpus, web.quota.mem, web.quota.jobs) == (3, 4_500, 1_024_000, None)
    assert "4.5 cpus, 1024 MB" in out(shell, "team", "list")
    code, _, problem = shell("team", "set", "web", "--cpus", "many")
    assert (code, "--cpus" in problem) == (2, True)
    for weight in ("0", "1001"):
        assert shell("team", "set", "web", "--weight", weight)[0] == 1


def test_members_are_added_and_removed(shell: Shell) -> None:
    assert shell("team", "member", "add", "web", "user:ann", "viewer")[0] == 4
    out(shell, "team", "set", "web")
    for role in ("viewer", "operator"):
        out(shell, "team", "member", "add", "web", "user:ann", role)
    assert (
        out(shell, "team", "member", "rm", "web", "user:ann", "viewer") == "user:ann is no longer viewer in team web\n"
    )
    assert "operator" in out(shell, "team", "show", "web")
    out(shell, "team", "member", "rm", "web", "user:ann")
    assert "no members" in out(shell, "team", "show", "web")
    assert shell("team", "member", "rm", "web", "user:ann")[0] == 4
    out(shell, "team", "rm", "web")
    assert shell("team", "show", "web")[0] == 4


def test_roles_of_ones_own(shell: Shell) -> None:
    assert out(shell, "role", "set", "caller", "trigger", "view") == "role caller has view, trigger\n"
    assert {role["name"] for role in in_json(shell, "role", "list")} >= {"viewer", "admin", "caller"}
    assert "built in" in out(shell, "role", "list")
    assert shell("role", "set", "caller", "fly")[0] == 1
    revision = in_json(shell, "role", "show", "caller")["revision"]
    assert revision in out(shell, "role", "show", "caller")
    out(shell, "role", "set", "caller", "view", "--revision", revision)
    code, _, err = shell("role", "set", "caller", "pause", "--revision", revision)
    assert (code, "has changed" in err) == (1, True)
    assert in_json(shell, "role", "show", "caller")["verbs"] == ["view"]
    out(shell, "role", "rm", "caller")
    assert shell("role", "rm", "viewer")[0] == 4


def test_service_account_and_its_token(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    out(shell, "team", "set", "web")
    out(shell, "service", "add", "web/ci", "operator")
    printed = out(shell, "token", "create", "ci", "--service", "web/ci", "--scope", "web:viewer", "--expires", "12h")
    secret = printed.splitlines()[-1]
    monkeypatch.setenv("JOBCLOUD_TOKEN", secret)
    assert "service:web/ci" in out(shell, "service", "list") + str(in_json(shell, "service", "list", "web"))
    (token,) = in_json(shell, "token", "list", "--subject", "service:web/ci")
    assert token["scope"] == [{"team": "web", "role": "viewer"}]
    assert secret not in out(shell, "token", "list")
    assert in_json(shell, "token", "revoke", token["id"]) == {"id": token["id"], "revoked": True}
    assert "revoked" in out(shell, "token", "list")
    out(shell, "service", "rm", "web/ci")
    assert out(shell, "service", "list") == "there is no service account that you manage\n"


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("token", "create", "ci", "--scope", "web"), "--scope"),
        (("token", "create", "ci", "--expires", "soon"), "--expires"),
        (("token", "create", "ci", "--expires", "1ms"), "--expires"),
        (("token", "create", "ci", "--service", "web"), "TEAM/NAME"),
        (("service", "add", "web", "viewer"), "TEAM/NAME"),
    ],
)
def test_wrong_arguments_are_refused(shell: Shell, arguments: tuple[str, ...], option: str) -> None:
    code, _, problem = shell(*arguments)
    assert (code, option in problem) == (2, True), problem


def test_whoami_shows_roles_and_verbs(shell: Shell) -> None:
    printed = out(shell, "whoami")
    assert "token:none" in printed
    assert "teardown" in printed
    assert in_json(shell, "whoami")["subject"] == "token:none"


def test_tables_take_80_columns(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    out(
        shell,
        "team",
        "set",
        "web",
        "--cpus",
        "1000",
        "--memory-mb",
        "100000",
        "--gpus",
        "7",
        "--jobs",
        "90",
        "--queue",
        "9",
    )
    for number in range(3):
        subject = f"service:web/a-long-name-of-a-service-{number}"
        out(shell, "team", "member", "add", "web", subject, "operator")
        out(shell, "team", "member", "add", "web", subject, "author")
        out(shell, "token", "create", "a long purpose of this token", "--service", subject.removeprefix("service:"))
    out(shell, "user", "add", "a.user.with.a.rather.long.name@example.org", "--no-password")
    monkeypatch.setattr(render, "_WIDE", 80)
    for command in ("user list", "team list", "team show web", "role list", "service list", "token list", "whoami"):
        printed = out(shell, *command.split())
        assert max(map(len, printed.splitlines())) <= 80, printed
