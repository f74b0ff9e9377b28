"""`jobcloud doctor`: what is wrong, and what to do about it."""

from __future__ import annotations

import json
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from tests.client.test_apply import APP, Shell
from tests.oidc_kit import FakeProvider
from tests.tls_kit import Authority

from jobcloud import zones
from jobcloud.client import doctor
from jobcloud.client.http import ApiError
from jobcloud.findings import Condition, Finding
from jobcloud.server import doctor as machine
from jobcloud.server import settings
from jobcloud.tracing import service


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setattr(zones, "warning", lambda: "")
    return Shell(tmp_path, monkeypatch, capsys)


def conditions(found: list[dict[str, str]]) -> dict[str, str]:
    return {one["subject"]: one["condition"] for one in found if one["condition"] != "ok"}


def test_healthy_server_has_no_problem_and_no_agents_are_one(shell: Shell) -> None:
    code, out, _ = shell("doctor", "--json")
    assert (code, conditions(json.loads(out))) == (1, {"agents": "problem"})
    shell.loop.offer()
    code, out, _ = shell("doctor")
    assert (code, "problem" in out) == (0, False)
    assert "ok       agents: 1 have made offers" in out


def test_server_that_is_not_connected_or_does_not_lead_is_a_problem(shell: Shell) -> None:
    shell.loop.offer()
    shell.loop.well, shell.loop.problem = False, "the store is away"
    code, out, _ = shell("doctor")
    assert code == 1
    assert "does not lead: the store is away" in out
    assert "→ ask the leader" in out


def test_valid_token_without_the_right_to_the_cluster_is_no_problem(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: object) -> None:
        raise ApiError(403, {"detail": "user:ann has no role with the verb view-cluster"})

    monkeypatch.setattr(type(shell.client), "cluster", refuse)
    code, out, _ = shell("doctor")
    assert (code, "ok       token: accepted" in out) == (0, True)
    assert "warning  rights: agents, state and executors are not checked: user:ann has no role" in out


def test_clocks_that_are_apart_and_lost_records_are_problems(shell: Shell) -> None:
    from jobcloud.ports import StoredFault

    shell.loop.offer()
    now = datetime.now(UTC)
    shell.loop.faults = (StoredFault("job/x", "is not JSON"),)
    assert not list(doctor._clock(None, now))
    found = [*doctor._clock(now + timedelta(seconds=60), now), *doctor.server(shell.client, now)]
    problems = {finding.subject: finding for finding in found if finding.condition is Condition.PROBLEM}
    assert set(problems) == {"clock", "state"}
    assert "60 s apart" in problems["clock"].text
    assert "job/x: is not JSON" in problems["state"].text
    assert all(finding.fix for finding in problems.values())


def executors(shell: Shell) -> Finding:
    (found,) = [finding for finding in doctor.server(shell.client) if finding.subject == "executors"]
    return found


def end_attempts(shell: Shell, reason: str) -> None:
    """End every attempt of the app's job, until its shards wait."""
    for _ in range(8):
        shell.loop.offer()
        for task in shell.loop.tick(60_000):
            shell.loop.update(task, "TASK_FAILED", "executor terminated", reason)
    shell.loop.tick(5_000)


def test_job_whose_executors_do_not_start_is_named(shell: Shell) -> None:
    shell("app", "add", shell.app(text=APP))
    end_attempts(shell, "REASON_EXECUTOR_TERMINATED")
    found = executors(shell)
    assert found.condition is Condition.PROBLEM
    assert "executors of app demo do not start" in found.text
    assert "python3 --version" in found.fix


def test_job_that_waits_for_its_next_attempt_is_no_problem_of_executors(shell: Shell) -> None:
    shell("app", "add", shell.app(text=APP))
    end_attempts(shell, "")
    assert any(job["waitingShards"] for job in shell.client.jobs())
    assert executors(shell).condition is Condition.OK


def test_job_that_the_scheduler_could_not_handle_is_named(shell: Shell) -> None:
    shell("app", "add", shell.app(text=APP))
    end_attempts(shell, "")
    (job,) = [job["jobName"] for job in shell.client.jobs() if job["waitingShards"]]
    shell.loop.scheduler._state.faults[job] = "ZeroDivisionError: division by zero"
    (found,) = [finding for finding in doctor.server(shell.client) if finding.subject == "jobs"]
    assert (found.condition, found.text) == (Condition.PROBLEM, f"job {job}: ZeroDivisionError: division by zero")
    assert executors(shell).condition is Condition.OK


