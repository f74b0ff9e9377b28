"""Mesos roles of teams: each team gets the offers of its role, and the others get the rest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.core_world import POLICY, Desk, make_app, make_job, make_offer, of

from jobcloud.config import EVERY_AGENT, Job, Resources
from jobcloud.messages import Accept, Decline, OffersReceived, PutJob, Revive, SendFailed, Suppress, Trigger
from jobcloud.model import Offer, TaskName
from jobcloud.scheduler import fit

ROLES = replace(POLICY, team_roles={"billing": "finance", "ledger": "finance", "web": "web"})
SMALL = Resources(cpus=10, mem=1_000)


def desk_of(*teams: str) -> Desk:
    return Desk(*(make_app(team=team, resources=SMALL) for team in teams), policy=ROLES)


def add(desk: Desk, team: str, shards: int = 1, **fields: Any) -> Job:
    job = make_job(team=team, shard_count=shards, **{"resources": Resources(1_000, 1_000), **fields})
    desk.do(PutJob(desk.at, job))
    desk.do(Trigger(desk.at, job.key))
    return job


def receive(desk: Desk, *offers: Offer) -> dict[str, tuple[list[str], set[str]]]:
    """Agent and role → the jobs that start there, and the roles of their resources."""
    roles = {offer.id: offer.role for offer in offers}
    desk.do(OffersReceived(desk.at, offers))
    desk.tick()
    return {
        f"{accept.agent_id} {'+'.join(sorted({roles[one] for one in accept.offer_ids}))}": (
            [TaskName.parse(one.task_id).job for one in accept.launches],
            {share.origin for one in accept.launches for share in (*one.shares, *one.executor.shares)},
        )
        for accept in of(Accept, desk.last)
    }


def origin(role: str) -> set[str]:
    return {f'{{"allocation_info": {{"role": "{role}"}}}}'}


def test_each_team_gets_the_offers_of_its_role_alone() -> None:
    desk = desk_of("billing", "default", "web")
    for team in ("billing", "default", "web"):
        add(desk, team, 3)
    found = receive(
        desk,
        make_offer("o1", "a1", 2, role="finance"), make_offer("o2", "a1", 3, role="*"),
        make_offer("o3", "a2", 8, role="finance"), make_offer("o4", "a3", 2, role="*"),
    )  # fmt: skip
    assert found == {
        "a1 *": (["report"] * 2, origin("*")),
        "a3 *": (["report"], origin("*")),
        "a2 finance": (["billing:report"] * 3, origin("finance")),
    }
    assert desk.scheduler.explain("web:report", desk.at).headline == (
        "no offer of the Mesos role web is held; offers have been requested"
    )


def test_teams_may_share_a_role() -> None:
    desk = desk_of("billing", "ledger")
    add(desk, "billing", 9)
    add(desk, "ledger", 9)
    [(jobs, _)] = receive(desk, make_offer("o1", cpus=7, role="finance")).values()
    assert sorted(jobs) == ["billing:report"] * 3 + ["ledger:report"] * 3


def test_team_without_a_role_gets_the_offers_of_each_role_of_all() -> None:
    desk = desk_of("default")
    add(desk, "default", 2)
    found = receive(desk, *(make_offer(f"o{role}", cpus=2, role=role) for role in ("batch", "finance", "spare")))
    assert set(found) == {"a1 batch", "a1 spare"}


def test_refusal_of_one_team_stays_while_others_start() -> None:
    desk = desk_of("billing", "default")
    add(desk, "billing", resources=Resources(5_000, 1_000))
    add(desk, "default", resources=Resources(6_000, 1_000))
    receive(desk, make_offer("o1", cpus=4, role="finance"), make_offer("o2", cpus=4, role="*"))
    lacking = {
        job: desk.scheduler.explain(job, desk.at).reasons[0].text.partition(":")[0]
        for job in ("report", "billing:report")
    }
    assert all("cpus" in text for text in lacking.values()), lacking
    receive(desk, make_offer("o3", "a2", cpus=7, role="*"))
    assert "cpus" in desk.scheduler.explain("billing:report", desk.at).headline


def test_idle_teams_get_no_offers_while_others_have_work_and_some_as_soon_as_they_have() -> None:
    desk = desk_of("billing", "default")
    add(desk, "default", resources=Resources(9_000, 1_000))
    receive(desk, make_offer("o1", "a1", cpus=4, role="finance"), make_offer("o2", "a2", cpus=4, role="*"))
    assert of(Suppress, desk.last) == [Suppress(("finance", "web"))]
    assert of(Decline, desk.last) == [Decline(("o1",), 0)]
    assert desk.scheduler.cluster.held == 1
    desk.all.clear()
    add(desk, "billing", resources=Resources(9_000, 1_000))
    desk.run_until_idle()
    assert of(Revive, desk.all) == [Revive(("finance",))]
    assert of(Suppress, desk.all) == []


@pytest.mark.parametrize("call", [Suppress(("finance", "web")), Revive(("finance",))])
def test_call_about_one_role_that_failed_is_repeated(call: Suppress | Revive) -> None:
    desk = desk_of("billing", "default")
    add(desk, "default", resources=Resources(9_000, 1_000))
    desk.run_until_idle()
    if isinstance(call, Revive):
        add(desk, "billing", resources=Resources(9_000, 1_000))
        desk.run_until_idle()
    assert of(type(call), desk.all)[-1] == call
    desk.all.clear()
    desk.do(SendFailed(desk.at, call, "the connection was reset", certain=False))
    desk.run_until_idle()
    assert of(type(call), desk.all) == [call]


def test_offers_are_held_as_usual_while_nobody_waits() -> None:
    desk = desk_of("billing", "default")
    receive(desk, make_offer("o1", "a1", role="finance"), make_offer("o2", "a2", role="*"))
    assert desk.scheduler.cluster.held == 2


def test_warm_executors_start_on_offers_of_the_role_of_their_team() -> None:
    app = make_app(team="billing", resources=SMALL, executors=EVERY_AGENT)
    desk = Desk(app, make_app(resources=SMALL, executors=1), policy=ROLES)
    desk.run_until_idle()
    found = receive(desk, make_offer("o1", "a1", role="finance"), make_offer("o2", "a2", role="*"))
    assert {place: origins for place, (_, origins) in found.items()} == {
        "a1 finance": origin("finance"), "a2 *": origin("*"),
    }  # fmt: skip


@pytest.mark.parametrize(("team", "fits"), [("billing", 3), ("default", 7), ("web", 0)])
def test_fit_counts_the_offers_that_the_team_may_use(team: str, fits: int) -> None:
    desk = desk_of(team)
    job = make_job(team=team, resources=Resources(1_000, 1_000))
    desk.do(PutJob(desk.at, job))
    offers = (make_offer("o1", "a1", 4, role="finance"), make_offer("o2", "a1", 8, role="*"))
    desk.do(OffersReceived(desk.at, offers))
    found = fit.answer(desk.scheduler.fit_question(job.key, 20, desk.at))
    assert (found.fits, found.complete) == (fits, True)


def test_fit_without_an_offer_names_the_role() -> None:
    desk = desk_of("web")
    job = make_job(team="web")
    desk.do(PutJob(desk.at, job))
    texts = [reason.text for reason in fit.answer(desk.scheduler.fit_question(job.key, 1, desk.at)).reasons]
    assert texts[0] == "no offer of the Mesos role web is held; offers are requested when shards wait"


def test_dry_run_places_each_team_on_its_role() -> None:
    desk = desk_of("billing", "default", "web")
    for team in ("billing", "default", "web"):
        add(desk, team)
    offers = (make_offer("o1", "a1", role="finance"), make_offer("o2", "a2", role="*"))
    desk.do(OffersReceived(desk.at, offers))
    plan = {firing.partition("~")[0].partition(".")[0]: agent for firing, _, agent in desk.scheduler.plan(desk.at)}
    assert plan == {"billing:report": "a1", "report": "a2", "web:report": None}


def test_task_joins_an_executor_that_has_the_former_role_of_its_team() -> None:
    """After a change of the setting, running executors keep their resources. Mesos lets tasks of other roles join."""
    desk = Desk(make_app(team="billing", resources=SMALL))
    add(desk, "billing", 2)
    receive(desk, make_offer("o1", cpus=2, role="*"))
    desk.policy = ROLES
    desk.restart()
    [(jobs, origins)] = receive(desk, make_offer("o2", cpus=1, role="finance")).values()
    assert jobs == ["billing:report"]
    assert origins == origin("finance") | origin("*")
