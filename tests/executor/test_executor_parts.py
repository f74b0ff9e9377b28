"""Unit tests of the executor's parts: ledger, firings of resident jobs, settings, logs, bundle."""

from __future__ import annotations

import errno
import functools
import io
import itertools
import json
import os
import struct
import subprocess
import sys
import tempfile
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.executor_kit import task_payload

from jobcloud.executor import bundle, output
from jobcloud.executor.agent_api import Outbox
from jobcloud.executor.job_contexts import firing_context, sharding_context
from jobcloud.executor.ledger import MAX_WAITING_REPORTS, TERMINAL, Ledger, _RecentTexts
from jobcloud.executor.loop import Loop
from jobcloud.executor.outcomes import MESSAGE_CHARS, cut, small
from jobcloud.executor.output import RotatingLog, TaskFolders, rotated, task_folder
from jobcloud.executor.payload import PayloadError, read_task
from jobcloud.executor.pump import Pump
from jobcloud.executor.resident import LATE_MS, Resident
from jobcloud.executor.scripts import environment
from jobcloud.executor.settings import SettingsError, read_settings
from jobcloud.wire import encode_data

STATES = ["TASK_RUNNING", *sorted(TERMINAL)]


@given(
    st.lists(
        st.tuples(st.sampled_from(["launch", "record", "acknowledge"]), st.integers(0, 3), st.sampled_from(STATES))
    )
)
def test_ledger_launches_and_ends_each_task_once_and_forgets_no_update(
    steps: list[tuple[str, int, str]],
) -> None:
    ledger = Ledger()
    launched: list[str] = []
    recorded: dict[str, tuple[str, str]] = {}
    acknowledged: set[str] = set()
    for number, (step, task, state) in enumerate(steps):
        task_id, uuid = f"t{task}", f"u{number}"
        if step == "launch" and ledger.launch(task_id, {"id": task_id}):
            launched.append(task_id)
        elif step == "record" and ledger.record(task_id, uuid, {"state": state}):
            recorded[uuid] = task_id, state
        elif step == "acknowledge" and (waiting := ledger.unacknowledged_updates()):
            uuid = next(iter(waiting))
            assert ledger.acknowledge(recorded[uuid][0], uuid)
            assert not ledger.acknowledge(recorded[uuid][0], uuid)
            acknowledged.add(uuid)
    assert len(launched) == len(set(launched))
    ends = [task_id for task_id, state in recorded.values() if state in TERMINAL]
    assert len(ends) == len(set(ends))
    assert set(ledger.unacknowledged_updates()) == set(recorded) - acknowledged
    heard_of = {recorded[uuid][0] for uuid in acknowledged}
    assert [info["id"] for info in ledger.unacknowledged_tasks()] == [t for t in launched if t not in heard_of]
    assert ledger.live == len(launched) - len(ends)
    assert ledger.empty == (ledger.live == 0 and set(recorded) == acknowledged)


def test_updates_of_jobs_take_turns_and_those_of_one_job_stay_in_order() -> None:
    outbox = Outbox()
    for number in range(3):
        outbox.put("wide", f"w{number}", {})
    outbox.put("quiet", "q0", {})
    assert [outbox.get()[0] for _ in range(2)] == ["w0", "q0"]
    outbox.put("quiet", "q1", {})
    assert [outbox.get()[0] for _ in range(3)] == ["w1", "q1", "w2"]


def test_ledger_bounds_reports_but_always_keeps_the_end() -> None:
    ledger = Ledger()
    ledger.launch("d", {})
    kept = [ledger.record("d", f"u{number}", {"state": "TASK_RUNNING"}) for number in range(MAX_WAITING_REPORTS + 1)]
    assert kept == [True] * MAX_WAITING_REPORTS + [False]
    assert ledger.record("d", "end", {"state": "TASK_KILLED"})


