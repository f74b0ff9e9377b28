"""Scenarios from the tests of Netflix Fenzo for features that the matcher has; each test names its scenarios.

B: basics. P and S: packing and spreading. C: constraints. R: limits of groups. SC: gpus. SO: single offers. OR and A:
offers and groups of hosts. TS: its service. "defect": a bug of Fenzo. The dimensions are cpus, memory in MB, network
and ports; a host has 10 ports by default. docs/matcher.md lists the scenarios without a counterpart, with reasons; the
last test checks that the list is complete.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from jobcloud.match import REFUSED, CompiledMatcher, MatchError, PlainMatcher, Rule, at_most, balanced
from jobcloud.match.constraints import HOST, mask, parse
from jobcloud.match.placer import Placer


@pytest.fixture(params=[CompiledMatcher, PlainMatcher], ids=["compiled", "plain"])
def impl(request: pytest.FixtureRequest) -> Any:
    return request.param


def amounts(cpus: float, mem: float = 0, ports: int = 0, network: float = 0) -> NDArray[np.int64]:
    return np.array([round(1_000 * amount) for amount in (cpus, mem, ports, network)], dtype=np.int64)


class Cluster:
    """Hosts and tasks in the terms of the scenarios."""

    def __init__(self, impl: Any, *hosts: NDArray[np.int64], **options: Any) -> None:
        self.matcher = impl(4, **options)
        self.hosts = [self.matcher.add_host(host) for host in hosts]

    def run(self, *tasks: NDArray[np.int64], **named: Any) -> list[int]:
        """The host of each task. Equal tasks are one class."""
        numbers: dict[bytes, int] = {}
        for task in tasks:
            if task.tobytes() not in numbers:
                numbers[task.tobytes()] = self.matcher.add_class(task, **named)
        slots, self.ids = self.matcher.match(np.array([numbers[task.tobytes()] for task in tasks]))
        self.matcher.check()
        return list(slots.tolist())


HOST_4 = amounts(4, 100, 10)


def test_b1_three_tasks_fill_one_host(impl: Any) -> None:
    tasks = amounts(1, 10, 1), amounts(2, 10, 1), amounts(1, 10, 1)
    assert Cluster(impl, HOST_4).run(*tasks) == [0, 0, 0]


def test_b2_task_larger_than_the_host_is_refused(impl: Any) -> None:
    assert Cluster(impl, HOST_4).run(amounts(5)) == [REFUSED]


def test_b3_two_of_three_tasks_fit(impl: Any) -> None:
    assert Cluster(impl, HOST_4).run(amounts(2), amounts(2), amounts(1)) == [0, 0, REFUSED]


def test_b4_memory_is_the_limit(impl: Any) -> None:
    tasks = amounts(1, 95), amounts(2, 95), amounts(1, 95)
    assert Cluster(impl, HOST_4).run(*tasks) == [0, REFUSED, REFUSED]


def test_b6_ports_are_the_limit(impl: Any) -> None:
    assert Cluster(impl, amounts(100, 100, 10)).run(*[amounts(1, 1, 6)] * 3) == [0, REFUSED, REFUSED]


def test_b7_and_defect_7_every_port_of_several_ranges_counts(impl: Any) -> None:
    ports = sum(end - begin + 1 for begin, end in ((1, 4), (5, 10)))
    cluster = Cluster(impl, amounts(100, 100, ports))
    assert cluster.run(amounts(1, 1, 10)) == [0]


def test_b9_and_b10_two_tasks_get_their_ports_in_one_run_or_in_two(impl: Any) -> None:
    host, task = amounts(4, 4_000, 100), amounts(1, 2, 3)
    assert Cluster(impl, host).run(task, task) == [0, 0]
    cluster = Cluster(impl, host)
    assert cluster.run(task) + cluster.run(task) == [0, 0]
    assert cluster.matcher.free(0)[2] == 94_000


def test_b11_port_in_use_is_not_assigned_again(impl: Any) -> None:
    placer = Placer(("cpus", "ports"), matcher=impl)
    placer.add_host("h", {"cpus": 4}, ports=[(1, 5)])
    shape = placer.shape({"cpus": 1, "ports": 1})
    placer.place([("t1", shape)])
    placer.place([("t2", shape)])
    assert {placer.ports_of("t1"), placer.ports_of("t2")} == {(1,), (2,)}


def test_b13_eight_tasks_fill_two_hosts(impl: Any) -> None:
    slots = Cluster(impl, HOST_4, HOST_4).run(*[amounts(1, 1, 1)] * 8)
    assert sorted(slots) == [0] * 4 + [1] * 4


def test_b14_refused_task_leaves_the_host_for_the_next_run(impl: Any) -> None:
    cluster = Cluster(impl, HOST_4)
    assert cluster.run(amounts(5)) + cluster.run(amounts(4)) == [REFUSED, 0]


def test_b18_host_is_used_again_after_its_offers_return(impl: Any) -> None:
    cluster = Cluster(impl, HOST_4)
    cluster.matcher.set_host(0, amounts(0))
    assert cluster.run(amounts(1)) == [REFUSED]
    cluster.matcher.set_host(0, HOST_4)
    assert cluster.run(amounts(1)) == [0]


def test_b20_disk_is_the_limit(impl: Any) -> None:
    matcher = impl(3)
    matcher.add_host(np.array([4_000, 100_000, 1_000_000]))
    task = matcher.add_class(np.array([1_000, 10_000, 800_000]))
    assert matcher.match(np.full(3, task))[0].tolist() == [0, REFUSED, REFUSED]
    assert matcher.refusal(task).lacking == (0, 0, 1)


def test_b21_several_offers_of_one_host_add_up(impl: Any) -> None:
    cluster = Cluster(impl, amounts(4))
    assert cluster.run(amounts(1)) + cluster.run(amounts(4)) == [0, REFUSED]
    cluster.matcher.set_host(0, amounts(4) + amounts(4))
    assert cluster.run(amounts(4)) == [0]


def test_p1_second_task_joins_the_first(impl: Any) -> None:
    cluster = Cluster(impl, HOST_4, HOST_4)
    assert cluster.run(amounts(1, 10)) == cluster.run(amounts(1, 10))


@pytest.mark.parametrize("fitness", ["pack", "convex", "l2"])
def test_p3_to_p5_small_hosts_are_filled_before_large_ones(impl: Any, fitness: str) -> None:
    large, small = amounts(8, 800, 0, 800), amounts(4, 400, 0, 400)
    slots = Cluster(impl, *[large] * 10, *[small] * 10, fitness=fitness).run(*[amounts(1, 100, 0, 100)] * 41)
    assert len(set(slots)) == 11
    assert set(range(10, 20)) < set(slots)


def test_s1_to_s3_ten_tasks_spread_over_ten_hosts(impl: Any) -> None:
    hosts = [amounts(4, 1_024, 10, 1_024)] * 10
    slots = Cluster(impl, *hosts, fitness="spread").run(*[amounts(1, 256, 0, 256)] * 10)
    assert sorted(slots) == list(range(10))


def test_c7_unique_host_spreads_tasks_that_would_share_a_host(impl: Any) -> None:
    cluster = Cluster(impl, *[amounts(8, 8_000, 10)] * 5)
    task = amounts(1, 1_000, 1)
    assert len(set(cluster.run(*[task] * 5))) == 1
    assert sorted(cluster.run(*[task] * 5, group=1, max_per_host=1)) == list(range(5))


def test_r1_and_r2_group_stays_within_its_limit_and_others_are_free(impl: Any) -> None:
    cluster, task = Cluster(impl, *[amounts(4, 4_000, 10)] * 10), amounts(1, 10)
    assert REFUSED not in cluster.run(*[task] * 20, group=2)
    cluster.matcher.set_group_limit(1, amounts(4, 4_000))
    assert [slot == REFUSED for slot in cluster.run(*[amounts(1, 1_000)] * 5, group=1)] == [False] * 4 + [True]
    assert cluster.matcher.refusal(cluster.matcher.add_class(task, group=1)).over_limit


def test_r4_group_at_its_limit_leaves_hosts_to_another(impl: Any) -> None:
    """Without the scale-up, which the matcher lacks: the caller counts free hosts."""
    cluster, task = Cluster(impl, *[amounts(4, 4_000, 10)] * 6, fitness="pack"), amounts(1, 10)
    cluster.matcher.set_group_limit(1, amounts(4, 4_000))
    first = cluster.run(*[task] * 8, group=1)
    assert (len(set(first[:4])), first[4:]) == (1, [REFUSED] * 4)
    second = cluster.run(*[task] * 8, group=2)
    assert (len(set(second)), REFUSED in second, set(first[:4]) & set(second)) == (2, False, set())
    assert cluster.run(task, group=1) == [REFUSED]


def test_r5_and_r7_new_limit_applies_from_the_next_run(impl: Any) -> None:
    cluster, task = Cluster(impl, *[amounts(4, 4_000, 10)] * 2), amounts(1, 1_000)
    assert cluster.run(task, group=1) == [0]
    cluster.matcher.set_group_limit(1, amounts(1, 1_000))
    assert cluster.run(task, group=1) == [REFUSED]
    cluster.matcher.set_group_limit(1, amounts(2, 2_000))
    assert cluster.run(task, task, group=1) == [0, REFUSED]


def test_defect_9_limit_of_zero_refuses_every_task_with_a_reason(impl: Any) -> None:
    cluster = Cluster(impl, HOST_4)
    cluster.matcher.set_group_limit(1, amounts(0))
    assert cluster.run(*[amounts(1)] * 3, group=1) == [REFUSED] * 3
    assert cluster.matcher.refusal(0).over_limit


ZONES = [{HOST: name, "zone": f"zone-{name}"} for name in "ABC"]


def zones(impl: Any, hosts: int = 3, **options: Any) -> Cluster:
    """Hosts, each in its own zone; the zone is attribute 0."""
    cluster = Cluster(impl, *[amounts(4, 4_000, 10)] * hosts, **options)
    cluster.matcher.set_attribute(0, np.arange(hosts))
    return cluster


def one_by_one(cluster: Cluster, *rules: Rule) -> set[int]:
    """Three tasks of group 1, each in its own run."""
    return {cluster.run(amounts(1, 1_000, 1), group=1, rules=rules)[0] for _ in range(3)}


def test_c1_unique_zones_in_one_run(impl: Any) -> None:
    slots = zones(impl).run(*[amounts(1, 1_000, 1)] * 3, group=1, rules=[at_most(1, 1, per=0)])
    assert sorted(slots) == [0, 1, 2]


def test_c2_unique_zones_over_several_runs(impl: Any) -> None:
    assert len(one_by_one(zones(impl))) == 1
    assert one_by_one(zones(impl), at_most(1, 1, per=0)) == {0, 1, 2}


def test_c3_unique_zones_with_a_weight(impl: Any) -> None:
    cluster, wish = zones(impl), at_most(1, 1, per=0, weight=1 << 22)
    assert one_by_one(cluster, wish) == {0, 1, 2}
    assert one_by_one(cluster, wish) <= {0, 1, 2}  # the rule yields if it cannot be kept


def test_c5_balanced_zones_with_a_weight(impl: Any) -> None:
    cluster = zones(impl)
    slots = cluster.run(*[amounts(1, 1_000, 1)] * 6, group=1, rules=[balanced(1, 0, weight=1 << 22)])
    assert sorted(slots) == [0, 0, 1, 1, 2, 2]


def test_c10_task_goes_to_the_zone_that_it_requires(impl: Any) -> None:
    cluster, task = Cluster(impl, *[amounts(4, 4_000, 10)] * 3), amounts(1, 1_000, 1)
    first = cluster.run(task, task)
    assert first[0] == first[1]
    other = (first[0] + 1) % 3
    assert cluster.run(task, allowed=mask([parse(f"zone == {ZONES[other]['zone']}")], ZONES)) == [other]


def test_c11_tasks_go_to_the_hosts_they_name(impl: Any) -> None:
    cluster, task = Cluster(impl, *[amounts(4, 4_000, 10)] * 3), amounts(1, 1_000, 1)
    for slot, name in enumerate("AB"):
        assert cluster.run(task, allowed=mask([parse(f"host == {name}")], ZONES)) == [slot]


def gpus(impl: Any, *hosts: int) -> Any:
    matcher = impl(2)  # cpus, gpus
    for count in hosts:
        matcher.add_host(np.array([4_000, 1_000 * count]))
    return matcher


def test_sc1_sc2_and_sc6_gpus_fit_or_are_reported_as_lacking(impl: Any) -> None:
    matcher = gpus(impl, 1)
    assert matcher.match(np.array([matcher.add_class(np.array([1_000, 1_000]))]))[0].tolist() == [0]
    matcher = gpus(impl, 4)
    five = matcher.add_class(np.array([1_000, 5_000]))
    assert matcher.match(np.array([five]))[0].tolist() == [REFUSED]
    assert matcher.refusal(five).lacking == (0, 1)


def test_sc4_eight_gpus_of_two_hosts_are_all_used(impl: Any) -> None:
    matcher = gpus(impl, 4, 4)
    task = matcher.add_class(np.array([1_000, 1_000]))
    assert sorted(matcher.match(np.full(8, task))[0].tolist()) == [0] * 4 + [1] * 4


def test_sc7_host_returns_with_its_only_offer(impl: Any) -> None:
    cluster, task = Cluster(impl, amounts(1)), amounts(1)
    assert cluster.run(task) == [0]
    cluster.matcher.set_host(0, amounts(0))
    cluster.matcher.release(cluster.ids)
    assert cluster.run(task) == [REFUSED]
    cluster.matcher.set_host(0, amounts(1))
    assert cluster.run(task) == [0]


def test_so1_one_offer_serves_several_runs(impl: Any) -> None:
    cluster, task = Cluster(impl, amounts(4)), amounts(1)
    assert cluster.run(task) == [0]
    assert cluster.run(*[task] * 3) == [0, 0, 0]
    assert cluster.run(task) == [REFUSED]


def test_or4_rescinded_offer_is_not_used(impl: Any) -> None:
    cluster = Cluster(impl, amounts(4))
    cluster.matcher.set_host(0, amounts(0))
    assert cluster.run(amounts(1)) == [REFUSED]


def test_a1_and_defect_13_only_active_groups_get_tasks_and_no_group_means_all(impl: Any) -> None:
    hosts = [{HOST: "a", "group": "test2"}, {HOST: "b", "group": "test1"}]
    active = parse("group == test1")
    cluster = Cluster(impl, amounts(4))
    assert cluster.run(amounts(1), allowed=mask([active], hosts[:1])) == [REFUSED]
    cluster.matcher.add_host(amounts(4))
    assert cluster.run(amounts(1), allowed=mask([active], hosts)) == [1]
    assert cluster.run(amounts(4), allowed=None) == [0]


def test_a4_two_active_groups_of_different_hosts(impl: Any) -> None:
    cluster = Cluster(impl, *[amounts(8)] * 3, amounts(16), fitness="first")
    assert cluster.run(amounts(1), amounts(16)) == [0, 3]


def test_ts7_removed_task_frees_its_host(impl: Any) -> None:
    cluster = Cluster(impl, HOST_4)
    cluster.run(amounts(1, 10))
    cluster.matcher.release(cluster.ids)
    assert cluster.matcher.free(0).tolist() == HOST_4.tolist()
    assert cluster.matcher.slots(cluster.ids).tolist() == [-1]


def test_ts12_one_of_ten_hosts_may_be_used(impl: Any) -> None:
    cluster, only = Cluster(impl, *[amounts(1)] * 10), np.arange(10) == 7
    assert cluster.run(*[amounts(1)] * 5, allowed=only) == [7] + [REFUSED] * 4


def test_defect_1_exclusive_task_shares_no_host_within_one_run(impl: Any) -> None:
    matcher = impl(4)
    matcher.add_host(HOST_4)
    alone, plain = matcher.add_class(amounts(1), exclusive=True), matcher.add_class(amounts(1))
    assert matcher.match(np.array([alone, plain]))[0].tolist() == [0, REFUSED]
    assert matcher.refusal(plain).occupied == 1


def test_defect_2_three_requests_of_0_1_fit_into_0_3(impl: Any) -> None:
    assert Cluster(impl, amounts(0.3)).run(*[amounts(0.1)] * 3) == [0, 0, 0]


def test_defect_4_ports_are_freed_when_tasks_end(impl: Any) -> None:
    cluster = Cluster(impl, amounts(10, 10, 2))
    assert cluster.run(*[amounts(1, 1, 1)] * 2) == [0, 0]
    cluster.matcher.release(cluster.ids)
    assert cluster.run(amounts(1, 1, 1)) == [0]


def test_defect_10_refusal_without_hosts_has_a_reason(impl: Any) -> None:
    matcher = impl(4)
    assert matcher.refusal(matcher.add_class(amounts(1))).hosts == 0


def test_defect_11_duplicate_task_in_one_run_is_refused(impl: Any) -> None:
    placer = Placer(("cpus",), matcher=impl)
    placer.add_host("h", {"cpus": 4})
    shape = placer.shape({"cpus": 1})
    with pytest.raises(MatchError, match="'t' is given twice"):
        placer.place([("t", shape), ("t", shape)])
    assert placer.matcher.claims() == 0


def test_defect_12_disabling_an_unknown_host_is_an_error(impl: Any) -> None:
    with pytest.raises(MatchError, match="slot 0 holds no host"):
        impl(4).enable_host(0, False)


def test_defects_14_and_15_task_may_fill_a_host_or_request_nothing(impl: Any) -> None:
    assert Cluster(impl, HOST_4, fitness="spread").run(HOST_4) == [0]
    assert Cluster(impl, HOST_4).run(amounts(0, 10)) == [0]


def test_defect_16_five_thousand_refusals_have_one_reason(impl: Any) -> None:
    cluster = Cluster(impl, *[HOST_4] * 100)
    huge = cluster.matcher.add_class(amounts(5))
    assert set(cluster.matcher.match(np.full(5_211, huge))[0].tolist()) == {REFUSED}
    assert cluster.matcher.refusal(huge).lacking == (100, 0, 0, 0)


def test_defect_17_unknown_release_is_returned(impl: Any) -> None:
    assert impl(4).release(np.array([77], dtype=np.int64)).tolist() == [77]


def test_defect_18_gpus_of_several_hosts_do_not_add_up(impl: Any) -> None:
    matcher = gpus(impl, 1, 1)
    assert not matcher.refusal(matcher.add_class(np.array([1_000, 2_000]))).could_ever_fit


def test_defect_19_limit_of_one_group_does_not_limit_another(impl: Any) -> None:
    cluster, task = Cluster(impl, HOST_4), amounts(1)
    cluster.matcher.set_group_limit(1, amounts(0))
    assert cluster.run(task, group=2) == [0]
    assert cluster.run(task) == [0]
    cluster.matcher.set_group_limit(1, None)
    assert cluster.run(task, group=1) == [0]


def test_defect_20_task_larger_than_every_host_differs_from_a_waiting_one(impl: Any) -> None:
    cluster = Cluster(impl, HOST_4)
    assert cluster.run(amounts(4), amounts(3)) == [0, REFUSED]
    waits, never = cluster.matcher.add_class(amounts(3)), cluster.matcher.add_class(amounts(5))
    assert cluster.matcher.refusal(waits).could_ever_fit
    assert not cluster.matcher.refusal(never).could_ever_fit


#: The distinct scenarios of its tests, and its defects: the numbers by letter.
SCENARIOS = {
    "b": [*range(1, 5), 6, 7, 9, 10, 11, *range(13, 19), 20, 21], "p": [1, 3, 4, 5], "s": [1, 2, 3],
    "c": [1, 2, 3, 5, 7, 10, 11, 12], "r": [1, 2, 4, 5, 7], "rs": range(1, 14), "sc": [1, 2, 4, 6, 7], "so": [1, 3],
    "or": [1, 2, 4, 5], "a": range(1, 5), "sd": range(1, 4), "w": range(1, 4), "as": range(1, 22), "sf": range(1, 4),
    "v": [1, 2], "ts": range(1, 13), "q": range(1, 15), "u": range(1, 6), "defect": range(1, 21),
}  # fmt: skip
_NAMED = re.compile(r"\b(defect|[a-z]{1,2})s? ?(\d+)(?: to (?:\1)?(\d+))?((?:, \d+)*(?:,? and \d+)?)")


def named(text: str) -> set[str]:
    """The scenarios that a text names: "b9 and b10", "p3 to p5", "defects 3, 5 and 8"."""
    found = set()
    for letters, first, last, more in _NAMED.findall(" ".join(text.lower().split())):
        numbers = [*range(int(first), int(last or first) + 1), *map(int, re.findall(r"\d+", more))]
        found |= {f"{letters}{number}" for number in numbers}
    return found


def test_every_scenario_and_defect_has_a_test_or_a_reason() -> None:
    tests = {found for name in globals() if name.startswith("test_") for found in named(name[5:].replace("_", " "))}
    text = (Path(__file__).parents[2] / "docs" / "matcher.md").read_text()
    reasons = named(text.partition("## Compared with Fenzo")[2].partition("\n## ")[0])
    wanted = {f"{letters}{number}" for letters, numbers in SCENARIOS.items() for number in numbers}
    assert wanted - tests - reasons == set()
