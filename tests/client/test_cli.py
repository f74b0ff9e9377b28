"""The command line against a live server: its output and its exit codes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from tests.api_kit import START, FakeLoop, job_body, make_api, serving

from jobcloud.client import cli, context, following, render
from jobcloud.client.context import Context
from jobcloud.client.http import ApiError
from jobcloud.dev.tcp_ports import free_port
from jobcloud.errors import NotFound
from jobcloud.model import Terms
from jobcloud.server.api import Access, ApiOptions, LogChunk, LogRequest

TOKEN = "t0ken"
MANIFEST = """
[app]
name = "demo"
cpuCount = 0.5
memoryMB = 64

[[jobs]]
jobName = "hello"
jobClass = "hello:Hello"
jobType = "SIMPLE"
jobExecutionType = "TRANSIENT"
cron = "0/5 * * * * ?"
shardingTotalCount = 2
cpuCount = 0.1
memoryMB = 32
"""
LOG = b"".join(b"line %d\n" % number for number in range(20_000))


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Result]


async def read_log(request: LogRequest) -> LogChunk:
    return await _read(request)


async def _read(request: LogRequest) -> LogChunk:
    data = LOG if request.stream == "stdout" else b""
    offset = request.offset if request.offset >= 0 else max(0, len(data) + request.offset)
    return LogChunk(data[offset : offset + request.limit], offset, len(data))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FakeLoop, str, list[str]]]:
    """(its loop, its URL, one entry for each teardown)"""
    loop, torn = FakeLoop(), list[str]()
    options = ApiOptions(access=Access(token=TOKEN))
    api = make_api(
        tmp_path_factory.mktemp("cli"), loop, options=options, read_log=read_log, teardown=lambda: torn.append("down")
    )
    with serving(api) as url:
        yield loop, url, torn


@pytest.fixture
def loop(server: tuple[FakeLoop, str, list[str]]) -> FakeLoop:
    """The server's loop with an empty scheduler."""
    fresh, loop = FakeLoop(), server[0]
    loop.scheduler, loop.now, loop.failure = fresh.scheduler, START, None
    loop.subscribe()
    return loop


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory without context files of other servers."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    for name in ("JOBCLOUD_SERVER", "JOBCLOUD_TOKEN", "JOBCLOUD_TEAM", "JOBCLOUD_PURE_MATCHER"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def run(
    server: tuple[FakeLoop, str, list[str]],
    loop: FakeLoop,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Run a command line with the server and its token in the environment."""
    monkeypatch.setenv("JOBCLOUD_SERVER", server[1])
    monkeypatch.setenv("JOBCLOUD_TOKEN", TOKEN)

    def run(*arguments: str) -> Result:
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        printed = capsys.readouterr()
        return Result(int(ended.value.code or 0), printed.out, printed.err)

    return run


@pytest.fixture
def app(tmp_path: Path) -> Path:
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "hello.py").write_text("class Hello: ...\n")
    (folder / "jobcloud.toml").write_text(MANIFEST)
    return folder


def launch(loop: FakeLoop) -> list[str]:
    loop.tick(6000)
    loop.offer()
    return loop.tick()


# ------------------------------------------------------------------------------------------------------ apps and jobs


def test_app_add_registers_app_and_jobs_and_changes_nothing_when_repeated(run: Run, loop: FakeLoop, app: Path) -> None:
    first = run("app", "add", str(app))
    assert (first.code, first.err) == (0, "")
    assert "app demo is registered" in first.out
    assert "job hello is registered, next run" in first.out
    assert loop.scheduler.jobs["hello"].resources.cpus == 100
    loop.effects.clear()
    again = run("app", "add", str(app), "--json")
    assert again.json["app"]["appName"] == "demo"
    assert [job["jobName"] for job in again.json["jobs"]] == ["hello"]
    assert loop.effects == []
    (app / "jobcloud.toml").write_text(MANIFEST.replace("cpuCount = 0.1", "cpuCount = 0.25"))
    version = loop.scheduler.apps["demo"].package
    assert run("app", "add", str(app)).code == 0
    assert loop.scheduler.jobs["hello"].resources.cpus == 250
    assert loop.scheduler.apps["demo"].package == version, "a job's change makes no new version of the app"


def test_app_can_be_added_under_another_name_without_its_jobs(run: Run, loop: FakeLoop, app: Path) -> None:
    assert run("app", "add", str(app), "--name", "other", "--no-jobs").code == 0
    assert set(loop.scheduler.apps) == {"other"}
    assert not loop.scheduler.jobs


def test_app_of_an_archive_is_named_after_the_file(run: Run, loop: FakeLoop, app: Path, tmp_path: Path) -> None:
    from jobcloud.client.pack import pack

    pack(app, tmp_path / "report-1.2.zip")
    assert run("app", "add", str(tmp_path / "report-1.2.zip")).code == 0
    assert set(loop.scheduler.apps) == {"report-1.2"}


@pytest.mark.parametrize(
    ("manifest", "says"),
    [
        ("[app", "not valid TOML"),
        ("[apps]", "use [app], [[jobs]], [[pools]], [[calendars]] and [[workflows]]"),
        ("[[app]]", "wrong layout"),
        ("[jobs]", "wrong layout"),
    ],
)
def test_bad_manifest_is_a_usage_error_and_registers_nothing(
    run: Run, loop: FakeLoop, app: Path, manifest: str, says: str
) -> None:
    (app / "jobcloud.toml").write_text(manifest)
    result = run("app", "add", str(app))
    assert result.code == 2
    assert says in result.err
    assert not loop.scheduler.apps


@pytest.mark.parametrize("value", ["1979-05-27", "nan", "inf"])
def test_values_that_json_cannot_represent_are_a_usage_error(run: Run, app: Path, value: str) -> None:
    (app / "jobcloud.toml").write_text(f"[app]\ndescription = {value}\n")
    result = run("app", "add", str(app))
    assert result.code == 2
    assert "JSON cannot represent" in result.err
    assert run("job", "add", "--set", "cpuCount=NaN").code == 2


def test_apps_are_listed_shown_disabled_enabled_and_removed(run: Run, loop: FakeLoop, app: Path) -> None:
    assert "no apps yet" in run("app", "list").out
    run("app", "add", str(app))
    assert re.search(r"demo +enabled +1 +0.5 +64", run("app", "list").out)
    assert run("app", "list", "--json").json[0]["config"]["cpuCount"] == 0.5
    assert "appURL" in run("app", "show", "demo").out
    assert run("app", "disable", "demo", "--json").json["enabled"] is False
    assert run("app", "enable", "demo", "--json").json["enabled"] is True
    refused = run("app", "remove", "demo")
    assert (refused.code, refused.out) == (1, "")
    assert run("app", "remove", "demo", "--jobs").code == 0
    assert run("app", "show", "demo").code == 4


def test_app_update_is_done_at_once_without_residents_and_refused_for_unknown_apps(
    run: Run, loop: FakeLoop, app: Path
) -> None:
    assert run("app", "update", str(app)).code == 4
    assert not loop.scheduler.apps
    run("app", "add", str(app))
    (app / "hello.py").write_text("class Hello: 'new'\n")
    before = loop.scheduler.apps["demo"].package
    assert "app demo is up to date" in run("app", "update", str(app)).out
    assert loop.scheduler.apps["demo"].package != before


def test_app_update_follows_until_all_residents_are_new_or_rollout_has_stopped(
    run: Run, loop: FakeLoop, app: Path
) -> None:
    manifest = MANIFEST.replace("TRANSIENT", "DAEMON")
    (app / "jobcloud.toml").write_text(manifest)
    run("app", "add", str(app))
    loop.offer()
    old = loop.tick()
    for task in old:
        loop.update(task, "TASK_RUNNING")
    (app / "hello.py").write_text("class Hello: 'new'\n")
    begun = run("app", "update", str(app), "--no-wait", "--json").json
    assert (begun["state"], begun["jobs"][0]["running"], begun["jobs"][0]["outdated"]) == ("rolling", 0, 2)
    late = run("app", "update", str(app), "--timeout", "0.01")
    assert (late.code, "continues after 0.01 s" in late.out) == (1, True)
    loop.update(old[0], "TASK_KILLED")
    loop.offer()
    (new,) = loop.tick()
    loop.update(new, "TASK_FAILED", "ImportError: no module named new")
    stopped = run("app", "update", str(app))
    assert stopped.code == 1
    for text in ("0 of 2 shards run the new version", "ImportError", "has stopped", "keep the old version"):
        assert text in stopped.out
    (app / "hello.py").write_text("class Hello: ...\n")
    run("app", "update", str(app), "--no-wait")
    loop.offer()
    for task in loop.tick(5_000):
        loop.update(task, "TASK_RUNNING")
    done = run("app", "update", str(app), "--json")
    assert (done.code, done.json["state"], done.json["jobs"][0]["running"]) == (0, "done", 2)
    assert old[1] in loop.scheduler.tasks, "the old version keeps running"


def test_jobs_are_added_from_file_stdin_and_fields(
    run: Run, loop: FakeLoop, app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("app", "add", str(app), "--no-jobs")
    file = tmp_path / "job.json"
    file.write_text(json.dumps([job_body("a"), job_body("b")]))
    assert [job["jobName"] for job in run("job", "add", str(file), "--json").json] == ["a", "b"]
    monkeypatch.setattr("sys.stdin", __import__("io").StringIO(json.dumps(job_body("c"))))
    assert run("job", "add", "-", "--set", "cpuCount=0.125", "--set", "description=see below").code == 0
    assert (loop.scheduler.jobs["c"].resources.cpus, loop.scheduler.jobs["c"].description) == (125, "see below")
    parameters = '--set=shardingItemParameters={"1": "x=1,y=2"}'
    assert run("job", "update", "c", parameters).code == 0
    assert run("job", "show", "c", "--json").json["config"]["shardingItemParameters"] == {"1": "x=1,y=2"}
    fields = [f"--set={key}={value}" for key, value in job_body("d").items()]
    assert run("job", "add", *fields).code == 0
    assert run("job", "add", *fields).code == 1, "the job exists already"
    assert [job["jobName"] for job in run("job", "list", "--json").json] == ["a", "b", "c", "d"]


def test_job_files_with_a_byte_order_mark_are_read(
    run: Run, app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("app", "add", str(app), "--no-jobs")
    file = tmp_path / "job.json"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(job_body("a")).encode())
    assert run("job", "add", str(file)).code == 0
    monkeypatch.setattr("sys.stdin", __import__("io").StringIO("\ufeff" + json.dumps(job_body("b"))))
    assert run("job", "add", "-").code == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("job", "show", "\udcff"), 4),
        (("job", "trigger", "\udcff"), 4),
        (("kill", "\udcff"), 2),
        (("runs", "\udcff"), 4),
        (("tasks", "--job", "\udcff"), 4),
        (("logs", "\udcff"), 2),
    ],
    ids=lambda part: "-".join(part[:-1]) if isinstance(part, tuple) else None,
)
def test_name_that_is_not_utf8_is_an_error_of_the_command(run: Run, arguments: tuple[str, ...], code: int) -> None:
    """Python keeps the bytes of such an argument as surrogates."""
    result = run(*arguments)
    assert "UTF-8" in result.err
    assert r"\udcff" in result.err
    assert result.code == code


def test_job_update_changes_single_fields_or_whole_configuration(
    run: Run, loop: FakeLoop, app: Path, tmp_path: Path
) -> None:
    run("app", "add", str(app))
    assert run("job", "update", "hello", "--set", "cron=0 0 8 ? * MON-FRI").code == 0
    assert loop.scheduler.jobs["hello"].cron == "0 0 8 ? * MON-FRI"
    assert loop.scheduler.jobs["hello"].resources.cpus == 100
    (tmp_path / "job.json").write_text(json.dumps(job_body(cpuCount=0.3)))
    assert run("job", "update", "hello", str(tmp_path / "job.json")).code == 0
    assert loop.scheduler.jobs["hello"].resources.cpus == 300


def test_all_errors_of_a_job_are_printed_with_their_fixes(run: Run, app: Path) -> None:
    run("app", "add", str(app), "--no-jobs")
    result = run("job", "add", "--set", "jobNam=x", "--set", "cron=bad")
    assert result.code == 1
    assert re.search(r"\d+ errors:", result.err)
    assert "did you mean 'jobName'?" in result.err
    as_json = run("job", "add", "--set", "jobNam=x", "--json")
    assert json.loads(as_json.err)["type"] == "urn:jobcloud:problem:invalid"


@pytest.mark.parametrize(
    "arguments",
    [
        ("job", "add"),
        ("job", "add", "/no/such/file"),
        ("job", "add", "--set", "novalue"),
        ("job", "add", __file__),
        ("app", "add", "/no/such/folder"),
        ("tasks", "--limit", "0"),
        ("frobnicate",),
        ("next", "bad"),
        ("next", "0 0 0 * * ?", "--zone", "No/Where"),
        ("scheduler", "--port", "99999"),
        ("dev", "--agents", "0"),
    ],
)
def test_wrong_usage_exits_with_2_and_prints_nothing_to_stdout(run: Run, arguments: tuple[str, ...]) -> None:
    if arguments[0] == "scheduler":
        pytest.importorskip("pydantic_settings")
    result = run(*arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err


@dataclass
class Turns:
    """A clock for commands that wait: each sleep of theirs is a turn of the cluster."""

    turns: list[Callable[[], None]]
    now: float = 0

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.turns:
            self.turns.pop(0)()


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Turns:
    found = Turns([])
    monkeypatch.setattr(following, "sleep", found.sleep)
    monkeypatch.setattr(following, "monotonic", lambda: found.now)
    return found


def end_all(loop: FakeLoop, state: str) -> None:
    for task_id in list(loop.scheduler.tasks):
        loop.update(task_id, state)


def place_all(loop: FakeLoop) -> None:
    loop.offer()
    loop.tick()


def test_trigger_sends_what_the_run_has_in_place_of_the_jobs_own_values(run: Run, loop: FakeLoop, app: Path) -> None:
    run("app", "add", str(app))
    options = ("--parameter", "p=1", "--item-parameter", "1=b=c", "--shard", "1", "--priority", "-3", "--key", "k")
    first = run("job", "trigger", "hello", *options, "--json").json
    shown = loop.scheduler.firings[first["id"]].terms
    assert shown == Terms("p=1", ((1, "b=c"),), (1,), -3, "k")
    assert "was started before" in run("job", "trigger", "hello", *options).out
    assert run("job", "trigger", "hello", "--key", "k").code == 1
    for wrong in ("1", "0=a"):
        refused = run("job", "trigger", "hello", "--item-parameter", "0=a", "--item-parameter", wrong)
        assert (refused.code, "--item-parameter" in refused.err) == (2, True)


@pytest.mark.parametrize(("state", "code"), [("TASK_FINISHED", 0), ("TASK_FAILED", 1)])
def test_trigger_waits_for_the_end_of_the_run(
    run: Run, loop: FakeLoop, app: Path, turns: Turns, state: str, code: int
) -> None:
    run("app", "add", str(app))
    turns.turns = [lambda: place_all(loop), lambda: None, lambda: end_all(loop, state)]
    waited = run("job", "trigger", "hello", "--wait")
    assert (waited.code, not turns.turns) == (code, True)
    assert f"is {state.removeprefix('TASK_')}" in waited.out
    turns.turns = [lambda: place_all(loop), lambda: end_all(loop, state)]
    shown = run("job", "trigger", "hello", "--wait", "--json").json
    assert (shown["state"], len(shown["shards"])) == (state.removeprefix("TASK_"), 2)


def test_trigger_waits_no_longer_than_its_timeout(run: Run, app: Path, turns: Turns) -> None:
    run("app", "add", str(app))
    waited = run("job", "trigger", "hello", "--wait", "--timeout", "30")
    assert (waited.code, turns.now) == (1, 30)
    assert "continues after 30 s" in waited.out


def test_ad_hoc_run_is_started_from_a_file_and_fields(run: Run, loop: FakeLoop, app: Path, turns: Turns) -> None:
    run("app", "add", str(app))
    run("job", "remove", "hello")
    fields = {"appName": "demo", "jobName": "once", "jobType": "SCRIPT", "scriptCommandLine": "bin/x"}
    file = app / "once.yaml"
    file.write_text("".join(f"{name}: {value}\n" for name, value in fields.items()) + "cpuCount: 0.1\n")
    turns.turns = [lambda: place_all(loop), lambda: end_all(loop, "TASK_FINISHED")]
    options = (str(file), "--set", "memoryMB=32", "--set", "timeoutSeconds=1m", "--key", "k")
    waited = run("run", "start", *options, "--wait")
    assert (waited.code, "is FINISHED" in waited.out) == (0, True), waited.err
    (job,) = loop.scheduler.ad_hoc.values()
    assert (job.name, job.script, job.timeout_ms, job.shard_count) == ("once", "bin/x", 60_000, 1)
    again = run("run", "start", *options)
    assert "was started before" in again.out
    assert run("run", "start", str(file), "--set", "memoryMB=64", "--key", "k").code == 1
    (listed,) = run("runs", "--json").json
    assert (listed["cause"], listed["jobName"]) == ("ad_hoc", job.key)
    assert "once~" in run("runs").out
    assert run("explain", job.key).code == run("runs", job.key).code == run("tasks", "--job", job.key).code == 0
    assert run("runs", "once~0-1").code == 4
    assert run("run", "show", listed["id"], "--json").json["config"]["scriptCommandLine"] == "bin/x"
    assert run("job", "list", "--json").json == run("export", "--json").json["jobs"] == []
    assert run("--team", "billing", "run", "start", str(file), "--set", "memoryMB=32").code == 4


def test_runs_belong_to_the_trace_in_the_environment(
    run: Run, loop: FakeLoop, app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    run("app", "add", str(app))
    fields = ("appName=demo", "jobName=once", "jobType=SCRIPT", "scriptCommandLine=x", "cpuCount=1", "memoryMB=32")
    options = [word for field in fields for word in ("--set", field)]
    for given, kept in ((caller, caller), ("gr\u00fcn", ""), ("", "")):
        monkeypatch.setenv("TRACEPARENT", given)
        for command in (
            ("job", "trigger", "hello"),
            ("job", "trigger", "hello", "--priority", "1"),
            ("run", "start", *options),
        ):
            started = run(*command, "--json").json
            assert loop.scheduler.firings[started["id"]].terms.trace == kept


def test_ad_hoc_run_needs_exactly_one_job(run: Run, app: Path) -> None:
    assert (run("run", "start").code, "nothing to run" in run("run", "start").err) == (2, True)
    file = app / "two.json"
    file.write_text("[{}, {}]")
    assert "holds 2 jobs" in run("run", "start", str(file)).err
    run("app", "add", str(app))
    wrong = run("run", "start", "--set", "appName=demo", "--set", "cron=x", "--json")
    assert (wrong.code, "cron" in wrong.err) == (1, True)


class Away:
    """A client whose server does not answer the calls with these numbers."""

    def __init__(self, status: int, calls: range) -> None:
        self._status, self._calls, self._asked = status, calls, 0

    def run_state(self, run_id: str) -> dict[str, Any]:
        self._asked += 1
        if self._asked in self._calls:
            raise ApiError(self._status, {})
        return {"id": run_id, "endedAt": "now" if self._asked > self._calls.stop else None, "state": "FINISHED"}

    run = run_state


@pytest.mark.parametrize("status", [0, 503])
def test_client_waits_for_a_run_while_the_server_is_away_for_a_short_time(status: int, turns: Turns) -> None:
    away: Any = Away(status, range(2, 62))
    assert following.wait_for_run(away, "r")["state"] == "FINISHED"
    with pytest.raises(ApiError):
        following.wait_for_run(cast(Any, Away(status, range(2, 64))), "r")


def test_client_does_not_wait_for_a_run_that_is_gone(turns: Turns) -> None:
    with pytest.raises(ApiError):
        following.wait_for_run(cast(Any, Away(404, range(2, 3))), "r")


def test_trigger_follows_the_output_of_its_shards(run: Run, loop: FakeLoop, app: Path, turns: Turns) -> None:
    run("app", "add", str(app))
    turns.turns = [lambda: place_all(loop), lambda: None, lambda: end_all(loop, "TASK_FINISHED")]
    followed = run("job", "trigger", "hello", "--follow")
    lines = followed.out.splitlines()
    assert followed.code == 0
    for item in (0, 1):
        wanted = [f"{item}: line {number}" for number in range(20_000)]
        assert [line for line in lines if line.startswith(f"{item}: ")] == wanted
    turns.turns = [lambda: place_all(loop), lambda: end_all(loop, "TASK_FINISHED")]
    one = run("job", "trigger", "hello", "--follow", "--shard", "1")
    assert one.out.count("\nline") == 20_000
    assert run("job", "trigger", "hello", "--follow", "--json").code == 2


def test_output_of_several_shards_is_printed_line_by_line() -> None:
    printed: list[tuple[str, str]] = []
    output = following.Prefixed(lambda stream, text: printed.append((stream, text)), several=True)
    for item, text in ((0, "a"), (1, "x\ny"), (0, "b\n\n")):
        output.show("stdout", item, text)
    output.show("stderr", 1, "oops\n")
    output.end()
    lines = ["1: x\n", "0: ab\n", "0: \n", "1: oops\n", "1: y\n"]
    assert [text for _, text in printed] == lines
    assert printed[3][0] == "stderr"


def test_past_fire_times_are_listed_filled_in_and_cancelled(run: Run, loop: FakeLoop, app: Path) -> None:
    run("app", "add", str(app))
    listed = run("backfill", "hello", "--from", "2023-11-14T22:13:00Z", "--limit", "2", "--dry-run")
    assert "2 fire times of job hello would get a run; further ones are beyond the limit" in " ".join(
        listed.out.split()
    )
    options = ("--from", "2023-11-14T22:13Z", "--to", "2023-11-14T22:13:05Z", "--newest-first", "--at-once", "2")
    found = run("backfill", "hello", *options, "--json").json
    assert found["times"] == ["2023-11-14T22:13:05.000Z", "2023-11-14T22:13:00.000Z"]
    assert "2 fire times wait" in run("job", "show", "hello").out
    assert "is cancelled" in run("backfill", "hello", "--cancel").out
    assert not loop.scheduler.backfills
    for wrong in ((), ("--from", "soon"), ("--from", "2023-11-14", "--cancel")):
        assert run("backfill", "hello", *wrong).code == 2


def test_job_app_and_everything_are_paused_and_resumed(run: Run, app: Path) -> None:
    run("app", "add", str(app))
    assert "job hello is paused" in run("pause", "hello").out
    assert "everything is paused" in run("pause", "--all").out
    assert run("pause", "--app", "demo", "--json").json["pausedBy"] == ["app", "cluster"]
    assert "paused" in run("job", "list").out
    assert "job, app, cluster" in run("job", "show", "hello").out
    assert "no shard of any job starts" in run("cluster").out
    resumed = run("resume", "hello").out
    assert "job hello is resumed, but still held: its app is paused, everything is paused" in " ".join(resumed.split())
    assert run("resume", "--all").code == run("resume", "--app", "demo").code == 0
    assert run("job", "show", "hello", "--json").json["pausedBy"] == []
    for wrong in ((), ("hello", "--all"), ("hello", "--app", "demo")):
        assert run("pause", *wrong).code == 2
    assert run("pause", "absent").code == 4


def test_jobs_are_triggered_disabled_enabled_shown_and_removed(run: Run, loop: FakeLoop, app: Path) -> None:
    run("app", "add", str(app))
    assert "is WAITING" in run("job", "trigger", "hello").out
    assert run("job", "trigger", "hello", "--json").json["cause"] == "trigger"
    assert run("job", "disable", "hello", "--json").json["disabled"] is True
    assert run("job", "trigger", "hello").code == 1
    assert run("job", "enable", "hello", "--json").json["disabled"] is False
    assert "0/5 * * * * ?" in run("job", "show", "hello").out
    assert run("job", "remove", "hello").code == 0
    assert run("job", "show", "hello").code == 4


def test_ports_of_a_task_are_listed_with_its_host(run: Run, loop: FakeLoop, app: Path) -> None:
    run("app", "add", str(app))
    assert run("job", "update", "hello", "--set", "portCount=4", "--set", "shardingTotalCount=1").code == 0
    launch(loop)
    assert "agent-1.test:31000,31001,31002…" in run("tasks", "--wide").out


def test_dead_run_is_listed_and_retried(run: Run, loop: FakeLoop, app: Path) -> None:
    run("app", "add", str(app))
    changes = ("retryCount=1", "retryDelaySeconds=0.5", "retryJitter=0", "shardingTotalCount=1")
    assert run("job", "update", "hello", *(word for one in changes for word in ("--set", one))).code == 0
    (task_id,) = launch(loop)
    loop.update(task_id, "TASK_FAILED")
    assert "no run matches --state dead" in run("runs", "--state", "dead").out
    loop.offer()
    (task_id,) = loop.tick(500)
    loop.update(task_id, "TASK_FAILED")
    (found,) = run("runs", "hello", "--state", "dead", "--json").json
    assert "1 DEAD" in run("runs", "--state", "DEAD").out
    assert "used up" in run("explain", "hello").out
    assert re.search(r"dead runs +1", run("job", "show", "hello").out)
    assert run("retry", found["id"], "--shard", "7").code == 4
    assert f"{found['id']} is WAITING" in run("retry", found["id"]).out
    assert run("retry", found["id"]).code == 1
    assert run("retry", "nope", "--json").code == 4


# ------------------------------------------------------------------------------------- runs, tasks and the cluster


def test_tasks_runs_and_cluster_are_shown(run: Run, loop: FakeLoop, app: Path) -> None:
    assert "no task has been launched" in run("tasks").out
    run("app", "add", str(app))
    first, second = launch(loop)
    loop.update(first, "TASK_RUNNING")
    loop.update(second, "TASK_FAILED", "\x1b[31mred\x07")
    table = run("tasks", "--wide")
    assert re.search(r"hello/0 +RUNNING +1 +agent-1.test", table.out)
    assert first in table.out
    assert "\x1b" not in table.out, "control characters in a job's message are removed"
    assert [task["id"] for task in run("tasks", "--state", "active", "--json").json] == [first]
    assert re.search(r"cron +ACTIVE .* 1 ACTIVE, 1 FAILED", run("runs", "hello").out)
    assert run("runs", "--json", "--limit", "1").json[0]["shards"][1]["state"] == "FAILED"
    assert run("runs", "nope").code == 4
    assert "1 active, 0 waiting" in run("explain", "hello").out
    assert re.search(r"agent-1.test +agent-1 ", run("cluster").out)
    assert run("cluster", "--json").json["frameworkId"] == "framework-1"


def test_explanation_names_the_missing_resource(run: Run, loop: FakeLoop, app: Path) -> None:
    run("app", "add", str(app))
    run("job", "update", "hello", "--set", "cpuCount=100")
    assert launch(loop) == []
    said = run("explain", "hello").out
    assert "0 active, 2 waiting" in said
    fits = run("job", "fit", "hello", "--shards", "3").out
    assert "0 of 3 further shards fit now on 0 agents" in fits
    assert "waiting will not help" in fits
    assert run("job", "fit", "hello", "--json").json["shards"] == 2
    assert "too little cpus" in said
    assert run("explain", "hello", "--json").json["reasons"][0]["available"] == 8


@pytest.mark.parametrize("name", ["{0}", "hello/0", "{0:.12}"])
def test_task_output_is_found_by_id_shard_and_prefix(run: Run, loop: FakeLoop, app: Path, name: str) -> None:
    run("app", "add", str(app))
    task = launch(loop)[0]
    result = run("logs", name.format(task))
    assert (result.code, result.out) == (0, LOG.decode()), "all output, in order, from many pieces"


def test_task_output_can_be_tailed_and_followed(run: Run, loop: FakeLoop, app: Path) -> None:
    run("app", "add", str(app))
    first, second = launch(loop)
    assert run("logs", "hello", "--tail", "2").out == "line 19998\nline 19999\n"
    lines = [{"at": "", "stream": "stdout", "text": "line 19999\n"}]
    last = {"taskId": first, "stream": "both", "text": "line 19999\n", "lines": lines}
    assert run("logs", "hello", "--tail", "1", "--json").json == last
    assert run("logs", "hello", "--stderr").out == ""
    loop.update(second, "TASK_FINISHED")
    assert run("logs", second, "--follow", "--tail", "1").out == "line 19999\n"
    ambiguous = run("logs", "hel")
    assert ambiguous.code == 2
    assert second in ambiguous.err
    assert run("logs", "nope").code == run("logs", "hello/7").code == 4


def test_task_can_be_killed(run: Run, loop: FakeLoop, app: Path) -> None:
    run("app", "add", str(app))
    task = launch(loop)[1]
    loop.update(task, "TASK_RUNNING")
    assert "is being killed" in run("kill", "hello/1").out
    assert loop.scheduler.tasks[task].kill_ms


def test_task_known_to_be_dead_is_forgotten(run: Run, loop: FakeLoop, app: Path) -> None:
    run("app", "add", str(app))
    task = launch(loop)[1]
    loop.update(task, "TASK_RUNNING")
    assert run("task", "forget", "hello/1").code == 1
    assert f"{task} is forgotten" in run("task", "forget", "hello/1", "--force").out
    assert task not in loop.scheduler.tasks


def test_agent_is_drained_and_undrained(run: Run, loop: FakeLoop, app: Path) -> None:
    run("app", "add", str(app))
    launch(loop)
    drained = run("agent", "drain", "agent-1.test", "--reason", "new disk")
    assert "agent-1.test gets no new tasks; tasks on it now: 2" in drained.out
    assert "drains until" in run("cluster").out
    assert "new disk" in run("cluster").out
    assert run("agent", "drain", "agent-1.test", "--json").json["drain"]["reason"] == ""
    assert "gets new tasks again" in run("agent", "undrain", "agent-1.test").out
    assert not loop.scheduler.agents()[0].drain
    assert run("agent", "drain", "nope").code == 4


def test_next_needs_no_server(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["next", "0 0 8 ? * MON-FRI", "--zone", "Europe/Berlin"],
        ["next", "0 8 * * 1-5", "--dialect", "unix"],
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main([*arguments, "--count", "3", "--json"])
        assert not ended.value.code
        found = json.loads(capsys.readouterr().out)
        assert len(found["times"]) == 3
        assert found["words"].startswith("at 08:00, Monday to Friday (")


def test_next_prints_the_words_of_an_expression(capsys: pytest.CaptureFixture[str]) -> None:
    words = {"en": "at 08:00 on the last Friday of each month (UTC)", "zh": "每月最后一个星期五 08:00（UTC）"}
    for language, sentence in words.items():
        with pytest.raises(SystemExit) as ended:
            cli.main(["next", "0 0 8 ? * 6L", "--language", language])
        assert not ended.value.code
        printed = capsys.readouterr()
        assert sentence in printed.out + printed.err
        assert "FIRES" in printed.out


def test_teardown_needs_the_framework_id(run: Run, server: tuple[FakeLoop, str, list[str]]) -> None:
    torn = server[2]
    assert run("framework", "teardown").code == run("framework", "teardown", "--confirm", "x").code == 1
    assert torn == []
    assert "framework framework-1 is removed" in run("framework", "teardown", "--confirm", "framework-1").out
    assert torn.pop() == "down"


# -------------------------------------------------------------------------------------------------------- exit codes


def test_exit_codes_distinguish_kinds_of_errors(run: Run, loop: FakeLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("job", "show", "nope").code == 4
    loop.failure = TimeoutError()
    assert run("job", "remove", "nope").code == 6
    monkeypatch.setenv("JOBCLOUD_TOKEN", "wrong")
    denied = run("tasks")
    assert denied.code == 5
    assert "JOBCLOUD_TOKEN" in denied.err
    gone = run("--server", f"http://127.0.0.1:{free_port()}", "tasks")
    assert gone.code == 3
    assert "jobcloud dev" in gone.err
    assert run("--server", "nonsense", "tasks").code == 3


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("logs", "nope"), 4),
        (("job", "show", "a/b"), 4),
        (("job", "remove", ""), 4),
        (("job", "list", "--app", "nope"), 4),
        (("tasks", "--job", "nope"), 4),
        (("tasks", "--state", "NOPE"), 1),
        (("job", "add"), 2),
        (("job", "update", "nope"), 2),
        (("next", "x"), 2),
        (("--server", "http://127.0.0.1:1", "tasks"), 3),
        (("--server", "http://[::", "tasks"), 2),
        (("--token", "gr\u00fcn", "tasks"), 2),
        (("--token", "a\nb: c", "tasks"), 2),
    ],
)
def test_errors_are_problem_documents_with_json(run: Run, loop: FakeLoop, arguments: list[str], code: int) -> None:
    result = run(*arguments, "--json")
    assert (result.code, result.out) == (code, "")
    problem = json.loads(result.err)
    assert problem["detail"]
    assert {"type", "title", "errors"} <= problem.keys() or code == 3
    plain = run(*arguments)
    assert plain.code == code
    assert plain.err.startswith("error: ")


@pytest.mark.parametrize("command", ["logs", "kill"])
@pytest.mark.parametrize("name", ["", "/0"])
def test_empty_task_name_is_refused_and_does_not_mean_the_newest_task(run: Run, command: str, name: str) -> None:
    result = run(command, name)
    assert result.code == 2
    assert "names no task" in result.err


def test_deeply_nested_json_is_refused_by_the_client(run: Run, home: Path) -> None:
    deep = home / "deep.json"
    deep.write_text("[" * 100_000)
    assert run("job", "add", str(deep)).code == 2


def test_removal_is_confirmed(run: Run, loop: FakeLoop, app: Path) -> None:
    run("app", "add", str(app))
    assert run("job", "remove", "hello", "--json").json == {"jobName": "hello", "removed": True}
    assert "app demo is removed" in run("app", "remove", "demo").out


def test_other_http_server_is_not_taken_for_a_jobcloud_server(run: Run) -> None:
    async def other(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
        await send({"type": "http.response.body", "body": b"<html>"})

    with serving(other) as url:
        result = run("--server", url, "tasks")
    assert result.code == 1
    assert "not from a jobcloud server" in result.err


# ------------------------------------------------------------------------------------------------ finding the server


def test_server_on_this_machine_is_found_by_its_context_file(home: Path) -> None:
    assert context.find() == Context("http://127.0.0.1:8899")
    path = context.write(Context("http://127.0.0.1:4711", "s3cret", os.getpid()))
    assert path == home / "run" / "jobcloud" / "4711.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert context.find() == Context("http://127.0.0.1:4711", "s3cret", os.getpid())
    context.write(Context("http://127.0.0.1:8899", "other", os.getpid()))
    assert context.find().token == "other", "the default port comes first"
    assert context.find("http://127.0.0.1:4711/").token == "s3cret"
    assert context.find("http://elsewhere.test").token == "", "the token of a file is used for its own server only"
    assert context.find("http://elsewhere.test", "mine").token == "mine"
    context.remove(path, pid=1)
    assert path.exists(), "another server's file stays"
    context.remove(path, os.getpid())
    assert not path.exists()


def test_context_files_readable_by_others_or_of_dead_servers_are_ignored(home: Path) -> None:
    path = context.write(Context("http://127.0.0.1:4711", "s3cret", os.getpid()))
    path.chmod(0o644)
    assert context.find().token == ""
    path.chmod(0o600)
    path.write_text("[]")
    assert context.find().token == ""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    context.write(Context("http://127.0.0.1:4711", "s3cret", ended.pid))
    assert context.find().token == ""


def test_environment_takes_precedence_over_context_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context.write(Context("http://127.0.0.1:8899", "file", os.getpid()))
    monkeypatch.setenv("JOBCLOUD_SERVER", "http://elsewhere.test")
    monkeypatch.setenv("JOBCLOUD_TOKEN", "env")
    assert context.find() == Context("http://elsewhere.test", "env")


# ------------------------------------------------------------------------------------------------------- as a process

# Simulates an installation without the extra [server].
BARE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"fastapi", "starlette", "pydantic_settings", "uvicorn", "structlog",
                                      "kazoo", "pymesos", "prometheus_client"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from jobcloud.client.cli import main
main()
"""