class Every:
    """Fires at each multiple of `step` until `last`."""

    def __init__(self, step: int, last: int = 10**12) -> None:
        self.step, self.last = step, last

    def next_after(self, after_ms: int) -> int | None:
        due = (after_ms // self.step + 1) * self.step
        return due if due <= self.last else None


def _execute(plan: Resident, begin: int, end: int) -> int | None:
    assert plan.begin(begin)
    plan.end(end)
    return plan.due


def test_missed_firings_are_skipped() -> None:
    plan = Resident(Every(1000), misfire=False, sampling=0, now_ms=500)
    assert plan.due == 1000
    assert _execute(plan, 1000, 1100) == 2000
    assert _execute(plan, 2000, 5400) == 6000


def test_missed_firings_are_made_up_for_by_one_execution() -> None:
    plan = Resident(Every(1000), misfire=True, sampling=0, now_ms=500)
    assert _execute(plan, 1000, 4400) == 2000
    assert plan.wait_ms(4400) == 0
    assert _execute(plan, 4400, 4500) == 5000
    assert _execute(plan, 5000, 5900) == 6000


def test_execution_that_is_too_late_counts_as_missed() -> None:
    for misfire in (False, True):
        plan = Resident(Every(10_000), misfire, sampling=0, now_ms=0)
        assert plan.begin(10_000 + LATE_MS + 1) is misfire
        if not misfire:
            assert plan.due == 20_000


def test_resident_job_ends_after_its_last_firing() -> None:
    plan = Resident(Every(1000, last=2000), misfire=True, sampling=0, now_ms=0)
    assert _execute(plan, 1000, 1001) == 2000
    assert _execute(plan, 2000, 9000) is None


@pytest.mark.parametrize(("sampling", "reported"), [(0, [1, 2, 3, 4, 5, 6]), (1, [1, 2, 3, 4, 5, 6]), (3, [3, 6])])
def test_every_nth_execution_is_reported(sampling: int, reported: list[int]) -> None:
    plan = Resident(Every(1000), misfire=False, sampling=sampling, now_ms=0)
    seen = []
    while plan.executions < 6:
        assert plan.due is not None
        _execute(plan, plan.due, plan.due + 1)
        if plan.reported:
            seen.append(plan.executions)
    assert seen == reported


@given(st.booleans(), st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 9000)), max_size=30))
def test_executions_never_overlap_and_never_repeat_a_firing(misfire: bool, delays: list[tuple[int, int]]) -> None:
    plan, now, fired = Resident(Every(1000), misfire, sampling=0, now_ms=0), 0, []
    for late, took in delays:
        assert plan.due is not None
        now = max(now, plan.due) + late
        if plan.begin(now):
            fired.append(plan.fire_time)
            now += took
            plan.end(now)
    assert fired == sorted(set(fired))


ENVIRONMENT = {"MESOS_AGENT_ENDPOINT": "10.0.0.7:5051", "MESOS_FRAMEWORK_ID": "F", "MESOS_EXECUTOR_ID": "E"}


@pytest.mark.parametrize(("text", "value"), [("0", False), ("1", True), ("", False)])
def test_checkpoint_setting_0_means_no(text: str, value: bool) -> None:
    assert read_settings({**ENVIRONMENT, "MESOS_CHECKPOINT": text}).checkpoint is value


@pytest.mark.parametrize(
    ("text", "seconds"), [("15mins", 900), ("2secs", 2), ("1.5hrs", 5400), ("500ms", 0.5), ("1days", 86400)]
)
def test_durations_are_read_as_mesos_writes_them(text: str, seconds: float) -> None:
    assert read_settings({**ENVIRONMENT, "MESOS_RECOVERY_TIMEOUT": text}).recovery_timeout_s == seconds


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MESOS_AGENT_ENDPOINT", ""),
        ("MESOS_AGENT_ENDPOINT", "host"),
        ("MESOS_AGENT_ENDPOINT", "host:99999"),
        ("MESOS_FRAMEWORK_ID", ""),
        ("MESOS_EXECUTOR_ID", ""),
        ("MESOS_RECOVERY_TIMEOUT", "soon"),
        ("MESOS_SUBSCRIPTION_BACKOFF_MAX", "2 s"),
    ],
)
def test_invalid_variable_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        read_settings({**ENVIRONMENT, name: value})


def test_token_is_not_in_the_representation() -> None:
    settings = read_settings({**ENVIRONMENT, "MESOS_EXECUTOR_AUTHENTICATION_TOKEN": "s3cret"})
    assert "s3cret" not in repr(settings)


