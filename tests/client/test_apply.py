"""`jobcloud apply`, `export` and whole registration by `app add`, against a live server."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.api_kit import FakeLoop, InProcess, job_body, make_api, package_bytes

from jobcloud.client import apps, cli, documents
from jobcloud.client.export import exported
from jobcloud.client.http import Client
from jobcloud.ports import TlsFiles
from jobcloud.server.api import ApiOptions, Notices
from jobcloud.server.packages import PackageStore
from jobcloud.server.urls import UrlPolicy

APP = """
app:
  appName: demo
  cpuCount: 0.5
  memoryMB: 64
jobs:
- jobName: hello
  jobClass: hello:Hello
  jobType: SIMPLE
  jobExecutionType: TRANSIENT
  cron: 0/5 * * * * ?
  shardingTotalCount: 2
  timeoutSeconds: 1h30m
  cpuCount: 0.1
  memoryMB: 32
"""
JOB = APP.partition("jobs:\n")[2]


class Shell:
    """Runs command lines against an API in this process."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], **more: Any
    ) -> None:
        self.loop = FakeLoop()
        self.loop.subscribe()
        self.folder = folder
        self.packages = PackageStore(folder / "packages", check=lambda path, wheel=False: _inspect(path, wheel))
        self._capsys = capsys
        options = ApiOptions(job_urls=UrlPolicy(hosts=("*",)))
        self.notices = Notices()
        api = make_api(folder, self.loop, packages=self.packages, options=options, notices=self.notices, **more)
        transport: httpx.BaseTransport = InProcess(api)

        def connect(url: str, token: str = "", tls: TlsFiles | None = None) -> Client:
            return Client("http://127.0.0.1", token, transport=transport)

        monkeypatch.setattr("jobcloud.client.http.Client", connect)
        self.client = connect("")

    def __call__(self, *arguments: str | Path) -> tuple[int, str, str]:
        """(exit code, standard output, standard error)"""
        with pytest.raises(SystemExit) as ended:
            cli.main([str(one) for one in arguments])
        printed = self._capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    def app(self, name: str = "demo", text: str = APP, manifest: str = "jobcloud.yaml") -> Path:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        (folder / "hello.py").write_text("class Hello: ...\n")
        (folder / manifest).write_text(text)
        return folder