def process(*arguments: str, code: str = "from jobcloud.client.cli import main; main()", **environ: str) -> Result:
    argv, env = [sys.executable, "-W", "error", "-c", code, *arguments], {**os.environ, **environ}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env=env)
    return Result(done.returncode, done.stdout, done.stderr)


def test_client_works_without_libraries_of_the_server(
    server: tuple[FakeLoop, str, list[str]], loop: FakeLoop, app: Path
) -> None:
    where = {"JOBCLOUD_SERVER": server[1], "JOBCLOUD_TOKEN": TOKEN}
    assert process("app", "add", str(app), code=BARE, **where).code == 0
    assert process("job", "list", "--json", code=BARE, **where).json[0]["jobName"] == "hello"
    assert process("next", "0 0 0 * * ?", code=BARE).code == 0
    for command in ("scheduler", "dev"):
        result = process(command, code=BARE)
        assert result.code == 2
        assert "pip install" in result.err


def test_version_names_the_matcher_and_the_time_zones_in_use() -> None:
    told = r"jobcloud \d+\.\d+\.\d+ \(matcher: (compiled, .+|not built)\), time zones 20\d\d[a-z]+\n"
    assert re.fullmatch(told, process("--version").out)
    for yes in ("1", "true", "ON"):
        assert "(matcher: plain)" in process("--version", JOBCLOUD_PURE_MATCHER=yes).out
    assert "plain" not in process("--version", JOBCLOUD_PURE_MATCHER="false").out


