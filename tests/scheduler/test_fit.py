"""Would further shards fit? The answer, compared with the matcher and with real starts, and that it changes nothing."""

from __future__ import annotations

import hashlib
import pickle
import random
from collections.abc import Callable
from typing import Any

import pytest
from tests.core_world import Desk, counting_matcher, make_app, make_job, make_offer

from jobcloud.config import DIMENSIONS, NOTHING, Resources
from jobcloud.errors import NotFound
from jobcloud.messages import DrainAgent, OffersReceived, PutAccess, SetPaused, Trigger
from jobcloud.model import Offer, Quota, Team
from jobcloud.scheduler import fit
from jobcloud.scheduler.cluster import Cluster, Request
from jobcloud.scheduler.quotas import Allowance, Use

EXECUTOR = Resources(cpus=1000, mem=128_000)


def desk_with(*offers: Offer, **job: Any) -> Desk:
    """A desk whose job has not fired. The offers are held."""
    desk = Desk(make_app(resources=EXECUTOR), make_job(**job))
    hold(desk, *offers)
    return desk


def hold(desk: Desk, *offers: Offer) -> None:
    desk.do(OffersReceived(desk.at, offers))


def fit_of(desk: Desk, wanted: int = 0, job: str = "report") -> fit.Fit:
    return fit.answer(desk.scheduler.fit_question(job, wanted, desk.at))


def shares(found: fit.Fit) -> dict[str, int]:
    return {share.agent_id: share.shards for share in found.shares}


def codes(found: fit.Fit) -> list[str]:
    return [reason.code for reason in found.reasons]


def fingerprint(desk: Desk) -> tuple[bytes, str]:
    """The matcher's claims, and a hash of the offers, the claims by task, the use by team and the stored records."""
    state = desk.scheduler._state
    cluster = state.cluster
    parts: list[object] = [
        sorted(cluster.agents), [list(entry.offers) for entry in cluster.agents.values()], cluster._claims,
        cluster._reservations, cluster._received, cluster._classes, cluster._executor_keys,
        [(entry.whole, entry.role, entry.offered) for entry in cluster.agents.values()],
        desk.scheduler._quotas._used, desk.scheduler._quotas._planned, desk.scheduler.tasks, desk.scheduler.executors,
        desk.scheduler.firings, desk.stored, state._sequence,
    ]  # fmt: skip
    return cluster.matcher.snapshot(), hashlib.sha256(pickle.dumps(parts)).hexdigest()


def test_shards_fill_the_agents_beside_the_executor_that_they_need() -> None:
    desk = desk_with(make_offer("o1", "a1", cpus=4), make_offer("o2", "a2", cpus=2))
    found = fit_of(desk, 10)
    assert (found.fits, shares(found)) == (4, {"a1": 3, "a2": 1})
    assert all(share.executor for share in found.shares)
    assert (found.wanted, found.elsewhere, found.complete) == (10, 0, True)
    (short,) = found.reasons
    assert (short.code, short.resource, short.asked, short.available, short.hosts) == ("short", "cpus", 1000, 0, 2)
    assert short.waiting_helps
    assert found.waiting_helps


def test_default_is_the_number_of_shards_of_the_job() -> None:
    found = fit_of(desk_with(make_offer("o1", cpus=8), shard_count=3))
    assert (found.wanted, found.fits, found.reasons) == (3, 3, ())
    assert found.waiting_helps


def test_running_executor_is_not_counted_again() -> None:
    desk = desk_with()
    desk.do(Trigger(desk.at, "report"))
    desk.offer(make_offer("o1", "a1", cpus=4))
    hold(desk, make_offer("o2", "a1", cpus=2))
    found = fit_of(desk, 10)
    assert [(share.shards, share.executor) for share in found.shares] == [(2, False)]


def test_shard_that_no_agent_could_ever_take_gains_nothing_by_waiting() -> None:
    desk = desk_with(make_offer("o1", cpus=4), resources=Resources(16_000, 128_000))
    found = fit_of(desk)
    assert (found.fits, codes(found)) == (0, ["short", "never"])
    assert found.reasons[0].asked == 17_000
    assert not found.waiting_helps


@pytest.mark.parametrize(
    ("quota", "fits", "resource", "helps"),
    [
        ({"cpus": 4_000}, 3, "cpus", True),
        ({"mem": 128_000 * 3}, 2, "mem", True),
        ({"shards": 5}, 5, "", True),
        ({"cpus": 1_500}, 0, "cpus", False),
        ({"cpus": 500}, 0, "cpus", False),
        ({"gpus": 0}, 8, "", True),
    ],
)
def test_quota_of_the_team_limits_the_answer_as_it_limits_starts(
    quota: dict[str, int], fits: int, resource: str, helps: bool
) -> None:
    desk = desk_with(shard_count=8)
    desk.do(PutAccess(desk.at, Team("default", (), Quota(**quota))))
    offer = make_offer("o1", cpus=32, mem=32_000)
    hold(desk, offer)
    found = fit_of(desk)
    assert (found.fits, found.waiting_helps) == (fits, helps)
    if fits < 8:
        assert (codes(found), found.reasons[0].resource) == (["quota"], resource)
    desk.do(Trigger(desk.at, "report"))
    desk.run_until_idle()
    assert len(desk.running()) == fits


