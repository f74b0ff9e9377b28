"""The hand-over of secrets: once, for one task, from its agent, for a minute. The scheduler is a real core."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from httpx import Client, Response
from msgspec import structs
from tests.api_kit import FakeLoop, client_of
from tests.audit_kit import FakeDisk, auditing
from tests.core_world import make_app, make_job

from jobcloud.audit.limits import REFUSED_EACH
from jobcloud.errors import Unavailable
from jobcloud.messages import Accept, Kind, Launch, PutApp, PutJob, Save, UseSecrets
from jobcloud.model import Task, TaskState
from jobcloud.scheduler import Scheduler, Stored
from jobcloud.server.api import create_artifacts
from jobcloud.server.api.secrets import SecretsApi
from jobcloud.server.packages import PackageStore
from jobcloud.server.records import decode, encode
from jobcloud.server.secrets.recording import recorder
from jobcloud.server.secrets.service import OnRead, Read, Refusal, SecretOptions, Secrets, is_at
from jobcloud.server.secrets.sources import Missing, SourceFailed

CANARY = b"c4n4ry-v4lue"
OPTIONS = SecretOptions(b"k" * 32, "jobcloud", ("https://one.test:8898/secrets", "https://two.test:8898/secrets"))


class Memory:
    """A source in memory. `problem` is the text of its failure."""

    def __init__(self) -> None:
        self.values = {("default", "db-password"): CANARY, ("default", "tls-key"): b"\xff\x00"}
        self.problem = ""
        self.during: Callable[[], object] = lambda: None

    def read(self, team: str, name: str) -> bytes:
        self.during()
        if self.problem:
            raise SourceFailed(self.problem)
        if (team, name) not in self.values:
            raise Missing
        return self.values[team, name]


class World:
    """A scheduler with one job with secrets and its first launch, and the listener for executors."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.loop, self.source = FakeLoop(), Memory()
        self.reads: list[tuple[str, str, str, str, Read]] = []
        self.records: list[OnRead] = []
        self.during_use: Callable[[], object] = lambda: None
        self.folder = folder
        self.options = replace(OPTIONS, **options)
        self.secrets, self.api = self.scheduler()
        self.loop.subscribe()
        self.loop.command(lambda at: PutApp(at, make_app()))

    def scheduler(self) -> tuple[Secrets, Client]:
        """Another process on the same state: a leader after a fail-over."""
        secrets = Secrets(self.source, self.options, self.task, self.use, lambda: self.loop.now, self.on_read)
        app = create_artifacts(PackageStore(self.folder / "packages"), secrets=SecretsApi(secrets))
        return secrets, client_of(app, url="http://agents-see-this.test")

    def task(self, task_id: str) -> Task | None:
        return self.loop.ask(lambda scheduler: scheduler.tasks.get(task_id))

    def use(self, task_id: str, agent_id: str) -> None:
        self.during_use()
        self.loop.command(lambda at: UseSecrets(at, task_id, agent_id))

    def on_read(self, task: str, secret: str, agent: str, client: str, outcome: Read) -> None:
        self.reads.append((task, secret, agent, client, outcome))
        for record in self.records:
            record(task, secret, agent, client, outcome)

    def launch(self, address: str = "127.0.0.1:5051", **job: Any) -> Launch:
        given = {"secrets": ("PASSWORD=secret:db-password", "key=secret-file:tls-key"), "cron": "0/5 * * * * ?", **job}
        known = bool(self.loop.scheduler.jobs)
        self.loop.command(lambda at: PutJob(at, make_job(**given), replace=known))
        self.loop.offer(address=address)
        self.loop.tick(6_000)
        self.loop.tick()
        accepted = [effect for effect in self.loop.effects if isinstance(effect, Accept)]
        return accepted[-1].launches[0]

    def token(self, launch: Launch) -> str:
        return str(json.loads(self.secrets.access(launch, "agent-1"))["token"])

    def ask(self, token: str, api: Client | None = None) -> Response:
        return (api or self.api).post("/secrets", headers={"Authorization": f"Bearer {token}"})

    @property
    def outcomes(self) -> list[tuple[str, str]]:
        return [(secret, outcome.value) for _, secret, _, _, outcome in self.reads]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_task_gets_its_secrets_once(world: World) -> None:
    launch = world.launch()
    access = json.loads(world.secrets.access(launch, "agent-1"))
    assert (access["urls"], access["seconds"]) == (list(OPTIONS.urls), 60)
    answer = world.ask(access["token"])
    assert answer.status_code == 200, answer.text
    values = {name: base64.b64decode(text) for name, text in answer.json()["secrets"].items()}
    assert values == {"db-password": CANARY, "tls-key": b"\xff\x00"}
    assert answer.headers["cache-control"] == "no-store"
    again = world.ask(access["token"])
    assert (again.status_code, "used before" in again.json()["problem"]) == (409, True)
    assert world.ask(world.token(launch)).status_code == 409, "a second token of the same task is no second use"
    assert world.outcomes[:3] == [("db-password", "given"), ("tls-key", "given"), ("db-password", "used")]
    assert world.reads[0][:4] == (launch.task_id, "db-password", "agent-1", "127.0.0.1")


