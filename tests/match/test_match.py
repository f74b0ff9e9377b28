"""The matcher's rules by example, on the compiled matcher and on its plain twin."""

from __future__ import annotations

import copy
import pickle
import re
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench import workloads
from numpy.typing import NDArray

from jobcloud import _match, match
from jobcloud._match_types import MAX_GENERATION, State, decode, encode
from jobcloud.match import REFUSED, UNTRIED, CompiledMatcher, MatchError, MatchStateError, PlainMatcher, at_most

NO_IDS = np.array([], dtype=np.int64)


def test_matcher_that_outlives_the_modules_is_freed_in_silence() -> None:
    """At the end of the process, Python takes the names of a module away one after another."""
    code = "from jobcloud import _match_types, match; _match_types.kept = match.CompiledMatcher(2)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.fixture(params=[CompiledMatcher, PlainMatcher], ids=["compiled", "plain"])
def impl(request: pytest.FixtureRequest) -> Any:
    return request.param


def units(*whole: float) -> NDArray[np.int64]:
    return np.array([round(1_000 * amount) for amount in whole], dtype=np.int64)


def ids(*numbers: int) -> NDArray[np.int64]:
    return np.array(numbers, dtype=np.int64)


def place(matcher: Any, *classes: int, limit: int = -1) -> list[int]:
    slots, _ = matcher.match(ids(*classes), limit=limit)
    matcher.check()
    return list(slots.tolist())


def claim_one(matcher: Any, cls: int) -> int:
    _, release_ids = matcher.match(ids(cls))
    return int(release_ids[0])


def test_matcher_in_use_is_compiled() -> None:
    assert match.Matcher is CompiledMatcher
    assert CompiledMatcher.__module__ == "jobcloud._match"
    assert _match.__file__.endswith(tuple(EXTENSION_SUFFIXES))


