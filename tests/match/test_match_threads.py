"""A matcher takes one call at a time: a call of another thread meanwhile raises MatchStateError and changes nothing.

The stress test runs each pair of calls in two threads. `JOBCLOUD_THREAD_SECONDS` sets its duration for each pair. With
seconds, run it on the debug build, which checks bounds (`make thread-soak`).
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from bench import workloads

from jobcloud.match import CompiledMatcher, MatchError, MatchStateError, PlainMatcher, at_most, balanced
from jobcloud.placer import Placer

SECONDS = float(os.environ.get("JOBCLOUD_THREAD_SECONDS", "0"))
TURNS = 3  # of each call without a duration

Call = Callable[[Any, random.Random], object]


def amount(chance: random.Random) -> Any:
    return np.array([chance.choice((0, 10, 500)), chance.choice((0, 20, 900))])


def capacity(chance: random.Random) -> Any:
    return np.array([chance.choice((4_000, 8_000)), chance.choice((8_000, 16_000))])


def some_ids(matcher: Any, chance: random.Random) -> Any:
    return matcher.claims_on(chance.randrange(40))[:5]


#: Each public method of the matcher.
CALLS: dict[str, Call] = {
    "add_host": lambda m, c: m.remove_host(m.add_host(capacity(c))),
    "add_hosts": lambda m, c: [m.remove_host(int(slot)) for slot in m.add_hosts(np.array([capacity(c)] * 3))],
    "set_host": lambda m, c: m.set_host(c.randrange(40), capacity(c)),
    "set_free": lambda m, c: m.set_free(np.array([c.randrange(40)]), np.array([capacity(c)])),
    "remove_host": lambda m, c: (m.remove_host(c.randrange(40)), m.add_host(capacity(c))),
    "enable_host": lambda m, c: m.enable_host(c.randrange(40), c.random() < 0.8),
    "free": lambda m, c: m.free(c.randrange(40)),
    "capacity": lambda m, c: m.capacity(c.randrange(40)),
    "set_attribute": lambda m, c: m.set_attribute(0, np.array([c.randrange(3) for _ in range(30)])),
    "add_class": lambda m, c: m.remove_class(m.add_class(amount(c), rules=[balanced(1, 0)])),
    "set_allowed": lambda m, c: m.set_allowed(c.randrange(6), np.array([True] * c.randrange(30))),
    "set_penalty": lambda m, c: m.set_penalty(c.randrange(6), np.array([c.randrange(9)] * 30)),
    "set_host_masks": lambda m, c: m.set_host_masks(
        c.randrange(40), np.array([c.randrange(6)]), np.array([True]), np.array([0])
    ),
    "set_group_limit": lambda m, c: m.set_group_limit(1, c.choice((None, np.array([10**6, 10**6])))),
    "remove_class": lambda m, c: m.remove_class(m.add_class(amount(c), shared_key=c.randrange(3), shared=amount(c))),
    "match": lambda m, c: m.match(np.array([c.randrange(6) for _ in range(200)])),
    "match_gang": lambda m, c: m.match_gang(np.array([c.randrange(6) for _ in range(50)])),
    "assign": lambda m, c: m.assign(c.randrange(6), c.randrange(40)),
    "release": lambda m, c: m.release(some_ids(m, c)),
    "slots": lambda m, c: m.slots(some_ids(m, c)),
    "refusal": lambda m, c: m.refusal(c.randrange(6)),
    "preemption": lambda m, c: m.preemption(c.randrange(6), some_ids(m, c)),
    "claims": lambda m, c: m.claims(c.randrange(6)),
    "claims_on": lambda m, c: m.claims_on(c.randrange(40)),
    "memory": lambda m, c: m.memory(),
    "snapshot": lambda m, c: m.snapshot(),
    "fork": lambda m, c: m.fork().match(np.array([0, 1, 2])),
    "check": lambda m, c: m.check(),
}


def some_tasks(placer: Any, chance: random.Random) -> list[Any]:
    shapes = sorted(placer._numbers, key=lambda shape: int(shape.number))
    return [(f"t{chance.randrange(10**9)}", chance.choice(shapes)) for _ in range(30)]


def host(chance: random.Random) -> str:
    return f"h{chance.randrange(20)}"


#: Each public method of the placer.
PLACER_CALLS: dict[str, Call] = {
    "add_host": lambda p, c: p.add_host(f"new{c.randrange(99)}", {"cpus": 4}, {"zone": "a"}),
    "add_hosts": lambda p, c: p.add_hosts([(f"new{c.randrange(99)}", {"cpus": 4}, {}, ())]),
    "set_host": lambda p, c: p.set_host(host(c), {"cpus": c.choice((4, 8))}, {"zone": c.choice("ab")}),
    "remove_host": lambda p, c: p.remove_host(f"new{c.randrange(99)}"),
    "enable_host": lambda p, c: p.enable_host(host(c), c.random() < 0.8),
    "free": lambda p, c: p.free(host(c)),
    "free_of": lambda p, c: p.free_of([host(c), host(c)]),
    "hosts": lambda p, c: p.hosts(),
    "group": lambda p, c: p.group(f"g{c.randrange(9)}"),
    "set_group_limit": lambda p, c: p.set_group_limit("web", c.choice((None, {"cpus": 50}))),
    "attribute": lambda p, c: p.attribute("zone"),
    "shape": lambda p, c: p.shape({"cpus": c.randrange(1, 9) / 10}, constraints=["zone == a"]),
    "remove_shape": lambda p, c: p.remove_shape(p.shape({"cpus": 0.01 * c.randrange(1, 9)}, group="gone")),
    "place": lambda p, c: p.place(some_tasks(p, c)),
    "place_together": lambda p, c: p.place_together(some_tasks(p, c)),
    "assign": lambda p, c: p.assign(*some_tasks(p, c)[0], host(c)),
    "release": lambda p, c: p.release(p.tasks()[:50]),
    "why": lambda p, c: p.why(some_tasks(p, c)[0][1]),
    "host_of": lambda p, c: p.host_of("t"),
    "ports_of": lambda p, c: p.ports_of("t"),
    "tasks": lambda p, c: p.tasks(host(c)),
    "claims": lambda p, c: p.claims(),
    "fork": lambda p, c: p.fork().place(some_tasks(p, c)),
    "snapshot": lambda p, c: Placer.restore(p.snapshot()),
}


def ready_placer() -> Any:
    placer = Placer(("cpus", "ports"))
    for n in range(20):
        placer.add_host(f"h{n}", {"cpus": 8}, {"zone": "ab"[n % 2]}, ports=[(1, 20)])
    for n in range(1, 4):
        placer.shape({"cpus": n / 10, "ports": n % 2}, constraints=["zone == a"] * (n - 1), group="web")
    return placer


def ready() -> Any:
    chance = random.Random(1)
    matcher = CompiledMatcher(2)
    matcher.add_hosts(np.array([capacity(chance) for _ in range(40)]))
    matcher.set_attribute(0, np.array([n % 3 for n in range(40)]))
    for n in range(6):
        named: dict[str, Any] = {"allowed": np.array([True] * 40), "penalty": np.array([n] * 40)} if n % 2 else {}
        rules = [at_most(30, 1, per=0)] if n > 3 else []
        matcher.add_class(np.array([10 + n, 20]), group=1, shared_key=9, shared=np.array([5, 5]), rules=rules, **named)
    return matcher


@pytest.fixture
def hurried() -> Iterator[None]:
    """The GIL changes hands as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def run_both(matcher: Any, pair: tuple[str, str], calls: dict[str, Call] = CALLS) -> Counter[str]:
    """Make both calls again and again, each in its own thread. Returns how many were made, and how many refused."""
    made, faults = Counter[str](), list[BaseException]()
    start = threading.Barrier(2)

    def work(at: int) -> None:
        chance = random.Random(at)
        start.wait()
        end, turns = time.monotonic() + SECONDS, 0
        while turns < TURNS or time.monotonic() < end:
            turns += 1
            try:
                calls[pair[at]](matcher, chance)
            except MatchStateError as error:
                if "another call" not in str(error) and "another thread's call" not in str(error):
                    faults.append(error)
                made[f"refused {at}"] += 1
            except MatchError:  # for example, the other thread has removed the host
                pass
            except BaseException as error:
                faults.append(error)
        made[f"made {at}"] = turns

    threads = [threading.Thread(target=work, args=(at,)) for at in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults, (pair, faults[0])
    return made


def test_each_pair_of_calls_in_two_threads_is_refused_or_harmless(hurried: None) -> None:
    assert CALLS.keys() >= {name for name in dir(PlainMatcher) if not name.startswith("_")} - {
        "restore", "fitness", "custom_fitness", "dimensions", "engine",
    }  # fmt: skip
    made = Counter[str]()
    for pair in itertools.combinations_with_replacement(CALLS, 2):
        matcher = ready()
        made += run_both(matcher, pair)
        matcher.check()
    print(f"{len(CALLS)} calls of a matcher, in pairs: {made}")


def test_each_pair_of_calls_of_a_placer_in_two_threads_is_refused_or_harmless(hurried: None) -> None:
    """Afterwards, a restored copy is equal: the names, claims and ports of the placer still agree."""
    public = {name for name in dir(Placer) if not name.startswith("_") and callable(getattr(Placer, name))}
    assert PLACER_CALLS.keys() == public - {"restore"}
    made = Counter[str]()
    for pair in itertools.combinations_with_replacement(PLACER_CALLS, 2):
        placer = ready_placer()
        made += run_both(placer, pair, PLACER_CALLS)
        placer.matcher.check()
        assert Placer.restore(placer.snapshot()).claims() == placer.claims()
    print(f"{len(PLACER_CALLS)} calls of a placer, in pairs: {made}")


def test_two_threads_that_match_many_tasks_lose_no_claim(hurried: None) -> None:
    workload = workloads.mixed(300, 8)
    tasks = np.tile(workload.tasks, 3)
    for _ in range(2):
        matcher = workloads.load(CompiledMatcher, workload)
        placed: list[Any] = []
        start = threading.Barrier(2)

        def work(matcher: Any = matcher, placed: list[Any] = placed, start: threading.Barrier = start) -> None:
            start.wait()
            for _ in range(3):
                try:
                    placed.append(matcher.match(tasks)[1])
                except MatchStateError:
                    continue

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ids = np.concatenate(placed)
        assert len(np.unique(ids[ids >= 0])) == (ids >= 0).sum() == matcher.claims()
        matcher.check()


def test_call_during_a_call_changes_nothing_and_the_matcher_stays_usable() -> None:
    """A fitness runs in the middle of `match`. From there, each other call is refused."""
    refused: list[str] = []

    def fitness(*about: Any) -> int:
        for name, call in CALLS.items():
            with pytest.raises(MatchStateError, match="another call is using this matcher"):
                call(matcher, random.Random(1))
            refused.append(name)
        return 0

    matcher = CompiledMatcher(2, fitness=fitness)
    matcher.add_hosts(np.array([[4_000, 8_000]] * 3))
    cls = matcher.add_class(np.array([10, 20]))
    slots, _ = matcher.match(np.array([cls]))
    assert (slots.tolist(), refused) == ([0], [*CALLS] * 3)
    assert matcher.claims() == 1
    matcher.check()


def test_refused_call_leaves_the_claim_with_its_owner() -> None:
    def fitness(*about: Any) -> int:
        for _ in range(2):  # the first refusal does not end the claim
            with pytest.raises(MatchStateError):
                matcher.free(0)
        return 0

    matcher = CompiledMatcher(1, fitness=fitness)
    matcher.add_host(np.array([4_000]))
    matcher.match(np.array([matcher.add_class(np.array([10]))]))
    for _ in range(2):  # a failed call ends its claim
        with pytest.raises(MatchError, match="slot 7"):
            matcher.free(7)


@pytest.mark.parametrize("make", [PlainMatcher, lambda *a, **n: Placer(("cpus",), **n)], ids=["plain", "placer"])
def test_second_thread_is_refused_during_a_call(make: Any) -> None:
    """The plain matcher and the placer as well. Afterwards the other thread may use it."""
    answers: list[object] = []

    def other() -> None:
        try:
            answers.append(matcher.fork())
        except MatchStateError as error:
            answers.append(str(error))

    def fitness(*about: Any) -> int:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        return 0

    matcher = make(1, fitness=fitness)
    if isinstance(matcher, Placer):
        matcher.add_host("h", {"cpus": 1})
        assert matcher.place([("t", matcher.shape({"cpus": 1}))]) == [("t", "h")]
    else:
        matcher.add_host(np.array([1_000]))
        matcher.match(np.array([matcher.add_class(np.array([1_000]))]))
    assert answers == ["another thread's call is using this object; make one call at a time"]
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert type(answers[-1]) is type(matcher)
