"""Metrics: the values of a scrape after known events, bounded labels, a standby, and the table of the documents."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from tests.api_kit import FakeLoop, client_of, make_api
from tests.core_world import START, make_ad_hoc_job, make_app, make_job, make_offer
from tests.metrics_kit import OPENMETRICS, MeasuredWorld, Samples
from tests.tls_kit import Authority, server_tls

from jobcloud.adapters.memory import MemoryServer, MemoryStore
from jobcloud.config import JobKind, Resources
from jobcloud.errors import Fenced, StoreError, StoreFull
from jobcloud.messages import (
    Call,
    Decline,
    DrainAgent,
    Kill,
    KillTask,
    Publish,
    PutJob,
    RemoveJob,
    RunAdHoc,
    Topic,
    Trigger,
)
from jobcloud.scheduler import Scheduler, Stored
from jobcloud.server.api import Access, ApiOptions
from jobcloud.server.api import metrics as metrics_api
from jobcloud.server.metrics.catalogue import FAMILIES
from jobcloud.server.metrics.measured import CountedApi, MeasuredDriver, MeasuredStore
from jobcloud.server.metrics.tally import Tally

REPORT = {"team": "default", "app": "shop", "job": "report"}
OTHER = {"team": "", "app": "", "job": "other"}
# The labels of counts that all processes have.
SHARED = {"ad hoc", "other"}
OF_JOBS = [family for family in FAMILIES if "job" in family.labels]


def test_values_of_a_scrape_follow_what_happened() -> None:
    world = MeasuredWorld(make_app(), make_job(shard_count=2))
    world.do(Trigger(world.at, "report"))
    world.tick(3_000)
    waiting = world.scrape()
    assert waiting("jobcloud_queue_shards", state="ready") == 2
    assert waiting("jobcloud_queue_oldest_age_seconds") == 3
    assert waiting("jobcloud_runs_unfinished") == 1
    first, second = world.offer(make_offer("o1"), make_offer("o2", "a2"))
    world.update(first, "TASK_RUNNING")
    running = world.scrape()
    assert running("jobcloud_tasks", state="RUNNING") == 1
    assert running("jobcloud_tasks", state="STORED") == 1
    assert running("jobcloud_queue_shards", state="ready") == 0
    assert running("jobcloud_agents", state="up") == 2
    assert running("jobcloud_offers_received_total") == 2
    world.update(first, "TASK_FINISHED")
    world.at += 1_000
    world.update(second, "TASK_FAILED")
    ended = world.scrape()
    assert ended("jobcloud_runs_started_total", **REPORT) == 1
    assert ended("jobcloud_launches_total", **REPORT) == 2
    assert ended("jobcloud_placements_total") == 2
    assert ended("jobcloud_attempts_ended_total", **REPORT, state="SUCCEEDED") == 1
    assert ended("jobcloud_attempts_ended_total", **REPORT, state="FAILED") == 1
    assert ended("jobcloud_runs_ended_total", **REPORT, state="FAILED") == 1
    assert ended("jobcloud_runs_ended_total", **REPORT, state="FINISHED") == 0
    assert ended("jobcloud_job_last_failure_timestamp_seconds", **REPORT) == (START + 4_000) / 1_000
    assert ended("jobcloud_job_last_success_timestamp_seconds", **REPORT) == 0
    assert ended("jobcloud_launch_lateness_seconds_sum") == 6
    assert ended("jobcloud_launch_lateness_seconds_bucket", le="1.0") == 0
    assert ended("jobcloud_launch_lateness_seconds_bucket", le="5.0") == 2
    assert ended("jobcloud_launch_lateness_seconds_count") == 2
    assert ended("jobcloud_cycle_seconds_count") == world.core.cycles > 0
    assert ended("jobcloud_leader") == ended("jobcloud_healthy") == ended("jobcloud_core_answered") == 1
    assert (ended("jobcloud_epoch"), ended("jobcloud_recoveries_total"), ended("jobcloud_inbox_items")) == (7, 4, 3)
    assert (ended("jobcloud_loop_lag_seconds"), ended("jobcloud_loop_idle_seconds")) == (0.005, 2)


def test_lost_attempts_are_counted_by_reason_and_their_repeats_are_not_late() -> None:
    world = MeasuredWorld(make_app(), make_job(failover=True))
    world.do(Trigger(world.at, "report"))
    (task,) = world.offer(make_offer("o1"))
    world.update(task, "TASK_LOST")
    (task,) = [*world.tick(60_000), *world.offer(make_offer("o2"))]
    world.update(task, "TASK_RUNNING")
    world.update(task, "TASK_LOST")
    found = world.scrape()
    assert found("jobcloud_attempts_lost_total", reason="NOT_STARTED") == 1
    assert found("jobcloud_attempts_lost_total", reason="LOST") == 1
    assert found("jobcloud_attempts_ended_total", **REPORT, state="LOST") == 2
    assert found("jobcloud_launches_total", **REPORT) == 2
    assert found("jobcloud_launch_lateness_seconds_count") == 1
    assert found("jobcloud_queue_shards", state="blocked") == 1


def test_job_that_lacks_a_resource_is_counted_under_its_name() -> None:
    world = MeasuredWorld(make_app(), make_job(resources=Resources(9_000, 128_000)), make_job("tiny"))
    world.do(Trigger(world.at, "report"))
    world.offer(make_offer("o1"))
    found = world.scrape()
    assert found("jobcloud_refusals_total", reason="cpus") == found("jobcloud_jobs_refused", reason="cpus") == 1
    assert found("jobcloud_refusals_total", reason="mem") == found("jobcloud_jobs_refused", reason="mem") == 0


def test_skipped_firings_agents_and_drains_come_from_the_core() -> None:
    world = MeasuredWorld(make_app(), make_job(cron="0 * * * * ?"))
    world.offer(make_offer("o1"), make_offer("o2", "a2"))
    world.do(DrainAgent(world.at, "a2"))
    world.tick(10 * 60_000)
    found = world.scrape()
    assert found("jobcloud_firings_skipped_total", **REPORT) == world.core.job_states["report"].skipped > 0
    assert found("jobcloud_drains") == found("jobcloud_agents", state="closed") == 1
    assert found("jobcloud_agents", state="up") == 1
    assert found("jobcloud_offers_held") == world.core.cluster.held


# ------------------------------------------------------------------------------------------------- labels


def test_ad_hoc_runs_have_the_same_labels() -> None:
    world = MeasuredWorld(make_app())
    labels = {"team": "", "app": "", "job": "ad hoc"}
    assert world.scrape()("jobcloud_runs_started_total", **labels) == 0
    for number in range(2):
        world.do(RunAdHoc(world.at, make_ad_hoc_job(f"once-{number}")))
    for task in world.offer(make_offer("o1")):
        world.update(task, "TASK_FINISHED")
    found = world.scrape()
    assert found("jobcloud_runs_started_total", **labels) == found("jobcloud_launches_total", **labels) == 2
    assert found("jobcloud_attempts_ended_total", **labels, state="SUCCEEDED") == 2
    assert found("jobcloud_runs_ended_total", **labels, state="FINISHED") == 2
    assert found("jobcloud_runs_ended_total", **OTHER, state="FINISHED") == 0
    assert found("jobcloud_jobs") == 0


def test_every_counter_of_a_job_is_born_at_0_when_the_job_is_registered() -> None:
    world = MeasuredWorld(make_app())
    assert world.scrape().values("jobcloud_launches_total", "job") == SHARED
    world.do(PutJob(world.at, make_job()))
    found = world.scrape()
    assert len(OF_JOBS) == 7
    for family in OF_JOBS:
        values = [value for labels, value in found.of(family.name).items() if ("job", "report") in labels]
        assert values
        assert set(values) == {0}, family.name
    assert found.values("jobcloud_runs_ended_total", "state") == {"FINISHED", "FAILED", "KILLED", "CANCELLED", "DEAD"}
    assert found.values("jobcloud_attempts_ended_total", "state") == {"SUCCEEDED", "FAILED", "KILLED", "LOST"}


def test_certificate_of_a_listener_has_its_expiry_and_its_replacements(tmp_path: Path) -> None:
    world = MeasuredWorld()
    now = [0.0]
    authority = Authority(tmp_path)
    tls = server_tls(authority.issue(), monotonic=lambda: now[0])
    world.listeners.append(tls)
    assert (
        world.scrape()("jobcloud_tls_certificate_expiry_timestamp_seconds", listener="http") * 1_000 == tls.expires_ms()
    )
    authority.issue()
    now[0] += 5
    assert world.scrape()("jobcloud_tls_reloads_total", listener="http", result="ok") == 1
    (tmp_path / "server.pem").write_bytes(b"")
    now[0] += 5
    assert world.scrape()("jobcloud_tls_reloads_total", listener="http", result="failed") == 1
    assert world.scrape()("jobcloud_tls_reloads_total", listener="artifacts", result="ok") == 0


def test_every_other_labelled_counter_is_born_at_0() -> None:
    found = MeasuredWorld().scrape()
    for family in FAMILIES:
        if family.kind == "counter" and family not in OF_JOBS:
            values = found.of(family.name)
            assert values, family.name
            assert set(values.values()) <= {0, 4}, family.name  # 4 recoveries


def test_jobs_beyond_the_limit_are_counted_together() -> None:
    names = ("a", "b", "c", "d")
    world = MeasuredWorld(make_app(), *(make_job(name) for name in names), max_jobs=2)
    for name in names:
        world.do(Trigger(world.at, name))
    for task in world.offer(make_offer("o1")):
        world.update(task, "TASK_FINISHED")
    found = world.scrape()
    for family in OF_JOBS:
        assert found.values(family.name, "job") <= {"a", "b", *SHARED}, family.name
    assert found("jobcloud_launches_total", team="default", app="shop", job="a") == 1
    assert found("jobcloud_launches_total", **OTHER) == 2
    assert found("jobcloud_runs_ended_total", **OTHER, state="FINISHED") == 2


def test_removed_job_leaves_the_metrics_and_makes_room_for_another() -> None:
    world = MeasuredWorld(make_app(), make_job("a"), make_job("b"), max_jobs=1)
    world.do(RemoveJob(world.at, "a"))
    assert world.scrape().values("jobcloud_launches_total", "job") == SHARED
    world.do(PutJob(world.at, make_job("c")))
    assert world.scrape().values("jobcloud_launches_total", "job") == {"c", *SHARED}


def test_job_that_moves_to_another_app_begins_at_0_under_its_new_labels() -> None:
    world = MeasuredWorld(make_app(), make_app("store"), make_job())
    world.do(Trigger(world.at, "report"))
    world.do(PutJob(world.at, make_job(app="store"), replace=True))
    found = world.scrape()
    assert found.values("jobcloud_runs_started_total", "app") == {"store", ""}
    assert found("jobcloud_runs_started_total", **REPORT | {"app": "store"}) == 0


def test_team_of_a_job_is_a_label_and_its_name_is_bare() -> None:
    world = MeasuredWorld(make_app(team="billing"), make_job(team="billing"))
    world.do(Trigger(world.at, "billing:report"))
    assert world.scrape()("jobcloud_runs_started_total", team="billing", app="shop", job="report") == 1


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
@pytest.mark.parametrize("name", ['a"} 1\nup 0', "back\\slash\\", "zeile\n", "Ж\u2028\x00", "{job='x'}", "#  HELP x y"])
def test_hostile_names_are_escaped(name: str, accept: str) -> None:
    world = MeasuredWorld()
    job = SimpleNamespace(team="default", app=name, name=name)
    core = SimpleNamespace(jobs={"hostile": job}, firings={})
    world.tally.follow(cast(Scheduler, core))
    world.tally.publish(Publish(world.at, Topic.FIRED, name, job="hostile"))
    found = world.scrape(accept)
    assert found("jobcloud_runs_started_total", team="default", app=name, job=name) == 1
    assert "up" not in found.names()


# ------------------------------------------------------------------------------------------------- leaders


def test_standby_answers_with_leader_0_and_without_the_state() -> None:
    world = MeasuredWorld(make_app(), make_job(), leading=False)
    found = world.scrape()
    assert found("jobcloud_leader") == found("jobcloud_healthy") == found("jobcloud_core_answered") == 0
    of_state = {family.name for family in FAMILIES if family.core}
    assert not of_state & found.names()
    assert {family.name.removesuffix("_total") for family in FAMILIES} <= {
        name.removesuffix("_total") for name in found.types
    }


def test_counts_go_on_when_the_core_is_restored() -> None:
    world = MeasuredWorld(make_app(), make_job(), make_job("gone"))
    world.do(Trigger(world.at, "report"))
    (task,) = world.offer(make_offer("o1"))
    world.update(task, "TASK_FAILED")
    old = world.core
    jobs = {"report": old.jobs["report"], "new": make_job("new")}
    world.start_core(Stored(dict(old.apps), jobs, firings=dict(old.firings)), epoch=2)
    found = world.scrape()
    assert found("jobcloud_launches_total", **REPORT) == 1
    assert found.values("jobcloud_launches_total", "job") == {"report", "new", *SHARED}


def test_new_process_knows_the_last_success_and_failure_from_the_kept_runs() -> None:
    world = MeasuredWorld(make_app(), make_job())
    for state in ("TASK_FINISHED", "TASK_FAILED"):
        world.at += 1_000
        world.do(Trigger(world.at, "report"))
        (task,) = world.offer(make_offer(f"o{world.at}"))
        world.update(task, state)
    old = world.core
    later = MeasuredWorld()
    later.start_core(Stored(dict(old.apps), dict(old.jobs), firings=dict(old.firings)), epoch=2)
    found = later.scrape()
    assert found("jobcloud_job_last_success_timestamp_seconds", **REPORT) == (START + 1_000) / 1_000
    assert found("jobcloud_job_last_failure_timestamp_seconds", **REPORT) == (START + 2_000) / 1_000


def test_resident_shard_that_starts_again_at_once_has_no_known_age() -> None:
    world = MeasuredWorld(make_app(), make_job(kind=JobKind.DAEMON))
    (task,) = world.offer(make_offer("o1"))
    world.update(task, "TASK_RUNNING")
    world.at += 86_400_000
    world.do(KillTask(world.at, task))
    world.update(task, "TASK_KILLED")
    found = world.scrape()
    assert found("jobcloud_queue_shards", state="ready") == 1
    assert found("jobcloud_queue_oldest_age_seconds") == 0


# ------------------------------------------------------------------------------------------------- the shell


class FailingStore(MemoryStore):
    def __init__(self, *errors: Exception) -> None:
        super().__init__(MemoryServer())
        self._errors = list(errors)

    def write(self, epoch: int, batch: Any) -> None:
        if self._errors:
            raise self._errors.pop(0)
        super().write(epoch, batch)


def test_writes_to_the_store_are_timed_and_failures_counted_by_kind() -> None:
    world, times = MeasuredWorld(), iter([0.0, 0.004, 10.0, 10.002, 20.0, 23.0, 30.0, 30.0])
    failing = FailingStore(StoreFull("full"), Fenced("old"), StoreError("away"))
    store = MeasuredStore(failing, world.tally, times.__next__)
    for kind in (StoreFull, Fenced, StoreError):
        with pytest.raises(kind):
            store.write(1, [])
    epoch = store.acquire()
    store.write(epoch, [])
    found = world.scrape()
    assert found("jobcloud_store_write_seconds_count") == 4
    assert found("jobcloud_store_write_seconds_sum") == pytest.approx(3.006)
    assert found("jobcloud_store_write_seconds_bucket", le="0.005") == 3
    assert set(found.of("jobcloud_store_failures_total").values()) == {1}
    assert found.values("jobcloud_store_failures_total", "reason") == {"full", "fenced", "other"}


def test_declined_offers_are_counted_and_other_calls_pass() -> None:
    sent: list[object] = []
    driver = SimpleNamespace(send=sent.append, start=None, stop=None, teardown=None)
    world = MeasuredWorld()
    measured = MeasuredDriver(cast(Any, driver), world.tally)
    calls: list[Call] = [Decline(("o1", "o2"), 5_000), Kill("t", "a"), Decline(("o3",), 0)]
    for call in calls:
        measured.send(call)
    assert sent == calls
    assert world.scrape()("jobcloud_offers_declined_total") == 3


def test_clock_of_the_machine_is_compared_with_the_time_of_the_scheduler() -> None:
    world = MeasuredWorld()
    world.clock.compare(world.at - 2_000, "ZooKeeper")
    world.drift_ms = 3_600_000
    world.clock.now_ms()
    found = world.scrape()
    assert found("jobcloud_clock_offset_seconds") == 3_600
    assert found("jobcloud_clock_jumps_total") == 1
    assert found("jobcloud_clock_difference_seconds", machine="ZooKeeper") == 3_602
    world.drift_ms = 0
    world.clock.now_ms()
    assert world.scrape()("jobcloud_clock_offset_seconds") == 0


def test_warnings_missed_notices_and_packages_are_counted() -> None:
    world = MeasuredWorld()
    world.warnings, world.missed, world.lost_notices = ("the clock jumped",), 5, 2
    world.tally.publish(Publish(world.at, Topic.FAULT, "broken"))
    world.tally.publish("no notice")
    found = world.scrape()
    assert found("jobcloud_warnings") >= 1
    assert found("jobcloud_notices_dropped_total", reason="slow_listener") == 5
    assert found("jobcloud_notices_dropped_total", reason="sink_failed") == 2
    assert found("jobcloud_faults_total") == 1
    assert (found("jobcloud_packages"), found("jobcloud_packages_bytes")) == (2, 300)


# ------------------------------------------------------------------------------------------------- the route


@pytest.fixture
def served(tmp_path: Path) -> tuple[MeasuredWorld, CountedApi]:
    world = MeasuredWorld(make_app(), make_job())
    options = ApiOptions(access=Access("t0ken", metrics_token="scr4pe"))
    api = make_api(tmp_path, FakeLoop(), options=options, more_routes=[metrics_api.router(world.metrics.scrape)])
    return world, CountedApi(api, world.tally)


def client(served: tuple[MeasuredWorld, CountedApi], token: str) -> httpx.Client:
    return client_of(served[1], token, url="http://127.0.0.1")


def test_metrics_need_the_token_of_the_api_or_their_own(served: tuple[MeasuredWorld, CountedApi]) -> None:
    for token, status in (("", 401), ("wrong", 401), ("scr4pe", 200), ("t0ken", 200)):
        assert client(served, token).get("/metrics").status_code == status
    assert client(served, "scr4pe").get("/api/v1/jobs").status_code == 403
    assert client(served, "scr4pe").post("/api/v1/jobs").status_code == 403


@pytest.mark.parametrize(
    ("accept", "open_metrics"),
    [
        ("", False), ("*/*", False), ("text/plain", False), (OPENMETRICS, True),
        ("application/openmetrics-text", True), ("APPLICATION/OPENMETRICS-TEXT; version=0.0.1", True),
        ("application/openmetrics-text;q=0", False), ("text/plain,application/openmetrics-text", False),
        ("application/openmetrics-text;version=99,é\u00ff;;;,=", True), (";,;,", False), ("a" * 9_000, False),
    ],
)  # fmt: skip
def test_format_follows_the_accept_header(
    served: tuple[MeasuredWorld, CountedApi], accept: str, open_metrics: bool
) -> None:
    answer = client(served, "t0ken").get("/metrics", headers=[(b"accept", accept.encode("latin-1"))])
    kind = "application/openmetrics-text; version=1.0.0" if open_metrics else "text/plain; version=0.0.4"
    assert answer.headers["content-type"].startswith(kind)
    assert answer.headers["vary"] == "Accept"
    assert Samples(answer.content, answer.headers["content-type"])("jobcloud_leader") == 1


def test_answers_are_counted_by_template_and_class_of_status(served: tuple[MeasuredWorld, CountedApi]) -> None:
    api = client(served, "t0ken")
    for path in ("jobs/a", "jobs/b", "jobs", "nothing/here"):
        api.get(f"/api/v1/{path}")
    api.post("/api/v1/jobs/a/enable")
    api.request("BREW", "/api/v1/jobs")
    client(served, "").get("/api/v1/jobs")
    found = served[0].scrape()

    def count(method: str, route: str, status: str) -> float:
        return found("jobcloud_http_requests_total", method=method, route=route, status=status)

    assert count("GET", "/api/v1/jobs/{job}", "4xx") == 2
    assert count("GET", "/api/v1/jobs", "2xx") == 1
    assert count("POST", "/api/v1/jobs/{job}/{switch}", "4xx") == 1
    assert count("", "", "4xx") == 3
    assert count("DELETE", "/api/v1/jobs/{job}", "5xx") == 0
    assert count("GET", "/metrics", "2xx") == 0


def test_many_paths_add_no_series(served: tuple[MeasuredWorld, CountedApi]) -> None:
    before = len(served[0].scrape().all)
    for number in range(50):
        client(served, "t0ken").get(f"/api/v1/jobs/x{number}")
        client(served, "t0ken").get(f"/x{number}")
    assert len(served[0].scrape().all) == before


# ------------------------------------------------------------------------------------------------- documents


def test_document_lists_exactly_the_metrics_of_the_registry() -> None:
    document = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(jobcloud_[a-z_]+)` \| ([a-z, ]+) \| ([a-z, ]*) \| (.+) \|$", document, re.MULTILINE)
    assert rows == [
        (family.name, family.kind + ", leader" * family.core, ", ".join(family.labels), family.help)
        for family in FAMILIES
    ]
    exposed = MeasuredWorld().scrape(OPENMETRICS).types
    assert {name.removesuffix("_total") for name in exposed if name.startswith("jobcloud_")} == {
        family.name.removesuffix("_total") for family in FAMILIES
    }


def test_two_registries_of_one_process_share_nothing() -> None:
    one, other = MeasuredWorld(make_app(), make_job()), MeasuredWorld()
    assert one.scrape().values("jobcloud_launches_total", "job") == {"report", *SHARED}
    assert other.scrape().values("jobcloud_launches_total", "job") == SHARED


def test_failed_sample_of_unknown_job_goes_to_the_others() -> None:
    tally = Tally()
    tally.publish(Publish(1, Topic.DONE, "1 DEAD", job="unknown", state="DEAD"))
    _, other = tally.jobs()
    assert other.runs["DEAD"] == 1