def test_examples_in_the_documentation_run() -> None:
    text = (Path(__file__).parents[2] / "docs" / "matcher.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(examples) == 4
    for example in examples:
        exec(compile(example, "docs/matcher.md", "exec"), {})


def test_match_releases_the_gil_and_refuses_a_second_thread() -> None:
    workload = workloads.mixed(10_000, 8)
    matcher = workloads.load(CompiledMatcher, workload, engine="scan")
    thread = threading.Thread(target=matcher.match, args=(workload.tasks[:10_000],))
    refused = 0
    thread.start()
    while thread.is_alive():
        try:
            matcher.claims()
        except MatchStateError:
            refused += 1
    thread.join()
    assert refused > 0
    matcher.check()


# ---- placing


def test_pack_takes_the_host_with_least_left_over(impl: Any) -> None:
    matcher = impl(2, fitness="pack")
    for cpus, memory in ((8, 800), (4, 400), (16, 1600)):
        matcher.add_host(units(cpus, memory))
    cls = matcher.add_class(units(2, 200))
    assert place(matcher, cls, cls, cls, cls) == [1, 1, 0, 0]


def test_one_dimension_is_packed_alone(impl: Any) -> None:
    """The first host has least memory left, the second one fewest cpus, the third one no memory at all."""
    for fitness, slot in (("pack_0", 1), ("pack_1", 0), ({"pack_0": 10, "pack_1": 1_000}, 0), ("pack", 0)):
        matcher = impl(2, fitness=fitness)
        for cpus, memory in ((8, 4), (4, 30), (16, 0)):
            matcher.add_host(units(cpus, memory))
        assert place(matcher, matcher.add_class(units(2, 2))) == [slot]
    matcher = impl(2, fitness="pack_1")
    matcher.add_hosts(np.array([units(8, 4), units(16, 0)]))
    assert place(matcher, matcher.add_class(units(1, 0))) == [1]  # a host without the dimension has none of it left


def test_fitness_by_dimension_is_kept_in_copies(impl: Any) -> None:
    for fitness, magic in (({"pack_1": 1_000, "align": 24}, b"JCMATCH5"), ("pack", b"JCMATCH4")):
        matcher = impl(2, fitness=fitness)
        data = matcher.snapshot()
        assert data.startswith(magic)
        for kind in (CompiledMatcher, PlainMatcher):
            again = kind.restore(data)
            assert (again.fitness, again.snapshot()) == (matcher.fitness, data)
        assert matcher.fork().fitness == matcher.fitness
    with pytest.raises(MatchError, match=r"must be one of even, .*, first, pack_0, pack_1, not 'pack_2'"):
        impl(2, fitness="pack_2")


def test_lowest_slot_wins_among_equal_hosts(impl: Any) -> None:
    matcher = impl(1)
    for _ in range(3):
        matcher.add_host(units(2))
    cls = matcher.add_class(units(2))
    assert place(matcher, cls, cls, cls) == [0, 1, 2]


def test_three_requests_of_0_1_fit_into_0_3(impl: Any) -> None:
    matcher = impl(1)
    matcher.add_host(units(0.3))
    cls = matcher.add_class(units(0.1))
    assert place(matcher, cls, cls, cls, cls) == [0, 0, 0, REFUSED]


def test_task_that_exactly_fills_a_host_is_placed(impl: Any) -> None:
    matcher = impl(2)
    matcher.add_host(units(4, 100))
    assert place(matcher, matcher.add_class(units(4, 100))) == [0]


def test_task_that_requests_nothing_fits_an_empty_host(impl: Any) -> None:
    matcher = impl(2)
    matcher.add_host(units(4, 0))
    assert place(matcher, matcher.add_class(units(0, 0)), matcher.add_class(units(1, 0))) == [0, 0]


def test_smaller_tasks_are_placed_after_a_larger_one_is_refused(impl: Any) -> None:
    matcher = impl(1)
    matcher.add_host(units(4))
    large, small = matcher.add_class(units(5)), matcher.add_class(units(1))
    assert place(matcher, large, small, large, small) == [REFUSED, 0, REFUSED, 0]


def test_tasks_are_placed_in_the_order_of_the_caller(impl: Any) -> None:
    matcher = impl(1)
    matcher.add_host(units(3))
    two, one = matcher.add_class(units(2)), matcher.add_class(units(1))
    assert place(matcher.fork(), one, one, two) == [0, 0, REFUSED]
    assert place(matcher.fork(), two, one, one) == [0, 0, REFUSED]


def test_every_task_is_refused_with_a_reason_without_hosts(impl: Any) -> None:
    matcher = impl(1)
    cls = matcher.add_class(units(1))
    assert place(matcher, cls) == [REFUSED]
    refusal = matcher.refusal(cls)
    assert (refusal.hosts, refusal.nearest, refusal.could_ever_fit) == (0, None, False)


def test_empty_match_places_nothing(impl: Any) -> None:
    matcher = impl(1)
    matcher.add_host(units(1))
    slots, release_ids = matcher.match(NO_IDS)
    assert slots.dtype == np.int32
    assert release_ids.dtype == np.int64
    assert len(slots) == len(release_ids) == 0


def test_class_numbers_may_be_int32(impl: Any) -> None:
    matcher = impl(1)
    matcher.add_host(units(1))
    matcher.add_class(units(1))
    slots, _ = matcher.match(np.array([0], dtype=np.int32))
    assert slots.tolist() == [0]


def test_limit_counts_placements_and_marks_the_rest_untried(impl: Any) -> None:
    matcher = impl(1)
    matcher.add_host(units(10))
    large, small = matcher.add_class(units(11)), matcher.add_class(units(1))
    assert place(matcher, large, small, small, large, small, limit=2) == [REFUSED, 0, 0, UNTRIED, UNTRIED]
    assert place(matcher, small, limit=0) == [UNTRIED]
    assert matcher.claims() == 2


def test_all_hosts_beyond_one_block_are_used(impl: Any) -> None:
    matcher = impl(1, fitness="pack")
    for cpus in range(200, 0, -1):
        matcher.add_host(units(cpus))
    assert place(matcher, *[matcher.add_class(units(cpus)) for cpus in (1, 64, 65, 136, 137, 200)]) == [
        199, 136, 135, 64, 63, 0,
    ]  # fmt: skip


# ---- hosts


def test_new_host_gets_the_lowest_free_slot(impl: Any) -> None:
    matcher = impl(1)
    assert [matcher.add_host(units(1)) for _ in range(4)] == [0, 1, 2, 3]
    matcher.remove_host(2)
    matcher.remove_host(0)
    assert [matcher.add_host(units(1)) for _ in range(3)] == [0, 2, 4]


def test_remove_host_releases_and_returns_its_claims(impl: Any) -> None:
    matcher = impl(1)
    slot = matcher.add_host(units(3))
    cls = matcher.add_class(units(1))
    _, release_ids = matcher.match(ids(cls, cls, cls))
    matcher.release(release_ids[1:2])
    assert matcher.remove_host(slot).tolist() == [release_ids[0], release_ids[2]]
    assert matcher.claims() == 0
    assert matcher.release(release_ids).tolist() == release_ids.tolist()
    matcher.check()


def test_removed_host_takes_no_tasks(impl: Any) -> None:
    matcher = impl(1)
    matcher.remove_host(matcher.add_host(units(3)))
    assert place(matcher, matcher.add_class(units(0))) == [REFUSED]


def test_capacities_may_be_in_column_major_order(impl: Any) -> None:
    matcher = impl(2)
    rows = np.array([[1, 2], [3, 4], [5, 6]])
    assert matcher.add_hosts(np.asfortranarray(rows)).tolist() == [0, 1, 2]
    assert matcher.set_free(ids(0, 1, 2), np.asfortranarray(2 * rows)).tolist() == (2 * rows).tolist()
    assert [matcher.free(slot).tolist() for slot in range(3)] == (2 * rows).tolist()


def test_claims_are_counted_by_class_and_listed_by_host(impl: Any) -> None:
    matcher = impl(1)
    matcher.add_hosts(np.array([[2_000], [2_000]]))
    one, other = matcher.add_class(units(1)), matcher.add_class(units(1))
    _, release_ids = matcher.match(ids(one, other, one))
    assert [matcher.claims(cls) for cls in (one, other, 99)] == [2, 1, 0]
    assert [matcher.claims_on(slot).tolist() for slot in (0, 1)] == [release_ids[:2].tolist(), release_ids[2:].tolist()]
    matcher.remove_class(one)
    assert (matcher.claims(one), matcher.claims()) == (2, 3)
    matcher.release(release_ids)
    assert (matcher.claims(one), matcher.claims_on(0).tolist()) == (0, [])
    with pytest.raises(MatchError, match="slot 5 holds no host"):
        matcher.claims_on(5)
    with pytest.raises(MatchError, match="cls must be between 0"):
        matcher.claims(-1)


def test_matcher_is_pickled_and_copied(impl: Any) -> None:
    matcher = impl(1, fitness="pack", engine="scan")
    matcher.add_host(units(4))
    cls = matcher.add_class(units(1))
    matcher.match(ids(cls, cls))
    for other in (pickle.loads(pickle.dumps(matcher)), copy.copy(matcher), copy.deepcopy(matcher)):
        assert type(other) is impl
        assert (other.snapshot(), other.engine, other.fitness) == (matcher.snapshot(), "scan", {"pack": 1_024})
        other.match(ids(cls))
    assert matcher.claims() == 2


def test_masks_and_penalties_of_one_host_are_changed(impl: Any) -> None:
    matcher = impl(1)
    for _ in range(3):
        matcher.add_host(units(4))
    bound = matcher.add_class(units(1), allowed=np.array([True, False, True]), penalty=ids(0, 0, 9))
    free = matcher.add_class(units(1))
    yes, no = np.array([True, True]), np.array([False, True])
    matcher.match(ids(bound, free))
    matcher.set_host_masks(0, ids(bound, free), no, ids(0, 0))
    matcher.set_host_masks(1, ids(bound, free), yes, ids(1 << 28, 0))
    assert place(matcher.fork(), bound, bound) == [2, 2]
    matcher.set_host_masks(2, ids(bound), yes[:1], ids(1 << 27))
    matcher.set_host_masks(1, ids(bound), yes[:1], ids(0))
    assert place(matcher, bound) == [1]
    for arguments, words in (
        ((3, ids(bound), yes[:1], ids(0)), "slot 3 holds no host"),
        ((0, ids(bound, 9), yes, ids(0, 0)), "classes.1. is 9"),
        ((0, ids(bound, free), yes[::-1][:1], ids(0, 0)), "allowed must have one entry for each of the 2"),
        ((0, ids(bound, free), yes, ids(0)), "penalty must have one entry for each of the 2"),
        ((0, ids(bound, free), np.array([True, False]), ids(0, 0)), "class 1 has no mask"),
        ((0, ids(bound, free), yes, ids(0, 1)), "class 1 has no penalties"),
    ):
        with pytest.raises(MatchError, match=words):
            matcher.set_host_masks(*arguments)
    assert matcher.refusal(bound).disallowed == 1
    matcher.check()


def test_table_survives_hosts_added_and_removed_beyond_its_end() -> None:
    """The list of changes may hold removed hosts whose slots are beyond the end of a table."""
    matcher = CompiledMatcher(1, engine="tables")
    matcher.add_hosts(np.full((64, 1), 1_000))
    cls = matcher.add_class(np.array([10]))
    matcher.match(np.array([cls], dtype=np.int32))
    for slot in matcher.add_hosts(np.full((5, 1), 1_000)).tolist():
        matcher.remove_host(slot)
    slots, _ = matcher.match(np.array([cls], dtype=np.int32))
    assert slots.tolist() == [0]
    matcher.check()


def test_disabled_host_keeps_its_claims_and_gets_no_new_ones(impl: Any) -> None:
    matcher = impl(1)
    slot = matcher.add_host(units(3))
    cls = matcher.add_class(units(1))
    assert place(matcher, cls) == [0]
    matcher.enable_host(slot, False)
    assert place(matcher, cls) == [REFUSED]
    assert matcher.free(slot).tolist() == [2_000]
    matcher.enable_host(slot, True)
    assert place(matcher, cls) == [0]


def test_host_that_shrank_below_its_claims_takes_no_tasks_until_enough_end(impl: Any) -> None:
    matcher = impl(2)
    slot = matcher.add_host(units(4, 4))
    cls, nothing = matcher.add_class(units(1, 1)), matcher.add_class(units(0, 0))
    _, release_ids = matcher.match(ids(cls, cls, cls))
    matcher.set_host(slot, units(2, 4))
    assert matcher.free(slot).tolist() == [-1_000, 1_000]
    assert place(matcher, cls, nothing) == [REFUSED, REFUSED]
    matcher.release(release_ids[:2])
    assert place(matcher, cls, nothing) == [0, 0]
    assert matcher.capacity(slot).tolist() == [2_000, 4_000]


def test_refused_class_is_placed_after_a_host_is_added_or_grows(impl: Any) -> None:
    matcher = impl(1)
    slot = matcher.add_host(units(1))
    cls = matcher.add_class(units(2))
    assert place(matcher, cls) == [REFUSED]
    matcher.set_host(slot, units(2))
    assert place(matcher, cls, cls) == [0, REFUSED]
    matcher.add_host(units(2))
    assert place(matcher, cls) == [1]


# ---- shared parts: executors


def test_shared_part_is_taken_by_the_first_claim_and_freed_with_the_last(impl: Any) -> None:
    matcher = impl(2)
    slot = matcher.add_host(units(4, 400))
    cls = matcher.add_class(units(1, 100), shared_key=7, shared=units(0.5, 50))
    first, second = claim_one(matcher, cls), claim_one(matcher, cls)
    assert matcher.free(slot).tolist() == [1_500, 150_000]
    matcher.release(ids(first))
    assert matcher.free(slot).tolist() == [2_500, 250_000]
    matcher.release(ids(second))
    assert matcher.free(slot).tolist() == [4_000, 400_000]


def test_shared_part_must_fit_too(impl: Any) -> None:
    matcher = impl(1)
    matcher.add_host(units(2))
    cls = matcher.add_class(units(1), shared_key=1, shared=units(1.001))
    assert place(matcher, cls) == [REFUSED]
    assert matcher.refusal(cls).nearest.pays_shared


def test_several_new_executors_on_one_host_in_one_match_are_all_counted(impl: Any) -> None:
    matcher = impl(1)
    slot = matcher.add_host(units(7))
    apps = [matcher.add_class(units(1), shared_key=app, shared=units(1)) for app in range(4)]
    assert place(matcher, *apps) == [0, 0, 0, REFUSED]
    assert matcher.free(slot).tolist() == [1_000]
    assert place(matcher, apps[0]) == [0]


def test_classes_of_one_app_share_its_executor(impl: Any) -> None:
    matcher = impl(1)
    slot = matcher.add_host(units(4))
    small = matcher.add_class(units(1), shared_key=3, shared=units(1))
    large = matcher.add_class(units(2), shared_key=3, shared=units(1))
    assert place(matcher, small, large) == [0, 0]
    assert matcher.free(slot).tolist() == [0]


def test_host_that_runs_the_executor_comes_before_a_fuller_one(impl: Any) -> None:
    matcher = impl(1)
    matcher.add_host(units(100))
    matcher.add_host(units(3))
    cls = matcher.add_class(units(1), shared_key=5, shared=units(0))
    matcher.assign(cls, 0)
    assert place(matcher, cls) == [0]
    matcher.enable_host(0, False)
    assert place(matcher, cls) == [1]


def test_claim_without_amounts_keeps_the_executor_counted(impl: Any) -> None:
    matcher = impl(1)
    slot = matcher.add_host(units(3))
    hold = matcher.add_class(units(0), shared_key=5, shared=units(1))
    task = matcher.add_class(units(1), shared_key=5, shared=units(1))
    held, running = matcher.assign(hold, slot), claim_one(matcher, task)
    matcher.release(ids(running))
    assert matcher.free(slot).tolist() == [2_000]
    assert place(matcher, task, task, task) == [0, 0, REFUSED]
    matcher.release(ids(held))
    assert matcher.free(slot).tolist() == [0]


def test_key_may_get_other_amounts_after_its_last_claim_and_class_end(impl: Any) -> None:
    matcher = impl(1)
    matcher.add_host(units(9))
    cls = matcher.add_class(units(1), shared_key=5, shared=units(1))
    running = claim_one(matcher, cls)
    matcher.remove_class(cls)
    with pytest.raises(MatchError, match="shared_key 5 already has the shared amounts"):
        matcher.add_class(units(1), shared_key=5, shared=units(2))
    matcher.release(ids(running))
    assert matcher.add_class(units(1), shared_key=5, shared=units(2)) == cls


# ---- classes


def test_class_runs_only_where_it_is_allowed(impl: Any) -> None:
    matcher = impl(1, fitness="pack")
    for cpus in (1, 2, 3):
        matcher.add_host(units(cpus))
    cls = matcher.add_class(units(1), allowed=np.array([False, False, True]))
    assert place(matcher, cls) == [2]
    matcher.set_allowed(cls, np.array([0, 1], dtype=np.uint8))
    assert place(matcher, cls) == [1]
    matcher.set_allowed(cls, None)
    assert place(matcher, cls) == [0]


def test_new_host_is_not_allowed_before_set_allowed(impl: Any) -> None:
    matcher = impl(1)
    matcher.add_host(units(1))
    cls = matcher.add_class(units(1), allowed=np.array([True]))
    matcher.remove_host(0)
    matcher.add_host(units(1))
    matcher.add_host(units(1))
    assert place(matcher, cls) == [REFUSED]
    matcher.set_allowed(cls, np.array([True, True]))
    assert place(matcher, cls) == [0]


def test_removed_class_is_not_matched_and_its_claims_stay(impl: Any) -> None:
    matcher = impl(1)
    slot = matcher.add_host(units(4))
    cls = matcher.add_class(units(1))
    running = claim_one(matcher, cls)
    matcher.remove_class(cls)
    with pytest.raises(MatchError, match=r"classes\[0\] is 0, an unknown or removed class"):
        matcher.match(ids(cls))
    assert matcher.free(slot).tolist() == [3_000]
    other = matcher.add_class(units(2))
    assert other != cls
    matcher.release(ids(running))
    assert matcher.free(slot).tolist() == [4_000]
    assert matcher.add_class(units(3)) == cls
    assert place(matcher, cls) == [0]


# ---- claims


def test_release_is_idempotent_and_returns_ids_that_were_not_live(impl: Any) -> None:
    matcher = impl(1)
    slot = matcher.add_host(units(4))
    _, release_ids = matcher.match(ids(*[matcher.add_class(units(1))] * 2))
    one, two = release_ids.tolist()
    assert matcher.release(ids(one, one, 0, -1, 12, 2**62)).tolist() == [one, 0, -1, 12, 2**62]
    assert matcher.release(ids(one, two)).tolist() == [one]
    assert matcher.free(slot).tolist() == [4_000]
    assert matcher.claims() == 0


def test_release_id_is_never_reused(impl: Any) -> None:
    matcher = impl(1)
    matcher.add_host(units(2))
    cls = matcher.add_class(units(1))
    seen: set[int] = set()
    for _ in range(50):
        _, release_ids = matcher.match(ids(cls, cls))
        assert seen.isdisjoint(release_ids.tolist())
        seen.update(release_ids.tolist())
        assert matcher.release(release_ids).tolist() == []
    assert matcher.release(ids(*seen)).tolist() == list(ids(*seen))


def test_exhausted_claim_index_is_retired(impl: Any) -> None:
    matcher = impl(1)
    matcher.add_host(units(2))
    cls = matcher.add_class(units(1))
    claim_one(matcher, cls)
    state = decode(matcher.snapshot())
    fields = {name: getattr(state, name) for name in State.__slots__}
    fields["claim_generation"] = ids(MAX_GENERATION)
    matcher = impl.restore(encode(State(**fields)))
    last = MAX_GENERATION << 32
    assert matcher.release(ids(last)).tolist() == []
    assert matcher.release(ids(last)).tolist() == [last]
    assert claim_one(matcher, cls) == 1 << 32 | 1
    assert impl.restore(matcher.snapshot()).snapshot() == matcher.snapshot()
    matcher.check()


def test_running_task_is_assigned_without_a_fit_check(impl: Any) -> None:
    matcher = impl(1)
    slot = matcher.add_host(units(1))
    matcher.enable_host(slot, False)
    cls = matcher.add_class(units(2), allowed=np.array([False]))
    running = matcher.assign(cls, slot)
    assert matcher.free(slot).tolist() == [-1_000]
    assert matcher.release(ids(running)).tolist() == []
    assert matcher.free(slot).tolist() == [1_000]


def test_memory_stays_flat_over_a_million_claims(impl: Any) -> None:
    rounds = 1_000 if impl is CompiledMatcher else 5
    matcher = impl(1)
    for _ in range(10):
        matcher.add_host(units(100))
    tasks = np.full(1_000, matcher.add_class(units(1), shared_key=1, shared=units(0)))
    matcher.release(matcher.match(tasks)[1])
    size = len(matcher.snapshot())
    tracemalloc.start()
    try:
        for _ in range(rounds):
            slots, release_ids = matcher.match(tasks)
            assert slots.min() >= 0
            assert len(matcher.release(release_ids)) == 0
        del slots, release_ids
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()
    assert len(matcher.snapshot()) == size


def test_repeated_assignments_reuse_one_claim_index(impl: Any) -> None:
    matcher = impl(1)
    slot = matcher.add_host(units(1))
    cls = matcher.add_class(units(1))
    size = len(matcher.snapshot())
    for _ in range(1_000):
        matcher.release(ids(matcher.assign(cls, slot)))
    assert len(matcher.snapshot()) <= size + 4 * 8


# ---- refusals


def test_refusal_counts_shortages_and_names_the_nearest_host(impl: Any) -> None:
    matcher = impl(2)
    for cpus, memory in ((1, 900), (3, 100), (2, 500), (8, 800), (8, 800)):
        matcher.add_host(units(cpus, memory))
    matcher.enable_host(3, False)
    cls = matcher.add_class(units(4, 400), allowed=np.array([True, True, True, True, False]))
    assert place(matcher, cls) == [REFUSED]
    refusal = matcher.refusal(cls)
    assert (refusal.hosts, refusal.disabled, refusal.disallowed, refusal.considered) == (5, 1, 1, 3)
    assert refusal.lacking == (3, 1)
    assert refusal.best == (3_000, 900_000)
    assert refusal.fitting == 0
    assert refusal.could_ever_fit
    assert (
        refusal.nearest.slot == 2
    )  # lacks half of its cpus; host 0 lacks three quarters, host 1 fails in two dimensions
    assert refusal.nearest.asked == (4_000, 400_000)
    assert refusal.nearest.available == (2_000, 500_000)
    assert not refusal.nearest.pays_shared


def test_refusal_says_that_no_host_could_ever_fit(impl: Any) -> None:
    matcher = impl(1)
    matcher.add_host(units(4))
    cls = matcher.add_class(units(4), shared_key=1, shared=units(1))
    refusal = matcher.refusal(cls)
    assert not refusal.could_ever_fit
    assert refusal.nearest.asked == (5_000,)
    matcher.set_host(0, units(5))
    assert matcher.refusal(cls).could_ever_fit
    assert matcher.refusal(cls).fitting == 1


def test_refusal_on_an_over_committed_host_shows_nothing_available(impl: Any) -> None:
    matcher = impl(2)
    matcher.add_host(units(4, 4))
    cls, nothing = matcher.add_class(units(3, 3)), matcher.add_class(units(0, 1))
    claim_one(matcher, cls)
    matcher.set_host(0, units(2, 4))
    refusal = matcher.refusal(nothing)
    assert (refusal.lacking, refusal.best, refusal.nearest.available) == ((1, 0), (0, 1_000), (0, 1_000))


# ---- copies


def test_restored_matcher_behaves_like_the_original(impl: Any) -> None:
    matcher = workloads.load(impl, workloads.mixed(20, 8, apps=3))
    workload = workloads.mixed(20, 8, apps=3)
    _, release_ids = matcher.match(workload.tasks[:50])
    matcher.release(release_ids[::2].copy())
    matcher.remove_host(3)
    again = impl.restore(matcher.snapshot())
    assert again.snapshot() == matcher.snapshot()
    ours, theirs = matcher.match(workload.tasks[50:150]), again.match(workload.tasks[50:150])
    assert np.array_equal(ours, theirs)
    again.check()


def test_snapshot_of_one_twin_is_read_by_the_other() -> None:
    one = workloads.load(CompiledMatcher, workloads.mixed(10, 8, apps=2))
    one.match(workloads.mixed(10, 8, apps=2).tasks[:40])
    assert PlainMatcher.restore(one.snapshot()).snapshot() == one.snapshot()


def test_fork_does_not_change_the_original(impl: Any) -> None:
    matcher = impl(1)
    matcher.add_host(units(2))
    cls = matcher.add_class(units(1))
    before = matcher.snapshot()
    fork = matcher.fork()
    assert place(fork, cls, cls) == [0, 0]
    fork.remove_host(0)
    assert matcher.snapshot() == before


def test_snapshot_with_any_damaged_byte_is_refused(impl: Any) -> None:
    matcher = workloads.load(impl, workloads.mixed(2, 2, apps=1))
    matcher.match(ids(0, 1))
    data = matcher.snapshot()
    for at in range(len(data)):
        with pytest.raises(MatchError, match="snapshot"):
            impl.restore(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(MatchError, match="snapshot"):
            impl.restore(data[:at])
    with pytest.raises(MatchError, match="a snapshot is bytes, not str"):
        impl.restore("JCMATCH1")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("host_status", ids(1, 0)),
        ("host_status", ids(1, 3)),
        ("class_status", ids(1, 2)),
        ("class_shared", np.array([[1], [2]])),
        ("class_request", np.array([[-1], [2]])),
        ("claim_slot", ids(5)),
        ("claim_class", ids(-1)),
        ("claim_generation", ids(0)),
        ("free_claims", ids(0)),
        ("class_key", ids(4, -2)),
        ("class_group", ids(-2, -1)),
        ("class_max_per_host", ids(0, 3)),
        ("limited_group", ids(-1)),
        ("group_limit", np.array([[-1]])),
        ("fitness", ids(0, 0, 0, 0, 0, 0, 5_000)),
        ("class_allowed", np.array([[1, 2]], dtype=np.uint8)),
        ("class_exclusive", ids(0, 2)),
        ("class_penalised", ids(1, 1)),
        ("class_penalty", np.array([[1, 2**28 + 1]])),
        ("class_rules", np.array([[2, 0, 4, 1, 1, 0]])),
        ("class_rules", np.array([[1, 3, 4, 1, 1, 0]])),
        ("class_rules", np.array([[1, 0, -1, 1, 1, 0]])),
        ("class_rules", np.array([[1, 0, 4, 64, 1, 0]])),
        ("class_rules", np.array([[1, 2, 4, -1, 1, 0]])),
        ("class_rules", np.array([[1, 0, 4, 1, 0, 0]])),
        ("class_rules", np.array([[1, 0, 4, 1, 1, 2**28 + 1]])),
        ("class_rules", np.array([[1, 0, 4, 1, 1, 0]] * 17)),
        ("attribute", ids(64)),
        ("attribute_value", np.array([[0, -2]])),
    ],
)
def test_inconsistent_snapshot_is_refused(impl: Any, name: str, value: NDArray[np.int64]) -> None:
    matcher = impl(1)
    matcher.add_host(units(5))
    matcher.add_host(units(5))
    matcher.add_class(units(1), shared_key=4, shared=units(1), allowed=np.array([True, True]))
    matcher.add_class(units(1), shared_key=4, shared=units(1), penalty=ids(1, 2), rules=[at_most(1, 4, per=1)])
    matcher.set_group_limit(4, units(9))
    matcher.set_attribute(1, ids(0, 1))
    claim_one(matcher, 0)
    state = decode(matcher.snapshot())
    fields = {field: getattr(state, field) for field in State.__slots__} | {name: value}
    with pytest.raises(MatchError, match="the snapshot"):
        impl.restore(encode(State(**fields)))