@given(st.lists(st.binary(max_size=50), max_size=30))
def test_log_keeps_the_end_of_its_stream_within_its_bounds(pieces: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "new", "stdout")
        for number, piece in enumerate(pieces):
            if number % 5 == 0:  # each execution of a resident job opens it again
                log = RotatingLog(str(path), limit=64)
            log.write(piece)
            log.close()
        everything = b"".join(pieces)
        before = rotated(str(path)) if everything else 0
        files = [path.with_name(f"stdout.{before}"), path]
        kept = b"".join(file.read_bytes() for file in files if file.exists())
        assert all(file.stat().st_size <= 64 for file in files if file.exists())
        assert len(os.listdir(path.parent) if everything else ()) <= 3
        assert before + (path.stat().st_size if everything else 0) == len(everything)
    assert everything.endswith(kept)
    assert len(kept) >= min(len(everything), 64)


def marks(path: Path) -> list[tuple[int, int]]:
    return [(int(offset), int(ms)) for offset, ms in map(str.split, Path(f"{path}.times").read_text().splitlines())]


def test_log_notes_when_its_lines_were_written(tmp_path: Path) -> None:
    now, path = [1_000.0], tmp_path / "stdout"
    log = RotatingLog(str(path), limit=64, clock=lambda: now[0])
    for text, later_s in (("one\n", 1), ("t", 1), ("wo\nthree\n", 0.06), ("four\n", 0.06), ("five\nsi", 1), ("x", 1)):
        log.write(text.encode())
        now[0] += later_s
    everything = path.read_text()
    found = {everything[offset:].split("\n")[0]: ms for offset, ms in marks(path)}
    assert found == {"one": 1_000_000, "two": 1_001_000, "three": 1_002_000, "five": 1_002_120}
    now[0] = 500  # the clock was set back
    log.write(b"\nseven\n")
    assert marks(path)[-1] == (everything.index("six") + 4, 500_000)


