"""The cluster: offers held, claims on them, and shares allocated from several offers."""

from __future__ import annotations

import random

import pytest
from tests.core_world import counting_matcher, make_offer

from jobcloud.config import DIMENSIONS, NOTHING, Resources
from jobcloud.match import MAX_AMOUNT
from jobcloud.model import Offer, Share
from jobcloud.scheduler.cluster import Cluster, InsufficientResources, Pool, Request, amounts

ONE = Request(Resources(1000, 128_000), "app@-@1", Resources(1000, 128_000))


def cluster_with(*offers: Offer) -> Cluster:
    cluster = Cluster(counting_matcher(len(DIMENSIONS)))
    for offer in offers:
        cluster.add_offer(offer, 0)
    return cluster


def test_offers_of_one_agent_are_combined() -> None:
    cluster = cluster_with(make_offer("o1", cpus=1), make_offer("o2", cpus=1))
    assert cluster.place([ONE], 10)[0] is not None
    assert [offer.id for offer in cluster.take_offers("a1")] == ["o1", "o2"]
    assert cluster.held == 0
    cluster.validate()


def test_freed_resources_are_used_only_after_they_are_offered_again() -> None:
    cluster = cluster_with(make_offer("o1", cpus=2))
    placement = cluster.place([ONE], 10)[0]
    assert placement is not None
    cluster.reserve("a1", ONE.executor_id, ONE.executor)
    cluster.take_offers("a1")
    cluster.bind("t", placement)
    assert cluster.release("t")
    assert not cluster.release("t")
    assert cluster.place([ONE], 10) == [None]
    cluster.add_offer(make_offer("o2", cpus=1), 5)
    assert cluster.place([ONE], 10)[0] is not None
    cluster.validate()


def test_size_of_an_agent_stays_known_without_offers() -> None:
    cluster = cluster_with(make_offer("o1", cpus=1), make_offer("o2", cpus=1))
    entry = cluster.agents["a1"]
    placement = cluster.place([ONE], 10)[0]
    assert placement is not None
    cluster.take_offers("a1")
    cluster.bind("t", placement)
    assert cluster.whole(entry).cpus == 2_000
    cluster.drop_all_offers()
    # The task's share is offered again before its end is reported. Until then it counts twice.
    cluster.add_offer(make_offer("o3", cpus=2), 5)
    cluster.release("t")
    assert cluster.whole(entry).cpus == 2_000
    cluster.drop_offer("o3")
    assert (entry.offered, cluster.whole(entry).cpus) == (NOTHING, 2_000)
    cluster.add_offer(make_offer("o4", cpus=1), 6)
    assert cluster.whole(entry).cpus == 1_000


def test_rolled_back_placement_leaves_no_trace() -> None:
    cluster = cluster_with(make_offer("o1", cpus=2))
    placement = cluster.place([ONE], 10)[0]
    assert placement is not None
    cluster.rollback(placement)
    assert cluster.matcher.claims() == 0
    assert cluster.place([ONE], 10)[0] is not None


def test_room_of_other_placements_stays_taken_after_a_rollback() -> None:
    cluster = cluster_with(make_offer("o1", cpus=4))
    first, second, third = cluster.place([ONE] * 3, 10)
    assert first is not None
    cluster.rollback(first)
    assert [placement and placement.agent_id for placement in cluster.place([ONE] * 2, 10)] == ["a1", None]
    assert second is not None
    assert third is not None


def test_rollback_after_the_offers_were_taken_makes_no_room() -> None:
    cluster = cluster_with(make_offer("o1", cpus=2))
    placement = cluster.place([ONE], 10)[0]
    assert placement is not None
    cluster.take_offers("a1")
    assert cluster.place([ONE], 10) == [None]
    cluster.rollback(placement)
    assert cluster.place([ONE], 10) == [None]
    cluster.validate()


def test_rehearsal_claims_nothing() -> None:
    cluster = cluster_with(make_offer("o1", cpus=2))
    assert cluster.rehearse([ONE, ONE]) == ["a1", None]
    assert cluster.matcher.claims() == 0


def test_requests_beyond_the_limit_are_not_tried() -> None:
    cluster = cluster_with(make_offer("o1", cpus=8))
    huge = ONE._replace(resources=Resources(99_000, 128_000))
    placements = cluster.place([huge, ONE, huge, ONE, ONE], 2)
    assert [placement is not None for placement in placements] == [False, True, False, True]


def test_absurdly_large_offer_does_no_harm() -> None:
    absurd = Offer("o1", "a1", "h", "h:1", (Share("cpus", MAX_AMOUNT * 10), Share("mem", 1 << 62), Share("x", 1)))
    cluster = cluster_with(absurd)
    assert cluster.place([ONE], 1)[0] is not None
    cluster.validate()


def test_lost_agent_is_forgotten_after_its_last_claim() -> None:
    cluster = cluster_with(make_offer("o1"))
    cluster.claim("t", "a1", ONE)
    cluster.lose_agent("a1")
    cluster.forget_idle_agents(-1)
    assert (cluster.held, list(cluster.agents)) == (0, ["a1"])
    cluster.release("t")
    cluster.forget_idle_agents(-1)
    assert cluster.agents == {}
    cluster.lose_agent("a1")


def test_unused_classes_are_dropped_and_executors_still_count_once() -> None:
    cluster = cluster_with(make_offer("o1", cpus=9))
    cluster.reserve("a1", ONE.executor_id, ONE.executor)
    for number in range(50):
        cluster.place([Request(Resources(9_000_000 + number), f"e{number}", NOTHING)], 1)
        cluster.prune_classes([])
    assert (len(cluster._classes), len(cluster._executor_keys)) == (0, 1)
    placed = cluster.place([ONE] * 20, 20)
    assert (
        sum(placement is not None for placement in placed) == 9
    )  # the executor has its reservation and is not charged again