def _inspect(path: Path, wheel: bool) -> Any:
    from jobcloud.executor.package import inspect

    return inspect(path, wheel=wheel)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    for name in ("JOBCLOUD_SERVER", "JOBCLOUD_TOKEN", "JOBCLOUD_TEAM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    return Shell(tmp_path, monkeypatch, capsys)


def test_app_directory_is_applied_once_and_shows_each_difference(shell: Shell) -> None:
    app = shell.app()
    code, out, _ = shell("apply", "-f", app, "--dry-run")
    assert (code, "+ app demo\n+ job hello\n" in out, "dry run" in out) == (0, True, True)
    assert (shell.loop.scheduler.apps, shell.packages.stored()) == ({}, [])
    assert shell("apply", "-f", app / "jobcloud.yaml")[:2] == (0, "+ app demo\n+ job hello\n2 added\n")
    assert shell.loop.scheduler.jobs["hello"].timeout_ms == 5_400_000
    assert "nothing to change (2 unchanged)" in shell("apply", "-f", app)[1]
    shell.app(text=APP.replace("cpuCount: 0.1", "cpuCount: 0.25"))
    assert "~ job hello\n    cpuCount: 0.1 → 0.25\n" in shell("apply", "-f", app)[1]
    assert shell.loop.scheduler.jobs["hello"].resources.cpus == 250


@pytest.mark.parametrize("form", ["yaml", "yml", "toml", "json"])
def test_manifest_may_be_yaml_toml_or_json(shell: Shell, form: str) -> None:
    value = documents.parse(APP.encode(), "a.yaml").value
    toml = "[app]\n" + "".join(f"{key} = {json.dumps(item)}\n" for key, item in value["app"].items())
    toml += "[[jobs]]\n" + "".join(f"{key} = {json.dumps(item)}\n" for key, item in value["jobs"][0].items())
    texts = {"toml": toml, "json": json.dumps(value)}
    app = shell.app(text=texts.get(form, APP), manifest=f"jobcloud.{form}")
    assert shell("app", "add", app)[0] == 0
    assert shell.loop.scheduler.jobs["hello"].timeout_ms == 5_400_000
    sha256 = shell.loop.scheduler.apps["demo"].package.sha256
    path = shell.packages.find(sha256)
    assert path is not None
    assert b"jobcloud." not in path.read_bytes(), "the package does not contain the manifest"


@pytest.mark.parametrize("command", [("apply", "-f"), ("app", "add")])
def test_one_bad_job_registers_nothing_and_is_named_with_its_line(shell: Shell, command: tuple[str, ...]) -> None:
    second = JOB.replace("hello\n", "second\n", 1).replace("0/5 * * * * ?", "never")
    app = shell.app(text=APP + second)
    code, out, err = shell(*command, app)
    assert (code, out) == (1, "")
    assert f"{app}/jobcloud.yaml:20: job second: cron: " in err
    assert (shell.loop.scheduler.apps, shell.packages.stored()) == ({}, [])
    missing = JOB.replace("hello\n", "third\n", 1).replace("hello:Hello", "hello:Goodbye")
    shell.app(text=APP + missing)
    code, _, err = shell(*command, app)
    assert (code, "job third: jobClass: hello:Goodbye is not in the package" in err) == (1, True)
    assert not shell.loop.scheduler.apps
    code, _, err = shell(*command, app, "--json")
    assert json.loads(err)["errors"][0]["field"].endswith("job third: jobClass")


def test_jobs_that_left_the_files_are_named_and_pruned(shell: Shell) -> None:
    app = shell.app(text=APP + JOB.replace("hello\n", "old\n", 1))
    shell("apply", "-f", app)
    shell.app()
    assert "job old is registered, but not in the manifest" in shell("app", "add", app)[1]
    code, out, _ = shell("apply", "-f", app)
    assert (code, "! job old: registered, but not in the files (--prune removes it)" in out) == (0, True)
    assert "- job old\n" in shell("apply", "-f", app, "--prune", "--dry-run")[1]
    assert "old" in shell.loop.scheduler.jobs
    assert "1 removed" in shell("apply", "-f", app, "--prune")[1]
    assert set(shell.loop.scheduler.jobs) == {"hello"}


def test_directory_of_files_and_apps_is_applied_together(shell: Shell) -> None:
    sha256 = shell.client.upload(_written(shell.folder / "package.zip"))["sha256"]
    folder = shell.folder / "all"
    folder.mkdir()
    shell.app("all/demo")
    (folder / "more.json").write_text(
        json.dumps(
            {
                "apps": [{"appName": "bank", "team": "money", "appURL": f"package:sha256:{sha256}"}],
                "jobs": [
                    job_body("sum", "bank", team="money"),
                    {**documents.parse(JOB.encode(), "a.yaml").value[0], "jobName": "second", "appName": "demo"},
                ],
            }
        )
    )
    (folder / "README.md").write_text("not a manifest")
    code, out, err = shell("apply", "-f", folder)
    assert (code, err) == (0, "")
    assert "5 added" in out
    assert set(shell.loop.scheduler.jobs) == {"hello", "second", "money:sum"}


def _written(path: Path) -> Path:
    path.write_bytes(package_bytes())
    return path


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("apps: []\napp: {}\n", "wrong layout"),
        ("[]", "wrong layout"),
        ("job: []\n", "wrong layout"),
        ("jobs: {}\n", r"jobs is no list"),
        ("app: {cpuCount: 1}\n", "has no appName"),
        ("apps:\n- appName: x\n", "a.yaml:2: app x: appURL: is missing"),
        ("jobs:\n- jobName: j\n\n- jobName: j\n", "a.yaml:4: job j: is given twice, also in"),
        ("jobs:\n- jobName: j\n  timeoutSeconds: soon\n", "a.yaml:3: j: timeoutSeconds: 'soon' is not a duration"),
        ("app: {appName: x, appURL: u}\njobs:\n- jobName: j\n  appName: y\n", "a.yaml:4: job j: appName: names"),
        ("jobs: [{cron: 1979-05-27}", "not valid YAML"),
    ],
)  # fmt: skip
def test_malformed_file_is_a_usage_error(shell: Shell, text: str, says: str) -> None:
    file = shell.folder / "a.yaml"
    file.write_text(text)
    code, _, err = shell("apply", "-f", file)
    assert code == 2
    assert says in err