# ---- bad input changes nothing

BAD_AMOUNTS = [
    ([1, 2], "not list"),
    (np.array([1.0, 2.0]), "not float64"),
    (np.array([1.0, np.nan]), "not float64"),
    (np.array([1, 2], dtype=np.int32), "not int32"),
    (np.array([1, 2], dtype=">i8"), "not >i8"),
    (np.array([[1, 2]]), "not of shape"),
    (np.array([1, 0, 2, 0])[::2], "ascontiguousarray"),
    (np.array([1, 2, 3]), "each of the 2 dimensions, not 3"),
    (np.array([1, -1]), r"\[1\] is -1"),
    (np.array([2**52 + 1, 1]), r"\[0\] is 4503599627370497"),
    (None, "not NoneType"),
]


@pytest.mark.parametrize(("amount", "words"), BAD_AMOUNTS)
def test_bad_amount_is_named_and_changes_nothing(impl: Any, amount: Any, words: str) -> None:
    matcher = impl(2)
    slot = matcher.add_host(units(1, 1))
    before = matcher.snapshot()
    calls: tuple[tuple[Callable[[], Any], str], ...] = (
        (lambda: matcher.add_host(amount), "capacity"),
        (lambda: matcher.set_host(slot, amount), "capacity"),
        (lambda: matcher.add_class(amount), "request"),
    )
    for call, name in calls:
        with pytest.raises(MatchError, match=f"{name}.*{words}"):
            call()
    if amount is not None:
        with pytest.raises(MatchError, match=f"shared.*{words}"):
            matcher.add_class(units(1, 1), shared_key=1, shared=amount)
    assert matcher.snapshot() == before


