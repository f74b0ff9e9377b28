"""Placement by name: names, amounts and port numbers on top of the matcher."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import random
import tracemalloc
import zlib
from collections.abc import Callable
from decimal import Decimal
from typing import Any, cast

import numpy as np
import pytest

from jobcloud.match import CompiledMatcher, MatchError, PlainMatcher, _placer, _placer_plain, at_most
from jobcloud.match.placer import Placer, Shape


@pytest.fixture(params=[CompiledMatcher, PlainMatcher], ids=["compiled", "plain"])
def placer(request: pytest.FixtureRequest) -> Placer:
    made = Placer(("cpus", "mem_mb"), matcher=request.param, fitness="first")
    made.add_host("small", {"cpus": 4, "mem_mb": 8_000}, {"zone": "a"})
    made.add_host("large", {"cpus": 16, "mem_mb": 64_000}, {"zone": "b"})
    return made


@pytest.fixture(params=[CompiledMatcher, PlainMatcher], ids=["compiled", "plain"])
def with_ports(request: pytest.FixtureRequest) -> Placer:
    return Placer(("cpus", "ports"), fixed_ports=[8_080], matcher=request.param)


def named(shape: Shape, *names: str) -> list[tuple[str, Shape]]:
    return [(name, shape) for name in names]


def test_tasks_are_placed_released_and_found_by_name(placer: Placer) -> None:
    shape = placer.shape({"cpus": "0.5", "mem_mb": 256}, constraints=["zone == a"])
    assert placer.place(named(shape, "t1", "t2")) == [("t1", "small"), ("t2", "small")]
    assert placer.free("small") == {"cpus": 3_000, "mem_mb": 7_488_000}
    assert placer.host_of("t1") == "small"
    assert placer.release(["t1", "t1", "nobody"]) == ["t1", "nobody"]
    assert placer.host_of("t1") is None
    assert placer.free("small") == {"cpus": 3_500, "mem_mb": 7_744_000}


@pytest.mark.parametrize("amount", [0.3, "0.3", Decimal("0.3")])
def test_amount_is_exactly_the_written_number(placer: Placer, amount: Any) -> None:
    assert placer.shape({"cpus": amount}) is placer.shape({"cpus": "0.300", "mem_mb": 0})
    assert placer.shape({"cpus": amount}).amounts == {"cpus": 300, "mem_mb": 0}


def test_executor_is_counted_once_per_host(placer: Placer) -> None:
    wanted = ["zone == a"]
    shape = placer.shape(
        {"cpus": 1}, constraints=wanted, executor="shop", executor_amounts={"cpus": "0.5", "mem_mb": 512}
    )
    placer.place(named(shape, "t1", "t2", "t3"))
    assert placer.free("small") == {"cpus": 500, "mem_mb": 7_488_000}


def test_gang_is_placed_completely_or_not_at_all(placer: Placer) -> None:
    big = placer.shape({"cpus": 10})
    assert placer.place_together(named(big, "t1", "t2")) == [("t1", None), ("t2", None)]
    assert placer.place_together(named(big, "t1", "t2"), minimum=1) == [("t1", "large"), ("t2", None)]


def test_constraints_apply_to_hosts_added_later(placer: Placer) -> None:
    shape = placer.shape({"cpus": 3}, constraints=["zone in c, d"], soft=[("host == dear", 1 << 20)])
    assert placer.place(named(shape, "t1")) == [("t1", None)]
    placer.add_host("cheap", {"cpus": 4, "mem_mb": 1}, {"zone": "d"})
    placer.add_host("dear", {"cpus": 4, "mem_mb": 1}, {"zone": "c"})
    assert placer.place(named(shape, "t1")) == [("t1", "dear")]
    assert placer.remove_host("dear") == ["t1"]
    assert placer.place(named(shape, "t1")) == [("t1", "cheap")]


def test_rules_between_tasks_use_named_groups_and_attributes(placer: Placer) -> None:
    one_a_zone = at_most(1, placer.group("web"), per=placer.attribute("zone"))
    shape = placer.shape({"cpus": 1}, group="web", rules=[one_a_zone])
    assert [host for _, host in placer.place(named(shape, "t1", "t2", "t3"))] == ["small", "large", None]
    why = placer.why(shape)
    assert (why.ruled_out, why.hosts, why.could_ever_fit) == (2, 2, True)


def test_why_names_the_missing_resources(placer: Placer) -> None:
    huge = placer.shape({"cpus": 32, "mem_mb": 1}, constraints=["zone != a"])
    assert placer.place(named(huge, "t1")) == [("t1", None)]
    why = placer.why(huge)
    assert why.lacking == {"cpus": 1}
    assert why.failing == {"zone != a": 1}
    assert why.nearest == "large"
    assert why.asked["cpus"] == 32_000
    assert why.available["cpus"] == 16_000
    assert not why.could_ever_fit


def test_disabled_host_takes_no_new_tasks(placer: Placer) -> None:
    shape = placer.shape({"cpus": 1})
    placer.enable_host("small", False)
    assert placer.place(named(shape, "t1")) == [("t1", "large")]
    assert placer.why(placer.shape({"cpus": 20})).disabled == 1


def test_set_host_changes_amounts_and_keeps_tasks(placer: Placer) -> None:
    shape = placer.shape({"cpus": 3})
    placer.place(named(shape, "t1"))
    placer.set_host("small", {"cpus": 2})
    assert placer.free("small") == {"cpus": -1_000, "mem_mb": 0}
    assert placer.host_of("t1") == "small"
    placer.set_host("small", {"cpus": "6.5", "mem_mb": 1})
    assert placer.place(named(shape, "t2", "t3")) == [("t2", "small"), ("t3", "large")]


def test_set_host_changes_attributes(placer: Placer) -> None:
    shape = placer.shape({"cpus": 1}, constraints=["zone == c"])
    assert placer.place(named(shape, "t1")) == [("t1", None)]
    placer.set_host("large", {"cpus": 16}, {"zone": "c"})
    assert placer.place(named(shape, "t1")) == [("t1", "large")]
    placer.set_host("large", {"cpus": 8})
    assert placer.place(named(shape, "t2")) == [("t2", "large")]


def test_set_host_changes_ports_and_keeps_ports_in_use(with_ports: Placer) -> None:
    with_ports.add_host("h", {"cpus": 8}, ports=[(1, 3), (8_080, 8_080)])
    two = with_ports.shape({"ports": 2}, fixed_ports=[8_080])
    with_ports.place(named(two, "t1"))
    assert with_ports.ports_of("t1") == (8_080, 1, 2)
    with_ports.set_host("h", {"cpus": 4})
    assert with_ports.free("h") == {"cpus": 4_000, "ports": 1_000, "port 8080": 0}
    with_ports.set_host("h", {"cpus": 4}, ports=[(1, 2), (7, 8), (8_080, 8_081)])
    assert with_ports.free("h") == {"cpus": 4_000, "ports": 3_000, "port 8080": 0}
    one = with_ports.shape({"ports": 1})
    with_ports.place(named(one, "t2"))
    assert with_ports.ports_of("t2") == (7,)
    for wrong in ([(1, 1), (7, 8), (8_080, 8_080)], [(1, 8)], []):
        with pytest.raises(MatchError, match=r"ports of host 'h': task 't1' uses (2|8080|1); keep it"):
            with_ports.set_host("h", {"cpus": 4}, ports=wrong)
    with_ports.release(["t1"])
    with_ports.place(named(one, "t3"))
    assert with_ports.ports_of("t3") == (1,)
    with_ports.matcher.check()


def test_fork_is_independent(with_ports: Placer) -> None:
    with_ports.add_host("h", {"cpus": 8}, {"zone": "a"}, ports=[(1, 4)])
    one = with_ports.shape({"ports": 1}, constraints=["zone == a"])
    with_ports.place(named(one, "t1"))
    fork = with_ports.fork()
    assert fork.place(named(one, "t2")) == [("t2", "h")]
    assert (fork.ports_of("t1"), fork.ports_of("t2")) == ((1,), (2,))
    assert fork.release(["t1"]) == []
    fork.add_host("h2", {"cpus": 1}, {"zone": "a"}, ports=[(1, 9)])
    fork.shape({"cpus": 1}, group="other")
    assert fork.remove_host("h") == ["t2"]

    assert with_ports.claims().keys() == {"t1"}
    assert with_ports.place(named(one, "t2", "t3", "t4", "t5")) == [
        *(((f"t{n}", "h")) for n in (2, 3, 4)), ("t5", None)
    ]  # fmt: skip
    assert [with_ports.ports_of(f"t{n}") for n in range(1, 5)] == [(1,), (2,), (3,), (4,)]
    with_ports.add_host("h2", {"cpus": 1})
    with_ports.matcher.check()
    assert fork.claims() == {}
    fork.matcher.check()


def lived_in(matcher: Any, seed: int = 1) -> tuple[Placer, list[str]]:
    """A placer with everything that a snapshot can hold, with gaps from removed hosts and tasks; and its tasks."""
    chance = random.Random(seed)
    placer = Placer(("cpus", "mem_mb", "ports"), fixed_ports=[8_080, 8_081], matcher=matcher)
    for n in range(8):
        placer.add_host(
            f"h{n}", {"cpus": 9 + n, "mem_mb": 999}, {"zone": "ab"[n % 2]}, ports=[(8_070, 8_085), (9_000, 9_030 + n)]
        )
    names: list[str] = []
    for turn in range(12):
        names += [
            name for name, host in placer.place((f"{turn}/{i}", chance.choice(kinds(placer))) for i in range(9)) if host
        ]
        chance.shuffle(names)
        placer.release(names[:4])
        names = names[4:]
    gone = placer.remove_host("h3") + placer.remove_host("h7")
    placer.enable_host("h1", False)
    placer.set_group_limit("few", {"cpus": 3})
    placer.remove_shape(placer.shape({"cpus": 2}, group="w\ud800"))
    return placer, [name for name in names if name not in gone]


def kinds(placer: Placer) -> list[Shape]:
    apart = at_most(2, placer.group("web"), per=placer.attribute("zone"))
    return [
        placer.shape({"cpus": 1, "ports": 2}, constraints=["zone in a, b", "host !~ x*"], soft=[("zone == b", 1)]),
        placer.shape({"cpus": "0.5"}, group="web", rules=[apart], fixed_ports=[8_080]),
        placer.shape({"mem_mb": 7}, group="web", max_per_host=1, exclusive=True),
        placer.shape({"cpus": 1}, executor="app", executor_amounts={"mem_mb": 3}, fixed_ports=[8_081]),
    ]  # fmt: skip


@pytest.mark.parametrize("other", [CompiledMatcher, PlainMatcher], ids=["compiled", "plain"])
@pytest.mark.parametrize("matcher", [CompiledMatcher, PlainMatcher], ids=["compiled", "plain"])
def test_restored_placer_behaves_like_the_original(matcher: Any, other: Any, seed: int) -> None:
    placer, names = lived_in(matcher, seed)
    again = Placer.restore(placer.snapshot(), matcher=other)
    assert again.snapshot() == placer.snapshot()
    assert again.claims() == placer.claims()
    assert names
    for each in (placer, again):
        each.release(names[::2])
        each.add_host("new", {"cpus": 4}, {"zone": "a"}, ports=[(8_080, 8_081), (1, 5)])
        each.set_host("h2", {"cpus": 50}, ports=[(8_070, 8_085), (9_000, 9_040)])
    asked = [(f"n{i}", i % 4) for i in range(60)]
    answers = [each.place((name, kinds(each)[n]) for name, n in asked) for each in (placer, again)]
    assert answers[0] == answers[1]
    assert [placer.ports_of(name) for name, _ in asked] == [again.ports_of(name) for name, _ in asked]
    assert len(again._shapes) == len(placer._shapes)
    assert again.snapshot() == placer.snapshot()
    again.matcher.check()


def test_snapshot_keeps_a_named_fitness_and_requires_a_custom_one() -> None:
    named_, custom = Placer(("cpus",), fitness="spread"), Placer(("cpus",), fitness=lambda *_: 0)
    assert Placer.restore(named_.snapshot(), engine="scan").matcher.fitness["spread"] == 1_024
    with pytest.raises(MatchError, match="pass it as fitness"):
        Placer.restore(custom.snapshot())
    assert Placer.restore(custom.snapshot(), fitness=lambda *_: 0).matcher.custom_fitness


def test_snapshot_of_the_first_format_is_restored() -> None:
    """It has lists of names instead of numbers by name, and no limits."""
    placer, _ = lived_in(CompiledMatcher)
    placer.set_group_limit("few", None)

    def older(names: Any) -> Any:
        for kind in ("groups", "executors"):
            names[kind] = list(names[kind])
        ids, ports = names.pop("release_ids"), names.pop("ports")
        names["tasks"] = [[name, number, ports.get(name, [])] for name, number in zip(names["tasks"], ids, strict=True)]
        del names["next"], names["limited"]
        return names

    data = forged(placer.snapshot(), older)
    data = b"JCPLACE1" + data[8:-4]
    again = Placer.restore(data + zlib.crc32(data).to_bytes(4, "little"))
    assert again.claims() == placer.claims()
    assert [again.shape({"cpus": 1}, group="web").number] == [placer.shape({"cpus": 1}, group="web").number]
    again.matcher.check()


def test_damaged_snapshot_is_refused(seed: int) -> None:
    placer, _ = lived_in(CompiledMatcher)
    data = placer.snapshot()
    chance = random.Random(seed)
    for _ in range(300):
        at = chance.randrange(len(data))
        with pytest.raises(MatchError, match="snapshot"):
            Placer.restore(data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :])
        with pytest.raises(MatchError, match="snapshot"):
            Placer.restore(data[:at])
    with pytest.raises(MatchError, match="a snapshot is bytes, not str"):
        Placer.restore("JCPLACE1")  # type: ignore[arg-type]
    with pytest.raises(MatchError, match="not a placer snapshot"):
        Placer.restore(placer.matcher.snapshot())


def forged(data: bytes, change: Callable[[Any], Any]) -> bytes:
    """The snapshot with changed names and correct checksums."""
    length = int.from_bytes(data[8:16], "little")
    text = json.dumps(change(json.loads(data[16 : 16 + length]))).encode()
    new = data[:8] + len(text).to_bytes(8, "little") + text + data[16 + length : -4]
    return new + zlib.crc32(new).to_bytes(4, "little")


def set_at(names: Any, path: tuple[Any, ...], value: Any) -> Any:
    inner = names
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return names


def with_two_ports(names: Any) -> str:
    return next(str(task) for task, ports in names["ports"].items() if len(ports) == 2)


def free_everywhere(names: Any) -> list[int]:
    return sorted(set.intersection(*(set(free) for _, _, free in names["hosts"])))


FORGED: list[tuple[Any, str]] = [
    (lambda n: 5, "is inconsistent"),
    (lambda n: {}, "is inconsistent .KeyError"),
    (lambda n: set_at(n, ("dimensions",), ["cpus"]), "fixed_ports are given"),
    (lambda n: set_at(n, ("dimensions", 0), 5), "dimensions: 5 is not a name"),
    (lambda n: set_at(n, ("fixed_ports",), [8_080]), "other dimensions"),
    (lambda n: set_at(n, ("hosts",), n["hosts"][1:]), "hosts without a name"),
    (lambda n: set_at(n, ("hosts", 0, 0), 3), "hosts without a name"),
    (lambda n: set_at(n, ("hosts", 0, 1, "host"), "h1"), "two hosts with the same name"),
    (lambda n: set_at(n, ("hosts", 0, 1, "zone"), 5), "must be a text, not 5"),
    (lambda n: set_at(n, ("hosts", 0, 2), [1, 1]), "a port twice"),
    (lambda n: set_at(n, ("hosts", 0, 2), [1]), "a number of free ports"),
    (lambda n: set_at(n, ("groups",), []), "is inconsistent .AttributeError"),
    (lambda n: set_at(n, ("groups",), {}), "a group without a name"),
    (lambda n: set_at(n, ("groups", "other"), 0), "two groups with the same number"),
    (lambda n: set_at(n, ("executors",), {}), "an executor without a name"),
    (lambda n: set_at(n, ("next", 0), 0), "next must be between 2 and"),
    (lambda n: set_at(n, ("limited",), []), "other limited groups"),
    (lambda n: set_at(n, ("attributes",), []), "an attribute without a name"),
    (lambda n: set_at(n, ("shapes", 0, 0), 99), "a shape must be between"),
    (lambda n: set_at(n, ("shapes", 0, 0), n["shapes"][1][0]), "a shape twice"),
    (lambda n: set_at(n, ("shapes", 0, 1), [["zone", "is", ["a"]]]), "is inconsistent .ValueError"),
    (lambda n: set_at(n, ("shapes", 0, 2), [[["zone", "==", ["a"]], -1]]), "soft weight must be between"),
    (lambda n: set_at(n, ("tasks", 0), ""), "task: '' is not a name"),
    (lambda n: set_at(n, ("tasks",), n["tasks"][1:]), "a task without a release id"),
    (lambda n: set_at(n, ("tasks", 0), n["tasks"][1]), "a task without a claim|two tasks with the same claim"),
    (lambda n: set_at(n, ("release_ids", 0), n["release_ids"][1]), "a task without a claim|with the same claim"),
    (lambda n: set_at(n, ("release_ids", 0), 5), "a task without a claim|two tasks with the same claim"),
    (lambda n: set_at(n, ("release_ids", 0), 1.0), "a release id must be a whole number"),
    (lambda n: set_at(n, ("ports", with_two_ports(n)), free_everywhere(n)[:2]), "a port of two tasks"),
    (lambda n: set_at(n, ("ports", with_two_ports(n)), [1, 2, 3, 4]), "a number of ports that differs"),
    (lambda n: set_at(n, ("ports", with_two_ports(n)), [8_080, 8_081]), "fixed ports that differ from the request"),
    (lambda n: set_at(n, ("ports", "nobody"), [1]), "a number of ports that differs"),
    (lambda n: set_at(n, ("ports",), {}), "a number of ports that differs"),
]


@pytest.mark.parametrize(("change", "words"), FORGED)
def test_forged_snapshot_is_refused_with_the_contradiction(change: Any, words: str) -> None:
    placer, _ = lived_in(PlainMatcher)
    with pytest.raises(MatchError, match=words):
        Placer.restore(forged(placer.snapshot(), change), matcher=PlainMatcher)


def test_any_snapshot_is_refused_or_works(seed: int) -> None:
    placer, _ = lived_in(CompiledMatcher)
    data, chance = placer.snapshot(), random.Random(seed)
    odd: tuple[Any, ...] = (None, -1, 0, 1, True, 2.5, "", "h1", [], [[]], {}, [1], 1 << 70)

    def change(names: Any) -> Any:
        path: list[Any] = [chance.choice(list(names))]
        while isinstance(inner := _at(names, path), list | dict) and inner and chance.random() < 0.8:
            path.append(chance.choice(list(inner) if isinstance(inner, dict) else range(len(inner))))
        return set_at(names, tuple(path), chance.choice(odd))

    refused = 0
    for _ in range(400):
        try:
            again = Placer.restore(forged(data, change))
        except MatchError:
            refused += 1
            continue
        shapes = [again.shape({}), *again._numbers]
        again.place((f"n{i}", shapes[i % len(shapes)]) for i in range(20))
        assert again.release(again.claims()) == []
        again.matcher.check()
    assert refused > 200


def _at(names: Any, path: list[Any]) -> Any:
    for key in path:
        names = names[key]
    return names


def test_running_task_is_assigned(placer: Placer) -> None:
    shape = placer.shape({"cpus": 1})
    placer.assign("t1", shape, "large")
    assert placer.host_of("t1") == "large"
    with pytest.raises(MatchError, match="'t1' is already placed"):
        placer.place(named(shape, "t1"))


def test_removed_shape_is_not_placed_and_keeps_its_tasks(placer: Placer) -> None:
    shape = placer.shape({"cpus": 1})
    placer.place(named(shape, "t1"))
    placer.remove_shape(shape)
    with pytest.raises(MatchError, match="not a shape of this placer"):
        placer.place(named(shape, "t2"))
    assert placer.release(["t1"]) == []
    assert placer.shape({"cpus": 1}) is not shape


def test_ports_are_numbered_and_reused(with_ports: Placer) -> None:
    with_ports.add_host("h", {"cpus": 8}, ports=[(1, 4), (6, 7)])
    four, two = with_ports.shape({"cpus": 1, "ports": 4}), with_ports.shape({"cpus": 1, "ports": 2})
    with_ports.place(named(four, "t1"))
    assert with_ports.ports_of("t1") == (1, 2, 3, 4)
    assert with_ports.place(named(four, "t2")) == [("t2", None)]
    with_ports.place(named(two, "t2"))
    assert with_ports.ports_of("t2") == (6, 7)
    with_ports.release(["t1"])
    assert with_ports.ports_of("t1") == ()
    with_ports.place(named(two, "t3"))
    assert with_ports.ports_of("t3") == (1, 2)


def test_fixed_port_belongs_to_one_task_per_host_and_is_never_assigned_otherwise(with_ports: Placer) -> None:
    with_ports.add_host("h1", {"cpus": 8}, ports=[(8_079, 8_081)])
    with_ports.add_host("h2", {"cpus": 8}, ports=[(9_000, 9_001)])
    web = with_ports.shape({"cpus": 1}, fixed_ports=[8_080])
    assert with_ports.place(named(web, "t1", "t2")) == [("t1", "h1"), ("t2", None)]
    assert with_ports.ports_of("t1") == (8_080,)
    assert with_ports.why(web).lacking == {"port 8080": 2}
    three = with_ports.shape({"ports": 3})
    assert with_ports.place(named(three, "t3")) == [("t3", None)]
    with_ports.release(["t1"])
    both = with_ports.shape({"cpus": 1, "ports": 2}, fixed_ports=[8_080])
    with_ports.place(named(both, "t4"))
    assert with_ports.ports_of("t4") == (8_080, 8_079, 8_081)


def test_ports_of_assigned_tasks_are_in_use(with_ports: Placer) -> None:
    with_ports.add_host("h", {"cpus": 8}, ports=[(1, 5)])
    two = with_ports.shape({"ports": 2})
    with_ports.assign("t1", two, "h", ports=[2, 3])
    with_ports.place(named(two, "t2"))
    assert with_ports.ports_of("t2") == (1, 4)
    for wrong in ([2, 5], [5], [5, 99]):
        with pytest.raises(MatchError, match="ports must be 2 free ports of host 'h'"):
            with_ports.assign("t3", two, "h", ports=wrong)
    with_ports.release(["t1"])
    assert with_ports.place(named(two, "t3")) == [("t3", "h")]
    assert with_ports.ports_of("t3") == (2, 3)


def test_no_port_is_assigned_twice(with_ports: Placer, seed: int) -> None:
    chance, live = random.Random(seed), list[str]()
    for n in range(4):
        with_ports.add_host(f"h{n}", {"cpus": 30}, ports=[(8_070 + n, 8_090), (9_000, 9_000 + n)])
    shapes = [
        with_ports.shape({"cpus": chance.choice((1, 2)), "ports": n % 4}, fixed_ports=[8_080][: n % 2])
        for n in range(8)
    ]
    for turn in range(300):
        asked = [(f"{turn}/{i}", chance.choice(shapes)) for i in range(chance.randrange(6))]
        live += [name for name, host in with_ports.place(asked) if host]
        chance.shuffle(live)
        count = chance.randrange(8)
        assert with_ports.release(live[:count]) == []
        del live[:count]
        held = [(with_ports.host_of(name), port) for name in live for port in with_ports.ports_of(name)]
        assert len(held) == len(set(held))
    with_ports.release(live)
    assert [with_ports.free(f"h{n}")["ports"] for n in range(4)] == [1_000 * n for n in (21, 21, 21, 21)]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: p.add_host("small", {}), "host 'small' already exists"),
        (lambda p: p.add_host("x", {"gpus": 1}), r"amounts\['gpus'\] is not a dimension; use cpus, mem_mb"),
        (lambda p: p.add_host("x", {"cpus": "many"}), r"amounts\['cpus'\] must be a number"),
        (lambda p: p.add_host("x", {"cpus": float("nan")}), "not nan"),
        (lambda p: p.add_host("x", {"cpus": -1}), "a number from 0 to .* not -1"),
        (lambda p: p.add_host("x", {"cpus": 0.0001}), "at most three decimals"),
        (lambda p: p.add_host("x", {"cpus": 10**30}), "a number from 0 to 4503599627370 "),
        (lambda p: p.add_host("x", {}, ports=[(1, 2)]), "'ports' is not a dimension"),
        (lambda p: p.set_host("x", {}), "there is no host 'x'"),
        (lambda p: p.set_host("small", {"cpus": -1}), "a number from 0 to .* not -1"),
        (lambda p: p.set_host("small", {"gpus": 1}), r"amounts\['gpus'\] is not a dimension"),
        (lambda p: p.set_host("small", {}, {"zone": 5}), r"attributes\['zone'\] of .* must be a text, not 5"),
        (lambda p: p.set_host("small", {}, ports=[(1, 2)]), "'ports' is not a dimension"),
        (lambda p: p.remove_host("x"), "there is no host 'x'"),
        (lambda p: p.enable_host("x", True), "there is no host 'x'"),
        (lambda p: p.shape({"cpus": -1}), "a number from 0 to .* not -1"),
        (lambda p: p.shape({}, constraints=["zone"]), "is not a constraint"),
        (lambda p: p.shape({}, fixed_ports=[80]), "80 is not a fixed port of this placer"),
        (lambda p: p.shape({}, fixed_ports=["80"]), "'80' is not a port"),
        (lambda p: p.place(named(p.shape({}), "a", "a")), "task 'a' is given twice"),
        (lambda p: p.place(5), "tasks must be a list, not 5"),
        (lambda p: p.place("ab"), "tasks must be a list, not 'ab'"),
        (lambda p: p.place_together(5), "tasks must be a list, not 5"),
        (lambda p: p.release(5), "tasks must be a list, not 5"),
        (lambda p: p.release("t1"), "tasks must be a list, not 't1'"),
        (lambda p: p.place(named(p.shape({}), "a"), limit=-2), "limit must be between -1 and"),
        (lambda p: p.free_of(["small", "x"]), "there is no host 'x'"),
        (lambda p: p.free([]), r"there is no host \[\]"),
        (lambda p: p.tasks([]), r"there is no host \[\]"),
        (lambda p: p.remove_host([]), r"there is no host \[\]"),
        (lambda p: p.assign("a", p.shape({}), []), r"there is no host \[\]"),
        (lambda p: p.host_of([]), r"task: \[\] is not a name"),
        (lambda p: p.ports_of({}), "task: {} is not a name"),
        (lambda p: p.tasks("x"), "there is no host 'x'"),
        (lambda p: p.set_group_limit("g", {"gpus": 1}), r"amounts\['gpus'\] is not a dimension"),
        (lambda p: p.set_group_limit("", {"cpus": 1}), "group: '' is not a name"),
        (lambda p: p.shape({}, rules=[at_most(1, 7)]), "a rule names group 7, which this placer does not know"),
        (lambda p: p.shape({}, rules=5), "rules must be a list"),
        *(
            (lambda p, text=text: p.add_host("x", {"cpus": text}), r"amounts\['cpus'\] must be a number")
            for text in (" 1 ", "1_000", "1 ", "\u0661", "0x1", "1,5", "", "NaN", "Infinity")
        ),
        (lambda p: Placer(cast(Any, 5)), "dimensions must be a list, not 5"),
        (lambda p: Placer(("cpus", "ports"), fixed_ports=cast(Any, 5)), "fixed_ports must be a list, not 5"),
        (lambda p: p.add_hosts(5), "hosts must be a list, not 5"),
        (lambda p: p.add_hosts([5]), r"a host is \(name, amounts, attributes, ports\), not 5"),
        (lambda p: p.add_hosts([("x", {})]), r"a host is \(name, amounts, attributes, ports\), not \('x', {}\)"),
        (lambda p: p.shape({}, constraints=5), "constraints must be a list, not 5"),
        (lambda p: p.shape({}, constraints="zone == a"), "constraints must be a list, not 'zone == a'"),
        (lambda p: p.shape({}, soft=5), "soft must be a list, not 5"),
        (lambda p: p.shape({}, soft=["a"]), r"a soft constraint is \(constraint, weight\), not 'a'"),
        (lambda p: p.shape({}, fixed_ports=5), "fixed_ports must be a list, not 5"),
        (lambda p: p.attribute(5), "attribute: 5 is not a name"),
        (lambda p: p.place([("a", "no shape")]), "is not a shape of this placer"),
        (lambda p: p.place(named(Placer(("x",)).shape({}), "a")), "is not a shape of this placer"),
        (lambda p: p.assign("a", p.shape({}), "x"), "there is no host 'x'"),
        (lambda p: p.add_hosts([("x", {}, {}, ()), ("x", {}, {}, ())]), "host 'x' already exists"),
        (lambda p: p.add_host("x", {"cpus": 1}, {"zone": 5}), r"attributes\['zone'\] of .* must be a text, not 5"),
        (lambda p: p.add_host("x", {"cpus": 1}, {"zone": None}), "must be a text, not None"),
        (lambda p: p.add_host("x", {"cpus": 1}, ["zone"]), "attributes of host 'x' must be a mapping, not list"),
        (lambda p: p.add_host("", {}), "host: '' is not a name"),
        (lambda p: p.add_host(["x"], {}), "host: .* is not a name"),
        (lambda p: p.add_host("x", None), "amounts must be a mapping"),
        (lambda p: p.shape(["cpus"]), "amounts must be a mapping"),
        (lambda p: p.shape({}, constraints=[5]), "a constraint is a text such as"),
        (lambda p: p.shape({}, soft=[("zone == a", -5)]), "soft weight must be between 0 and"),
        (lambda p: p.shape({}, soft=[("zone == a", 0.5)]), "soft weight must be a whole number"),
        (lambda p: p.shape({}, soft=[("zone == a", 10**30)]), "soft weight must be between 0 and"),
        (lambda p: p.shape({}, group=5), "group: 5 is not a name"),
        (lambda p: p.shape({}, executor=["x"]), "executor: .* is not a name"),
        (lambda p: p.shape({}, executor_amounts={"cpus": 1}), "without an executor"),
        (lambda p: p.place([(5, p.shape({}))]), "task: 5 is not a name"),
        (lambda p: p.place([(["a"], p.shape({}))]), "task: .* is not a name"),
        (lambda p: p.place([("a", p.shape({})), ("", p.shape({}))]), "task: '' is not a name"),
        (lambda p: p.place([("a", p.shape({})), ("t1", p.shape({}))]), "task 't1' is already placed"),
        (lambda p: p.place([("a", p.shape({})), ("b", ["no shape"])]), "is not a shape of this placer"),
        (lambda p: p.place([("a", p.shape({})), 5]), "a task is a pair of a name and a shape, not 5"),
        (lambda p: p.place_together(named(p.shape({}), "a", "b"), minimum=3), "minimum must be between -1 and 2"),
        (lambda p: p.assign("", p.shape({}), "small"), "task: '' is not a name"),
        (lambda p: p.release(["t1", 5]), "task: 5 is not a name"),
        (lambda p: p.release(["t1", ["t1"]]), "task: .* is not a name"),
        (lambda p: p.place([("a", p.shape({}), 1)]), "a task is a pair of a name and a shape, not"),
        (lambda p: Placer(("ports",)).add_host("x", {}, ports=[(1,)]), "must be ranges"),
        (lambda p: Placer(("ports",)).add_host("x", {}, ports=5), "must be ranges"),
        (lambda p: Placer(("ports",)).add_host("x", {}, ports=[(9, 3)]), "ends before it starts"),
        (lambda p: Placer(("cpus", "cpus")), "dimensions must be names, each once"),
        (lambda p: Placer(("cpus",), fixed_ports=[80]), "'ports' is not a dimension"),
    ],
)  # fmt: skip
def test_bad_argument_is_named_and_changes_nothing(placer: Placer, call: Any, words: str) -> None:
    placer.place(named(placer.shape({"cpus": 1}), "t1"))
    with pytest.raises(ValueError, match=words):
        call(placer)
    assert placer.claims().keys() == {"t1"}
    assert placer.place(named(placer.shape({"cpus": 3}), "t2")) == [("t2", "small")]
    placer.add_host("x", {"cpus": 1})
    assert placer.free("small")["cpus"] == 0
    placer.matcher.check()


@pytest.mark.parametrize("matcher", [CompiledMatcher, PlainMatcher], ids=["compiled", "plain"])
def test_names_are_free_again_after_a_failed_call(matcher: Any) -> None:
    def custom(*_: Any) -> int:
        raise RuntimeError("no opinion")

    placer = Placer(("cpus",), matcher=matcher, fitness=custom)
    placer.add_host("h", {"cpus": 8})
    shape = placer.shape({"cpus": 1})
    for _ in range(2):
        with pytest.raises(MatchError, match="no opinion"):
            placer.place(named(shape, "a", "b"))
    placer.assign("a", shape, "h")
    assert placer.claims().keys() == {"a"}


@pytest.mark.parametrize("on", [True, False])
def test_garbage_collector_state_is_restored(placer: Placer, on: bool) -> None:
    before = gc.isenabled()
    (gc.enable if on else gc.disable)()
    try:
        placer.place(named(placer.shape({"cpus": 1}), "a", "b"))
        assert gc.isenabled() == on
    finally:
        (gc.enable if before else gc.disable)()


def test_name_may_be_any_kind_of_text(placer: Placer) -> None:
    shape = placer.shape({"cpus": 1})
    answer = placer.place([(np.str_("a"), shape), ("b", shape)])
    assert answer == [("a", "small"), ("b", "small")]
    assert {type(name) for name, _ in answer} == {str}
    with pytest.raises(MatchError, match="'a' is already placed"):
        placer.place(named(shape, "a"))
    assert placer.release([np.str_("a"), np.str_("c")]) == ["c"]


def test_compiled_and_plain_loops_agree(seed: int) -> None:
    """Both give the same answers and errors for any calls."""
    chance = random.Random(seed)
    placers = [Placer(("cpus",), matcher=matcher) for matcher in (CompiledMatcher, PlainMatcher)]
    for each in placers:
        each.add_hosts((f"h{n}", {"cpus": n % 5}, {}, ()) for n in range(8))
    shapes = [[each.shape({"cpus": cpus}) for cpus in ("0.5", 1, 3)] for each in placers]
    odd = (5, "", None, ["t"], np.str_("t1"))
    for _ in range(400):
        names = [
            chance.choice(odd) if chance.random() < 0.02 else f"t{chance.randrange(60)}"
            for _ in range(chance.randrange(8))
        ]
        numbers = [chance.randrange(3) for _ in names]
        call = chance.choice(("place", "place_together", "release"))
        answers: list[object] = []
        for each, own in zip(placers, shapes, strict=True):
            asked = names if call == "release" else [(n, own[i]) for n, i in zip(names, numbers, strict=True)]
            try:
                answers.append(getattr(each, call)(asked))
            except MatchError as error:
                answers.append(str(error))
        assert answers[0] == answers[1]
        assert placers[0].claims() == placers[1].claims()
    for each in placers:
        each.matcher.check()


def test_tasks_in_a_snapshot_are_written_as_json_writes_them() -> None:
    names = ["a", 'quote"', "back\\slash", "line\n", "\x7f", "~ ", "é", "名", "\ud800", "x" * 1_000]
    for some in ([], ["a"], ["a", "~ "], *([name, "b"] for name in names), names):
        ids = [1 << 32, (1 << 63) - 1, 10**18, 10**18 - 1, 7, 0]
        for loops in (_placer, _placer_plain):
            claims: Any = {name: loops.Claim(name, ids[at % len(ids)]) for at, name in enumerate(some)}
            assert bytes(loops.names_as_json(claims)) == json.dumps(some, separators=(",", ":")).encode()
            numbers = [claim.release_id for claim in claims.values()]
            assert bytes(loops.ids_as_json(claims)) == json.dumps(numbers, separators=(",", ":")).encode()


def test_shape_with_a_wrong_default_is_refused(placer: Placer) -> None:
    """False equals 0, and 0 equals False; shapes without options make no exception."""
    known = placer.shape({"cpus": 1})
    assert placer.shape({"cpus": 1}, constraints=[], soft=[], rules=[], fixed_ports=[], executor_amounts={}) is known
    with pytest.raises(MatchError, match="max_per_host must be a whole number, not bool False"):
        placer.shape({"cpus": 2}, max_per_host=False)
    with pytest.raises(MatchError, match="exclusive must be True or False, not 0"):
        placer.shape({"cpus": 2}, exclusive=0)  # type: ignore[arg-type]
    placer.remove_shape(known)
    assert placer.shape({"cpus": 1}) is not known


def test_live_task_takes_few_bytes(seed: int) -> None:
    placer = Placer(("cpus", "mem_mb"))
    for n in range(100):
        placer.add_host(f"host-{n}", {"cpus": 10_000, "mem_mb": 10_000_000})
    shape = placer.shape({"cpus": 1, "mem_mb": 1})
    placer.place(named(shape, "first"))
    count = 100_000
    tracemalloc.start()
    try:
        for start in range(0, count, 1_000):
            placer.place([(f"job-{start + i:07d}", shape) for i in range(1_000)])
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (used + placer.matcher.memory()["claims"]) / count <= 300


def test_released_tasks_leave_no_memory(with_ports: Placer) -> None:
    with_ports.add_host("h", {"cpus": 8}, ports=[(1, 5)])
    shape = with_ports.shape({"ports": 1})
    for n in range(50):
        with_ports.place(named(shape, f"t{n}"))
        with_ports.release([f"t{n}"])
    assert with_ports.matcher.claims() == 0
    assert with_ports.free("h") == {"cpus": 8_000, "ports": 5_000, "port 8080": 0}
    assert np.array_equal(with_ports.matcher.slots(np.array([1 << 32], dtype=np.int64)), [-1])


@pytest.mark.parametrize("matcher", [CompiledMatcher, PlainMatcher], ids=["compiled", "plain"])
def test_dimension_to_pack_is_named(matcher: Any) -> None:
    for fitness, host in (("pack_cpus", "few-cpus"), ("pack_mem", "little-mem"), ({"pack_mem": 512}, "little-mem")):
        placer = Placer(("cpus", "mem"), matcher=matcher, fitness=fitness)
        placer.add_host("few-cpus", {"cpus": 4, "mem": 64})
        placer.add_host("little-mem", {"cpus": 16, "mem": 4})
        assert placer.place([("t", placer.shape({"cpus": 1, "mem": 1}))]) == [("t", host)]
        again = Placer.restore(placer.snapshot(), matcher=matcher)
        assert again.matcher.fitness == placer.matcher.fitness
    for wrong in ("pack_gpus", "pack_0", {"pack_gpus": 1}):
        with pytest.raises(MatchError, match=r"fitness 'pack_.*' names no dimension; use pack_cpus, pack_mem"):
            Placer(("cpus", "mem"), matcher=matcher, fitness=wrong)
    with pytest.raises(MatchError, match="fitness must be a name"):
        Placer(("cpus",), matcher=matcher, fitness=5)


def test_limit_ends_the_result_before_the_untried_tasks(placer: Placer) -> None:
    one, huge = placer.shape({"cpus": 1}), placer.shape({"cpus": 99})
    tasks = [("a", one), ("b", huge), ("c", one), ("d", huge), ("e", one)]
    assert placer.place(tasks, limit=2) == [("a", "small"), ("b", None), ("c", "small")]
    assert placer.claims().keys() == {"a", "c"}
    assert placer.place(tasks[3:]) == [("d", None), ("e", "small")]


def test_gang_without_room_returns_all_its_tasks(placer: Placer) -> None:
    one, huge = placer.shape({"cpus": 1}), placer.shape({"cpus": 99})
    assert placer.place_together([("a", huge), ("b", one)]) == [("a", None), ("b", None)]


def test_hosts_and_tasks_are_listed(placer: Placer) -> None:
    shape = placer.shape({"cpus": 3})
    placer.place(named(shape, "a", "b", "c"))
    assert placer.hosts() == ["small", "large"]
    assert (placer.tasks(), placer.tasks("small"), placer.tasks("large")) == (["a", "b", "c"], ["a"], ["b", "c"])
    assert placer.free_of(["large"]) == {"large": {"cpus": 10_000, "mem_mb": 64_000_000}}
    placer.release(["b"])
    placer.assign("d", shape, "small")
    assert (placer.tasks("small"), placer.tasks("large")) == (["a", "d"], ["c"])
    assert placer.remove_host("small") == ["a", "d"]
    assert placer.hosts() == ["large"]


def test_group_limit_bounds_the_named_resources_only(placer: Placer) -> None:
    shape = placer.shape({"cpus": 1, "mem_mb": 100}, group="web")
    placer.set_group_limit("web", {"cpus": 2})
    assert [host for _, host in placer.place(named(shape, "a", "b", "c"))] == ["small", "small", None]
    assert placer.why(shape).over_limit
    again = Placer.restore(placer.snapshot(), matcher=type(placer.matcher))
    again.set_group_limit("web", None)
    for each, host in ((placer, None), (again, "small")):
        assert each.place(named(each.shape({"cpus": 1, "mem_mb": 100}, group="web"), "c")) == [("c", host)]


def test_group_and_executor_are_forgotten_with_their_last_task_and_shape(placer: Placer) -> None:
    for turn in range(5):
        group = placer.group(f"group-{turn}")
        shape = placer.shape(
            {"cpus": 1}, group=f"group-{turn}", rules=[at_most(9, group)], executor=f"app-{turn}",
            executor_amounts={"cpus": 1},
        )  # fmt: skip
        placer.place(named(shape, "t"))
        placer.remove_shape(shape)
        again = placer.shape({"cpus": 1}, executor=f"app-{turn}", executor_amounts={"cpus": 1})
        assert placer.place(named(again, "u")) == [("u", "small")]
        assert placer.free("small")["cpus"] == 1_000  # the executor of the removed shape is counted once
        placer.release(["t", "u"])
        placer.remove_shape(again)
        with pytest.raises(MatchError, match="call group"):
            placer.shape({"cpus": 2}, rules=[at_most(1, group)])
    assert not placer._groups.of
    assert not placer._keys.of
    assert Placer.restore(placer.snapshot()).group("new") == placer.group("new") == 5


def test_groups_of_a_removed_shape_stay_in_a_restored_placer(placer: Placer) -> None:
    shape = placer.shape({"cpus": 1}, group="web", executor="app", executor_amounts={"cpus": 1})
    placer.place(named(shape, "t"))
    placer.remove_shape(shape)
    again = Placer.restore(placer.snapshot(), matcher=type(placer.matcher))
    assert again.group("web") == placer.group("web") == 0
    for each in (placer, again):
        each.release(["t"])
        each.shape({"cpus": 3})
        assert each.group("web") == 1


def test_placer_is_pickled_and_copied(placer: Placer) -> None:
    shape = placer.shape({"cpus": 3}, constraints=["zone == a"])
    placer.place(named(shape, "a"))
    pickled, (copied, known) = pickle.loads(pickle.dumps(placer)), copy.deepcopy((placer, shape))
    assert known is shape
    for each in (pickled, copied, copy.copy(placer)):
        assert type(each.matcher) is type(placer.matcher)
        assert each.claims() == placer.claims()
        assert each.snapshot() == placer.snapshot()
        each.release(["a"])
    assert placer.tasks() == ["a"]


def test_changed_hosts_get_the_masks_of_new_ones(seed: int) -> None:
    """A placer whose hosts change one by one places like one that gets the final hosts together."""
    chance = random.Random(seed)
    for matcher in (CompiledMatcher, PlainMatcher):
        for _ in range(20):
            changed, fresh = Placer(("cpus",), matcher=matcher), Placer(("cpus",), matcher=matcher)
            wanted: list[dict[str, Any]] = [
                {"constraints": [f"zone == {zone}"], "soft": [(f"rack == {rack}", 1 << 21)]}
                for zone in "ab"
                for rack in "xy"
            ]
            for n in range(4):
                changed.add_host(f"h{n}", {"cpus": 2}, {"zone": "c"})
            own = [changed.shape({"cpus": 1}, **named_) for named_ in wanted]
            changed.place(named(own[0], "none"))
            hosts = {f"h{n}": {"zone": chance.choice("ab"), "rack": chance.choice("xy")} for n in range(7)}
            for n, (host, attributes) in enumerate(hosts.items()):
                (changed.set_host if n < 4 else changed.add_host)(host, {"cpus": 2}, attributes)
                if chance.random() < 0.5:
                    changed.place(named(changed.shape({"cpus": 99}, **chance.choice(wanted)), "none"))
            changed.remove_host("h2")
            changed.add_host("h2", {"cpus": 2}, hosts["h2"])
            fresh.add_hosts((host, {"cpus": 2}, attributes, ()) for host, attributes in hosts.items())
            tasks = [chance.randrange(4) for _ in range(16)]
            answers = []
            for each in (changed, fresh):
                shapes = [each.shape({"cpus": 1}, **named_) for named_ in wanted]
                answers.append(each.place((f"t{n}", shapes[at]) for n, at in enumerate(tasks)))
            assert answers[0] == answers[1]
            changed.matcher.check()


def test_the_compiled_shortcut_for_amounts_agrees_with_the_exact_conversion() -> None:
    chance = random.Random(1)
    names = ("cpus", "mem")
    numbers: list[Any] = [0, 1, 0.1, 0.3, -0.0, 1e-3, 0.0005, 1.0005, 1e9, 10**9, 10**9 + 1, 1e15, -1, True, None, "1"]
    numbers += [chance.randrange(10**7) / 1_000 for _ in range(500)] + [chance.random() * 10 for _ in range(100)]
    numbers += [float("nan"), float("inf"), 4_503_599_627_370.497, 2**62]
    for number in numbers:
        answers: list[object] = []
        for loops in (_placer, _placer_plain):
            placer = Placer(names)
            placer._loops = loops
            try:
                answers.append(placer._row("amounts", {"mem": number}))
            except MatchError as error:
                answers.append([str(error)])
        assert answers[0] == answers[1], number
    assert _placer.thousandths({"mem": 0.25}, names) == [0, 250]
    assert _placer.thousandths({"disk": 1}, names) is None


@pytest.mark.parametrize("matcher", [CompiledMatcher, PlainMatcher])
def test_removed_shapes_are_forgotten_in_turn_after_their_last_task(matcher: Any) -> None:
    placer = Placer(("cpus",), matcher=matcher)
    placer.add_host("a", {"cpus": 1_000})
    shapes = [placer.shape({"cpus": 1}, group=f"group-{at}") for at in range(40)]
    placer.place([(f"task-{at}", shape) for at, shape in enumerate(shapes)])
    for shape in shapes:
        placer.remove_shape(shape)
    placer.release([f"task-{at}" for at in range(40) if at != 7])
    for at in range(5):
        placer.shape({"cpus": 2 + at})
    assert [*placer._groups.of] == ["group-7"]
    placer.release(["task-7"])
    placer.shape({"cpus": 9})
    assert placer._groups.of == {}
    assert not placer._removed


@pytest.mark.parametrize("matcher", [CompiledMatcher, PlainMatcher])
def test_new_shape_takes_the_number_of_a_removed_one_that_is_not_forgotten_yet(matcher: Any) -> None:
    placer = Placer(("cpus",), matcher=matcher)
    placer.add_host("a", {"cpus": 1_000})
    shapes = [placer.shape({"cpus": 1}, group=f"group-{at}", executor="same") for at in range(100)]
    placer.place([(f"task-{at}", shape) for at, shape in enumerate(shapes)])
    for shape in shapes:
        placer.remove_shape(shape)
    number = placer.group("group-0")
    placer.release([f"task-{at}" for at in range(100)])
    kept = placer.shape({"cpus": 2}, group="group-0", executor="same")
    assert kept.number == shapes[0].number
    for at in range(20):
        placer.remove_shape(placer.shape({"cpus": 3 + at}))
    assert placer._groups.of == {"group-0": number}
    placer.remove_shape(kept)
    assert placer._groups.of == {}
    assert placer._keys.of == {}
    assert not placer._removed


@pytest.mark.parametrize("matcher", [CompiledMatcher, PlainMatcher])
def test_masks_follow_hosts_that_come_before_between_and_after_their_shapes(matcher: Any) -> None:
    placer = Placer(("cpus",), matcher=matcher)
    placer.add_host("a", {"cpus": 1}, {"zone": "x"})
    in_x = placer.shape({"cpus": 1}, constraints=["zone == x"])
    placer.add_host("b", {"cpus": 1}, {"zone": "y"})
    in_y = placer.shape({"cpus": 1}, constraints=["zone == y"], soft=[("host == c", 5)])
    also_x = placer.shape({"cpus": "0.5"}, constraints=["zone == x"])
    placer.add_host("c", {"cpus": 1}, {"zone": "y"})
    placer.add_host("d", {"cpus": 1}, {"zone": "x"})
    placer.remove_shape(also_x)
    fork = placer.fork()
    assert placer.place([(str(at), in_y) for at in range(3)]) == [("0", "c"), ("1", "b"), ("2", None)]
    assert sorted(host or "" for _, host in placer.place([(f"x{at}", in_x) for at in range(3)])) == ["", "a", "d"]
    assert fork.place([("0", in_y)]) == [("0", "c")]
