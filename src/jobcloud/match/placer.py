"""The matcher by name: named hosts and tasks, amounts as decimal numbers, constraints as text, ports by number.

A ``Placer`` maps names to the slots, classes and claims of a matcher. ``docs/matcher.md`` has an example and all rules.
"""

from __future__ import annotations

import gc
import heapq
import json
import re
import zlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from decimal import Context, Decimal, Inexact, InvalidOperation
from functools import partial
from itertools import compress
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from jobcloud._match_types import (
    CLASS_REMOVED,
    CLASS_USABLE,
    MAX_KEY,
    PACK_ONE,
    RULES,
    State,
    class_rules,
    decode,
    one_call_at_a_time,
    whole,
)
from jobcloud.match import (
    MAX_AMOUNT,
    MAX_PENALTY,
    UNTRIED,
    Matcher,
    MatchError,
    PlainMatcher,
    Rule,
    _placer,
    _placer_plain,
)
from jobcloud.match.constraints import HOST, Constraint, ConstraintError, Op, failing, mask, numbers, parse, penalties

Number: TypeAlias = int | float | Decimal | str
Amounts: TypeAlias = Mapping[str, Number]

#: The dimension whose units are numbered.
PORTS: Final = "ports"
MAX_PORT: Final = 65_535

MAX_MASKS_KEPT: Final = 1_000
FORGOTTEN_AT_ONCE: Final = 8
_INDEX: Final = _placer_plain.INDEX
#: The default of the list arguments of ``Placer.shape``. An argument that is this object was not given.
_NONE: Final[tuple[Any, ...]] = ()
_MAGIC: Final = b"JCPLACE2"
#: In snapshots with this magic, groups and executors are lists of names. The index of a name is its number.
_FIRST_MAGIC: Final = b"JCPLACE1"
_DECIMAL: Final = re.compile(r"\+?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_EXACT: Final = Context(prec=40, traps=[Inexact])


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """The requirements of equal tasks, made by ``Placer.shape``. ``number`` is the matcher's class."""

    number: int
    amounts: Mapping[str, int]
    constraints: tuple[Constraint, ...]
    soft: tuple[tuple[Constraint, int], ...]
    fixed_ports: tuple[int, ...]
    any_ports: int

    def __deepcopy__(self, memo: object) -> Shape:
        return self  # a copied placer knows the same shapes


@dataclass(frozen=True, slots=True)
class Why:
    """Why one more task of a shape is not placed now: counts of hosts, and amounts in thousandths.

    ``hosts``: the number of all hosts. ``could_ever_fit``: whether some allowed host, if empty, would take the task.
    ``lacking``: for each resource, how many usable hosts have too little of it. ``failing``: for each constraint, as
    text, how many hosts fail it. ``disabled``, ``crowded``, ``occupied``, ``ruled_out``: how many hosts are disabled,
    have the maximum of the group's tasks, have an exclusive task, or break a rule. ``nearest``: the host that is
    closest to taking the task, with the amounts ``asked`` of it and ``available`` on it. ``over_limit``: the group has
    reached its limit, so that no host can take the task.
    """

    hosts: int
    lacking: Mapping[str, int]
    failing: Mapping[str, int]
    disabled: int
    crowded: int
    occupied: int
    ruled_out: int
    nearest: str | None
    asked: Mapping[str, int]
    available: Mapping[str, int]
    could_ever_fit: bool
    over_limit: bool


class _Options(NamedTuple):
    """The arguments of ``Placer.shape`` apart from its amounts and ports, normalised."""

    hard: tuple[Constraint, ...]
    soft: tuple[tuple[Constraint, int], ...]
    group: str
    max_per_host: int
    rules: tuple[Rule, ...]
    exclusive: bool
    executor: str
    shared: tuple[int, ...]


_NO_SHAPES: Final[dict[tuple[int, ...], Shape]] = {}


class _Lists:
    """Lists of numbers, none empty, one after the other in ``entries``."""

    def __init__(self, lists: list[list[int]]) -> None:
        self.entries = np.array([number for one in lists for number in one], dtype=np.int64)
        self.starts = np.cumsum([0, *(len(one) for one in lists[:-1])])


#: The constraints of a shape, hard and soft.
_Bound: TypeAlias = tuple[tuple[Constraint, ...], tuple[tuple[Constraint, int], ...]]


class _Uses(NamedTuple):
    """The groups and executors that a shape uses, by number."""

    groups: tuple[int, ...]
    executors: tuple[int, ...]


class _Numbers:
    """Gives each name a number, and counts the uses of the name. When the last use ends, the name is forgotten.

    Numbers are never reused, so that an old one is recognised.
    """

    def __init__(self) -> None:
        self.of: dict[str, int] = {}
        self.name: dict[int, str] = {}
        self.next = 0
        self._uses: Counter[int] = Counter()

    def copy(self) -> _Numbers:
        copied = _Numbers()
        copied.of, copied.name, copied.next, copied._uses = {**self.of}, {**self.name}, self.next, self._uses.copy()
        return copied

    def peek(self, name: str) -> int:
        """The number that the name has or would get; -1 for no name."""
        return self.of.get(name, self.next) if name else -1

    def get(self, name: str) -> int:
        """The number of the name; a new name gets the next one."""
        if name not in self.of:
            self.put(name, self.next)
        return self.of[name]

    def put(self, name: str, number: int) -> None:
        self.of[name], self.name[number], self.next = number, name, max(self.next, number + 1)

    def use(self, numbers: Iterable[int], by: int) -> None:
        for number in numbers:
            self._uses[number] += by
            if self._uses[number] == 0:
                del self._uses[number], self.of[self.name.pop(number)]


@dataclass(slots=True)
class _Host:
    name: str
    attributes: Mapping[str, str]
    #: A heap of the free ports, without fixed ports.
    free_ports: list[int] = field(default_factory=list)


@one_call_at_a_time
class Placer:
    """Places named tasks on named hosts.

    ``dimensions``: the names of the resources; "ports" is the dimension whose units are numbered. ``fixed_ports``: a
    task gets one of these ports only if it requests the port by number. ``matcher``: the class of the matcher
    (``PlainMatcher`` selects plain Python throughout); ``options`` are passed to the matcher (``fitness``, ``engine``).
    The fitness ``pack_NAME``, such as ``pack_cpus``, looks only at the dimension NAME and fills hosts one after the
    other. Every method raises MatchError for an invalid argument before it changes anything. Only one thread may use a
    placer at a time.
    """

    def __init__(
        self, dimensions: Sequence[str], *, fixed_ports: Iterable[int] = (), matcher: Any = Matcher, **options: Any
    ) -> None:
        self._calls: dict[str, tuple[int, object]] = {}  # the claim of the call in progress
        self.dimensions = tuple(_list("dimensions", dimensions))
        for name in self.dimensions:
            _name("dimensions", name)
        if len(set(self.dimensions)) < len(self.dimensions):
            raise MatchError(f"dimensions must be names, each once, not {self.dimensions!r:.80}")
        self.fixed_ports = tuple(sorted({_port("fixed_ports", port) for port in _list("fixed_ports", fixed_ports)}))
        if self.fixed_ports and PORTS not in self.dimensions:
            raise MatchError(f"fixed_ports are given, but {PORTS!r} is not a dimension; add it")
        self._axes = (*self.dimensions, *(f"port {port}" for port in self.fixed_ports))
        self._has_ports = PORTS in self.dimensions
        #: The options of a shape that has only amounts.
        self._no_options = _Options(_NONE, _NONE, "", 0, _NONE, False, "", (0,) * len(self._axes))
        if "fitness" in options:
            options["fitness"] = _by_number(options["fitness"], self.dimensions)
        self.matcher = matcher(len(self._axes), **options)
        self._loops: Any = _placer_plain if matcher is PlainMatcher else _placer
        self._slots: dict[str, int] = {}
        self._hosts: list[_Host | None] = []
        #: By slot. The last entry is None, so that slot -1 maps to no host.
        self._names: list[str | None] = [None]
        self._plain_shapes: dict[tuple[int, ...], Shape] = {}
        #: options → request → shape
        self._shapes = {self._no_options: self._plain_shapes}
        self._numbers: dict[Shape, int] = {}
        #: shape that has options → its options
        self._options: dict[Shape, _Options] = {}
        self._claims: dict[str, Any] = {}
        #: The claims by the index of their release ids.
        self._by_index: list[Any] = []
        #: task → its ports
        self._ports: dict[str, tuple[int, ...]] = {}
        self._groups, self._keys = _Numbers(), _Numbers()
        self._attributes: dict[str, int] = {}
        self._limited: set[str] = set()
        #: the removed shapes that may still have tasks: number → what the shape uses. ``_forget`` checks the first ones
        #: and moves those with tasks to the end.
        self._removed: OrderedDict[int, _Uses] = OrderedDict()
        #: (constraints, soft constraints) → the classes of the shapes that have them
        self._bound: dict[_Bound, dict[int, None]] = {}
        #: Slots whose hosts are new or have other attributes since the masks were updated.
        self._changed: set[int] = set()
        #: Whether a host is new or has other attributes since the numbers of the attributes were updated.
        self._attributes_changed = False
        #: constraints → their mask or penalties on the present hosts. A cache: many new shapes have equal constraints.
        self._masks: dict[tuple[Any, ...], Any] = {}

    # ---- hosts

    def add_host(
        self, name: str, amounts: Amounts, attributes: Mapping[str, str] | None = None, *, ports: Any = ()
    ) -> None:
        """Add a host. ``amounts``: in the units of the dimensions. ``ports``: ranges (first, last), both included."""
        self.add_hosts([(name, amounts, attributes or {}, ports)])

    def add_hosts(self, hosts: Iterable[tuple[str, Amounts, Mapping[str, str], Any]]) -> None:
        """Add several hosts, each given as the arguments of ``add_host``. If one is invalid, none is added."""
        made: dict[str, tuple[_Host, list[int]]] = {}
        for given in _list("hosts", hosts):
            name, amounts, attributes, ports = _parts("a host", given, "(name, amounts, attributes, ports)", 4)
            _name("host", name)
            if name in self._slots or name in made:
                raise MatchError(f"host {name!r:.80} already exists")
            made[name] = self._host(name, amounts, attributes, ports)
        rows = np.array([row for _, row in made.values()], dtype=np.int64).reshape(len(made), len(self._axes))
        slots = self.matcher.add_hosts(rows).tolist()
        missing = max(slots, default=-1) + 1 - len(self._hosts)
        if missing > 0:
            self._hosts += [None] * missing
            self._names[-1:] = [None] * (missing + 1)
        for slot, (host, _) in zip(slots, made.values(), strict=True):
            self._slots[host.name], self._hosts[slot], self._names[slot] = slot, host, host.name
        self._has_changed(slots)

    def set_host(
        self, name: str, amounts: Amounts, attributes: Mapping[str, str] | None = None, *, ports: Any = None
    ) -> None:
        """Change the amounts of a host and, if given, its attributes and ports. Its tasks stay.

        If its tasks use more than the new amounts, no new task fits. Raises MatchError if ``ports`` lacks a used port.
        """
        slot = self._slot(name)
        before = self._host_at(slot)
        host, row = self._host(name, amounts, before.attributes if attributes is None else attributes, ports or ())
        if ports is None:
            host.free_ports = before.free_ports
            for at, axis in enumerate(self._axes):
                if axis == PORTS or at >= len(self.dimensions):
                    row[at] = int(self.matcher.capacity(slot)[at])
        else:
            self._remove_used_ports(host, row)
        self.matcher.set_host(slot, np.array(row, dtype=np.int64))
        self._hosts[slot] = host
        if attributes is not None:
            self._has_changed([slot])

    def remove_host(self, name: str) -> list[str]:
        """Remove the host and its tasks. Returns the names of these tasks."""
        slot = self._slot(name)
        tasks = self._tasks_of(self.matcher.remove_host(slot))
        self._loops.leave(tasks, self._claims, self._by_index)
        for task in tasks if self._ports else ():
            self._ports.pop(task, None)
        del self._slots[name]
        self._hosts[slot] = self._names[slot] = None
        self._changed.discard(slot)
        self._masks.clear()
        return tasks

    def enable_host(self, name: str, on: bool) -> None:
        """Enable or disable the host. A disabled host keeps its tasks and gets no new ones."""
        self.matcher.enable_host(self._slot(name), on)

    def free(self, name: str) -> dict[str, int]:
        """The free amounts of the host, in thousandths."""
        return self._by_name(self.matcher.free(self._slot(name)).tolist())

    def free_of(self, names: Iterable[str]) -> dict[str, dict[str, int]]:
        """The free amounts of these hosts, in thousandths, by name."""
        slots = {name: self._slot(name) for name in _list("names", names)}
        return {name: self._by_name(self.matcher.free(slot).tolist()) for name, slot in slots.items()}

    def hosts(self) -> list[str]:
        """The names of all hosts, by slot."""
        return [host.name for host in self._hosts if host]

    # ---- shapes

    def group(self, name: str) -> int:
        """The number of a group of tasks, for rules (``at_most``, ``near``, ``balanced``).

        Once no shape, task or limit uses the group, the number is no longer valid.
        """
        _name("group", name)
        return self._groups.get(name)

    def set_group_limit(self, group: str, amounts: Amounts | None) -> None:
        """Limit the sum of the amounts of all tasks of the group; None: no limit.

        A resource without an amount has no limit. ``place`` respects the limit; existing tasks stay. Executors do not
        count.
        """
        _name("group", group)
        limit = None
        if amounts is not None:
            row = self._row("amounts", amounts)
            given = [name in amounts for name in self.dimensions] + [False] * len(self.fixed_ports)
            limit = np.where(given, row, MAX_AMOUNT)
        if limit is None and group not in self._limited:
            return
        number = self.group(group)
        self.matcher.set_group_limit(number, limit)
        if group not in self._limited:
            self._limited.add(group)
            self._groups.use([number], 1)
        elif limit is None:
            self._limited.remove(group)
            self._groups.use([number], -1)

    def attribute(self, name: str) -> int:
        """The number of an attribute of hosts, for the ``per``, ``within`` and ``across`` of rules."""
        _name("attribute", name)
        if name not in self._attributes:
            number = len(self._attributes)
            self.matcher.set_attribute(number, numbers(name, self._attributes_by_slot()))
            self._attributes[name] = number
        return self._attributes[name]

    def shape(
        self,
        amounts: Amounts,
        *,
        constraints: Iterable[str | Constraint] = _NONE,
        soft: Iterable[tuple[str, int]] = _NONE,
        group: str = "",
        max_per_host: int = 0,
        rules: Iterable[Rule] = _NONE,
        exclusive: bool = False,
        executor: str = "",
        executor_amounts: Amounts | None = None,
        fixed_ports: Iterable[int] = _NONE,
    ) -> Shape:
        """The shape with these requirements. Equal arguments give the same shape.

        ``constraints``: as in ``match.constraints``. ``soft``: constraints, each with the penalty of a host that fails
        it. ``executor``: the name of the executor that the tasks share on a host; ``executor_amounts``: its amounts,
        taken once per host. ``fixed_ports``: ports requested by number.
        """
        plain = constraints is _NONE and soft is _NONE and rules is _NONE and fixed_ports is _NONE
        plain = plain and group == executor == "" and executor_amounts is None and exclusive is False
        # False == 0, but False must reach the check that refuses it.
        if plain and type(max_per_host) is int and max_per_host == 0:
            options, request, same = self._no_options, tuple(self._row("amounts", amounts)), self._plain_shapes
        else:
            limits = group, max_per_host, rules, exclusive
            options, request = self._normalised(
                amounts, constraints, soft, limits, executor, executor_amounts, fixed_ports
            )
            same = self._shapes.get(options, _NO_SHAPES)
        any_ports = self._whole_ports(request) if self._has_ports else 0
        if request in same:
            return same[request]
        if self._removed:
            self._forget()
        row = np.array(request, dtype=np.int64)
        number = self.matcher.add_class(row) if options is self._no_options else self._add_class(row, options)
        shape = self._add_shape(number, request, options, any_ports)
        if number in self._removed:
            # The matcher has reused the number of a removed shape whose last task has ended. The uses of that shape end
            # only after those of the new one have begun, so that names which both use are not forgotten.
            self._use(self._removed.pop(number), -1)
        return shape

    def _normalised(
        self,
        amounts: Amounts,
        constraints: Iterable[str | Constraint],
        soft: Iterable[tuple[str, int]],
        limits: tuple[str, int, Iterable[Rule], bool],
        executor: str,
        executor_amounts: Amounts | None,
        fixed_ports: Iterable[int],
    ) -> tuple[_Options, tuple[int, ...]]:
        """The options and the request of a shape. ``limits``: its group, maximum per host, rules, and ``exclusive``."""
        group, max_per_host, rules, exclusive = limits
        hard = tuple([_constraint(one) for one in _list("constraints", constraints)])
        pairs = [_parts("a soft constraint", one, "(constraint, weight)", 2) for one in _list("soft", soft)]
        weighted = tuple([(_constraint(one), whole("soft weight", weight, 0, MAX_PENALTY)) for one, weight in pairs])
        if group != "":
            _name("group", group)
        if executor != "":
            _name("executor", executor)
        if executor_amounts and not executor:
            raise MatchError("executor_amounts are given without an executor; name the executor")
        fixed = {_port("fixed_ports", port) for port in _list("fixed_ports", fixed_ports)}
        if unknown := fixed - set(self.fixed_ports):
            raise MatchError(
                f"fixed_ports: {min(unknown)} is not a fixed port of this placer; name it when you make the placer"
            )
        request, shared = self._row("amounts", amounts), self._row("executor_amounts", executor_amounts or {})
        for port in fixed:
            request[len(self.dimensions) + self.fixed_ports.index(port)] = 1_000
        kept = tuple(rules) if isinstance(rules, Iterable) else (rules,)
        options = _Options(hard, weighted, group, max_per_host, kept, exclusive, executor, tuple(shared))
        return options, tuple(request)

    def _add_class(self, request: NDArray[np.int64], options: _Options) -> int:
        if options.hard or options.soft:
            # The mask of the new shape is up to date. The masks of older shapes may not be, so update them first.
            self._refresh_masks()
        for rule in class_rules(options.rules):
            if rule.group not in self._groups.name:
                raise MatchError(
                    f"a rule names group {rule.group}, which this placer does not know; call group() again"
                )
        number: int = self.matcher.add_class(
            request,
            shared_key=self._keys.peek(options.executor),
            shared=np.array(options.shared, dtype=np.int64) if options.executor else None,
            allowed=self._by_slot(mask, options.hard) if options.hard else None,
            penalty=self._by_slot(penalties, options.soft) if options.soft else None,
            group=self._groups.peek(options.group),
            max_per_host=options.max_per_host,
            rules=options.rules,
            exclusive=options.exclusive,
        )
        return number

    def remove_shape(self, shape: Shape) -> None:
        """Stop placing the shape. Its tasks stay until they are released."""
        self._known(shape)
        self.matcher.remove_class(shape.number)
        options = self._options.pop(shape, self._no_options)
        del self._numbers[shape], self._shapes[options][tuple(shape.amounts.values())]
        if not self._shapes[options] and options != self._no_options:
            del self._shapes[options]
        bound = options.hard, options.soft
        if bound in self._bound:
            del self._bound[bound][shape.number]
            if not self._bound[bound]:
                del self._bound[bound]
        self._removed[shape.number] = self._uses(options)
        self._removed.move_to_end(shape.number, last=False)
        self._forget()

    def _by_slot(self, compute: Callable[[Any, Any], Any], wanted: tuple[Any, ...]) -> Any:
        """The mask or the penalties of new shapes with these constraints."""
        if wanted not in self._masks:
            if len(self._masks) >= MAX_MASKS_KEPT:
                self._masks.clear()
            self._masks[wanted] = compute(wanted, self._attributes_by_slot())
        return self._masks[wanted]

    def _add_shape(self, number: int, request: tuple[int, ...], options: _Options, any_ports: int) -> Shape:
        fixed = tuple(compress(self.fixed_ports, request[len(self.dimensions) :])) if self.fixed_ports else _NONE
        amounts = self._loops.named(self._axes, request)
        shape: Shape = self._loops.hidden(Shape, (number, amounts, options.hard, options.soft, fixed, any_ports))
        self._numbers[shape] = number
        if options == self._no_options:
            self._plain_shapes[request] = shape
            return shape
        self._options[shape] = options
        self._shapes.setdefault(options, {})[request] = shape
        if options.hard or options.soft:
            self._bound.setdefault((options.hard, options.soft), {})[number] = None
        self._use(self._uses(options), 1)
        return shape

    def _uses(self, options: _Options) -> _Uses:
        groups = [rule.group for rule in options.rules] + ([self._groups.get(options.group)] if options.group else [])
        return _Uses(tuple(groups), (self._keys.get(options.executor),) if options.executor else ())

    def _use(self, uses: _Uses, by: int) -> None:
        self._groups.use(uses.groups, by)
        self._keys.use(uses.executors, by)

    def _forget(self) -> None:
        """End the uses of groups and executors by removed shapes whose last task has ended.

        A call looks at a few removed shapes, in turn, so that its cost does not depend on their number.
        """
        for _ in range(min(len(self._removed), FORGOTTEN_AT_ONCE)):
            number = next(iter(self._removed))
            if self.matcher.claims(number):
                self._removed.move_to_end(number)
            else:
                self._use(self._removed.pop(number), -1)

    # ---- tasks

    def place(self, tasks: Iterable[tuple[str, Shape]], *, limit: int = -1) -> list[tuple[str, str | None]]:
        """Place named tasks in this order. Returns (task, host) for each; host is None if no host can take the task.

        ``limit``: at most this many tasks are placed (-1: no limit). Once they are placed, the remaining tasks are not
        tried, and the result lacks them.
        """
        return self._placed(_list("tasks", tasks), partial(self.matcher.match, limit=limit))

    def place_together(self, tasks: Iterable[tuple[str, Shape]], *, minimum: int = -1) -> list[tuple[str, str | None]]:
        """Place the tasks, or none if fewer than ``minimum`` (-1: all) find a host. Returns the same as ``place``."""
        return self._placed(_list("tasks", tasks), partial(self.matcher.match_gang, minimum=minimum), complete=True)

    def assign(self, task: str, shape: Shape, host: str, *, ports: Sequence[int] = ()) -> None:
        """Register a task that already runs on the host. Checks neither free amounts nor rules.

        ``ports``: its ports, which must be free. The fixed ports of the shape may be left out.
        """
        self._known(shape)
        slot = self._slot(host)
        held = set(shape.fixed_ports).union(_port("ports", port) for port in ports)
        pool = self._host_at(slot).free_ports
        drawn = held.difference(shape.fixed_ports)
        if len(drawn) != shape.any_ports or not drawn.issubset(pool):
            what = f"{shape.any_ports} free ports of host {host!r:.60}, in addition to its fixed ports"
            raise MatchError(f"ports must be {what}, not {sorted(drawn)}")
        with self._entered([(task, shape)]) as ([claim], _):
            claim.release_id = self.matcher.assign(shape.number, slot)
        index = claim.release_id & _INDEX
        self._by_index += [None] * (index + 1 - len(self._by_index))
        self._by_index[index] = claim
        if held:
            pool[:] = sorted(set(pool) - drawn)
            self._ports[task] = tuple(sorted(held))

    def release(self, tasks: Iterable[str]) -> list[str]:
        """Remove tasks that have ended. Returns the unknown ones: never placed, already released, or given twice."""
        names = _list("tasks", tasks)
        for name in names if {*map(type, names)} - {str} else ():
            _name("task", name)
        ids = self._loops.leave(names, self._claims, self._by_index)
        if self._ports:
            self._give_back(names, self.matcher.slots(ids).tolist())
        self.matcher.release(ids)
        return list(compress(names, (ids < 0).tolist()))

    def fork(self) -> Placer:
        """An independent copy for a dry run. Both know the existing shapes."""
        fork = object.__new__(Placer)
        fork.__dict__ |= {
            name: value.copy() if isinstance(value, dict | list | set | _Numbers) else value
            for name, value in vars(self).items()
        }
        fork._calls = {}
        fork._bound = {bound: {**classes} for bound, classes in self._bound.items()}
        fork._shapes = {options: {**shapes} for options, shapes in self._shapes.items()}
        fork._plain_shapes = fork._shapes[fork._no_options]
        fork.matcher = self.matcher.fork()
        fork._hosts = [None if host is None else replace(host, free_ports=[*host.free_ports]) for host in self._hosts]
        return fork

    def __copy__(self) -> Placer:
        return self.fork()

    def __deepcopy__(self, memo: object) -> Placer:
        return self.fork()

    def __reduce__(self) -> tuple[Any, ...]:
        matcher = self.matcher
        return _restored, (self.snapshot(), type(matcher), matcher.engine, matcher.custom_fitness)

    def snapshot(self) -> bytes:
        """The complete state as bytes, for ``restore``."""
        names = {
            "dimensions": self.dimensions,
            "fixed_ports": self.fixed_ports,
            "hosts": [[slot, h.attributes, sorted(h.free_ports)] for slot, h in enumerate(self._hosts) if h],
            "shapes": [
                [shape.number, [_written(c) for c in shape.constraints], [[_written(c), w] for c, w in shape.soft]]
                for shape in self._numbers
            ],
            "groups": self._groups.of,
            "executors": self._keys.of,
            "next": [self._groups.next, self._keys.next],
            "limited": sorted(self._limited),
            "attributes": list(self._attributes),
        }
        tasks, release_ids = self._loops.names_as_json(self._claims), self._loops.ids_as_json(self._claims)
        text = [_json(names)[:-1], b',"tasks":', tasks, b',"release_ids":', release_ids]
        text += [b',"ports":', _json(self._ports), b"}"]
        parts = (_MAGIC, sum(map(len, text)).to_bytes(8, "little"), *text, self.matcher.snapshot())
        checksum = 0
        for part in parts:
            checksum = zlib.crc32(part, checksum)
        return b"".join((*parts, checksum.to_bytes(4, "little")))

    @classmethod
    def restore(cls, data: bytes, *, matcher: Any = Matcher, **options: Any) -> Placer:
        """A placer from a snapshot. It behaves exactly like the original and knows its shapes.

        ``options``: ``engine``, and ``fitness`` if it was a function, which a snapshot cannot hold. Raises MatchError
        if the snapshot is damaged.
        """
        collecting = gc.isenabled()
        gc.disable()  # the collector would run for every few hundred of the new objects
        try:
            names, inner = _opened(data)
            placer = cls(names["dimensions"], fixed_ports=names["fixed_ports"], matcher=matcher)
            placer.matcher, state = matcher.restore(inner, **options), decode(inner, checked=True)
            placer._restore_names(names, state)
            placer._restore_tasks(names["tasks"], names["release_ids"], names["ports"], state)
        except MatchError:
            raise
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise MatchError(f"the snapshot is inconsistent ({error!r:.80}); take an older one") from error
        finally:
            if collecting:
                gc.enable()
        return placer

    def claims(self) -> dict[str, int]:
        """task → the matcher's release id, for all placed tasks."""
        return {task: claim.release_id for task, claim in self._claims.items()}

    def tasks(self, host: str | None = None) -> list[str]:
        """The names of all placed tasks, or of those on the host."""
        return [*self._claims] if host is None else self._tasks_of(self.matcher.claims_on(self._slot(host)))

    def host_of(self, task: str) -> str | None:
        """The host of the task; None if it is not placed."""
        _name("task", task)
        claim = self._claims.get(task)
        return self._names[self.matcher.slots(np.array([claim.release_id], dtype=np.int64))[0]] if claim else None

    def ports_of(self, task: str) -> tuple[int, ...]:
        """The ports of the task, fixed ports included."""
        _name("task", task)
        return self._ports.get(task, ())

    def why(self, shape: Shape) -> Why:
        """The reasons why one more task of the shape is not placed now, as counts of hosts."""
        self._known(shape)
        self._refresh()
        refusal, by_slot = self.matcher.refusal(shape.number), self._attributes_by_slot()
        short = zip(self._axes, refusal.lacking, strict=True)
        counts = failing(shape.constraints, by_slot)
        nearest = refusal.nearest
        return Why(
            hosts=refusal.hosts,
            lacking={name: count for name, count in short if count},
            failing={str(c): count for c, count in zip(shape.constraints, counts, strict=True) if count},
            disabled=refusal.disabled,
            crowded=refusal.crowded,
            occupied=refusal.occupied,
            ruled_out=refusal.ruled_out,
            nearest=self._names[nearest.slot] if nearest else None,
            asked=self._by_name(nearest.asked) if nearest else {},
            available=self._by_name(nearest.available) if nearest else {},
            could_ever_fit=refusal.could_ever_fit,
            over_limit=refusal.over_limit,
        )

    # ---- internals

    def _placed(
        self, tasks: list[tuple[str, Shape]], match: Callable[[NDArray[np.int32]], Any], *, complete: bool = False
    ) -> list[tuple[str, str | None]]:
        """Match the tasks. Tasks that were not tried are left out of the result, unless it must be ``complete``."""
        self._refresh()
        with self._entered(tasks) as (entered, classes):
            slots, ids = match(classes)
        if self._has_ports:
            for claim, (_, shape), slot in zip(entered, tasks, slots.tolist(), strict=True):
                if slot >= 0 and (shape.any_ports or shape.fixed_ports):
                    pool = self._host_at(slot).free_ports
                    drawn = [heapq.heappop(pool) for _ in range(shape.any_ports)]
                    self._ports[claim.task] = (*shape.fixed_ports, *drawn)
        answers: list[tuple[str, str | None]] = self._loops.answer(
            entered, slots, ids, self._names, self._claims, self._by_index
        )
        if not complete and len(slots) and slots[-1] == UNTRIED:  # once the limit is reached, no task is tried
            del answers[int(np.argmax(slots == UNTRIED)) :]
        return answers

    def _tasks_of(self, release_ids: NDArray[np.int64]) -> list[str]:
        return [self._by_index[number].task for number in (release_ids & _INDEX).tolist()]

    @contextmanager
    def _entered(self, tasks: list[tuple[str, Shape]]) -> Iterator[tuple[list[Any], NDArray[np.int32]]]:
        """Register claims for new tasks and yield them with their classes; unregister them if the body raises."""
        entered, classes, good = self._loops.enter(tasks, self._numbers, self._claims)
        if good < len(tasks):
            self._check(tasks[good])
            raise MatchError(f"task {tasks[good][0]!r:.80} is given twice")
        try:
            yield entered, classes
        except BaseException:
            self._loops.leave([claim.task for claim in entered], self._claims, self._by_index)
            raise

    def _check(self, task: Any) -> None:
        """Raise MatchError if the (name, shape) of a new task is invalid."""
        try:
            name, shape = task
        except (TypeError, ValueError):
            raise MatchError(f"a task is a pair of a name and a shape, not {task!r:.80}") from None
        _name("task", name)
        self._known(shape)
        if name in self._claims:
            raise MatchError(f"task {name!r:.80} is already placed; release it first")

    def _known(self, shape: Shape) -> None:
        if not isinstance(shape, Shape) or shape not in self._numbers:
            raise MatchError(f"{shape!r:.80} is not a shape of this placer; use its shape() method")

    def _give_back(self, names: Sequence[str], slots: Sequence[int]) -> None:
        for name, slot in zip(names, slots, strict=True):
            for port in self._ports.pop(name, ()):
                if port not in self.fixed_ports:
                    heapq.heappush(self._host_at(slot).free_ports, port)

    def _host(self, name: str, amounts: Amounts, attributes: Mapping[str, str], ports: Any) -> tuple[_Host, list[int]]:
        row = self._row("amounts", amounts)
        if not isinstance(attributes, Mapping):
            raise MatchError(f"attributes of host {name!r:.60} must be a mapping, not {type(attributes).__name__}")
        for attribute, value in attributes.items():
            if not isinstance(attribute, str) or not isinstance(value, str):
                raise MatchError(
                    f"attributes[{attribute!r:.60}] of host {name!r:.60} must be a text, not {value!r:.60}"
                )
        if not self._has_ports:
            if ports:
                raise MatchError(f"ports are given, but {PORTS!r} is not a dimension; add it")
            return _Host(name, {**attributes, HOST: name}), row
        if PORTS in amounts:
            raise MatchError(f"amounts: give the {PORTS} of host {name!r:.60} as ranges in the argument ports")
        there: set[int] = set()
        for first, last in _ranges(name, ports):
            there.update(range(first, last + 1))
        for at, port in enumerate(self.fixed_ports, len(self.dimensions)):
            row[at] = 1_000 * (port in there)
        there.difference_update(self.fixed_ports)
        row[self.dimensions.index(PORTS)] = 1_000 * len(there)
        return _Host(name, {**attributes, HOST: name}, sorted(there)), row

    def _remove_used_ports(self, host: _Host, row: Sequence[int]) -> None:
        """Remove ports in use from the free list. Raises MatchError if one is not among the host's new ports."""
        there = {*host.free_ports, *compress(self.fixed_ports, row[len(self.dimensions) :])}
        held = {port: task for task, ports in self._ports.items() if self.host_of(task) == host.name for port in ports}
        for port in sorted(held.keys() - there)[:1]:
            raise MatchError(
                f"ports of host {host.name!r:.60}: task {held[port]!r:.60} uses {port}; keep it or release the task"
            )
        host.free_ports = sorted(set(host.free_ports) - held.keys())

    def _restore_names(self, names: Any, state: State) -> None:
        _require(state.dimensions == len(self._axes), "other dimensions")
        for field_, known, following in zip(
            ("groups", "executors"), (self._groups, self._keys), names["next"], strict=True
        ):
            for name, number in names[field_].items():
                _name(field_, name)
                known.put(name, whole(field_, number, 0, MAX_KEY - 1))
            _require(len(known.name) == len(known.of), f"two {field_} with the same number")
            known.next = whole("next", following, known.next, MAX_KEY - 1)
        for name in names["attributes"]:
            _name("attributes", name)
            self._attributes[name] = len(self._attributes)
        _require(len(self._attributes) == len(names["attributes"]), "two attributes with the same name")
        groups, executors = self._groups.name, self._keys.name
        used = {*state.class_group.tolist(), *state.class_rules[:, 2].tolist(), *state.limited_group.tolist()}
        _require(used - {-1} <= groups.keys(), "a group without a name")
        _require({*state.class_key.tolist()} - {-1} <= executors.keys(), "an executor without a name")
        self._limited = {groups[number] for number in state.limited_group.tolist()}
        _require(sorted(self._limited) == names["limited"], "other limited groups")
        self._groups.use(state.limited_group.tolist(), 1)
        _require(state.attribute.max(initial=-1) < len(self._attributes), "an attribute without a name")

        present = np.flatnonzero(state.host_status).tolist()
        _require([slot for slot, _, _ in names["hosts"]] == present, "hosts without a name")
        self._hosts = [None] * len(state.host_status)
        self._names = [None] * (len(state.host_status) + 1)
        for slot, (_, attributes, free_ports) in zip(present, names["hosts"], strict=True):
            host, _ = self._host(attributes[HOST], {}, attributes, [(port, port) for port in free_ports])
            _name("host", host.name)
            _require(host.name not in self._slots, "two hosts with the same name")
            _require(len(host.free_ports) == len(free_ports), "a port twice")
            self._slots[host.name], self._hosts[slot], self._names[slot] = slot, host, host.name
        self._has_changed(present)

        rules_of: dict[int, list[Rule]] = {}
        for cls, kind, *rest in state.class_rules.tolist():
            rules_of.setdefault(cls, []).append(Rule(RULES[kind], *rest))
        for number, constraints, soft in names["shapes"]:
            at = whole("a shape", number, 0, len(state.class_status) - 1)
            _require(state.class_status[at] == CLASS_USABLE, "a shape without a class")
            request, shared = tuple(state.class_request[at].tolist()), state.class_shared[at].tolist()
            hard = tuple(_read(one) for one in constraints)
            weighted = tuple((_read(one), whole("soft weight", weight, 0, MAX_PENALTY)) for one, weight in soft)
            rules = tuple(rules_of.get(at, ()))
            group, key = int(state.class_group[at]), int(state.class_key[at])
            options = _Options(
                hard,
                weighted,
                groups[group] if group >= 0 else "",
                int(state.class_max_per_host[at]),
                rules,
                bool(state.class_exclusive[at]),
                executors[key] if key >= 0 else "",
                tuple(shared),
            )
            self._add_shape(at, request, options, self._whole_ports(request))
        different = sum(map(len, self._shapes.values()))
        _require(len({*self._numbers.values()}) == different == len(names["shapes"]), "a shape twice")

    def _restore_tasks(self, tasks: Any, release_ids: Any, ports: Any, state: State) -> None:
        for at in np.flatnonzero(state.class_status == CLASS_REMOVED).tolist():
            group, key = int(state.class_group[at]), int(state.class_key[at])
            of_rules = state.class_rules[state.class_rules[:, 0] == at, 2].tolist()
            self._removed[at] = _Uses((*of_rules, *([group] if group >= 0 else [])), (key,) if key >= 0 else ())
            self._use(self._removed[at], 1)

        _require(len(tasks) == len(release_ids), "a task without a release id")
        self._by_index = [None] * len(state.claim_slot)
        ids, valid = self._loops.restored(tasks, release_ids, self._claims, self._by_index)
        if valid < len(tasks):
            _name("task", tasks[valid])
            whole("a release id", release_ids[valid], 0, _placer_plain.MAX_RELEASE_ID)
            raise ValueError("a task's name is not a plain text")
        at_slots = self.matcher.slots(ids)
        _require(
            len(self._claims) == len(tasks) and (np.diff(np.sort(ids)) > 0).all() and at_slots.min(initial=0) >= 0,
            "a task without a claim, or two tasks with the same claim",
        )
        if not self._has_ports:
            _require(ports == {}, "ports without a dimension")
            return
        taken = {(slot, port) for slot in self._slots.values() for port in self._host_at(slot).free_ports}
        there = len(taken)
        of_task = state.claim_class[ids & _INDEX]
        asks = state.class_request[:, self.dimensions.index(PORTS)] > 0
        asks |= (state.class_request[:, len(self.dimensions) :] > 0).any(axis=1)
        asking = {tasks[at]: at for at in np.flatnonzero(asks[of_task]).tolist()}
        _require(asking.keys() == ports.keys(), "a number of ports that differs from the request")
        for name, at in asking.items():
            slot, listed = int(at_slots[at]), ports[name]
            request = state.class_request[of_task[at]].tolist()
            fixed = set(compress(self.fixed_ports, request[len(self.dimensions) :]))
            held = {_port("ports", port) for port in listed}
            _require(held & set(self.fixed_ports) == fixed, "fixed ports that differ from the request")
            _require(len(held) == len(listed), "a port twice")
            _require(len(held - fixed) == self._whole_ports(request), "a number of ports that differs from the request")
            taken.update((slot, port) for port in held)
            there += len(held)
            self._ports[name] = tuple(listed)
        _require(len(taken) == there, "a port of two tasks")
        axis = self.dimensions.index(PORTS)
        for slot in self._slots.values():
            free = 1_000 * len(self._host_at(slot).free_ports)
            _require(free == self.matcher.free(slot)[axis], "a number of free ports that differs from the free amount")

    def _whole_ports(self, request: Sequence[int]) -> int:
        asked = request[self.dimensions.index(PORTS)] if self._has_ports else 0
        if asked % 1_000:
            raise MatchError(f"amounts[{PORTS!r}] must be a whole number, not {asked / 1_000:.12g}")
        return asked // 1_000

    def _row(self, what: str, amounts: Amounts) -> list[int]:
        quick: list[int] | None = self._loops.thousandths(amounts, self.dimensions)
        if quick is not None:
            return quick + [0] * len(self.fixed_ports) if self.fixed_ports else quick
        if not isinstance(amounts, Mapping):
            raise MatchError(f"{what} must be a mapping of dimensions to numbers, not {type(amounts).__name__}")
        for name in amounts:
            if name not in self.dimensions:
                raise MatchError(f"{what}[{name!r:.60}] is not a dimension; use {', '.join(self.dimensions)}")
        row = [_thousandths(what, name, amounts.get(name, 0)) for name in self.dimensions]
        return row + [0] * len(self.fixed_ports)

    def _by_name(self, row: Sequence[int]) -> dict[str, int]:
        return dict(zip(self._axes, row, strict=True))

    def _has_changed(self, slots: Iterable[int]) -> None:
        """Note that these hosts are new or have other attributes."""
        self._changed.update(slots)
        self._attributes_changed = True
        self._masks.clear()

    def _refresh(self) -> None:
        """Update masks, penalties and attributes, which are indexed by slot, if hosts changed."""
        self._refresh_masks()
        if self._attributes_changed:
            by_slot = self._attributes_by_slot() if self._attributes else []
            for name, number in self._attributes.items():
                self.matcher.set_attribute(number, numbers(name, by_slot))
            self._attributes_changed = False

    def _refresh_masks(self) -> None:
        """Update the entries of the changed hosts in the masks and penalties of the shapes with constraints."""
        if self._changed and self._bound:
            classes = np.array([cls for some in self._bound.values() for cls in some], dtype=np.int64)
            of_bound = np.repeat(np.arange(len(self._bound)), [len(some) for some in self._bound.values()])
            used = {constraint for hard, soft in self._bound for constraint in (*hard, *(c for c, _ in soft))}
            number = {constraint: at for at, constraint in enumerate(used, 1)}
            # ``reduceat`` takes no empty lists. So each list begins with entry 0, a condition that always holds.
            hard = _Lists([[0, *(number[c] for c in hard)] for hard, _ in self._bound])
            soft = _Lists([[0, *(number[c] for c, _ in soft)] for _, soft in self._bound])
            weights = np.array(
                [weight for _, soft in self._bound for weight in (0, *(w for _, w in soft))], dtype=np.int64
            )
            for slot in sorted(self._changed):
                attributes = self._host_at(slot).attributes
                holds = np.array([True, *(constraint.holds(attributes) for constraint in used)])
                allowed = np.logical_and.reduceat(holds[hard.entries], hard.starts)
                costs = np.add.reduceat(np.where(holds[soft.entries], 0, weights), soft.starts)
                self.matcher.set_host_masks(slot, classes, allowed[of_bound], costs[of_bound])
        self._changed.clear()

    def _attributes_by_slot(self) -> list[Mapping[str, str] | None]:
        hosts = self._hosts[: max(self._slots.values(), default=-1) + 1]
        return [None if host is None else host.attributes for host in hosts]

    def _slot(self, host: str) -> int:
        if not isinstance(host, str) or host not in self._slots:
            raise MatchError(f"there is no host {host!r:.80}")
        return self._slots[host]

    def _host_at(self, slot: int) -> _Host:
        host = self._hosts[slot]
        assert host is not None
        return host


def _thousandths(what: str, name: str, value: Number) -> int:
    try:
        if isinstance(value, str) and not _DECIMAL.fullmatch(value):
            raise ValueError
        exact = 1_000 * value if type(value) is int else _EXACT.multiply(Decimal(str(value)), 1_000)
        if 0 <= exact <= MAX_AMOUNT and exact == int(exact):
            return int(exact)
    except (InvalidOperation, Inexact, ValueError):
        pass
    limits = f"a number from 0 to {MAX_AMOUNT // 1_000} with at most three decimals"
    raise MatchError(f"{what}[{name!r:.60}] must be {limits}, not {value!r:.60}")


def _by_number(fitness: Any, dimensions: Sequence[str]) -> Any:
    """The fitness for the matcher: in ``pack_NAME``, the name of the dimension is replaced by its number."""
    numbers_ = {f"{PACK_ONE}{name}": f"{PACK_ONE}{at}" for at, name in enumerate(dimensions)}
    given = [fitness] if isinstance(fitness, str) else fitness if isinstance(fitness, Mapping) else ()
    for name in given:
        if isinstance(name, str) and name.startswith(PACK_ONE) and name not in numbers_:
            raise MatchError(f"fitness {name!r:.60} names no dimension; use {', '.join(numbers_)}")
    if isinstance(fitness, str):
        return numbers_.get(fitness, fitness)
    return {numbers_.get(name, name): weight for name, weight in fitness.items()} if given else fitness


def _restored(data: bytes, matcher: Any, engine: str, fitness: Any) -> Placer:
    """The placer that ``pickle`` wrote."""
    return Placer.restore(data, matcher=matcher, engine=engine, fitness=fitness)


def _list(what: str, values: object) -> list[Any]:
    if not isinstance(values, Iterable) or isinstance(values, str):
        raise MatchError(f"{what} must be a list, not {values!r:.60}")
    return list(values)


def _parts(what: str, value: object, form: str, count: int) -> tuple[Any, ...]:
    if not isinstance(value, tuple | list) or len(value) != count:
        raise MatchError(f"{what} is {form}, not {value!r:.60}")
    return tuple(value)


def _opened(data: object) -> tuple[Any, bytes]:
    """The names in a snapshot, and the matcher's snapshot in it."""
    if not isinstance(data, bytes | bytearray | memoryview):
        raise MatchError(f"a snapshot is bytes, not {type(data).__name__}")
    data, start = bytes(data), len(_MAGIC) + 8
    if data[: len(_MAGIC)] not in (_MAGIC, _FIRST_MAGIC):
        raise MatchError("this is not a placer snapshot of this version; take a new one")
    if len(data) < start + 4 or zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise MatchError("the snapshot is damaged (its checksum does not match); take an older one")
    end = start + int.from_bytes(data[len(_MAGIC) : start], "little")
    try:
        names = json.loads(data[start:end])
        return names if data.startswith(_MAGIC) else _of_first_version(names), data[end:-4]
    except (ValueError, RecursionError) as error:
        raise MatchError(f"the snapshot is damaged ({error!r:.80}); take an older one") from error


def _of_first_version(names: Any) -> Any:
    """The names of a JCPLACE1 snapshot, in the present form. Such a snapshot has no limits of groups."""
    if not isinstance(names, dict) or not all(isinstance(names.get(f), list) for f in ("groups", "executors")):
        raise ValueError("groups and executors are not lists")
    known = [{name: at for at, name in enumerate(names[field_])} for field_ in ("groups", "executors")]
    tasks = {name: (release_id, ports) for name, release_id, ports in names["tasks"]}
    return names | {
        "groups": known[0],
        "executors": known[1],
        "next": [*map(len, known)],
        "limited": [],
        "tasks": [*tasks],
        "release_ids": [release_id for release_id, _ in tasks.values()],
        "ports": {name: ports for name, (_, ports) in tasks.items() if ports},
    }


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _written(constraint: Constraint) -> list[Any]:
    return [constraint.attribute, constraint.op.value, constraint.values]


def _read(written: Any) -> Constraint:
    attribute, op, values = written
    for text in (attribute, *values):
        _name("a constraint", text)
    return Constraint(attribute, Op(op), tuple(values))


def _require(holds: bool | np.bool_, contradiction: str) -> None:
    if not holds:
        raise MatchError(f"the snapshot is inconsistent ({contradiction}); take an older one")


def _name(what: str, value: object) -> None:
    if not isinstance(value, str) or not value:
        raise MatchError(f"{what}: {value!r:.60} is not a name; a name is a text that is not empty")


def _constraint(value: object) -> Constraint:
    if isinstance(value, Constraint):
        return value
    if not isinstance(value, str):
        raise MatchError(f"a constraint is a text such as 'zone == a', not {value!r:.60}")
    try:
        return parse(value)
    except ConstraintError as error:
        raise MatchError(str(error)) from error


def _ranges(host: str, ports: Any) -> list[tuple[int, int]]:
    ranges = list(ports) if isinstance(ports, Iterable) else [ports]
    for one in ranges:
        if not isinstance(one, tuple | list) or len(one) != 2:
            raise MatchError(f"ports of host {host!r:.60} must be ranges (first, last), not {one!r:.60}")
        if _port("ports", one[1]) < _port("ports", one[0]):
            raise MatchError(f"ports of host {host!r:.60}: {one!r:.60} ends before it starts")
    return [(first, last) for first, last in ranges]


def _port(what: str, value: object) -> int:
    if type(value) is not int or not 0 < value <= MAX_PORT:
        raise MatchError(f"{what}: {value!r:.60} is not a port; ports are whole numbers from 1 to {MAX_PORT}")
    return value