def test_help_imports_neither_slow_libraries_nor_the_configuration() -> None:
    code = (
        "import sys\n"
        "from jobcloud.client.cli import main\n"
        "slow = ('httpx', 'pydantic', 'fastapi', 'numpy', 'sqlalchemy', 'msgspec', 'croniter')\n"
        "slow += ('jobcloud.config', 'jobcloud.cron', 'jobcloud.server', 'jobcloud.dev')\n"
        "try: main()\n"
        "finally: print([module for module in slow if module in sys.modules])"
    )
    result = process("--help", code=code)
    assert result.code == 0
    assert result.out.rstrip().endswith("[]")


def test_list_of_jobs_imports_neither_the_configuration_nor_the_command_line_of_httpx(
    server: tuple[FakeLoop, str, list[str]], app: Path
) -> None:
    where = {"JOBCLOUD_SERVER": server[1], "JOBCLOUD_TOKEN": TOKEN}
    process("app", "add", str(app), **where)
    code = (
        "import sys\n"
        "from jobcloud.client.cli import main\n"
        "slow = ('httpx._main', 'click', 'fastapi', 'numpy', 'msgspec', 'croniter')\n"
        "slow += ('jobcloud.config', 'jobcloud.cron', 'jobcloud.messages', 'jobcloud.server')\n"
        "try: main()\n"
        "finally: print([module for module in slow if module in sys.modules])"
    )
    result = process("job", "list", code=code, **where)
    assert "hello" in result.out
    assert result.out.rstrip().endswith("[]")