def test_age_of_an_offer_counts_from_its_receipt() -> None:
    cluster = cluster_with()
    for number in range(3):
        cluster.add_offer(make_offer(f"o{number}"), number)
    assert cluster.offers_received_before(2) == ["o0", "o1"]
    assert (cluster.oldest_offers(1), cluster.oldest_offers(-5)) == (["o0"], [])
    cluster.age_offers_from(1)
    assert cluster.offers_received_before(2) == ["o0", "o1", "o2"]
    assert cluster.drop_offer("o0")
    assert not cluster.drop_offer("o0")
    cluster.drop_all_offers()
    assert cluster.oldest_received_ms() is None
    cluster.validate()


def test_ports_are_allocated_from_the_lowest_ranges_first() -> None:
    ports = Share("ports", 6000, ranges=((100, 101), (200, 203)))
    pool = Pool([Offer("o", "a", "h", "h:1", (ports,))])
    assert pool.allocate(Resources(ports=3000))[0].ranges == ((100, 101), (200, 200))
    assert pool.allocate(Resources(ports=1000))[0].ranges == ((201, 201),)
    assert pool.allocate(Resources(ports=2000))[0].ranges == ((202, 203),)
    with pytest.raises(InsufficientResources, match="ports"):
        pool.allocate(Resources(ports=1000))


def test_allocations_add_up_and_keep_their_origin(seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(300):
        shares = [random_share(dice, number) for number in range(dice.randrange(1, 12))]
        pool = Pool([Offer(f"o{number}", "a", "h", "h:1", (share,)) for number, share in enumerate(shares)])
        left = amounts(shares)
        for _ in range(6):
            wanted = Resources(*(dice.choice((0, 1000, 3000)) for _ in DIMENSIONS))
            try:
                cut = pool.allocate(wanted)
            except InsufficientResources:
                assert any(want > have for want, have in zip(wanted, left, strict=True))
                continue
            assert amounts(cut) == wanted
            left = Resources(*(have - want for have, want in zip(left, wanted, strict=True)))
            for share in cut:
                assert any(share.origin == other.origin and share.reserved == other.reserved for other in shares)
                assert not share.ranges or sum(b - a + 1 for a, b in share.ranges) * 1000 == share.amount
            shares.append(Share("cpus", 0))


def random_share(dice: random.Random, number: int) -> Share:
    name = dice.choice(DIMENSIONS)
    amount = dice.randrange(0, 9) * 1000
    ranges = ((number * 100, number * 100 + amount // 1000 - 1),) if name == "ports" and amount else ()
    reserved = dice.random() < 0.5
    return Share(name, amount, f'{{"role":"{number}"}}', reserved, ranges)


# ------------------------------------------------------------------------------------------------- several roles


def test_offers_of_two_roles_are_not_combined() -> None:
    cluster = cluster_with(make_offer("o1", cpus=1, role="batch"), make_offer("o2", cpus=1, role="web"))
    assert cluster.most_roles() == 2
    for _ in range(2):
        assert cluster.place([ONE], 10) == [None]
        cluster.count_next_role()
    cluster.add_offer(make_offer("o3", cpus=1, role="web"), 0)
    placements = []
    for _ in range(2):
        placements += cluster.place([ONE], 10)
        if placements[-1] is not None:
            assert [offer.id for offer in cluster.take_offers("a1")] == ["o2", "o3"]
        cluster.count_next_role()
    assert placements.count(None) == 1
    assert (cluster.held, cluster.most_roles()) == (1, 1)
    cluster.validate()


def test_size_of_an_agent_is_the_sum_over_all_roles() -> None:
    cluster = cluster_with(make_offer("o1", cpus=4, role="batch"), make_offer("o2", cpus=2, role="web"))
    entry = cluster.agents["a1"]
    assert cluster.whole(entry).cpus == 6_000
    placement = cluster.place([ONE], 10)[0]
    assert placement is not None
    taken = cluster.take_offers("a1")
    cluster.bind("t", placement)
    cluster.reserve("a1", ONE.executor_id, ONE.executor)
    assert [offer.role for offer in taken] == ["batch"]
    assert entry.role == "web"
    cluster.add_offer(make_offer("o3", cpus=2, role="batch"), 1)
    cluster.validate()
    assert cluster.whole(entry).cpus == 6_000


def test_rescinded_offer_of_the_counted_role_leaves_the_other_role() -> None:
    cluster = cluster_with(make_offer("o1", cpus=2, role="batch"), make_offer("o2", cpus=2, role="web"))
    cluster.drop_offer("o1")
    cluster.validate()
    assert cluster.place([ONE], 10)[0] is not None
    assert [offer.id for offer in cluster.take_offers("a1")] == ["o2"]


def test_exact_shares_are_taken_with_their_role_and_reservation() -> None:
    reserved, free = Share("cpus", 2000, '{"role":"r"}', True), Share("cpus", 2000)
    pool = Pool([Offer("o1", "a1", "host", "", (reserved, free))])
    with pytest.raises(InsufficientResources, match="cpus"):
        pool.take((Share("cpus", 1000), Share("cpus", 1500)))
    pool.take((Share("cpus", 1500),))
    assert pool.allocate(Resources(cpus=2500)) == (reserved, Share("cpus", 500))
    with pytest.raises(InsufficientResources):
        pool.allocate(Resources(cpus=1))