def test_missing_or_misspelt_manifest_is_an_error(shell: Shell) -> None:
    app = shell.app(manifest="jobclod.yaml")
    code, _, err = shell("app", "add", app)
    assert (code, "rename jobclod.yaml to jobcloud.yaml" in err) == (2, True)
    (app / "jobclod.yaml").rename(app / "jobcloud.tml")
    assert "rename jobcloud.tml to jobcloud.toml" in shell("app", "add", app)[2]
    (app / "jobcloud.tml").unlink()
    assert "has no manifest (write jobcloud.toml, or give --no-jobs)" in shell("app", "add", app)[2]
    assert not shell.loop.scheduler.apps
    assert shell("app", "add", app, "--no-jobs")[0] == 0
    for name in ("jobcloud.toml", "jobcloud.json"):
        (app / name).write_text("{}" if name.endswith("json") else "")
    assert "keep one manifest" in shell("app", "add", app)[2]
    assert shell("apply", "-f", shell.folder / "run")[0] == 2


def test_package_over_the_limit_says_so(shell: Shell) -> None:
    shell.packages.max_bytes = 20
    code, _, err = shell("app", "add", shell.app())
    assert code == 2
    assert "the server takes at most 20" in err
    assert "packages.max_bytes" in err
    assert not shell.loop.scheduler.apps


def test_export_is_what_apply_takes(shell: Shell) -> None:
    shell("apply", "-f", shell.app())
    other = shell.app("bank", APP.replace("demo", "bank").replace("jobName: hello", "jobName: sum"))
    shell("--team", "money", "app", "add", other)
    for arguments in ((), ("--format", "json"), ("--team", "money"), ("--app", "demo")):
        code, out, _ = shell("export", *arguments)
        assert code == 0
        file = shell.folder / f"export.{'json' if 'json' in arguments else 'yaml'}"
        file.write_text(out)
        code, told, _ = shell("apply", "-f", file, "--dry-run")
        assert (code, "nothing to change" in told) == (0, True)
        assert "retryCount" not in out, "defaults are left out"
    assert shell("export", "--app", "none")[0] == 4
    assert json.loads(shell("--team", "money", "export", "--json")[1])["jobs"][0]["jobName"] == "sum"


ODD = st.sampled_from(["", "no", "12:30", "010", "1e3", "~", " x ", "a: b #c", "é\n\t", "-", "2026-01-01"])


@st.composite
def random_jobs(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(["SIMPLE", "SCRIPT", "HTTP"]))
    daemon = draw(st.booleans())
    fields: dict[str, Any] = {
        "jobType": kind,
        "jobExecutionType": "DAEMON" if daemon else "TRANSIENT",
        "shardingTotalCount": draw(st.integers(1, 5)),
        "cpuCount": draw(st.integers(1, 4_000)) / 1000,
        "gpuCount": draw(st.integers(0, 2)),
        "jobParameter": draw(ODD | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=9)),
        "description": draw(ODD),
        "timeoutSeconds": draw(st.integers(0, 10_000)) / 1000,
        "killGraceSeconds": draw(st.integers(0, 10_000)) / 1000,
        "retryJitter": draw(st.integers(0, 1_000)) / 1000,
        "failover": draw(st.booleans()),
        "timeZone": draw(st.sampled_from(["UTC", "Europe/Berlin"])),
        "catchUp": draw(st.sampled_from(["skip", "once", "all"])),
        "priority": draw(st.integers(-1000, 1000)),
        "shardingItemParameters": draw(st.sampled_from(["", "0=a", {"0": "a=b,c"}, {"0": "no"}])),
        "jobProperties": {"job_exception_handler": draw(st.sampled_from(["default", "ignore"]))},
    }
    if kind == "SCRIPT":
        fields |= {"scriptCommandLine": "bin/x '12:30'", "jobClass": ""}
    elif kind == "HTTP":
        fields |= {
            "httpUri": "https://example.org/x",
            "httpMethod": draw(st.sampled_from(["GET", "PUT"])),
            "jobClass": "",
        }
    elif draw(st.booleans()):
        fields |= {"listener": ["hello:Hello"]}
    if not daemon and draw(st.booleans()):
        fields |= {
            "distributedListener": {"class": "hello:Hello", "startedTimeoutMilliseconds": draw(st.integers(0, 9))}
        }
    return fields


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(random_jobs(), min_size=1, max_size=3), st.sampled_from([0, 2, "each"]), ODD)
def test_export_and_apply_of_random_jobs_change_nothing(
    shell: Shell, jobs: list[dict[str, Any]], executors: int | str, description: str
) -> None:
    sha256 = shell.client.upload(_written(shell.folder / "package.zip"))["sha256"]
    app = {"appName": "demo", "appURL": f"package:sha256:{sha256}", "executors": executors, "description": description}
    shell.client.apply([app], [job_body(f"j{number}", **job) for number, job in enumerate(jobs)], prune=True)
    text = documents.to_yaml(exported(shell.client.apps(), shell.client.jobs()))
    (shell.folder / "all.yaml").write_text(text)
    done = apps.apply(shell.client, apps.collect(shell.folder / "all.yaml"), dry_run=True)
    assert {item["action"] for item in done["items"]} == {"unchanged"}, text