def test_closed_output_pipe_is_not_an_error(server: tuple[FakeLoop, str, list[str]], loop: FakeLoop, app: Path) -> None:
    where = {"JOBCLOUD_SERVER": server[1], "JOBCLOUD_TOKEN": TOKEN}
    process("app", "add", str(app), **where)
    launch(loop)
    command = f"{sys.executable} -c 'from jobcloud.client.cli import main; main()' logs hello | head -n 1"
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, env={**os.environ, **where}, check=True
    )
    assert (done.stdout, done.stderr) == ("line 0\n", "")


# ---------------------------------------------------------------------------------------------------------- rendering


AGES = {
    "0s ago": 0,
    "12s ago": 12.4,
    "1m ago": 59.7,
    "1m30s ago": 90,
    "1h ago": 3600,
    "2h1m ago": 7260,
    "1d ago": 86_400,
    "1d1h ago": 90_000,
    "in 5s": -5,
    "in 1m30s": -90,
}


@pytest.mark.parametrize("text", AGES)
def test_ages_are_short(text: str) -> None:
    assert render.age(AGES[text]) == text


# -------------------------------------------------------------------------------------------------------------- teams


def in_team(team: str) -> str:
    return MANIFEST.replace('name = "demo"', f'name = "demo"\nteam = "{team}"')