def test_free_amounts_of_many_hosts_can_be_set_despite_claims(impl: Any) -> None:
    matcher = impl(2)
    slots = [matcher.add_host(units(4, 4)) for _ in range(3)]
    cls = matcher.add_class(units(3, 1))
    for slot in (0, 2):
        matcher.assign(cls, slot)
    left = np.array([units(2, 2), units(0, 5)])
    assert matcher.set_free(np.array([2, 1]), left).tolist() == [units(5, 3).tolist(), units(0, 5).tolist()]
    assert [matcher.free(slot).tolist() for slot in slots] == [[1_000, 3_000], [0, 5_000], [2_000, 2_000]]
    assert matcher.set_free(np.array([0]), np.array([[match.MAX_AMOUNT, 0]])).tolist() == [[match.MAX_AMOUNT, 1_000]]
    matcher.check()
    before = matcher.snapshot()
    for numbers, rows, words in (
        (np.array([0, 3]), left, "slot 3 holds no host"),
        (np.array([0]), left, "one row for each of the 1 slots, not 2"),
        (np.array([0, 1]), -left, "is -2000"),
        ([0, 1], left, "slots must be"),
    ):
        with pytest.raises(MatchError, match=words):
            matcher.set_free(numbers, rows)
    assert matcher.snapshot() == before