def test_progress_of_an_upload_is_told_until_its_end(shell: Shell) -> None:
    told: list[tuple[str, int, int]] = []
    app = shell.app()
    (app / "data.bin").write_bytes(bytes(range(256)) * 4_000)
    entries = apps.collect(app)
    apps.apply(shell.client, entries, dry_run=True, sent=lambda *one: told.append(one))
    assert told == []
    apps.apply(shell.client, entries, sent=lambda *one: told.append(one))
    done, size = [one for _, one, _ in told], told[0][2]
    assert done == sorted(done)
    assert done[-1] == size
    told.clear()
    apps.apply(shell.client, entries, sent=lambda *one: told.append(one))
    assert told == [], "the server has the package"


def test_app_goes_back_to_an_earlier_version(shell: Shell) -> None:
    folder = shell.app()
    assert shell("app", "add", folder)[0] == 0
    assert shell("app", "rollback", "demo")[0] == 4
    old = shell.loop.scheduler.apps["demo"].package.sha256
    (folder / "more.py").write_text("")
    assert shell("app", "update", folder)[0] == 0
    lines = shell("app", "versions", "demo")[1].splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["2", "current"], ["1", lines[2].split()[1]]]
    assert ["token:none" in line for line in lines] == [False, True, True], "the sender"
    code, out, _ = shell("app", "rollback", "demo")
    assert (code, out.splitlines()[0]) == (0, "app demo has version 1 again")
    assert shell.loop.scheduler.apps["demo"].package.sha256 == old
    assert shell("app", "rollback", "demo", "1")[0] == 0
    assert shell("app", "rollback", "demo")[0] == 4, "there is no version before the first"
    assert [one["current"] for one in json.loads(shell("app", "versions", "demo", "--json")[1])] == [False, True]


_DOC = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
(_LIMITS,) = re.findall(r"```yaml\n(pools:\n.*?)```", _DOC, re.DOTALL)
LIMITED = (
    APP.replace("  cron: 0/5 * * * * ?\n", "  cron: 0 0 8 * * ?\n  skipOn: [closed]\n  pools: [orders-db]\n") + _LIMITS
)
ICAL = (
    "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:x\r\nBEGIN:VEVENT\r\nUID:u\r\nDTSTAMP:20230101T000000Z\r\n"
    "DTSTART;VALUE=DATE:20231224\r\nRRULE:FREQ=YEARLY\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
)