def test_manifest_names_the_team_once_for_the_app_and_its_jobs(run: Run, loop: FakeLoop, app: Path) -> None:
    assert run("app", "add", str(app)).code == 0
    (app / "jobcloud.toml").write_text(in_team("billing"))
    added = run("app", "add", str(app))
    assert (added.code, added.err) == (0, "")
    assert "app billing:demo is registered" in added.out
    assert "job billing:hello is registered" in added.out
    assert "app billing:demo is up to date" in run("app", "add", str(app)).out
    assert (set(loop.scheduler.apps), set(loop.scheduler.jobs)) == (
        {"demo", "billing:demo"},
        {"hello", "billing:hello"},
    )
    assert run("app", "update", str(app), "--no-wait", "--json").json["appName"] == "billing:demo"


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (("--team", "ops", "app", "add"), "ops:demo"),
        (("--team", "default", "app", "add"), "demo"),
        (("app", "add", "--name", "ops:other"), "ops:other"),
        (("--team", "ops", "app", "add", "--name", "web:other"), "web:other"),
        (("--team", "ops", "app", "add", "--name", "other"), "ops:other"),
    ],
)
def test_option_gives_the_team_of_an_app_whose_manifest_has_none(
    run: Run, loop: FakeLoop, app: Path, arguments: tuple[str, ...], key: str
) -> None:
    assert run(*arguments, str(app)).code == 0
    assert set(loop.scheduler.apps) == {key}
    assert {job.app_key for job in loop.scheduler.jobs.values()} == {key}