@pytest.mark.parametrize("wrong", [0, -1, 65, 1.5, "2", True, None])
def test_matcher_has_1_to_64_dimensions(impl: Any, wrong: Any) -> None:
    with pytest.raises(MatchError, match="dimensions must be"):
        impl(wrong)


@pytest.mark.parametrize("wrong", [1, -1, 2**40, 0.0, "0", None, True])
def test_unknown_slot_or_class_is_named(impl: Any, wrong: Any) -> None:
    matcher = impl(1)
    slot, cls = matcher.add_host(units(1)), matcher.add_class(units(1))
    before = matcher.snapshot()
    calls: tuple[Callable[[], Any], ...] = (
        lambda: matcher.set_host(wrong, units(1)),
        lambda: matcher.remove_host(wrong),
        lambda: matcher.enable_host(wrong, True),
        lambda: matcher.free(wrong),
        lambda: matcher.capacity(wrong),
        lambda: matcher.assign(cls, wrong),
    )
    for call in calls:
        with pytest.raises(MatchError, match="slot"):
            call()
    for call in (
        lambda: matcher.remove_class(wrong),
        lambda: matcher.set_allowed(wrong, None),
        lambda: matcher.refusal(wrong),
        lambda: matcher.assign(wrong, slot),
    ):
        with pytest.raises(MatchError, match="cl"):
            call()
    assert matcher.snapshot() == before