def test_offers_of_several_roles_are_not_added_up() -> None:
    offers = make_offer("o1", "a1", cpus=2, role="x"), make_offer("o2", "a1", cpus=5, role="y")
    desk = desk_with(*offers, shard_count=10, resources=Resources(2000, 128_000))
    found = fit_of(desk)
    # The executor and two shards fit on the role y. Together, the offers would have room for three shards.
    assert shares(found) == {"a1": 2}
    desk.do(Trigger(desk.at, "report"))
    desk.run_until_idle()
    assert len(desk.running()) == 2


def test_agents_without_offers_are_counted_apart() -> None:
    desk = desk_with()
    hold(desk, make_offer("o1", "a1", cpus=4))
    desk.run_until_idle(until_ms=600_000)
    assert desk.scheduler.cluster.held == 0
    found = fit_of(desk, 5)
    assert (found.fits, found.elsewhere) == (0, 3)
    assert codes(found)[0] == "not_offered"
    assert found.waiting_helps


def test_without_agents_the_answer_says_that_no_offer_is_held() -> None:
    assert codes(fit_of(desk_with())) == ["no_offers"]


def test_drained_agents_take_nothing() -> None:
    desk = desk_with(make_offer("o1", "a1"))
    desk.do(DrainAgent(desk.at, "a1"))
    desk.tick()
    found = fit_of(desk)
    assert (found.fits, "drained" in codes(found)) == (0, True)


def test_what_holds_the_job_is_named_apart() -> None:
    desk = desk_with(make_offer("o1", cpus=8))
    desk.do(SetPaused(desk.at, True, job="report"))
    found = fit_of(desk)
    assert (found.fits, [reason.code for reason in found.held]) == (1, ["paused"])
    assert not found.waiting_helps


def test_unknown_job_is_not_found() -> None:
    with pytest.raises(NotFound):
        fit_of(desk_with(), job="nope")


def test_question_changes_nothing_and_leaves_no_claim() -> None:
    desk = desk_with(shard_count=3)
    desk.do(PutAccess(desk.at, Team("default", (), Quota(cpus=50_000))))
    desk.do(Trigger(desk.at, "report"))
    desk.offer(make_offer("o1", "a1"), make_offer("o2", "a2"))
    hold(desk, make_offer("o3", "a1", cpus=4), make_offer("o4", "a3", cpus=3))
    desk.scheduler.validate()
    before = fingerprint(desk)
    assert fit_of(desk, 10_000).fits > 0
    assert fingerprint(desk) == before
    desk.scheduler.validate()


def test_number_of_agents_in_an_answer_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "MAX_AGENTS", 2)
    desk = desk_with(*(make_offer(f"o{n}", f"a{n}", cpus=2) for n in range(3)))
    found = fit_of(desk, 10)
    assert (found.fits, found.complete) == (2, False)


def some(dice: random.Random, most: int) -> int:
    return dice.choice((0, dice.randint(1, most)))


def test_number_equals_that_of_the_matcher_on_random_clusters() -> None:
    """The matcher's own trial on a copy: without a quota, both find room for the same number of shards."""
    dice = random.Random("fit")
    for _ in range(150):
        cluster = Cluster(counting_matcher(len(DIMENSIONS)))
        executor = Resources(some(dice, 3) * 500, some(dice, 3) * 64_000)
        request = Request(
            Resources(dice.randint(1, 4) * 500, some(dice, 4) * 64_000, gpus=some(dice, 2)), "e", executor
        )
        for n in range(dice.randint(1, 8)):
            offers = dice.randint(1, 2)
            for k in range(offers):
                cluster.add_offer(
                    make_offer(f"o{n}-{k}", f"a{n}", dice.randint(0, 9), dice.randint(0, 2000), gpus=some(dice, 9)), 0
                )
            if dice.random() < 0.4:
                cluster.reserve(f"a{n}", "e", executor)
        wanted = dice.choice((3, 200))
        trial = [agent for agent in cluster.rehearse([request] * wanted) if agent is not None]
        question = fit.Question(
            "report", wanted, request, cluster.rooms(request, 100, 100), Allowance("t", None, Use()), True, ()
        )
        found = fit.answer(question)
        assert found.fits == len(trial)
        if found.fits < wanted:
            assert shares(found) == {agent: trial.count(agent) for agent in trial}
            matchers = cluster.refusal(request)
            assert bool(found.reasons) or not matchers.considered


def lack_by_single_steps(allowance: Allowance, each: Resources, shards: int, executor: Resources) -> int:
    """How many shards may start, one after another."""
    started = 0
    for _ in range(shards):
        first = executor if not started else NOTHING
        allowed, _ = allowance.most(each, 1, first)
        if not allowed:
            break
        allowance.take(each.plus(first), 1)
        started += 1
    return started


@pytest.mark.parametrize("limit", [None, 0, 999, 1000, 3500, 9000])
def test_quota_gives_many_shards_at_once_what_it_gives_one_by_one(limit: int | None) -> None:
    make: Callable[[], Allowance] = lambda: Allowance("t", Quota(cpus=limit, shards=7), Use(cpus=500, shards=2))  # noqa: E731
    for each in (Resources(1000), Resources(mem=1000), Resources(300, 10)):
        for executor in (NOTHING, Resources(1000), Resources(mem=5)):
            at_once, _ = make().most(each, 20, executor)
            assert at_once == lack_by_single_steps(make(), each, 20, executor), (each, executor)