@pytest.mark.parametrize("command", [("apply", "-f"), ("app", "add")])
def test_manifest_may_declare_the_pools_and_calendars_of_its_jobs(shell: Shell, command: tuple[str, ...]) -> None:
    app = shell.app(text=LIMITED)
    (app / "closed.ics").write_text(ICAL)
    code, out, err = shell("apply", "-f", app, "--dry-run")
    assert (code, err) == (0, "")
    assert "+ pool orders-db\n+ calendar closed\n+ app demo\n+ job hello\n" in out
    assert shell.loop.scheduler.pools == {}
    assert shell(*command, app)[0] == 0
    assert shell.loop.scheduler.pools["orders-db"].slots == 5
    assert len(shell.loop.scheduler.calendars["closed"].days) >= 6
    shell.app(text=LIMITED.replace("slots: 5", "slots: 3"))
    assert "~ pool orders-db\n    slots: 5 → 3\n" in shell("apply", "-f", app)[1]
    # All that the server has is exported in the form that changes nothing, as is what one app uses.
    for arguments in ((), ("--app", "demo")):
        out = shell("export", *arguments)[1]
        assert "poolName: orders-db" in out
        (shell.folder / "all.yaml").write_text(out)
        code, told, _ = shell("apply", "-f", shell.folder / "all.yaml")
        assert (code, "nothing to change (4 unchanged)" in told) == (0, True), told


def test_pools_and_calendars_of_a_file_belong_to_its_team(shell: Shell) -> None:
    file = shell.folder / "limits.json"
    pools = [{"poolName": "db", "slots": 1}, {"poolName": "all", "slots": 2, "team": "*"}]
    calendars = [{"calendarName": "closed", "days": ["2026-12-24"]}]
    file.write_text(json.dumps({"pools": pools, "calendars": calendars}))
    assert shell("--team", "money", "apply", "-f", file)[0] == 0
    assert set(shell.loop.scheduler.pools) == {"money:db", "*:all"}
    assert set(shell.loop.scheduler.calendars) == {"money:closed"}
    found = json.loads(shell("--team", "money", "export", "--json")[1])
    assert found == {
        "pools": [{"poolName": "db", "team": "money", "slots": 1}],
        "calendars": [{**calendars[0], "team": "money"}],
        "apps": [],
        "jobs": [],
    }


def test_wrong_pool_or_calendar_is_named_with_its_line(shell: Shell) -> None:
    app = shell.app(text=LIMITED.replace("slots: 5", "slots: -5"))
    code, _, err = shell("apply", "-f", app)
    assert code == 2
    assert f"{app}/jobcloud.yaml" in err
    assert "icalFile" in err
    (app / "closed.ics").write_text(ICAL)
    code, _, err = shell("apply", "-f", app)
    assert code == 1
    assert "pool orders-db: slots: " in err
    assert re.search(r"jobcloud\.yaml:\d+: pool", err)
    assert shell.loop.scheduler.pools == {}


WORKFLOWS = """
workflows:
- workflowName: etl
  nodes:
  - job: hello
  - {job: alarm, after: [{node: hello, on: failure}]}
  - {job: load, name: last, after: [hello, alarm], join: any}
"""


def test_workflows_of_a_manifest_are_applied_exported_and_applied_again(shell: Shell) -> None:
    more = "".join(JOB.replace("hello\n", f"{name}\n", 1) for name in ("alarm", "load"))
    app = shell.app(text=APP + more + WORKFLOWS)
    assert "+ workflow etl\n" in shell("apply", "-f", app)[1]
    assert [node.name for node in shell.loop.scheduler.workflows["etl"].nodes] == ["hello", "alarm", "last"]
    for options in ((), ("--app", "demo")):
        code, out, err = shell("export", *options)
        assert code == 0, err
        assert documents.parse(out.encode(), "a.yaml").value["workflows"] == [
            {
                "workflowName": "etl",
                "nodes": [
                    {"job": "hello"},
                    {"job": "alarm", "after": [{"node": "hello", "on": "failure"}]},
                    {"job": "load", "name": "last", "after": ["hello", "alarm"], "join": "any"},
                ],
            }
        ]
        (shell.folder / "all.yaml").write_text(out)
        assert "nothing to change" in shell("apply", "-f", shell.folder / "all.yaml")[1]


def test_a_wrong_workflow_of_a_manifest_is_named_with_its_line(shell: Shell) -> None:
    app = shell.app(text=APP + WORKFLOWS)
    code, _, err = shell("apply", "-f", app)
    assert code == 1
    assert f"{app}/jobcloud.yaml:21: workflow etl: nodes.1.job: there is no job alarm" in err
    assert shell.loop.scheduler.apps == {}