def test_times_of_a_long_log_are_bounded_and_newer_ones_are_closer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "TIMES_BYTES", 2_000)
    now, path = [0.0], tmp_path / "stdout"
    log = RotatingLog(str(path), limit=5_000, clock=lambda: now[0])
    for number in range(1_000):
        now[0] += 1
        log.write(b"line %04d\n" % number)
        assert Path(f"{path}.times").stat().st_size <= 2_000
    found = marks(path)
    assert all(ms == (offset // 10 + 1) * 1_000 for offset, ms in found)
    assert found[0][0] >= 10_000 - 2 * 5_000 - 2_000, "marks of bytes that no longer exist are dropped"
    gaps = [later[0] - earlier[0] for earlier, later in itertools.pairwise(found)]
    assert gaps[-1] == 10 <= max(gaps)
    assert len(os.listdir(tmp_path)) == 3


def test_log_that_cannot_be_written_raises_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    log = RotatingLog(str(tmp_path / "file" / "stdout"))
    log.write(b"lost")
    assert log.tail() == "lost"


@given(st.text(min_size=1, max_size=400), st.text(min_size=1, max_size=400))
def test_every_task_id_has_its_own_folder_with_a_plain_name(one: str, other: str) -> None:
    names = [task_folder(one), task_folder(other)]
    assert (names[0] == names[1]) == (one == other)
    for name in names:
        assert 0 < len(name.encode()) <= 255
        assert "/" not in name
        assert not name.startswith(".")


def test_ordinary_task_id_is_its_folders_name() -> None:
    task_id = "settle@-@0@-@READY@-@S1@-@4f6d-1"
    assert task_folder(task_id) == task_id


def test_oldest_folders_of_ended_tasks_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "KEPT_FOLDERS", 3)
    folders = TaskFolders(str(tmp_path))
    for number in range(5):
        log = RotatingLog(os.path.join(folders.path(f"t{number}"), "stdout"))
        log.write(b"x" * 10)
        log.close()
        folders.ended(f"t{number}")
    assert sorted(os.listdir(tmp_path)) == ["t2", "t3", "t4"]
    monkeypatch.setattr(output, "KEPT_BYTES", 30)
    folders.ended("never printed")
    RotatingLog(os.path.join(folders.path("t5"), "stdout")).write(b"x" * 10)
    folders.ended("t5")
    assert os.listdir(tmp_path) == ["t5"]


@given(st.text(max_size=300), st.integers(60, 120))
def test_cut_text_fits_and_keeps_both_ends(text: str, limit: int) -> None:
    short = cut(text, limit)
    assert len(short) <= limit
    assert text[:20] == short[:20]
    assert text[-5:] == short[-5:]
    assert len(cut("x" * 10_000)) == MESSAGE_CHARS


def test_bundle_is_reproducible_and_has_only_the_agents_modules() -> None:
    first = bundle.build()
    names = zipfile.ZipFile(io.BytesIO(first)).namelist()
    assert names == sorted(names)
    assert {"__main__.py", "jobcloud/__init__.py", "jobcloud/job.py", "jobcloud/executor/daemon.py"} <= set(names)
    assert "jobcloud/executor/bundle.py" not in names
    script = "import sys; from jobcloud.executor import bundle; sys.stdout.buffer.write(bundle.build())"
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    second = subprocess.run([sys.executable, "-c", script], capture_output=True, env=environment, check=True).stdout
    assert second == first


def test_bundle_loads_no_module_of_the_server(tmp_path: Path) -> None:
    zip_file = tmp_path / bundle.FILE_NAME
    zip_file.write_bytes(bundle.build())
    script = (
        f"import sys; sys.path[:0] = [{str(zip_file)!r}]; import jobcloud.executor.daemon, jobcloud.executor.worker;"
        "print(*{name.split('.')[0] for name in sys.modules} & {'numpy', 'pydantic', 'httpx', 'typer', 'croniter'})"
    )
    loaded = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    assert loaded.stdout == "\n"


def test_cancelled_timers_do_not_pile_up_and_the_others_still_fire() -> None:
    loop = Loop()
    fired: list[int] = []
    for number in range(20):
        loop.later(0, functools.partial(fired.append, number))
        for _ in range(1_000):
            loop.later(3600, lambda: None).cancel()
    assert len(loop._timers) <= 2_000
    loop.later(0.001, lambda: loop.stop(0))
    assert loop.run() == 0
    assert fired == list(range(20))


def test_last_n_ended_tasks_are_remembered() -> None:
    remembered = _RecentTexts(100)
    for number in range(1_000):
        assert f"t{number}" not in remembered
        remembered.add(f"t{number}")
        assert f"t{number}" in remembered
    assert [number for number in range(1_000) if f"t{number}" in remembered] == list(range(900, 1_000))


def test_hash_is_found_only_at_an_aligned_place() -> None:
    """Eight bytes across two hashes do not count."""
    remembered = _RecentTexts(2)
    remembered._block[:] = bytes(4) + struct.pack("q", hash("x")) + bytes(4)
    assert "x" not in remembered
    remembered.add("x")
    assert "x" in remembered


def test_timer_in_the_far_future_blocks_nothing() -> None:
    loop = Loop()
    loop.later(1e18, lambda: loop.stop(1))
    threading.Timer(0.01, loop.post, (loop.stop, 7)).start()
    assert loop.run() == 7


def test_ended_log_refuses_writes_and_keeps_no_file_open(tmp_path: Path) -> None:
    log = RotatingLog(str(tmp_path / "stdout"))
    assert log.write(b"before")
    log.close()
    assert log.write(b" and after")
    log.end()
    assert not log.write(b"too late")
    assert (tmp_path / "stdout").read_bytes() == b"before and after"
    assert not [entry for entry in os.listdir("/proc/self/fd") if _leads_to(entry, tmp_path / "stdout")]


def _leads_to(descriptor: str, path: Path) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}") == str(path)
    except FileNotFoundError:
        return False


class _Fickle(dict):  # type: ignore[type-arg]
    def items(self) -> Any:
        self["looks"] = self.get("looks", 0) + 1
        return super().items()


