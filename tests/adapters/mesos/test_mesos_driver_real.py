"""The driver on a real Apache Mesos. JOBCLOUD_TEST_MESOS names the command that starts it."""

from __future__ import annotations

import json
import os
import select
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip(
    "jobcloud.adapters.mesos.driver", reason="the extra [server] with compat/http-parser is not installed"
)

from tests.mesos_kit import DEADLINE_S, Running, until

from jobcloud.adapters.mesos.link import CallFailed, Session
from jobcloud.messages import (
    Accept,
    Acknowledge,
    Decline,
    Disconnected,
    ExecutorLost,
    FrameworkRemoved,
    Kill,
    Launch,
    OffersReceived,
    Reconcile,
    Resubscribe,
    Revive,
    SendFailed,
    ShutdownExecutor,
    Status,
    StatusReceived,
    Subscribed,
)
from jobcloud.model import Executor, Offer, Share

COMMAND = "JOBCLOUD_TEST_MESOS"
EXECUTOR = Path(__file__).parents[2] / "contract" / "scripted_executor.py"

pytestmark = [
    pytest.mark.mesos,
    pytest.mark.skipif(COMMAND not in os.environ, reason=f"{COMMAND} does not name the command that starts a Mesos"),
]


def cluster(folder: Path, **flags: str) -> Iterator[str]:
    """A Mesos cluster with two agents. Yields the address of the master."""
    argv = [*shlex.split(os.environ[COMMAND]), "up", "--port", "0", "--work-dir", str(folder), "--agents", "2"]
    environment = {**os.environ, "MESOS_ALLOCATION_INTERVAL": "100ms", **flags}
    process = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        ready, _, _ = select.select([process.stdout], [], [], 60)
        line = process.stdout.readline() if ready else ""
        assert line.startswith("ready "), f"no Mesos: {line!r}"
        yield line.split()[1].removeprefix("master=")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        process.stdout.close()


@pytest.fixture(scope="module")
def mesos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from cluster(tmp_path_factory.mktemp("mesos"))


def running(mesos: str, framework_id: str = "", **more: Any) -> Running:
    return Running(mesos, framework_id=framework_id, **{"answer_timeout_s": DEADLINE_S, "refused_retry_s": 1.0, **more})