def test_manifest_decides_about_its_team_and_a_job_of_another_team_is_a_usage_error(
    run: Run, loop: FakeLoop, app: Path
) -> None:
    (app / "jobcloud.toml").write_text(in_team("billing"))
    assert run("--team", "ops", "app", "add", str(app)).code == 0
    assert set(loop.scheduler.apps) == {"billing:demo"}
    (app / "jobcloud.toml").write_text(in_team("web") + 'team = "ops"\n')
    refused = run("app", "add", str(app))
    assert refused.code == 2
    assert "team: is 'ops' in job 'hello', but the app belongs to 'web' (name the team once" in refused.err
    assert set(loop.scheduler.apps) == {"billing:demo"}


@pytest.mark.parametrize("team", ["Billing", "a:b", "../x", "a" * 33])
def test_hostile_team_is_a_usage_error_of_the_option_and_refused_in_a_manifest(
    run: Run, loop: FakeLoop, app: Path, team: str
) -> None:
    result = run("--team", team, "job", "list")
    assert result.code == 2
    assert "--team: " in result.err
    assert "lower-case letters, digits or '-'" in result.err
    (app / "jobcloud.toml").write_text(in_team(team))
    refused = run("app", "add", str(app))
    assert refused.code == 2
    assert "not a valid name of a team" in refused.err
    assert not loop.scheduler.apps


