"""`jobcloud alerts` and its commands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.api_kit import ARTIFACTS, FakeLoop
from tests.client.test_apply import Shell

from jobcloud.client import render
from jobcloud.messages import AgentLost
from jobcloud.scheduler import Policy, Scheduler, Stored
from jobcloud.scheduler.state import AlertChannel


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    found = Shell(tmp_path, monkeypatch, capsys)
    loop: FakeLoop = found.loop
    policy = replace(Policy(ARTIFACTS), alert_channels=(AlertChannel("ops"),))
    loop.scheduler = Scheduler(policy, Stored(), epoch=1, at=loop.now)
    loop.subscribe()
    return found


def test_alerts_take_80_columns_and_wide_ones_have_all(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shell("alerts")[1].splitlines()[0] == "no alert is open"
    shell.loop.feed(AgentLost(shell.loop.now, "0123456789abcdef-S17"))
    with monkeypatch.context() as narrow:
        narrow.setattr(render, "_WIDE", 80)
        code, out, _ = shell("alerts")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80, out
    assert out.splitlines()[0].split() == ["CONDITION", "SUBJECT", "STATE", "SINCE", "TEXT"]
    assert "agent_lost" in out
    assert "UNTOLD" in shell("alerts", "--wide")[1]
    assert '"agent_lost"' in shell("alerts", "--json")[1]


def test_silence_is_made_listed_and_ended(shell: Shell) -> None:
    code, out, _ = shell("--team", "billing", "alerts", "silence", "rep*", "--for", "2h", "--comment", "it moves")
    assert code == 0
    silence_id = out.split()[1]
    (silence,) = shell.loop.scheduler.silences.values()
    assert (silence.subject, silence.team, silence.comment) == ("billing:rep*", "billing", "it moves")
    assert silence.until_ms - silence.since_ms == 7_200_000
    out = shell("alerts", "silences")[1]
    assert silence_id in out
    assert "it moves" in out
    assert shell("alerts", "unsilence", silence_id)[:2] == (0, f"silence {silence_id} has ended\n")
    assert shell("alerts", "unsilence", silence_id)[0] == 4
    assert shell("alerts", "silences")[1] == "nothing is silenced\n"


@pytest.mark.parametrize("wrong", ["0s", "31d", "1ms", "soon"])
def test_wrong_duration_of_a_silence_is_refused(shell: Shell, wrong: str) -> None:
    code, _, problem = shell("alerts", "silence", "--for", wrong)
    assert code == 2
    assert "--for" in problem
    assert not shell.loop.scheduler.silences


def test_unknown_condition_and_channel_are_refused(shell: Shell) -> None:
    assert shell("alerts", "silence", "--condition", "fire")[0] == 1
    assert shell("alerts", "test", "ops")[0] == 4