def state(mesos: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://{mesos}/state", timeout=DEADLINE_S) as answer:
        return dict(json.load(answer))


def framework(mesos: str, framework_id: str, among: str = "frameworks") -> dict[str, Any]:
    """The entry of a framework in the master's state; empty if it has none."""
    return next((one for one in state(mesos)[among] if one["id"] == framework_id), {})


def offered(one: Running) -> Offer:
    """The first offer with resources."""
    found = until(lambda: [o for e in one.receiver.all(OffersReceived) for o in e.offers if len(o.shares) >= 3])
    return found[0]


def some(offer: Offer, **amounts: int) -> tuple[Share, ...]:
    """Shares of an offer with the given amounts, by name."""
    by_name = {share.name: share for share in offer.shares}
    return tuple(Share(name, amount, by_name[name].origin) for name, amount in amounts.items())


def launch(one: Running, *commands: Any, task: str = "task-1") -> Executor:
    offer = offered(one)
    spec = json.dumps({"name": "scripted", "command": {"value": f"{sys.executable} {EXECUTOR}"}})
    executor = Executor("executor-1", offer.agent_id, "app", some(offer, cpus=100, mem=32_000), spec)
    tasks = Launch(task, "a task", some(offer, cpus=500, mem=64_000), executor, json.dumps(commands).encode())
    one.driver.send(Accept(offer.agent_id, (offer.id,), (tasks,)))
    return executor


def status(one: Running, state: str, acknowledge: bool = True) -> Status:
    found = until(lambda: [e.status for e in one.receiver.all(StatusReceived) if e.status.state == state], state)[0]
    if acknowledge and found.uuid:
        one.driver.send(Acknowledge(found.task_id, found.agent_id, found.uuid))
    return found


def test_task_is_launched_followed_and_acknowledged_one_update_at_a_time(mesos: str) -> None:
    with running(mesos) as one:
        update = {"update": "task-1", "state": "TASK_RUNNING", "data": "eyJhIjoxfQ=="}
        launch(one, update, {"update": "task-1", "state": "TASK_FINISHED"})
        first = status(one, "TASK_RUNNING", acknowledge=False)
        assert (first.task_id, first.source, first.data) == ("task-1", "SOURCE_EXECUTOR", '{"a":1}')
        # The remainder of the accepted offer is offered at once, not after the default filter of 5 s.
        until(lambda: len([o for e in one.receiver.all(OffersReceived) for o in e.offers]) >= 3)
        assert [e.status.state for e in one.receiver.all(StatusReceived)] == ["TASK_RUNNING"]
        status(one, "TASK_RUNNING")
        status(one, "TASK_FINISHED")
        assert one.receiver.all(SendFailed) == []
        one.driver.teardown()


def test_task_is_killed_and_its_executor_shut_down(mesos: str) -> None:
    with running(mesos) as one:
        executor = launch(one, {"update": "task-1", "state": "TASK_RUNNING"})
        status(one, "TASK_RUNNING")
        one.driver.send(Reconcile((("task-1", executor.agent_id), ("never-was", executor.agent_id))))
        answers = until(lambda: [e.status for e in one.receiver.all(StatusReceived) if not e.status.uuid][1:] and True)
        assert answers
        assert status(one, "TASK_GONE").task_id == "never-was"
        one.driver.send(Kill("task-1", executor.agent_id))
        one.driver.send(ShutdownExecutor(executor.id, executor.agent_id))
        assert one.wait(ExecutorLost).executor_id == executor.id
        assert status(one, "TASK_FAILED").reason == "REASON_EXECUTOR_TERMINATED"
        until(lambda: not framework(mesos, one.wait(Subscribed).framework_id)["tasks"])
        one.driver.teardown()


def test_pipelined_calls_are_all_accepted_in_order(mesos: str, monkeypatch: pytest.MonkeyPatch) -> None:
    exchanged = []
    exchange = Session.exchange

    def counted(session: Session) -> list[CallFailed | None]:
        exchanged.append(settled := exchange(session))
        return settled

    monkeypatch.setattr(Session, "exchange", counted)
    with running(mesos) as one:
        agent = offered(one).agent_id
        names = [f"never-was-{number}" for number in range(1000)]
        for name in names:
            one.driver.send(Reconcile(((name, agent),)))
        until(lambda: len(one.receiver.all(StatusReceived)) >= len(names))
        assert [event.status.task_id for event in one.receiver.all(StatusReceived)] == names
        # A refused call between them is recognized.
        call = one.driver._driver._call
        monkeypatch.setattr(one.driver._driver, "reviveOffers", lambda roles: call("MESSAGE", None))
        for other in (Reconcile(((names[0], agent),)), Revive(), Reconcile(((names[1], agent),))):
            one.driver.send(other)
        until(lambda: len(one.receiver.all(StatusReceived)) == len(names) + 2)
        (failed,) = until(lambda: one.receiver.all(SendFailed))
        assert (failed.call, failed.certain) == (Revive(), True)
        assert "HTTP 400" in failed.reason
        one.driver.teardown()
    # How many go out together depends on the load of the machine.
    assert len(exchanged) < len(names) * 3 / 4, "they went out one at a time"


def test_stop_leaves_the_task_running_and_the_next_scheduler_takes_it_over(mesos: str) -> None:
    with running(mesos) as one:
        launch(one, {"update": "task-1", "state": "TASK_RUNNING"})
        status(one, "TASK_RUNNING")
        framework_id = one.wait(Subscribed).framework_id
        # The driver sends the acknowledgement before it stops.
    until(lambda: not framework(mesos, framework_id)["active"])
    assert framework(mesos, framework_id)["tasks"][0]["state"] == "TASK_RUNNING"
    with running(mesos, framework_id) as two:
        assert two.wait(Subscribed).framework_id == framework_id
        two.driver.send(Reconcile())
        assert status(two, "TASK_RUNNING").reason == "REASON_RECONCILIATION"
        two.driver.teardown()
        until(lambda: framework(mesos, framework_id, "completed_frameworks"))
    assert framework(mesos, framework_id) == {}


def test_second_scheduler_replaces_the_first_for_good(mesos: str) -> None:
    with running(mesos, refused_retry_s=60.0) as one:
        framework_id = one.wait(Subscribed).framework_id
        with running(mesos, framework_id) as two:
            two.wait(Subscribed)
            assert "failed over" in one.wait(Disconnected).reason
            one.driver.send(Decline(("none",), 0))
            assert one.wait(SendFailed).certain
            two.driver.teardown()
        assert len(one.receiver.all(Subscribed)) == 1


def test_removed_framework_id_is_refused_for_good_and_a_new_one_taken(mesos: str) -> None:
    with running(mesos) as one:
        removed = one.wait(Subscribed).framework_id
        one.driver.teardown()
    with running(mesos, removed) as two:
        assert "removed" in two.wait(FrameworkRemoved).reason
        two.driver.send(Resubscribe())
        assert two.wait(Subscribed).framework_id != removed
        two.driver.teardown()


def test_removal_of_the_framework_by_an_operator_is_noticed(mesos: str) -> None:
    with running(mesos) as one:
        framework_id = one.wait(Subscribed).framework_id
        body = f"frameworkId={framework_id}".encode()
        urllib.request.urlopen(f"http://{mesos}/master/teardown", body, timeout=DEADLINE_S).close()
        one.wait(Disconnected)
        one.wait(FrameworkRemoved)


def test_principal_and_secret_are_checked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    credentials = tmp_path / "credentials.json"
    credentials.write_text(json.dumps({"credentials": [{"principal": "jobcloud", "secret": "right"}]}))
    flags = {"MESOS_AUTHENTICATE_HTTP_FRAMEWORKS": "true", "MESOS_HTTP_FRAMEWORK_AUTHENTICATORS": "basic"}
    clusters = cluster(tmp_path / "mesos", MESOS_CREDENTIALS=str(credentials), **flags)
    for mesos in clusters:
        for secret in ("", "wrong"):
            caplog.clear()
            with running(mesos, principal="jobcloud", secret=secret) as refused:
                until(lambda: "check principal" in caplog.text)
            assert refused.receiver.events == []
        with running(mesos, principal="jobcloud", secret="right") as one:
            framework_id = one.wait(Subscribed).framework_id
            offered(one)
            one.driver.teardown()
        assert framework(mesos, framework_id, "completed_frameworks")["principal"] == "jobcloud"


@pytest.mark.parametrize(("field", "kept", "value"), [("user", "root", "nobody"), ("checkpoint", True, False)])
def test_known_framework_with_another_identity_is_refused(mesos: str, field: str, kept: Any, value: Any) -> None:
    with running(mesos, **{"user": "root", field: kept}) as first:
        framework_id = first.wait(Subscribed).framework_id
    with running(mesos, framework_id, **{"user": "root", field: value}) as second:
        until(lambda: second.refusals)
        assert second.refusals[0].field == f"mesos.{field}"
        assert f"with '{str(kept).lower()}'" in str(second.refusals[0])
        assert second.receiver.events == []
    with running(mesos, framework_id, **{"user": "root", field: kept}) as third:
        assert third.wait(Subscribed).framework_id == framework_id
        assert third.refusals == []
        third.driver.teardown()