def test_next_leader_knows_from_the_state_that_a_token_was_used(world: World) -> None:
    token = world.token(launch := world.launch())
    assert world.ask(token).status_code == 200
    loop = world.loop
    writes = [write for effect in loop.effects if isinstance(effect, Save) for write in effect.writes]
    stored = next(write.record for write in reversed(writes) if write.key == launch.task_id)
    assert stored is not None
    task = decode(Kind.TASK, launch.task_id, encode(Kind.TASK, stored))
    assert isinstance(task, Task)
    before = loop.scheduler
    state = Stored(
        apps=dict(before.apps), jobs=dict(before.jobs), job_states=dict(before.job_states),
        firings=dict(before.firings), executors=dict(before.executors), tasks={task.id: task},
    )  # fmt: skip
    loop.scheduler = Scheduler(before.policy, state, epoch=2, at=loop.now)
    answer = world.ask(token, world.scheduler()[1])
    assert (answer.status_code, "used before" in answer.json()["problem"]) == (409, True)


def test_nothing_is_handed_over_unless_the_use_is_stored(world: World) -> None:
    """Such as by a former leader, whose write is refused."""
    token = world.token(world.launch())

    def fail() -> None:
        raise Unavailable("another scheduler leads")

    world.during_use = fail
    answer = world.ask(token)
    assert (answer.status_code, "secrets" in answer.json()) == (503, False)
    assert world.reads == []
    world.during_use = lambda: None
    assert world.ask(token).status_code == 200, "the executor asks again"


def test_task_that_reports_while_the_source_is_read_gets_nothing(world: World) -> None:
    launch = world.launch()
    world.source.during = lambda: world.loop.update(launch.task_id, "TASK_RUNNING")
    assert world.ask(world.token(launch)).status_code == 409
    assert world.outcomes == [("db-password", "task_gone"), ("tls-key", "task_gone")]


def test_mark_of_the_use_outlasts_updates_that_change_no_state(world: World) -> None:
    launch = world.launch()
    token = world.token(launch)
    assert world.ask(token).status_code == 200
    for state in ("TASK_STAGING", "TASK_UNREACHABLE", "TASK_STAGING"):
        world.loop.update(launch.task_id, state)
    assert world.loop.scheduler.tasks[launch.task_id].state is TaskState.STAGING
    assert "used before" in world.ask(token).json()["problem"]


def test_each_attempt_gets_the_present_value(world: World) -> None:
    assert world.ask(world.token(world.launch())).status_code == 200
    world.source.values["default", "db-password"] = b"rotated"
    world.loop.update(next(iter(world.loop.scheduler.tasks)), "TASK_FINISHED")
    second = world.ask(world.token(world.launch()))
    assert base64.b64decode(second.json()["secrets"]["db-password"]) == b"rotated"


def test_token_expires_after_its_lifetime(world: World) -> None:
    token = world.token(world.launch())
    world.loop.now += 59_999
    world.source.problem = "away"
    assert world.ask(token).status_code == 502
    world.loop.now += 1
    answer = world.ask(token)
    assert (answer.status_code, answer.json()["problem"]) == (401, "the token for db-password, tls-key has expired")
    assert world.outcomes[-1] == ("tls-key", "expired")