def test_one_unknown_class_refuses_the_whole_batch(impl: Any) -> None:
    matcher = impl(1)
    matcher.add_host(units(9))
    cls = matcher.add_class(units(1))
    with pytest.raises(MatchError, match=r"classes\[1\] is 9"):
        matcher.match(ids(cls, 9))
    with pytest.raises(MatchError, match="classes must be"):
        matcher.match([cls])
    with pytest.raises(MatchError, match="limit must be"):
        matcher.match(ids(cls), limit=-2)
    assert matcher.claims() == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"shared": units(1)}, "without a shared_key"),
        ({"shared_key": -2}, "shared_key must be between"),
        ({"shared_key": 2**63}, "shared_key must be between"),
        ({"shared_key": 1.0}, "shared_key must be a whole number"),
        ({"allowed": np.array([True, True])}, r"allowed\[1\] is set, but slot 1 holds no host"),
        ({"allowed": np.array([1])}, "allowed must be"),
    ],
)
def test_bad_class_is_named_and_not_added(impl: Any, arguments: dict[str, Any], words: str) -> None:
    matcher = impl(1)
    matcher.add_host(units(1))
    before = matcher.snapshot()
    with pytest.raises(MatchError, match=words):
        matcher.add_class(units(1), **arguments)
    assert matcher.snapshot() == before


