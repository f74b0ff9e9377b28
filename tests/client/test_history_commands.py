"""`jobcloud job history` and `revert`, notes of runs, and statistics over time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.api_kit import ARTIFACTS
from tests.client.test_apply import Shell
from tests.core_world import of
from tests.history_kit import DESCRIBE, make_attempt

from jobcloud.config import Resources
from jobcloud.history.database import Database
from jobcloud.history.notes import Notes
from jobcloud.history.queries import Reader
from jobcloud.history.rows import of_events
from jobcloud.history.samples import Sample, Sampled, TeamNumbers
from jobcloud.messages import ConfigTraced
from jobcloud.scheduler import Policy, Scheduler, Stored


class World(Shell):
    """A shell whose server has a history. The history takes traces when a test says so."""

    database: Database

    def written(self) -> None:
        self.loop.now += 1_000
        self.database.write(of_events(of(ConfigTraced, self.loop.effects), DESCRIBE))
        self.loop.effects.clear()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[World]:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    url = f"sqlite:///{tmp_path / 'history.db'}"
    database = Database(url)
    database.upgrade()
    reader, notes = Reader(lambda: Database(url, reading=True)), Notes(lambda: Database(url))
    found = World(tmp_path, monkeypatch, capsys, history=reader, notes=notes)
    found.database = database
    found.loop.scheduler = Scheduler(Policy(ARTIFACTS, traced=True), Stored(), epoch=1, at=found.loop.now)
    found.loop.subscribe()
    assert found("app", "add", found.app())[0] == 0
    found.written()
    yield found
    for part in (reader, notes, database):
        part.close()


def change(world: World, *fields: str) -> str:
    """Change a job, and return its new revision."""
    given = [part for field in fields for part in ("--set", field)]
    assert world("job", "update", "hello", *given)[0] == 0
    world.written()
    return str(world.client.job("hello")["revision"])


def test_history_lists_what_each_change_has_changed(world: World) -> None:
    change(world, "priority=5")
    newest = change(world, "priority=6", "description=nightly")
    code, out, _ = world("job", "history", "hello")
    assert code == 0
    assert out.splitlines()[1].startswith(newest)
    assert out.splitlines()[1].rstrip().endswith("priority, description")
    assert out.splitlines()[3].rstrip().endswith("registered")
    assert "token:" in out or "user:" in out
    limited = world("job", "history", "hello", "--limit", "1")[1]
    assert "priority, description" in limited
    assert len(limited.splitlines()) == 2
    assert [one["config"]["priority"] for one in json.loads(world("job", "history", "hello", "--json")[1])] == [6, 5, 0]
    assert "does not know" in world("job", "history", "none")[1]


def test_diff_shows_each_field_before_and_after(world: World) -> None:
    revision = change(world, "priority=5", f"description={'long ' * 40}")
    code, out, _ = world("job", "history", "hello", "--diff", revision[:6])
    assert code == 0
    lines = out.splitlines()
    assert "priority: 0 → 5" in lines
    place = lines.index("description:")
    assert lines[place + 1] == '  - ""'
    assert lines[place + 2].startswith('  + "long long')
    assert all(len(line) <= 80 for line in lines)
    assert world("job", "history", "hello", "--diff", "0000")[0] == 4
    assert world("job", "history", "hello", "--diff", "")[0] == 0
    after, before = json.loads(world("job", "history", "hello", "--diff", revision, "--json")[1])
    assert (before["config"]["priority"], after["config"]["priority"]) == (0, 5)


def test_revert_puts_an_earlier_configuration_back(world: World) -> None:
    first = str(world.client.job("hello")["revision"])
    change(world, "priority=5")
    change(world, "cpuCount=0.2")
    code, out, _ = world("job", "revert", "hello", first)
    assert code == 0
    assert "job hello is updated" in out
    assert "priority: 5 → 0" in out
    assert world.client.job("hello")["revision"] == first
    assert "nothing to change" in world("job", "revert", "hello", first[:8])[1]
    assert world("job", "revert", "hello", "ffff" * 4)[0] == 4
    world.written()
    assert world("job", "remove", "hello")[0] == 0
    world.written()
    assert "removed" in world("job", "history", "hello")[1].splitlines()[1]
    assert world("job", "revert", "hello", first)[0] == 4


def test_revert_changes_nothing_if_someone_else_has_changed_the_job(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = str(world.client.job("hello")["revision"])
    change(world, "priority=5")
    job = type(world.client).job

    def stale(client: object, name: str) -> object:
        found = job(client, name)  # type: ignore[arg-type]
        return {**found, "revision": "0" * 16}

    monkeypatch.setattr(type(world.client), "job", stale)
    assert world("job", "revert", "hello", first)[0] == 1
    monkeypatch.undo()


def test_notes_are_written_and_shown(world: World) -> None:
    run = world.client.trigger("hello")["id"]
    code, out, _ = world("run", "note", run[:12], "disk was full, retried")
    assert (code, out) == (0, "note 1 is written\n")
    out = world("run", "show", run)[1]
    assert "disk was full, retried" in out
    assert json.loads(world("run", "show", run, "--json")[1])["notes"][0]["number"] == 1
    assert world("run", "note", "none", "x")[0] == 4
    assert world("run", "note", run, "\x1b[2J")[0] == 1


def test_run_is_shown_if_its_notes_cannot_be_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    run = world.client.trigger("hello")["id"]
    world.database.engine.dispose()
    (world.folder / "history.db").unlink()
    code, out, _ = world("run", "show", run)
    assert code == 0
    assert "the notes cannot be read" in out
    assert json.loads(world("run", "show", run, "--json")[1])["notes"] is None


def test_statistics_over_time_tell_a_gap_from_zero(world: World) -> None:
    minute = 1_767_225_600_000
    sample = Sample(2, Resources(4_000), {"default": TeamNumbers(1_234, 2, 1, 3, 0, 1)})
    ended = make_attempt(at=minute + 30_000, started_ms=minute + 28_000)
    world.database.write(of_events([ended, Sampled(minute, sample)]))
    within = ("--since", "2025-12-31T23:59:00Z", "--until", "2026-01-01T00:02:00Z")
    code, out, _ = world("statistics", "--by", "minute", *within)
    assert code == 0
    title, *rows = out.splitlines()
    assert title.split() == [
        "FROM", "OK", "FAILED", "KILLED", "P95", "RUNNING", "WAITING", "RUNS", "JOBS", "OFF", "CPU"]  # fmt: skip
    before, sampled, after = (row.split()[2:] for row in rows)
    assert before == ["-"] * 10
    assert sampled == ["1", "0", "0", "2s", "3", "0", "1", "1,234", "2", "0%"]
    assert after == ["0", "0", "0", "-", *["-"] * 6]
    assert all(len(row) <= 80 for row in out.splitlines())
    by_day = ("statistics", "--by", "day", "--zone", "Asia/Kolkata", *within)
    days = json.loads(world(*by_day, "--json")[1])
    assert (days["zone"], [day["attempts"]["succeeded"] for day in days["steps"]]) == ("Asia/Kolkata", [1])
    assert world(*by_day)[1].splitlines()[1].split()[:2] == ["2026-01-01", "1"]
    assert world("statistics", "--by", "hour", "--zone", "Asia/Kolkata")[0] == 2
    assert world("statistics", "--by", "fortnight")[0] == 1
