"""Notes of runs in the three databases: they are there at once, and their number is limited."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.history_kit import START, OpenDatabase, make_attempt, make_run

from jobcloud.errors import Conflict, NotFound, Unavailable
from jobcloud.history import notes as notes_module
from jobcloud.history.answers import MAX_NOTES
from jobcloud.history.database import Database
from jobcloud.history.notes import Notes
from jobcloud.history.retention import Limits, Retention
from jobcloud.history.rows import of_events

RUN = "report.run@test"


@pytest.fixture
def notes(database: Database, open_database: OpenDatabase) -> Iterator[Notes]:
    made = Notes(open_database)
    yield made
    made.close()


def add(notes: Notes, text: str = "x", run: str = RUN, at: int = START, job: str = "report") -> int:
    return int(notes.add(run, text, author="user:ann", at=at, job=job)["number"])


def test_note_is_there_for_another_process_once_it_was_taken(notes: Notes, open_database: OpenDatabase) -> None:
    text = "disk was full,\nretried ☃ 🎈 \\ '"
    taken = notes.add(RUN, text, author="user:ann", at=START, job="report")
    other = Notes(open_database)
    assert other.of(RUN, 10) == [taken]
    assert (taken["number"], taken["at_ms"], taken["author"], taken["text"]) == (1, START, "user:ann", text)
    assert [add(other), add(notes), add(notes, run="other.run@test")] == [2, 3, 1]
    assert [one["number"] for one in other.of(RUN, 1, 1)] == [2]
    other.close()


def test_ended_run_is_found_in_the_history(notes: Notes, database: Database) -> None:
    with pytest.raises(NotFound, match="no run"):
        add(notes, job="")
    run = make_run()
    database.write(of_events([run, make_attempt()]))
    assert add(notes, run=run.firing.id, job="") == 1
    assert add(notes, run=make_attempt().task.firing_id, job="") == 1, "its run is missing, but not its attempts"


def test_number_of_notes_is_limited_for_writers_at_once(
    notes: Notes, open_database: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notes_module, "MAX_NOTES", 12)
    monkeypatch.setattr(notes_module, "_TRIES", 1_000)
    others = [notes, *(Notes(open_database) for _ in range(3))]

    def write(number: int) -> int:
        try:
            return add(others[number % 4])
        except Conflict:
            return 0
        except Unavailable:  # MariaDB ends one of two transactions that wait for each other
            return -1

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(write, range(40)))
    while (number := write(0)) != 0:
        found.append(number)
    assert sorted(number for number in found if number > 0) == list(range(1, 13))
    assert len(notes.of(RUN, 100)) == 12
    for other in others[1:]:
        other.close()


def test_limit_is_told(notes: Notes) -> None:
    for _ in range(MAX_NOTES):
        add(notes)
    with pytest.raises(Conflict, match="100 notes"):
        add(notes)
    assert len(notes.of(RUN, 1_000)) == MAX_NOTES


def test_notes_of_deleted_runs_are_deleted(notes: Notes, database: Database) -> None:
    database.write(of_events([make_attempt(number) for number in range(10)]))
    for second in (-100, 3, 9):
        add(notes, str(second), at=START + 1_000 * second)
    assert Retention(Limits(attempts_per_job=5), lambda: START).enforce(database)
    assert [one["text"] for one in notes.of(RUN, 9)] == ["3", "9"]
    assert Retention(Limits(attempts=4), lambda: START).enforce(database)
    assert [one["text"] for one in notes.of(RUN, 9)] == ["9"]
    assert add(notes) == 4, "numbers are not used again"
    assert Retention(Limits(age_ms=1), lambda: START + 10**9).enforce(database)
    assert notes.of(RUN, 9) == []


def test_note_is_refused_while_the_database_is_away(tmp_path: Path) -> None:
    notes = Notes(lambda: Database(f"sqlite:///{tmp_path / 'none' / 'history.db'}"))
    with pytest.raises(Unavailable):
        add(notes)
    with pytest.raises(Unavailable):
        notes.of(RUN, 1)