def test_release_ids_of_a_wrong_type_are_refused(impl: Any) -> None:
    with pytest.raises(MatchError, match="release_ids must be"):
        impl(1).release(np.array([1.0]))


def test_enable_host_takes_a_bool(impl: Any) -> None:
    matcher = impl(1)
    matcher.add_host(units(1))
    with pytest.raises(MatchError, match="on must be True or False"):
        matcher.enable_host(0, 1)


def test_largest_amounts_do_not_overflow(impl: Any) -> None:
    most = np.array([match.MAX_AMOUNT], dtype=np.int64)
    matcher = impl(1)
    slot = matcher.add_host(most)
    cls = matcher.add_class(most, shared_key=match.MAX_AMOUNT, shared=most)
    matcher.add_host(units(0.001))
    assert place(matcher, cls) == [REFUSED]
    for _ in range(255):
        matcher.assign(cls, slot)
    with pytest.raises(MatchError, match="cannot take the claim"):
        matcher.assign(cls, slot)
    assert matcher.refusal(cls).lacking == (2,)
    assert matcher.free(slot).tolist() == [-255 * match.MAX_AMOUNT]
    assert impl.restore(matcher.snapshot()).snapshot() == matcher.snapshot()
    assert len(matcher.remove_host(slot)) == 255