@pytest.mark.parametrize("state", ["TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED", "TASK_FAILED", "TASK_UNREACHABLE"])
def test_task_that_has_reported_gets_nothing_from_any_leader(world: World, state: str) -> None:
    launch = world.launch()
    token = world.token(launch)
    world.loop.update(launch.task_id, state)
    for api in (world.api, world.scheduler()[1]):
        answer = world.ask(token, api)
        assert (answer.status_code, "not about to start" in answer.json()["problem"]) == (409, True)


def test_leader_after_a_fail_over_hands_over_what_its_predecessor_granted(world: World) -> None:
    token = world.token(world.launch())
    _, other = world.scheduler()
    assert world.ask(token, other).status_code == 200
    assert world.ask(token, other).status_code == 409


def test_token_of_another_cluster_key_or_task_is_refused(world: World) -> None:
    launch = world.launch()
    token = world.token(launch)
    for changes in ({"key": b"x" * 32}, {"cluster": "other"}):
        world.options = replace(OPTIONS, **changes)
        assert world.ask(token, world.scheduler()[1]).status_code == 401
    world.options = OPTIONS
    stranger = structs.replace(launch, task_id="report@-@0@-@READY@-@agent-1@-@x")
    assert world.ask(world.token(stranger)).status_code == 409
    moved = json.loads(world.secrets.access(launch, "agent-2"))["token"]
    assert world.ask(moved).status_code == 409, "the task runs on another agent"
    assert world.ask(token).status_code == 200, "none of these was a use of the token"


def test_token_works_from_the_address_of_the_agent_only(tmp_path: Path) -> None:
    world = World(tmp_path)
    answer = world.ask(world.token(world.launch(address="10.0.0.7:5051")))
    assert answer.status_code == 403
    assert "127.0.0.1, which is not the address of the task's agent" in answer.json()["problem"]
    assert world.outcomes == [("db-password", "other_address"), ("tls-key", "other_address")]
    open_world = World(tmp_path, check_address=False)
    assert open_world.ask(open_world.token(open_world.launch(address="10.0.0.7:5051"))).status_code == 200


@pytest.mark.parametrize(
    ("agent", "address", "same"),
    [
        ("10.0.0.7:5051", "10.0.0.7", True),
        ("10.0.0.7:5051", "::ffff:10.0.0.7", True),
        ("10.0.0.7:5051/slave(1)", "10.0.0.7", True),
        ("10.0.0.7:5051", "10.0.0.70", False),
        ("[fd00::7]:5051", "fd00::7", True),
        ("[fd00::7]:5051", "fd00:0::7", True),
        ("localhost:5051", "127.0.0.1", True),
        ("no-such-host.invalid:5051", "127.0.0.1", False),
        ("", "127.0.0.1", False),
        ("10.0.0.7:5051", "testclient", False),
    ],
)
def test_address_of_an_agent_is_compared(agent: str, address: str, same: bool) -> None:
    assert is_at(agent, address) is same


def test_missing_secret_or_source_that_is_down_is_named_without_a_value_and_spends_no_token(world: World) -> None:
    token = world.token(world.launch())
    key = world.source.values.pop(("default", "tls-key"))
    answer = world.ask(token)
    assert (answer.status_code, answer.json()) == (404, {"problem": "team default has no secret tls-key"})
    world.source.problem = "Vault: it answers with status 503"
    answer = world.ask(token)
    problem = "the secret db-password cannot be read: Vault: it answers with status 503"
    assert (answer.status_code, answer.json()) == (502, {"problem": problem})
    assert CANARY.decode() not in str(answer.content)
    world.source.problem, world.source.values["default", "tls-key"] = "", key
    assert world.ask(token).status_code == 200
    assert world.outcomes[:2] == [("tls-key", "missing"), ("db-password", "source_failed")]