def test_jobs_are_named_with_their_team_or_in_the_team_of_the_option(
    run: Run, loop: FakeLoop, app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("app", "add", str(app))
    run("--team", "billing", "app", "add", str(app))
    assert run("job", "disable", "billing:hello", "--json").json["jobName"] == "billing:hello"
    assert [loop.scheduler.enabled(job) for job in ("hello", "billing:hello")] == [True, False]
    monkeypatch.setenv("JOBCLOUD_TEAM", "billing")
    assert run("job", "enable", "hello", "--json").json["team"] == "billing"
    assert run("job", "show", "default:hello", "--json").json["team"] == "default"
    assert run("--team", "default", "job", "show", "hello", "--json").json["team"] == "default"
    assert "billing:hello: no shard is running" in run("explain", "hello").out
    updated = run("job", "update", "hello", "--set", "priority=5", "--json").json
    assert (updated["jobName"], updated["config"]["priority"]) == ("billing:hello", 5)
    file = app / "job.json"
    file.write_text(json.dumps(job_body(priority=6)))
    assert run("job", "update", "hello", str(file), "--json").json["jobName"] == "billing:hello"
    assert run("job", "add", str(file), "--set", "jobName=other", "--json").json["jobName"] == "billing:other"
    assert "there is no job billing:absent" in run("job", "trigger", "absent").err
    assert run("job", "remove", "other", "--json").json == {"jobName": "billing:other", "removed": True}
    assert run("app", "disable", "demo", "--json").json["appName"] == "billing:demo"
    assert run("app", "remove", "demo", "--jobs").out == "app billing:demo is removed\n"
    assert set(loop.scheduler.jobs) == {"hello"}


def test_lists_show_keys_and_only_the_team_of_the_option(run: Run, loop: FakeLoop, app: Path) -> None:
    run("app", "add", str(app))
    run("--team", "billing", "app", "add", str(app))
    launch(loop)
    for command, title in ((("app", "list"), "demo"), (("job", "list"), "hello"), (("tasks",), "hello/0")):
        whole = run(*command).out
        assert re.search(rf"^{title} ", whole, re.MULTILINE), whole
        assert re.search(rf"^billing:{title} ", whole, re.MULTILINE), whole
        mine = run("--team", "billing", *command).out
        assert f"billing:{title} " in mine
        assert not re.search(rf"^{title} ", mine, re.MULTILINE), mine
    assert {one["team"] for one in run("runs", "--json").json} == {"billing", "default"}
    assert {one["team"] for one in run("--team", "default", "runs", "--json").json} == {"default"}
    assert {one["jobName"] for one in run("--team", "billing", "runs", "hello", "--json").json} == {"billing:hello"}
    assert {one["jobName"] for one in run("job", "list", "--app", "billing:demo", "--json").json} == {"billing:hello"}
    assert {one["jobName"] for one in run("tasks", "--job", "billing:hello", "--json").json} == {"billing:hello"}


def test_task_is_found_by_key_and_shard_and_by_its_whole_id(run: Run, loop: FakeLoop, app: Path) -> None:
    run("app", "add", str(app))
    run("--team", "billing", "app", "add", str(app))
    tasks = {task_id.rsplit("@-@", 3)[0]: task_id for task_id in launch(loop)}
    assert run("kill", "billing:hello/1", "--json").json["id"] == tasks["billing:hello@-@1"]
    assert run("--team", "billing", "kill", "hello/0", "--json").json["id"] == tasks["billing:hello@-@0"]
    assert run("--team", "billing", "kill", tasks["hello@-@1"], "--json").json["id"] == tasks["hello@-@1"]
    assert run("kill", tasks["hello@-@0"][:-1], "--json").code == 0


def test_team_of_the_option_never_means_a_task_of_another_team(run: Run, loop: FakeLoop, app: Path) -> None:
    run("app", "add", str(app))
    run("--team", "billing", "app", "add", str(app))
    launch(loop)
    run("--team", "billing", "job", "remove", "hello")
    for command in (("--team", "ops", "kill", "hello"), ("--team", "ops", "logs", "hell")):
        result = run(*command)
        assert (result.code, "there is no task" in result.err) == (4, True)
    assert run("kill", "default:").code == 1
    assert run("kill", "default:hello/0", "--json").json["jobName"] == "hello"


def test_import_from_elastic_job_refuses_another_team(run: Run) -> None:
    result = run("--team", "billing", "import-ej", "--zookeeper", "127.0.0.1:1", "--zone", "UTC")
    assert result.code == 2
    assert "imports go to the team 'default' (leave out --team, and unset JOBCLOUD_TEAM)" in result.err


# -------------------------------------------------------------------------------------------------- attempts of shards


@pytest.fixture
def repeated(run: Run, loop: FakeLoop, app: Path) -> tuple[str, list[str]]:
    """A run of a job with one shard that waits for its third attempt, and its tasks."""
    run("app", "add", str(app), "--no-jobs")
    fields = ("jobName=again", "appName=demo", "jobClass=hello:Hello", "jobType=SIMPLE", "cron=0 0 0 1 1 ? 2099",
              "jobExecutionType=TRANSIENT", "shardingTotalCount=1", "cpuCount=0.1", "memoryMB=32", "retryCount=3",
              "retryDelaySeconds=60")  # fmt: skip
    assert run("job", "add", *(part for field in fields for part in ("--set", field))).code == 0
    name = run("job", "trigger", "again", "--json").json["id"]
    tasks = []
    for number in (1, 2):
        loop.offer(f"agent-{number}")
        (task,) = loop.tick(600_000)
        tasks.append(task)
        loop.update(task, "TASK_RUNNING")
        loop.tick(90_000)
        loop.update(task, "TASK_FAILED", f"failure {number}")
    return name, tasks


def test_run_is_shown_with_the_range_that_its_shards_divide(run: Run, app: Path) -> None:
    run("app", "add", str(app), "--no-jobs")
    fields = ("jobName=days", "appName=demo", "jobClass=hello:Hello", "jobType=SIMPLE", "cron=0 0 0 1 1 ? 2099",
              "jobExecutionType=TRANSIENT", "shardingTotalCount=2", "cpuCount=0.1", "memoryMB=32",
              "shardingItemRange=1..10")  # fmt: skip
    assert run("job", "add", *(part for field in fields for part in ("--set", field))).code == 0
    name = run("job", "trigger", "days", "--json").json["id"]
    assert re.search(r"^range +1\.\.10 *$", run("run", "show", name).out, re.MULTILINE)


def test_run_is_shown_with_its_shards_and_the_attempts_of_one(run: Run, repeated: tuple[str, list[str]]) -> None:
    name, tasks = repeated
    shown = run("run", "show", name)
    assert (shown.code, shown.err) == (0, "")
    assert re.search(r"^next attempt +\S", shown.out, re.MULTILINE)
    assert re.search(r"^ +0 +WAITING +2 .*agent-2.test +next attempt .*: failure 2$", shown.out, re.MULTILINE)
    shown = run("run", "show", name, "--shard", "0")
    lines = [line for line in shown.out.splitlines() if "FAILED  " in line]
    assert [re.sub(" +", " ", line).split(" FAILED ")[0].strip() for line in lines] == ["2", "1"]
    assert all("1m30s" in line for line in lines)
    assert "attempt 2 is FAILED: failure 2" in shown.out
    found = run("run", "show", name, "--shard", "0", "--json").json
    assert [attempt["taskId"] for attempt in found["attempts"]] == tasks[::-1]
    assert run("run", "show", name, "--json").json["id"] == name
    assert run("run", "show", name, "--shard", "7").code == run("run", "show", "nope").code == 4


def test_output_of_an_earlier_attempt_is_printed(run: Run, repeated: tuple[str, list[str]]) -> None:
    _, (first, second) = repeated
    assert run("logs", "again/0", "--json").json["taskId"] == second
    assert run("logs", "again/0", "--attempt", "1", "--json").json["taskId"] == first
    assert run("logs", first, "--json").json["taskId"] == first
    wrong = run("logs", "again", "--attempt", "9")
    assert (wrong.code, "1, 2" in wrong.err) == (4, True)


def test_task_is_shown_with_its_story(run: Run, repeated: tuple[str, list[str]]) -> None:
    _, (first, second) = repeated
    shown = run("task", "show", "again/0").out
    assert re.search(r"^state +WAITING *$", shown, re.MULTILINE)
    assert re.search(r"^message +failure 2 *$", shown, re.MULTILINE)
    assert "ended: failure 2" in shown
    shown = run("task", "show", first).out
    assert re.search(r"^state +FAILED *$", shown, re.MULTILINE)
    assert run("task", "show", second, "--json").json["attempt"] == 2


def test_kill_says_that_a_waiting_shard_does_not_start_again(run: Run, repeated: tuple[str, list[str]]) -> None:
    name, _ = repeated
    assert "next attempt" in run("tasks", "--state", "WAITING").out
    said = run("kill", "again/0").out
    assert f"shard 0 of {name} waited for its next attempt, and does not start again" in said.replace("\n", " ")
    assert run("runs", "again", "--json").json[0]["state"] == "KILLED"


def test_run_is_cancelled(run: Run, loop: FakeLoop, repeated: tuple[str, list[str]]) -> None:
    name, _ = repeated
    loop.offer()
    assert loop.tick(600_000)
    assert run("run", "cancel", name).out == f"run {name} is cancelled; running shards that are being killed: 1\n"
    (task,) = loop.scheduler.tasks.values()
    loop.update(task.id, "TASK_KILLED")
    again = run("run", "cancel", name)
    assert (again.code, "has ended" in again.err) == (1, True)


def test_explanation_says_when_the_next_attempt_is_and_why_the_last_run_failed(
    run: Run, repeated: tuple[str, list[str]]
) -> None:
    name, _ = repeated
    run("kill", "again/0")
    assert f"the last run, {name}: shard 0 is KILLED" in run("explain", "again").out.replace("\n", " ")


def told(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The files of each task. stdout and stderr were written in turns."""
    files = {
        "stdout": b"one\nthree\nfour", "stdout.times": b"0 1000\n4 3000\n10 4000\n",
        "stderr": b"two\n", "stderr.times": b"0 2000\n",
    }  # fmt: skip

    async def read(request: LogRequest) -> LogChunk:
        if request.stream not in files:
            raise NotFound("no output", field="taskId")
        data = files[request.stream]
        offset = request.offset if request.offset >= 0 else max(0, len(data) + request.offset)
        return LogChunk(data[offset : offset + request.limit], offset, len(data))

    monkeypatch.setattr(sys.modules[__name__], "_read", read)
    return files


def test_both_streams_are_printed_in_the_order_of_time(
    run: Run, loop: FakeLoop, app: Path, streams: dict[str, bytes]
) -> None:
    run("app", "add", str(app))
    task = launch(loop)[0]
    both = run("logs", "hello/0")
    assert (both.out, both.err) == ("one\nthree\nfour", "two\n")
    assert run("logs", "hello/0", "--stdout").err == run("logs", "hello/0", "--stderr").out == ""
    marked = run("logs", "hello/0", "-t").out.splitlines()
    assert marked == [f"{told(1)} out one", f"{told(2)} err two", f"{told(3)} out three", f"{told(4)} out four"]
    assert run("logs", "hello/0", "-t", "--tail", "2").out.splitlines() == marked[2:]
    assert run("logs", "hello/0", "-t", "--since", told(2)).out.splitlines() == marked[1:]
    found = run("logs", "hello/0", "--json").json
    assert (found["taskId"], found["stream"], found["text"]) == (task, "both", "one\ntwo\nthree\nfour")
    assert run("logs", "hello/0", "--stderr", "--json").json["text"] == "two\n"
    assert [line["text"] for line in found["lines"]] == ["one\n", "two\n", "three\n", "four"]
    del streams["stdout.times"], streams["stderr.times"]
    assert run("logs", "hello/0", "-t").out.splitlines()[-1].split() == ["-", "err", "two"], "an older executor"
    for wrong in ((), ("hello", "--run", "x"), ("hello", "--since", "1h", "--tail", "1"), ("--app", "demo", "-f")):
        assert run("logs", *wrong).code == 2, wrong


def test_output_of_a_run_and_of_an_app_names_the_shards(
    run: Run, loop: FakeLoop, app: Path, streams: dict[str, bytes]
) -> None:
    run("app", "add", str(app))
    launch(loop)
    (found,) = run("runs", "--json").json
    lines = run("logs", "--run", found["id"].partition("@")[0]).out.splitlines()
    assert lines[:4] == [f"{mark} hello/0: {text}" for mark, text in ORDER]
    assert lines[4:] == [f"{mark} hello/1: {text}" for mark, text in ORDER]
    assert sorted(run("logs", "--app", "demo").out.splitlines()) == sorted(lines)
    assert len(run("logs", "--app", "demo", "--json").json) == 2
    assert run("logs", "--app", "absent").code == 4


ORDER = [("out", "one"), ("err", "two"), ("out", "three"), ("out", "four")]


def test_followed_output_ends_with_the_end_of_the_task(
    run: Run, loop: FakeLoop, app: Path, streams: dict[str, bytes]
) -> None:
    run("app", "add", str(app))
    task = launch(loop)[0]
    loop.update(task, "TASK_FAILED", "no space left")
    found = run("logs", task, "-f", "-t")
    assert sorted(line.split(" ", 1)[1] for line in found.out.splitlines()) == sorted(f"{a} {b}" for a, b in ORDER)
    assert found.err == f"(task {task} is FAILED: no space left)\n"


def test_silent_task_has_an_empty_log(run: Run, loop: FakeLoop, app: Path, streams: dict[str, bytes]) -> None:
    run("app", "add", str(app))
    task = launch(loop)[0]
    streams.clear()
    assert run("logs", task) == Result(0, "", ""), "it may still print"
    loop.update(task, "TASK_FINISHED")
    silent = run("logs", task)
    assert (silent.code, silent.out, "printed nothing" in silent.err) == (0, "", True)
    assert run("logs", task, "-f").err.endswith(f"(task {task} is FINISHED)\n")
