"""Scenarios of the tests of Netflix' Fenzo, where the matcher has the feature; each test names the scenario.

B: basics, P and S: packing and spreading, C: constraints, R: limits of groups; "defect": something that Fenzo gets
wrong. cpus, memory in MB, network and ports are dimensions; a host has 10 ports unless said otherwise. What has no
counterpart here, and why, stands in docs/matcher.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from jobcloud.constraints import HOST, mask, parse
from jobcloud.match import REFUSED, CompiledMatcher, MatchError, PlainMatcher


@pytest.fixture(params=[CompiledMatcher, PlainMatcher], ids=["compiled", "plain"])
def impl(request: pytest.FixtureRequest) -> Any:
    return request.param


def amounts(cpus: float, mem: float = 0, ports: int = 0, network: float = 0) -> NDArray[np.int64]:
    return np.array([round(1_000 * amount) for amount in (cpus, mem, ports, network)], dtype=np.int64)


class Cluster:
    """Hosts and tasks the way the scenarios tell of them."""

    def __init__(self, impl: Any, *hosts: NDArray[np.int64], **options: Any) -> None:
        self.matcher = impl(4, **options)
        self.hosts = [self.matcher.add_host(host) for host in hosts]

    def run(self, *tasks: NDArray[np.int64], **named: Any) -> list[int]:
        """Where each task goes; equal ones are one class."""
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


def test_b2_a_task_larger_than_the_host_is_refused(impl: Any) -> None:
    assert Cluster(impl, HOST_4).run(amounts(5)) == [REFUSED]


def test_b3_two_of_three_tasks_fit(impl: Any) -> None:
    assert Cluster(impl, HOST_4).run(amounts(2), amounts(2), amounts(1)) == [0, 0, REFUSED]


def test_b4_memory_binds(impl: Any) -> None:
    tasks = amounts(1, 95), amounts(2, 95), amounts(1, 95)
    assert Cluster(impl, HOST_4).run(*tasks) == [0, REFUSED, REFUSED]


def test_b6_ports_bind(impl: Any) -> None:
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


def test_b13_eight_tasks_fill_two_hosts(impl: Any) -> None:
    slots = Cluster(impl, HOST_4, HOST_4).run(*[amounts(1, 1, 1)] * 8)
    assert sorted(slots) == [0] * 4 + [1] * 4


def test_b14_what_did_not_fit_leaves_the_host_for_the_next_run(impl: Any) -> None:
    cluster = Cluster(impl, HOST_4)
    assert cluster.run(amounts(5)) + cluster.run(amounts(4)) == [REFUSED, 0]


def test_b18_a_host_whose_offers_all_went_is_used_once_it_is_offered_again(impl: Any) -> None:
    cluster = Cluster(impl, HOST_4)
    cluster.matcher.set_host(0, amounts(0))
    assert cluster.run(amounts(1)) == [REFUSED]
    cluster.matcher.set_host(0, HOST_4)
    assert cluster.run(amounts(1)) == [0]


def test_b21_several_offers_of_one_host_add_up(impl: Any) -> None:
    cluster = Cluster(impl, amounts(4))
    assert cluster.run(amounts(1)) + cluster.run(amounts(4)) == [0, REFUSED]
    cluster.matcher.set_host(0, amounts(4) + amounts(4))
    assert cluster.run(amounts(4)) == [0]


def test_p1_the_second_task_joins_the_first(impl: Any) -> None:
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


def test_c7_unique_host_spreads_what_otherwise_shares_one(impl: Any) -> None:
    cluster = Cluster(impl, *[amounts(8, 8_000, 10)] * 5)
    task = amounts(1, 1_000, 1)
    assert len(set(cluster.run(*[task] * 5))) == 1
    assert sorted(cluster.run(*[task] * 5, group=1, most_per_host=1)) == list(range(5))


def test_r1_and_r2_a_group_is_held_to_its_limit_and_others_are_not(impl: Any) -> None:
    cluster, task = Cluster(impl, *[amounts(4, 4_000, 10)] * 10), amounts(1, 10)
    assert REFUSED not in cluster.run(*[task] * 20, group=2)
    cluster.matcher.set_group_limit(1, amounts(4, 4_000))
    assert cluster.run(*[amounts(1, 1_000)] * 5, group=1)[3:] != [REFUSED] * 2
    assert cluster.matcher.refusal(cluster.matcher.add_class(task, group=1)).over_limit


def test_r5_and_r7_a_limit_raised_or_set_late_holds_from_the_next_run_on(impl: Any) -> None:
    cluster, task = Cluster(impl, *[amounts(4, 4_000, 10)] * 2), amounts(1, 1_000)
    assert cluster.run(task, group=1) == [0]
    cluster.matcher.set_group_limit(1, amounts(1, 1_000))
    assert cluster.run(task, group=1) == [REFUSED]
    cluster.matcher.set_group_limit(1, amounts(2, 2_000))
    assert cluster.run(task, task, group=1) == [0, REFUSED]


def test_defect_9_a_limit_of_nothing_refuses_every_task_with_a_record(impl: Any) -> None:
    cluster = Cluster(impl, HOST_4)
    cluster.matcher.set_group_limit(1, amounts(0))
    assert cluster.run(*[amounts(1)] * 3, group=1) == [REFUSED] * 3
    assert cluster.matcher.refusal(0).over_limit


ZONES = [{HOST: name, "zone": f"zone-{name}"} for name in "ABC"]


def test_c10_a_task_goes_to_the_zone_it_asks_for_by_value(impl: Any) -> None:
    cluster, task = Cluster(impl, *[amounts(4, 4_000, 10)] * 3), amounts(1, 1_000, 1)
    first = cluster.run(task, task)
    assert first[0] == first[1]
    other = (first[0] + 1) % 3
    assert cluster.run(task, allowed=mask([parse(f"zone == {ZONES[other]['zone']}")], ZONES)) == [other]


def test_c11_tasks_go_to_the_hosts_they_name(impl: Any) -> None:
    cluster, task = Cluster(impl, *[amounts(4, 4_000, 10)] * 3), amounts(1, 1_000, 1)
    for slot, name in enumerate("AB"):
        assert cluster.run(task, allowed=mask([parse(f"host == {name}")], ZONES)) == [slot]


def test_defect_2_three_tenths_fit_into_three_tenths(impl: Any) -> None:
    assert Cluster(impl, amounts(0.3)).run(*[amounts(0.1)] * 3) == [0, 0, 0]


def test_defect_4_ports_come_back_when_tasks_end(impl: Any) -> None:
    cluster = Cluster(impl, amounts(10, 10, 2))
    assert cluster.run(*[amounts(1, 1, 1)] * 2) == [0, 0]
    cluster.matcher.release(cluster.ids)
    assert cluster.run(amounts(1, 1, 1)) == [0]


def test_defect_10_a_refusal_without_any_host_has_a_record(impl: Any) -> None:
    matcher = impl(4)
    assert matcher.refusal(matcher.add_class(amounts(1))).hosts == 0


def test_defect_12_a_host_that_is_not_known_cannot_be_disabled_in_vain(impl: Any) -> None:
    with pytest.raises(MatchError, match="slot 0 holds no host"):
        impl(4).enable_host(0, False)


def test_defects_14_and_15_filling_a_host_or_asking_for_nothing_is_no_fault(impl: Any) -> None:
    assert Cluster(impl, HOST_4, fitness="spread").run(HOST_4) == [0]
    assert Cluster(impl, HOST_4).run(amounts(0, 10)) == [0]


def test_defect_16_five_thousand_refusals_are_one_record(impl: Any) -> None:
    cluster = Cluster(impl, *[HOST_4] * 100)
    huge = cluster.matcher.add_class(amounts(5))
    assert set(cluster.matcher.match(np.full(5_211, huge))[0].tolist()) == {REFUSED}
    assert cluster.matcher.refusal(huge).lacking == (100, 0, 0, 0)


def test_defect_17_an_unknown_release_is_named(impl: Any) -> None:
    assert impl(4).release(np.array([77], dtype=np.int64)).tolist() == [77]