# ---- Elastic-Job-Cloud's acceptance cases: two apps in turn on two agents; an executor is as large as a task


def place_all(impl: Any, workload: workloads.Workload, executor_on_first: bool = False) -> list[int]:
    matcher = workloads.load(impl, workload)
    if executor_on_first:  # the offer of 11 does not include the amounts of the running executor
        hold = matcher.add_class(0 * workload.shared, shared_key=0, shared=workload.shared)
        matcher.set_host(0, workload.hosts[0] + workload.shared)
        matcher.assign(hold, 0)
    slots, _ = matcher.match(workload.tasks)
    matcher.check()
    assert min(matcher.free(0).min(), matcher.free(1).min()) >= 0
    assert set(slots[slots >= 0].tolist()) == {0, 1}
    return [int(slot) for slot in slots if slot >= 0]


def test_twenty_tasks_of_two_apps_fill_two_agents_of_13_cpus_and_13_times_the_memory(impl: Any) -> None:
    assert len(place_all(impl, workloads.two_apps(13, 13))) == 20


def test_at_least_18_tasks_of_two_apps_are_placed_on_two_agents_of_11_cpus(impl: Any) -> None:
    assert len(place_all(impl, workloads.two_apps(11, 13))) >= 18


def test_at_least_18_tasks_of_two_apps_are_placed_on_two_agents_of_11_times_the_memory(impl: Any) -> None:
    assert len(place_all(impl, workloads.two_apps(13, 11))) >= 18


def test_more_than_18_tasks_are_placed_if_one_executor_already_runs(impl: Any) -> None:
    assert len(place_all(impl, workloads.two_apps(11, 11), executor_on_first=True)) > 18


def test_task_of_an_app_without_executor_takes_only_its_request(impl: Any) -> None:
    matcher = impl(2)
    matcher.add_host(units(1.5, 192))
    assert place(matcher, matcher.add_class(units(1, 128))) == [0]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([[1, 2]], "not list"),
        (np.array([1, 2]), r"int64\[n, 2\] of thousandths, not int64\[2\]"),
        (np.array([[1.0, 2.0]]), r"not float64\[1, 2\]"),
        (np.array([[1], [2]]), "one amount for each of the 2 dimensions, not 1"),
        (np.array([[1, 2], [3, -1]]), r"capacities\[1\]\[1\] is -1"),
        (np.array([[1, 2], [2**52 + 1, 0]]), r"capacities\[1\]\[0\] is 4503599627370497"),
    ],
)
def test_add_hosts_adds_all_or_none(impl: Any, rows: Any, words: str) -> None:
    matcher = impl(2)
    assert matcher.add_hosts(np.array([[1, 2], [3, 4]])).tolist() == [0, 1]
    with pytest.raises(MatchError, match=words):
        matcher.add_hosts(rows)
    matcher.remove_host(0)
    assert matcher.add_hosts(np.array([[5, 6], [7, 8]])).tolist() == [0, 2]
    assert matcher.free(2).tolist() == [7, 8]
    assert matcher.add_hosts(np.empty((0, 2), dtype=np.int64)).tolist() == []


def test_ten_million_claims_take_no_more_memory_than_the_first() -> None:
    matcher = CompiledMatcher(2)
    matcher.add_hosts(np.full((100, 2), 1_000_000))
    classes = [matcher.add_class(np.array([100 + number, 100])) for number in range(50)]
    tasks = np.random.default_rng(1).choice(classes, 5_000).astype(np.int32)
    held = [matcher.match(tasks)[1] for _ in range(2)]
    before = matcher.memory()
    for _ in range(2_000):
        assert len(matcher.release(held.pop(0))) == 0
        held.append(matcher.match(tasks)[1])
    assert (held[-1] >= 0).all()
    assert matcher.memory() == before
    matcher.check()
