"""Rules between tasks, exclusive hosts and penalties, on small cases."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from jobcloud.match import (
    ENGINES,
    MAX_PENALTY,
    REFUSED,
    CompiledMatcher,
    MatchError,
    PlainMatcher,
    Rule,
    at_most,
    balanced,
    near,
)

ZONE, RACK = 0, 5
DIMENSION = 1 << 20  # one dimension of a host wholly free


@pytest.fixture(params=[*ENGINES, "plain"])
def impl(request: pytest.FixtureRequest) -> Any:
    """Makes a matcher with one dimension."""
    if request.param == "plain":
        return lambda **options: PlainMatcher(1, **options)
    return lambda **options: CompiledMatcher(1, engine=request.param, **options)


def ints(*numbers: int) -> NDArray[np.int64]:
    return np.array(numbers, dtype=np.int64)


def hosts(matcher: Any, *zones: int, size: int = 10) -> None:
    for _ in zones:
        matcher.add_host(ints(1_000 * size))
    matcher.set_attribute(ZONE, ints(*zones))


def place(matcher: Any, *classes: int) -> list[int]:
    slots, matcher_ids = matcher.match(ints(*classes))
    matcher.check()
    LAST[:] = matcher_ids.tolist()
    return list(slots.tolist())


LAST: list[int] = []


def task(matcher: Any, *rules: Rule, **named: Any) -> int:
    return int(matcher.add_class(ints(1_000), rules=rules, **named))


def test_at_most_one_per_zone_gives_each_task_its_own_zone(impl: Any) -> None:
    matcher = impl()
    hosts(matcher, 0, 0, 1, 1, 2)
    replica = task(matcher, at_most(1, 7, per=ZONE), group=7)
    assert place(matcher, *[replica] * 4) == [0, 2, 4, REFUSED]
    why = matcher.refusal(replica)
    assert (why.hosts, why.ruled_out, why.considered, why.breaking) == (5, 5, 0, (5,))
    assert why.could_ever_fit
    assert why.nearest is None
    matcher.release(ints(LAST[1]))
    assert place(matcher, replica, replica) == [2, REFUSED]


def test_host_without_the_attribute_breaks_the_rule(impl: Any) -> None:
    matcher = impl()
    hosts(matcher, -1, 0)
    replica = task(matcher, at_most(5, 7, per=ZONE), group=7)
    other = task(matcher, at_most(5, 7, per=RACK))
    assert place(matcher, replica, replica, other) == [1, 1, REFUSED]
    assert not matcher.refusal(other).could_ever_fit


def test_claims_made_before_the_rule_or_the_attribute_count(impl: Any) -> None:
    matcher = impl()
    hosts(matcher, 0, 0, 0)
    plain = task(matcher, group=7)
    assert place(matcher, plain) == [0]
    replica = task(matcher, at_most(1, 7, per=ZONE))
    assert place(matcher, replica) == [REFUSED]
    matcher.set_attribute(ZONE, ints(0, 0, 1))
    assert place(matcher, replica) == [2]
    matcher.set_attribute(ZONE, None)
    assert place(matcher, replica) == [REFUSED]


def test_weighted_limit_yields_if_no_other_host_is_left(impl: Any) -> None:
    matcher = impl()
    hosts(matcher, 0, 0, 1, size=2)
    replica = task(matcher, at_most(1, 7, per=ZONE, weight=8 * DIMENSION), group=7)
    assert place(matcher, *[replica] * 7) == [0, 2, 0, 2, 1, 1, REFUSED]
    assert matcher.refusal(replica).ruled_out == 0


def test_near_keeps_tasks_with_another_group(impl: Any) -> None:
    matcher = impl()
    hosts(matcher, 0, 1, 1)
    cache = task(matcher, group=1, allowed=np.array([False, False, True]))
    web, sidecar = task(matcher, near(1, within=ZONE)), task(matcher, near(1))
    assert place(matcher, web, sidecar) == [REFUSED, REFUSED]
    assert place(matcher, cache, web, sidecar, web) == [2, 2, 2, 2]
    matcher.set_host(2, ints(0))
    assert place(matcher, sidecar, web) == [REFUSED, 1]


def test_first_task_of_a_group_with_near_may_go_anywhere(impl: Any) -> None:
    matcher = impl()
    hosts(matcher, 0, 1, 1, size=1)
    member = task(matcher, near(1, within=ZONE), group=1, allowed=np.array([False, True, True]))
    anyone = task(matcher, near(1, within=ZONE), group=1)
    assert place(matcher, member, anyone, anyone) == [1, 2, REFUSED]
    matcher.release(ints(*LAST[:2]))
    assert place(matcher, anyone, anyone) == [0, REFUSED]


def test_weighted_near_is_an_affinity(impl: Any) -> None:
    matcher = impl(fitness="pack")
    hosts(matcher, 0, 0, 0, size=4)
    full = task(matcher)
    matcher.assign(full, 2)
    matcher.assign(full, 2)
    member = task(matcher, near(1, weight=DIMENSION), group=1)
    matcher.assign(member, 1)
    assert place(matcher, member) == [1]
    matcher.remove_class(member)
    weak = task(matcher, near(1, weight=DIMENSION // 100), group=1)
    matcher.assign(full, 2)
    assert place(matcher, weak) == [2]


def test_balanced_takes_the_emptiest_zones(impl: Any) -> None:
    matcher = impl()
    hosts(matcher, 0, 0, 1, 2)
    member = task(matcher, balanced(7, ZONE), group=7)
    assert place(matcher, *[member] * 7) == [0, 2, 3, 0, 2, 3, 0]
    matcher.release(ints(LAST[1]))
    assert place(matcher, member, member) == [2, 2]


def test_full_zone_blocks_a_balanced_rule_until_its_hosts_are_disabled(impl: Any) -> None:
    matcher = impl()
    hosts(matcher, 0, 1, size=2)
    member = task(matcher, balanced(7, ZONE, skew=2), group=7)
    matcher.set_host(1, ints(0))
    assert place(matcher, *[member] * 3) == [0, 0, REFUSED]
    matcher.set_host(0, ints(9_000))
    assert place(matcher, member) == [REFUSED]
    matcher.enable_host(1, False)
    assert place(matcher, member) == [0]
    matcher.enable_host(1, True)
    assert place(matcher, member) == [REFUSED]
    matcher.remove_host(1)
    assert place(matcher, member) == [0]


def test_zone_outside_the_mask_does_not_block_a_balanced_rule(impl: Any) -> None:
    matcher = impl()
    hosts(matcher, 0, 1, 2)
    member = task(matcher, balanced(7, ZONE), group=7, allowed=np.array([True, True, False]))
    assert place(matcher, *[member] * 4) == [0, 1, 0, 1]
    matcher.set_allowed(member, None)
    assert place(matcher, member, member, member) == [2, 2, 0]


def test_weighted_balanced_pays_for_each_excess_task(impl: Any) -> None:
    matcher = impl()
    hosts(matcher, 0, 0, 1, 2)
    matcher.enable_host(3, False)
    member = task(matcher, balanced(7, ZONE, weight=DIMENSION), group=7)
    for _ in range(6):
        matcher.assign(member, 2)
    assert place(matcher, *[member] * 8)[:6] == [0] * 6
    assert matcher.refusal(member).ruled_out == 0


def test_exclusive_task_excludes_and_is_excluded(impl: Any) -> None:
    matcher = impl()
    hosts(matcher, 0, 0, 0)
    plain, alone = task(matcher), task(matcher, exclusive=True)
    assert place(matcher, plain, alone, plain, alone, alone) == [0, 1, 0, 2, REFUSED]
    ids = list(LAST)
    assert matcher.refusal(alone).occupied == 3
    assert matcher.refusal(plain).occupied == 2
    matcher.release(ints(ids[1]))
    matcher.enable_host(0, False)
    assert place(matcher, plain, alone) == [1, REFUSED]
    matcher.release(ints(LAST[0]))
    assert place(matcher, alone) == [1]


def test_exclusive_class_keeps_away_from_assigned_tasks(impl: Any) -> None:
    matcher = impl()
    hosts(matcher, 0)
    plain, alone = task(matcher), task(matcher, exclusive=True)
    both = [matcher.assign(alone, 0), matcher.assign(plain, 0)]
    assert place(matcher, plain) == [REFUSED]
    matcher.release(ints(both[0]))
    assert place(matcher, alone, plain) == [REFUSED, 0]


def test_penalty_changes_the_choice_but_a_host_with_the_key_comes_first(impl: Any) -> None:
    matcher = impl(fitness="pack")
    hosts(matcher, 0, 0)
    picky = task(matcher, penalty=ints(DIMENSION, 0))
    sharing = task(matcher, penalty=ints(MAX_PENALTY, 0), shared_key=1, shared=ints(100))
    matcher.assign(sharing, 0)
    assert place(matcher, picky, sharing) == [1, 0]
    matcher.set_penalty(picky, None)
    assert place(matcher, picky) == [0]
    matcher.set_penalty(picky, ints(1))
    assert place(matcher, picky) == [0]


def test_sum_of_penalties_is_capped(impl: Any) -> None:
    matcher = impl(fitness={"pack": 4_096})
    hosts(matcher, 0, 1)
    wishes = [at_most(1, 1, per=ZONE, weight=MAX_PENALTY)] * 15
    rich = task(
        matcher, *wishes, balanced(1, ZONE, weight=MAX_PENALTY), group=1, penalty=ints(MAX_PENALTY, MAX_PENALTY)
    )
    for _ in range(3):
        matcher.assign(rich, 0)
    assert place(matcher, rich) == [0]


def test_rolled_back_gang_leaves_the_rule_counts_unchanged(impl: Any) -> None:
    matcher = impl()
    hosts(matcher, 0, 0, 1)
    member = task(matcher, at_most(1, 7, per=ZONE), balanced(7, ZONE), group=7)
    alone = task(matcher, exclusive=True)
    before = matcher.snapshot()
    assert (matcher.match_gang(ints(member, alone, member, member))[0] < 0).all()
    matcher.check()
    assert matcher.snapshot() == before
    assert place(matcher, member, member, alone) == [0, 2, 1]


def test_rules_survive_a_snapshot_and_a_fork(impl: Any) -> None:
    matcher = impl()
    hosts(matcher, 0, 1, 1)
    member = task(matcher, at_most(2, 7, per=ZONE), balanced(7, ZONE, weight=9), group=7, penalty=ints(0, 3))
    place(matcher, member, member)
    for copy in (matcher.fork(), type(matcher).restore(matcher.snapshot())):
        assert copy.snapshot() == matcher.snapshot()
        assert copy.match(ints(*[member] * 3))[0].tolist() == matcher.fork().match(ints(*[member] * 3))[0].tolist()


def test_classes_with_rules_can_be_added_and_removed(impl: Any) -> None:
    matcher = impl()
    hosts(matcher, *range(8))
    for turn in range(3):
        classes = [
            task(matcher, at_most(1, 10 * turn + i, per=ZONE), near(99, weight=1), group=10 * turn + i)
            for i in range(9)
        ]
        assert place(matcher, *classes) == [0] * 9
        for cls in classes:
            matcher.remove_class(cls)
        matcher.check()
        matcher.release(ints(*LAST))
        matcher.check()


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({"rules": [1]}, r"a list of at_most\(\), near\(\) and balanced\(\) rules"),
        ({"rules": 5}, r"a list of at_most\(\), near\(\) and balanced\(\) rules"),
        ({"rules": [at_most(0, 1)]}, r"rules\[0\].number must be between 1"),
        ({"rules": [at_most(1, -1)]}, r"rules\[0\].group must be between 0"),
        ({"rules": [near(1), at_most(1, 1, per=64)]}, r"rules\[1\].attribute must be between -1 and 63"),
        ({"rules": [near(1, weight=-1)]}, r"rules\[0\].weight must be between 0"),
        ({"rules": [near(1, weight=1.5)]}, r"rules\[0\].weight must be a whole number"),  # type: ignore[arg-type]
        ({"rules": [balanced(1, -1)]}, "balances without an attribute"),
        ({"rules": [Rule("best", 1)]}, r"rules\[0\].kind must be one of at_most, near, balanced"),
        ({"rules": [near(1)] * 17}, "17 entries; a class may have at most 16"),
        ({"exclusive": 1}, "exclusive must be True or False"),
        ({"penalty": [1]}, "penalty must be a one-dimensional"),
        ({"penalty": np.array([0.5])}, "not float64"),
        ({"penalty": ints(-1)}, r"penalty\[0\] is -1; a penalty is between 0"),
        ({"penalty": ints(MAX_PENALTY + 1)}, r"penalty\[0\] is 268435457"),
        ({"penalty": ints(0, 1)}, r"penalty\[1\] is set, but slot 1 holds no host"),
    ],
)
def test_bad_rule_or_penalty_is_named_and_changes_nothing(impl: Any, named: Any, words: str) -> None:
    matcher = impl()
    matcher.add_host(ints(1_000))
    cls = matcher.add_class(ints(1))
    before = matcher.snapshot()
    with pytest.raises(MatchError, match=words):
        matcher.add_class(ints(1), **named)
    if "penalty" in named:
        with pytest.raises(MatchError, match=words):
            matcher.set_penalty(cls, named["penalty"])
    assert matcher.snapshot() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((64, None), "attribute must be between 0 and 63"),
        ((-1, None), "attribute must be between 0 and 63"),
        ((0, [1]), "values must be a one-dimensional"),
        ((0, ints(-2)), r"values\[0\] is -2"),
        ((0, ints(2**24)), r"values\[0\] is 16777216"),
        ((0, ints(-1, 0)), r"values\[1\] is set, but slot 1 holds no host"),
    ],
)
def test_bad_attribute_is_named_and_changes_nothing(impl: Any, arguments: Any, words: str) -> None:
    matcher = impl()
    matcher.add_host(ints(1_000))
    before = matcher.snapshot()
    with pytest.raises(MatchError, match=words):
        matcher.set_attribute(*arguments)
    assert matcher.snapshot() == before


def test_rule_causes_scores_only_where_its_effect_changes() -> None:
    """500 racks of 20 hosts: a limit per rack costs no scores until it is reached, then those of the 20 hosts."""
    matcher = CompiledMatcher(1, engine="tables")
    for _ in range(10_000):
        matcher.add_host(ints(100_000))
    matcher.set_attribute(RACK, np.arange(10_000) // 20)
    member = matcher.add_class(ints(1_000), group=1, rules=[at_most(10, 1, per=RACK)])
    first, _ = matcher.match(ints(member))
    before = matcher.evaluations
    slots, _ = matcher.match(np.full(999, member))
    assert np.unique(np.append(first, slots) // 20, return_counts=True)[1].tolist() == [10] * 100
    assert 999 + 99 * 20 <= matcher.evaluations - before <= 999 + 100 * 20