def nested(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "kept", "says"),
    [
        (None, None, ""),
        ({"a": [1, 2.5, None, True, "\u00fc"]}, {"a": [1, 2.5, None, True, "\u00fc"]}, ""),
        (("a", "b"), ["a", "b"], ""),
        ({1: 2}, {"1": 2}, ""),
        ("x" * 3_998, "x" * 3_998, ""),
        ("x" * 3_999, None, "more than 4000 bytes"),
        (b"x", None, "not JSON"),
        (float("nan"), None, "not JSON"),
        ({1, 2}, None, "not JSON"),
        ({"file": "\udcff"}, None, "text that is not Unicode, such as the name of a file"),
        ({"\ud800": 1}, None, "not Unicode"),
        (nested(33), None, "more than 32 levels"),
        (nested(100_000), None, "dropped"),
        (_Fickle(looks=0), {"looks": 1}, ""),
    ],
)
def test_result_is_decoded_from_its_json_or_dropped(value: Any, kept: Any, says: str) -> None:
    found, dropped = small(value)
    assert found == kept
    assert says in dropped
    assert bool(says) == bool(dropped)


def test_pump_without_free_descriptors_leaves_none_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pump = Pump(lambda *_: None)
    pipe = os.pipe
    made: list[tuple[int, int]] = []

    def one_pipe() -> tuple[int, int]:
        if made:
            raise OSError(errno.EMFILE, "Too many open files")
        made.append(pipe())
        return made[0]

    monkeypatch.setattr(os, "pipe", one_pipe)
    with pytest.raises(OSError, match="Too many open files"):
        pump.attach(RotatingLog(str(tmp_path / "stdout")), RotatingLog(str(tmp_path / "stderr")))
    for descriptor in made[0]:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_daemons_own_log_is_bounded(tmp_path: Path) -> None:
    """The daemon gets the file open and cannot replace it."""
    code = (
        "from jobcloud.executor import loop\n"
        "loop.LOG_BYTES = 5_000\n"
        "for number in range(1_000): loop.log(f'line {number:04}')\n"
        "loop.log('x' * 1_000_000)\n"
    )
    with (tmp_path / "stderr").open("wb") as file:
        subprocess.run([sys.executable, "-c", code], stderr=file, check=True)
    lines = [line for name in ("stderr.old", "stderr") for line in (tmp_path / name).read_text().splitlines()]
    numbers = [int(line[-4:]) for line in lines if "line" in line]
    assert numbers == list(range(numbers[0], 1_000)), "the last of it, without a gap"
    assert 150 < len(numbers) < 1_000
    assert 20_000 < max(map(len, lines)) < 21_000
    assert {path.name for path in tmp_path.iterdir()} == {"stderr", "stderr.old"}


def read(**job: Any) -> Any:
    return read_task(encode_data(json.dumps(task_payload("t1", jobClass="shop:Job", **job)).encode()))


@pytest.mark.parametrize(("job", "team"), [({}, "default"), ({"team": "billing"}, "billing")])
def test_contexts_have_the_team_of_the_task_or_the_default(job: dict[str, Any], team: str) -> None:
    payload = read(**job)
    facts = payload.facts()
    assert ("team" in facts) == bool(job), "a worker of an app's own gets the same facts as before teams"
    assert sharding_context(payload.context, facts).team == team
    assert firing_context(payload.context, facts, {}).team == team
    assert "team" not in sharding_context(payload.context, facts).as_dict(), "Elastic-Job's context has six fields"


TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def read_traced(traceparent: Any) -> Any:
    payload = task_payload("t1", jobClass="shop:Job") | {"traceparent": traceparent}
    return read_task(encode_data(json.dumps(payload).encode()))


def test_contexts_have_the_span_of_the_attempt() -> None:
    payload = read_traced(TRACEPARENT)
    facts = payload.facts()
    assert sharding_context(payload.context, facts).traceparent == TRACEPARENT
    assert firing_context(payload.context, facts, {}).traceparent == TRACEPARENT
    assert environment(sharding_context(payload.context, facts))["TRACEPARENT"] == TRACEPARENT
    without = read().facts()
    assert "traceparent" not in without, "a worker of an app's own gets the same facts as before"
    assert sharding_context(payload.context, without).traceparent == ""
    assert "TRACEPARENT" not in environment(sharding_context(payload.context, without))
    with pytest.raises(PayloadError, match="'traceparent'"):
        read_traced(5)


def test_team_that_is_no_text_is_refused() -> None:
    with pytest.raises(PayloadError, match="'team' in job"):
        read(team=5)