def test_limit_of_examined_jobs_is_told(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell("app", "add", shell.app(text=APP))
    end_attempts(shell, "")
    monkeypatch.setattr(doctor, "_MAX_JOBS", 0)
    assert executors(shell).text.startswith("none of the first 0 waiting jobs")


def test_machine_is_examined_for_a_scheduler(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        wanted = settings.load(None, {"data": data, "http.port": port, "mesos.master": f"127.0.0.1:{port}"})
        found = list(machine.examine(wanted))
        assert {f.subject: f.condition for f in found if f.subject in ("data", "mesos")} == {
            "data": Condition.WARNING,
            "mesos": Condition.OK,
        }
        assert "http.port" in next(f for f in found if f.subject == "ports" and f.condition != "ok").text
        traced = settings.load(None, {"tracing.endpoint": f"http://127.0.0.1:{port}/v1/traces"})
        for installed, condition in ((True, Condition.OK), (False, Condition.PROBLEM)):
            monkeypatch.setattr(service, "installed", lambda installed=installed: installed)
            (tracing,) = [f for f in machine.examine(traced) if f.subject == "tracing"]
            assert (tracing.condition, "pip install" in tracing.fix) == (condition, not installed)
    assert "cannot be reached" in next(f.text for f in machine.examine(wanted) if f.subject == "mesos")
    data.chmod(0o700)
    monkeypatch.setattr(machine, "NEEDED_BYTES", 1 << 60)
    assert next(f for f in machine.examine(wanted) if f.subject == "data").condition is Condition.PROBLEM
    code, out, _ = shell("doctor", "--zookeeper", "127.0.0.1:1", "--json")
    (wrong,) = [one for one in json.loads(out) if one["subject"] == "settings"]
    assert (code, wrong["condition"]) == (1, "problem")
    assert wrong["text"].startswith("data: is required")


def test_archive_that_cannot_be_used_is_a_problem(tmp_path: Path) -> None:
    def found(**flags: str) -> list[tuple[str, str]]:
        wanted = settings.load(flags={f"archive.{name}": value for name, value in flags.items()})
        return [(one.condition.value, one.text) for one in machine.examine(wanted) if one.subject == "archive"]

    assert found() == []
    assert found(url=str(tmp_path / "logs")) == [("ok", f"{tmp_path}/logs can be used")]
    assert not (tmp_path / "logs").exists()
    (tmp_path / "file").touch()
    ((condition, text),) = found(url=f"{tmp_path}/file/logs")
    assert (condition, "cannot be written" in text) == ("problem", True)
    ((condition, text),) = found(url="s3://logs/x", endpoint="http://127.0.0.1:1")
    assert (condition, text.startswith(("s3://logs/x: ", "the library obstore is not installed"))) == ("problem", True)


def test_identity_provider_that_cannot_be_used_is_a_problem_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    issuer = "https://id.example.org"
    wanted = settings.load(flags={"identity.oidc_issuer": issuer, "identity.oidc_client_id": "console"})
    fake = FakeProvider()
    monkeypatch.setattr(machine, "Provider", lambda options: fake.provider())

    def found() -> list[tuple[str, str]]:
        return [(one.condition.value, one.text) for one in machine.examine(wanted) if one.subject == "identity"]

    fake.algorithms = ["RS256"]
    assert found() == [("ok", f"{issuer}: keys: 1, algorithms: RS256")]
    fake.changes = {"issuer": "https://other.example.org"}
    ((condition, text),) = found()
    assert condition == "problem"
    assert "calls itself 'https://other.example.org'; set identity.oidc_issuer to exactly this text" in text
    fake.answers = {"/.well-known/openid-configuration": httpx.ConnectError("Name or service not known")}
    assert "cannot be reached: Name or service not known" in found()[0][1]


def test_certificates_are_examined(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = authority.issue()
    pair = {"http.tls_cert_file": files.cert, "http.tls_key_file": files.key}
    assert [(one.condition, one.subject) for one in machine._tls(settings.load(flags=pair))] == [
        ("ok", "http.tls_cert_file")
    ]
    old = authority.issue("localhost", file="old", not_after=datetime.now(UTC) - timedelta(days=1))
    pair = {"artifacts.tls_cert_file": old.cert, "artifacts.tls_key_file": old.key}
    (found,) = machine._tls(settings.load(flags=pair))
    assert (found.condition, found.subject, "expired" in found.text) == ("warning", "artifacts.tls_cert_file", True)
    pair = {"http.tls_cert_file": files.cert, "http.tls_key_file": old.key}
    (found,) = machine._tls(settings.load(flags=pair))
    assert found.condition == "problem"
    (token := tmp_path / "token").write_text("t" * 32)
    token.chmod(0o600)
    (found,) = machine._tls(settings.load(flags={"http.host": "10.0.0.7", "http.token_file": token}))
    assert (found.condition, found.subject) == ("warning", "http.tls")
