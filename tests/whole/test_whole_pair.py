"""Schedulers on one ZooKeeper or etcd and one dev cluster, killed, stopped and frozen in turn: no work is lost."""

from __future__ import annotations

import itertools
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

pytest.importorskip("kazoo", reason="the extra [server] is not installed")

from tests.pair_kit import Pair, check_leader, paired, start_two
from tests.whole_kit import add_demo, attempts, until

pytestmark = pytest.mark.dev_cluster


@pytest.fixture(
    params=[
        pytest.param("zookeeper", marks=pytest.mark.zookeeper),
        pytest.param("etcd", marks=pytest.mark.etcd),
    ]
)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    with paired(tmp_path, request.param, request.getfixturevalue(f"{request.param}_hosts")) as found:
        yield found


def test_schedulers_take_over_from_each_other_without_loss(pair: Pair, tmp_path: Path) -> None:
    output = tmp_path / "output"
    start_two(pair)
    add_demo(pair.products[0], output)
    check_leader(pair, 0)
    framework_id = pair.call(0, "cluster")[1]["frameworkId"]

    # A standby answers reads, and passes writes on to the leader. Its health names the leader.
    status, health = pair.call(1, "health")
    assert (status, health["leading"]) == (503, False)
    assert health["problem"] == f"http://127.0.0.1:{pair.products[0].port} leads"
    assert {job["jobName"] for job in pair.products[1].get("jobs")["items"]} >= {"sales"}
    assert pair.products[1].get("cluster")["frameworkId"] == framework_id
    pair.products[1].run("job", "trigger", "sales", "--wait")

    # After a kill the standby takes over when the session expires.
    pair.send_signal(0, signal.SIGKILL).wait()
    check_leader(pair, 1)
    assert pair.call(1, "cluster")[1]["frameworkId"] == framework_id

    # After an orderly stop it takes over at once.
    pair.start(0)
    until(lambda: pair.is_standby(0), "a standby")
    stopping = pair.send_signal(1, signal.SIGTERM)
    check_leader(pair, 0)
    assert stopping.wait(60) == 0

    # A leader that was frozen for longer than its session finds that it no longer leads, and ends.
    pair.start(1)
    until(lambda: pair.is_standby(1), "a standby")
    frozen = pair.send_signal(0, signal.SIGSTOP)
    check_leader(pair, 1)
    frozen.send_signal(signal.SIGCONT)
    assert frozen.wait(60) == 1
    assert "stepped down" in (pair.products[0].folder / "scheduler.log").read_text()
    check_leader(pair, 1)
    assert pair.call(1, "cluster")[1]["frameworkId"] == framework_id
    assert set(attempts(output).values()) == {1}, "no attempt was started twice"


def test_writes_through_a_standby_are_neither_lost_nor_repeated_when_the_leader_is_killed(
    pair: Pair, tmp_path: Path
) -> None:
    for number in range(3):
        pair.start(number)
        until(lambda: pair.leads(0) if not number else pair.is_standby(number), f"scheduler {number}")  # noqa: B023
    standby = pair.products[2]
    add_demo(standby, tmp_path / "output")
    config = standby.get("jobs/sales")["config"] | {"cron": "0 0 0 1 1 ? 2099"}
    names = (f"job-{number}" for number in itertools.count())
    answered: list[str] = []
    wrong: list[int] = []
    stop = threading.Event()

    def write() -> None:
        """Register and trigger jobs, one after another."""
        while not stop.is_set():
            name = next(names)
            for path, expected, body in (("jobs", 201, config | {"jobName": name}), (f"jobs/{name}/trigger", 202, {})):
                status, found = standby.call(path, "POST", body)
                if status == expected:
                    answered.append(found.get("id") or name)
                elif status not in (503, 404, 0):  # if an answer was cut short, the job may be missing
                    wrong.append(status)

    def go_on() -> None:
        before = len(answered)
        until(lambda: len(answered) > before + 20, "further writes through the standby")

    writer = threading.Thread(target=write)
    writer.start()
    go_on()
    pair.send_signal(0, signal.SIGKILL).wait()
    until(lambda: pair.leads(1), "the next leader")
    go_on()
    stop.set()
    writer.join()
    assert not wrong
    runs = [run["id"] for run in standby.get("runs", limit="1000")["items"] if run["id"].startswith("job-")]
    jobs = [job["jobName"] for job in standby.get("jobs")["items"]]
    assert set(answered) <= {*runs, *jobs}, "a write that was answered is lost"
    assert set(Counter(run.partition(".")[0] for run in runs).values()) == {1}, "a write was repeated"
    # The command line works with any of the schedulers.
    assert standby.json("job", "show", "job-1")["jobName"] == "job-1"
    standby.run("job", "trigger", "job-1", "--wait")
    assert "job-1" in standby.run("runs", "job-1")


def test_session_of_a_browser_survives_a_killed_leader(pair: Pair) -> None:
    start_two(pair)
    # The link leads to the standby, which passes everything on.
    link = pair.products[1].run("login-link").strip()
    origin, code = link.removesuffix("/login/link").partition("/login/link#")[::2]
    with httpx.Client(base_url=origin, headers={"Origin": origin}, timeout=30) as browser:
        assert browser.post("/login/link", data={"code": code}).status_code == 303
        assert "token:server" in browser.get("/account").text
        script = {"Jobcloud-Request": "1"}
        assert browser.post("/api/v1/cluster/pause").status_code == 403
        assert browser.post("/api/v1/cluster/pause", headers=script | {"Origin": "http://evil.test"}).status_code == 403
        assert pair.call(0, "cluster")[1]["paused"] is False
        assert browser.post("/api/v1/cluster/pause", headers=script).status_code == 200
        assert pair.call(0, "cluster")[1]["paused"] is True
        pair.send_signal(0, signal.SIGKILL)
        until(lambda: pair.leads(1), "scheduler 1 to lead")
        assert browser.post("/api/v1/cluster/resume", headers=script).status_code == 200, "the next leader knows it too"
        page = browser.get("/account")
        assert page.status_code == 200
        assert browser.post("/login/link", data={"code": code}).status_code == 401, "the link was used"
        token = page.text.partition('name="token" value="')[2][:64]
        assert browser.post("/logout", data={"token": token}).status_code == 303
        assert browser.get("/account").headers["location"] == "/login"