def test_unexpected_error_of_a_source_shows_no_value(world: World, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise RuntimeError(CANARY.decode())

    world.source.during = fail
    answer = world.ask(world.token(world.launch()))
    assert (answer.status_code, answer.json()) == (500, {"problem": "the scheduler failed to answer"})
    assert CANARY.decode() not in caplog.text


def test_one_of_two_requests_at_the_same_time_gets_the_secrets(world: World) -> None:
    token = world.token(world.launch())
    answers: list[Response] = []

    def race() -> None:
        world.source.during = lambda: None
        answers.append(world.ask(token, world.scheduler()[1]))

    world.source.during = race
    with pytest.raises(Refusal, match="was used before"):
        world.secrets.hand_over(token, "127.0.0.1")
    assert [answer.status_code for answer in answers] == [200]
    assert world.outcomes == [
        ("db-password", "given"), ("tls-key", "given"), ("db-password", "used"), ("tls-key", "used"),
    ]  # fmt: skip


def test_scheduler_that_does_not_lead_asks_to_try_elsewhere(world: World) -> None:
    token = world.token(world.launch())

    def ask(task_id: str) -> Task | None:
        raise Unavailable("no leader here")

    standby = Secrets(world.source, OPTIONS, ask, world.use, lambda: world.loop.now)
    app = create_artifacts(PackageStore(world.folder / "packages"), secrets=SecretsApi(standby))
    answer = world.ask(token, client_of(app, url="http://agents-see-this.test"))
    assert (answer.status_code, "no leader here" in answer.json()["problem"]) == (503, True)
    assert world.ask(token).status_code == 200


def test_requests_without_a_token_or_with_another_method_are_refused(world: World) -> None:
    assert world.api.post("/secrets").status_code == 401
    assert world.api.get("/secrets").status_code == 405
    assert world.ask("nonsense").json() == {"problem": "the token is not valid"}
    assert world.api.post("/secrets/").status_code == 405
    app = create_artifacts(PackageStore(world.folder / "packages"))
    assert client_of(app, url="http://agents-see-this.test").get("/secrets").status_code == 404


def test_names_are_checked_as_far_as_the_source_answers(world: World) -> None:
    wanted = [("default", "db-password"), ("default", "absent"), ("other", "db-password")]
    assert world.secrets.missing(wanted) == wanted[1:]
    world.source.problem = "away"
    assert world.secrets.missing(wanted) == []


def test_value_is_in_no_record_no_effect_and_no_launch(world: World) -> None:
    launch = world.launch()
    world.ask(world.token(launch))
    everything = repr(world.loop.effects) + repr(vars(world.loop.scheduler))
    assert CANARY.decode() not in everything
    assert "jcx1." not in everything
    assert b'"schema":2' in launch.own
    assert launch.secrets == ("db-password", "tls-key")
    assert b"kkkk" not in repr(OPTIONS).encode()


# ---------------------------------------------------------------------------------------------------- the audit log


def test_audit_log_tells_who_got_which_secret_and_who_was_refused(world: World) -> None:
    launch = world.launch()
    token = world.token(launch)
    disk = FakeDisk()
    with auditing(disk) as audit:
        world.records.append(recorder(audit))
        world.source.problem = f"the source answers {CANARY.decode()}"
        assert world.ask(token).status_code == 502
        world.source.problem = ""
        assert world.ask(token).status_code == 200
        for _ in range(REFUSED_EACH + 5):
            assert world.ask(token).status_code == 409
        assert audit.flush()
        _, failed, *found = disk.entries()
    common = {
        "kind": "request", "subject": f"task:{launch.task_id}", "client": "127.0.0.1", "team": "default",
        "route": "/secrets", "details": {"agent": "agent-1"},
    }  # fmt: skip
    assert all(common.items() <= entry.items() for entry in (failed, *found[:-1]))
    assert (failed["outcome"], failed["reason"], failed["target"]) == ("failed", "source_failed", "secret db-password")
    given = [(entry["target"], "reason" in entry) for entry in found if entry["outcome"] == "succeeded"]
    assert given == [("secret db-password", False), ("secret tls-key", False)]
    refused = [entry["reason"] for entry in found if entry["outcome"] == "refused"]
    assert refused == ["used"] * (REFUSED_EACH - 1), "a flood of one task is counted"
    content = b"".join(disk.files.values()).decode()
    assert CANARY.decode() not in content
    assert token not in content
    assert base64.b64encode(CANARY).decode() not in content
