"""The records that the scheduler writes by itself fit into every store, whatever Mesos, jobs and operators send."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.core_world import Desk, make_app, make_job, make_offer, of

from jobcloud.config import JobKind, Resources
from jobcloud.errors import ConfigError
from jobcloud.messages import Decline, DrainAgent, Event, Kind, OffersReceived, PutApp, Save, Tick, Trigger
from jobcloud.model import MAX_MESSAGE_BYTES, MAX_NARROW, Share, Terms, changed, cut
from jobcloud.ports import MAX_RECORD_BYTES
from jobcloud.server.api.rules import MAX_TERMS_BYTES
from jobcloud.server.records import encode
from jobcloud.wire import RESULT_BYTES

QUOTES = '"' * 100_000
RESULT = '"' + r"\"" * (RESULT_BYTES // 2 - 1) + '"'  # as JSON
NAME, TEAM = "n" * 100, "t" * 32
KEY = f"{TEAM}:{NAME}"


class Scale(Desk):
    """A desk that keeps the size of the largest record of each kind."""

    def __init__(self, *given: Any) -> None:
        self.largest: dict[Kind, int] = {}
        super().__init__(*given)

    def do(self, event: Event) -> list[Any]:
        effects = super().do(event)
        for write in (write for save in of(Save, effects) for write in save.writes):
            if write.record is not None:
                found = len(encode(write.kind, write.record))
                self.largest[write.kind] = max(found, self.largest.get(write.kind, 0))
        return effects


def hostile_offer(number: int) -> Any:
    origin = json.dumps({"reservations": [{"labels": '"' * 400}]})
    parts = tuple(Share(name, 1_000 * (1 if name == "cpus" else 64_000), origin, True) for name in ("cpus", "mem"))
    ports = Share("ports", 1_000 * 1_000, origin, True, tuple((port, port) for port in range(31_000, 33_000, 2)))
    whole = make_offer(f"offer{number}", "a" * 250 + str(number), cpus=64, mem=1_000_000, disk=1_000)
    return changed(whole, hostname=QUOTES, shares=(*parts * 10, *whole.shares, ports))


@pytest.mark.parametrize("shards", [MAX_NARROW, MAX_NARROW + 1, MAX_NARROW - 2])
def test_largest_records_are_below_the_limit_of_every_store(shards: int) -> None:
    app = make_app(
        NAME, team=TEAM, resources=Resources(3_000, 128_000, ports=500_000), executors=1, bootstrap_script="x" * 40_000,
        environment=("A=" + "\U0001f600" * 1_364,),
        files='{"a":"' + "x" * 32_758 + '"}',
    )  # fmt: skip
    others = [
        make_job(f"{number}{NAME[1:]}", team=TEAM, app=NAME, context=f"c{number}" * 5_000, bean="b")
        for number in range(3)
    ]
    job = make_job(
        NAME, team=TEAM, app=NAME, shard_count=shards, resources=Resources(100, 1_000),
        firing_listener="shop:Stage" if shards < MAX_NARROW else "",
    )  # fmt: skip
    desk = Scale(app, job, *others)
    # Messages and results of narrow firings share a record with the parameters that a trigger may give.
    items = tuple((item, "x" * (MAX_TERMS_BYTES // shards)) for item in range(shards))
    desk.do(Trigger(desk.at, KEY, Terms("", items, tuple(range(shards)), 1_000, "k" * 100)))
    for number in range(2):
        desk.offer(hostile_offer(number))
    desk.do(DrainAgent(desk.at, next(iter(desk.scheduler.cluster.agents)), 0, QUOTES))
    for _ in range(3):
        for task_id in desk.running(KEY):
            desk.status(task_id, "TASK_RUNNING", message=QUOTES, reason=QUOTES)
            desk.status(task_id, "TASK_FINISHED", message=QUOTES, reason=QUOTES, data=f'{{"result":{RESULT}}}')
        desk.offer(hostile_offer(7))
    firing = desk.firings(KEY)[0]
    assert firing.ended_ms
    assert all(len(shard.message) == MAX_MESSAGE_BYTES for shard in firing.shards)
    assert all(len(shard.outcome.result) == RESULT_BYTES for shard in firing.shards)
    assert max(desk.largest.values()) <= MAX_RECORD_BYTES, desk.largest
    assert desk.largest[Kind.EXECUTOR] > 100_000
    assert desk.largest[Kind.FIRING] > (200_000 if shards <= MAX_NARROW else 10_000)
    assert {Kind.FIRING, Kind.TASK, Kind.EXECUTOR, Kind.DRAIN, Kind.JOB_STATE, Kind.FRAMEWORK} <= desk.largest.keys()


def test_reason_of_a_resident_that_never_runs_is_bounded() -> None:
    desk = Scale(make_app(), make_job(kind=JobKind.DAEMON, shard_count=MAX_NARROW, resources=Resources(1, 1_000)))
    desk.run_until_idle()
    for number in range(5):
        desk.offer(hostile_offer(number))
        for task_id in desk.running():
            desk.status(task_id, "TASK_LOST", message=QUOTES, reason=QUOTES)
        desk.run_until_idle(120_000)
    assert 1_000 < desk.largest[Kind.ATTEMPT] < 5_000
    assert max(desk.largest.values()) <= MAX_RECORD_BYTES, desk.largest


def test_offer_of_an_agent_with_an_endless_id_is_declined() -> None:
    desk = Desk(make_app(), make_job())
    desk.do(OffersReceived(desk.at, (make_offer("o1", "a" * 256),)))
    assert of(Decline, desk.last)[0].offer_ids == ("o1",)
    desk.do(Tick(desk.at))
    assert not desk.scheduler.cluster.agents


def test_resources_with_an_endless_reservation_are_not_used() -> None:
    desk = Desk(make_app(), make_job())
    desk.do(Trigger(desk.at, "report"))
    offer = make_offer("o1")
    reserved = tuple(changed(share, origin=json.dumps({"labels": "x" * 2_000})) for share in offer.shares)
    assert not desk.launched(desk.offer(changed(offer, shares=reserved)))
    assert desk.launched(desk.offer(make_offer("o2")))


def test_app_whose_executor_has_an_endless_description_is_refused() -> None:
    desk = Desk()
    with pytest.raises(ConfigError, match="150000") as caught:
        desk.do(PutApp(desk.at, make_app(bootstrap_script="ü" * 60_000)))
    assert caught.value.field == "bootstrapScript"
    assert not desk.scheduler.apps


@pytest.mark.parametrize(
    ("text", "most", "wanted"),
    [
        ("", 4, ""),
        ("plain", 5, "plain"),
        ("plain", 4, "plai"),
        ("a\nb\tc\r", 9, "a\nb\tc\r"),
        ("grün", 4, "grü"),
        ("grün", 3, "gr"),
        ("\U0001f600" * 3, 9, "\U0001f600" * 2),
        ("\x1b[31m\0", 20, "\ufffd[31m\ufffd"),
        ("\ud800", 4, "?"),
    ],
)
def test_cut_text_ends_between_two_characters(text: str, most: int, wanted: str) -> None:
    assert cut(text, most) == wanted
