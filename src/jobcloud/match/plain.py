"""The matcher in plain Python ints and lists: the rules of docs/matcher.md, written for readers.

Tests compare the compiled matcher with this one. It is slow on purpose: it has no index and no shortcut, and scores
every host for every task.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import compress
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from jobcloud._match_types import (
    BY_HOST,
    CLASS_ABSENT,
    CLASS_REMOVED,
    CLASS_USABLE,
    HOST_ABSENT,
    HOST_DISABLED,
    HOST_ENABLED,
    MAX_AMOUNT,
    MAX_ATTRIBUTES,
    MAX_CLAIMED,
    MAX_CLAIMS,
    MAX_CLASSES,
    MAX_DIMENSIONS,
    MAX_EXCESS,
    MAX_GENERATION,
    MAX_GROUP_CLAIMED,
    MAX_KEY,
    MAX_PENALTY,
    MAX_SLOTS,
    PACK_ONE,
    REFUSED,
    RULES,
    UNTRIED,
    WHOLE_WEIGHT,
    CustomFitness,
    Fitness,
    Int32Array,
    Int64Array,
    MaskArray,
    MatchError,
    MatchStateError,
    Nearest,
    PenaltyArray,
    Preemption,
    Refusal,
    Rule,
    State,
    allowed_slots,
    amount_rows,
    amounts,
    attribute_values,
    check_masked,
    check_present,
    class_numbers,
    class_rules,
    custom_score,
    decode,
    encode,
    engine_name,
    fitness_names,
    fitness_weights,
    free_rows,
    group_limit,
    host_masks,
    one_call_at_a_time,
    preemptible,
    release_numbers,
    reopened,
    restored_fitness,
    slot_penalties,
    truth,
    whole,
)

_INT32_MAX: Final = 2**31 - 1


@dataclass(slots=True)
class _Host:
    capacity: list[int]
    used: list[int]
    enabled: bool = True
    key_claims: dict[int, int] = field(default_factory=dict)  # shared key -> live claims with it
    groups: dict[int, int] = field(default_factory=dict)  # group -> live claims with it
    claims: int = 0
    exclusive: int = 0  # claims of exclusive classes
    values: dict[int, int] = field(default_factory=dict)  # attribute -> number of the value


@dataclass(slots=True)
class _Class:
    request: list[int]
    key: int
    shared: list[int]
    allowed: set[int] | None
    group: int = -1
    max_per_host: int = 0
    rules: tuple[Rule, ...] = ()
    exclusive: bool = False
    penalty: dict[int, int] | None = None  # slot -> penalty
    claims: int = 0
    removed: bool = False


@dataclass(slots=True)
class _Claim:
    generation: int = 1
    cls: int = -1
    slot: int = -1  # -1: not live


@one_call_at_a_time
class Matcher:
    """Places task classes on hosts, by fitness.

    ``dimensions``: the number of resources of a host, 1 to 64; the caller chooses their order.

    ``fitness``: a name, weights in 1024ths, or a pure function of (class, slot, need, free, capacity) (docs/matcher.md,
    "Fitness"). Lower scores are better. A host on which the task does not fit scores INT32_MAX and is never used.
    Unless the fitness is "even" alone, hosts that already have the class's shared part come before all others. Among
    equal scores, the lowest slot wins.

    ``engine``: how the compiled matcher searches; its answers do not depend on it. Here it is only checked and stored.
    """

    def __init__(self, dimensions: int, *, engine: str = "index", fitness: Fitness = "even") -> None:
        self.dimensions = whole("dimensions", dimensions, 1, MAX_DIMENSIONS)
        self.engine = engine_name(engine)
        names, weights = fitness_names(self.dimensions), fitness_weights(fitness, self.dimensions)
        self._weights = {name: weight for name, weight in zip(names, weights, strict=True) if weight}
        self.custom_fitness: CustomFitness | None = fitness if callable(fitness) else None
        self._calls: dict[str, tuple[int, object]] = {}  # the mark of the call in progress
        self._hosts: dict[int, _Host] = {}
        self._classes: dict[int, _Class] = {}
        self._claims: list[_Claim] = []
        self._unused: list[int] = []
        self._limits: dict[int, list[int]] = {}
        self._attributes: set[int] = set()

    @property
    def fitness(self) -> dict[str, int]:
        """The parts of the score with their weights in 1024ths; empty for "first" and for a custom fitness."""
        return dict(self._weights)

    # ---- hosts

    def add_host(self, capacity: Int64Array) -> int:
        """Add a host with ``capacity`` int64[D]. Returns its slot, which is the lowest free one.

        Raises MatchError if the capacity is invalid or the matcher is full.
        """
        amount = amounts("capacity", capacity, self.dimensions).tolist()
        slot = _lowest_absent(self._hosts)
        if slot >= MAX_SLOTS:
            raise MatchError(f"a matcher holds at most {MAX_SLOTS} hosts; remove some first")
        self._hosts[slot] = _Host(amount, [0] * self.dimensions)
        return slot

    def add_hosts(self, capacities: Int64Array) -> Int32Array:
        """Add a host for each row of ``capacities`` int64[n, D]. Returns their slots, int32[n]."""
        rows = amount_rows("capacities", capacities, self.dimensions)
        if len(self._hosts) + len(rows) > MAX_SLOTS:
            raise MatchError(f"a matcher holds at most {MAX_SLOTS} hosts; remove some first")
        return np.array([self.add_host(row) for row in rows], dtype=np.int32)

    def set_host(self, slot: int, capacity: Int64Array) -> None:
        """Change the capacity. If it is below the sum of the claims, no new task fits until enough claims end."""
        host = self._host(slot)
        host.capacity = amounts("capacity", capacity, self.dimensions).tolist()

    def set_free(self, slots: Int64Array | Int32Array, free: Int64Array) -> Int64Array:
        """Set each capacity to the claimed amounts plus ``free`` int64[n, D], at most MAX_AMOUNT.

        Returns the new capacities, int64[n, D]. This suits callers that learn free amounts, such as Mesos frameworks.
        """
        numbers, rows = free_rows(slots, free, self.dimensions)
        hosts = [self._host(slot) for slot in numbers.tolist()]
        capacities = []  # a slot that is given twice appears with both results
        for host, row in zip(hosts, rows.tolist(), strict=True):
            host.capacity = [min(used + left, MAX_AMOUNT) for used, left in zip(host.used, row, strict=True)]
            capacities.append(host.capacity)
        return np.array(capacities, dtype=np.int64).reshape(len(hosts), self.dimensions)

    def remove_host(self, slot: int) -> Int64Array:
        """Remove the host and release its claims. Returns their release ids, int64[n], ascending."""
        self._host(slot)
        ids = self._claims_on(int(slot))
        for number in ids:
            self._end_claim(number)
        del self._hosts[int(slot)]
        for cls in self._classes.values():
            if cls.allowed is not None:
                cls.allowed.discard(int(slot))
            if cls.penalty is not None:
                cls.penalty.pop(int(slot), None)
        return np.array(ids, dtype=np.int64)

    def enable_host(self, slot: int, on: bool) -> None:
        """Enable or disable the host. A disabled host keeps its claims; ``match`` gives it no new ones."""
        host = self._host(slot)
        host.enabled = truth("on", on)

    def free(self, slot: int) -> Int64Array:
        """The capacity minus the claims, int64[D]; negative if the capacity dropped below the claims."""
        return np.array(_minus(self._host(slot).capacity, self._host(slot).used), dtype=np.int64)

    def capacity(self, slot: int) -> Int64Array:
        """The capacity, int64[D]."""
        return np.array(self._host(slot).capacity, dtype=np.int64)

    def set_attribute(self, attribute: int, values: Int64Array | Int32Array | None) -> None:
        """Set the value of the attribute on every host: ``values`` int[slots], numbers from 0 on, -1 for no value.

        Slots beyond the end of ``values`` have no value; None removes all values. All earlier values are replaced.
        ``attribute``: 0 to 63. Raises MatchError if a value is given for a slot without a host.
        """
        number = whole("attribute", attribute, 0, MAX_ATTRIBUTES - 1)
        given = {} if values is None else {s: v for s, v in enumerate(attribute_values(values).tolist()) if v >= 0}
        if values is not None:
            check_present("values", attribute_values(values) >= 0, self._present())
        for slot, host in self._hosts.items():
            host.values.pop(number, None)
            if slot in given:
                host.values[number] = given[slot]
        (self._attributes.discard if values is None else self._attributes.add)(number)

    # ---- classes

    def add_class(
        self,
        request: Int64Array,
        *,
        shared_key: int = -1,
        shared: Int64Array | None = None,
        allowed: MaskArray | None = None,
        group: int = -1,
        max_per_host: int = 0,
        rules: Iterable[Rule] = (),
        exclusive: bool = False,
        penalty: PenaltyArray | None = None,
    ) -> int:
        """Add a class of equal tasks. Returns its number, the lowest free one.

        ``request`` int64[D]: the amounts of each task. ``shared`` int64[D]: amounts taken once per (``shared_key``,
        host) while any live claim on the host has the key. ``allowed`` bool[slots]: where the class may run; slots
        beyond its end are not allowed. ``max_per_host``: a host with this many claims of classes with the same
        ``group`` takes no further task of the class; 0: no maximum. ``rules``: up to 16 of at_most(), near() and
        balanced(). ``exclusive``: a task has its host to itself. ``penalty`` int[slots]: added to the score of a host
        (2**20 stands for the whole capacity of a host in one dimension); slots beyond its end have none.

        Raises MatchError if an argument is invalid or the matcher is full.
        """
        amount = amounts("request", request, self.dimensions).tolist()
        key = whole("shared_key", shared_key, -1, MAX_KEY)
        if shared is not None and key < 0:
            raise MatchError("shared is given without a shared_key; name the key that these amounts belong to")
        once = [0] * self.dimensions if shared is None else amounts("shared", shared, self.dimensions).tolist()
        mask = None if allowed is None else self._checked_mask(allowed)
        self._check_key(key, once)
        of_group, limit = group_limit(group, max_per_host)
        bound = class_rules(rules)
        alone = truth("exclusive", exclusive)
        costs = None if penalty is None else self._checked_penalty(penalty)
        number = _lowest_absent(self._classes)
        if number >= MAX_CLASSES:
            raise MatchError(f"a matcher holds at most {MAX_CLASSES} classes; remove some first")
        self._classes[number] = _Class(amount, key, once, mask, of_group, limit, bound, alone, costs)
        return number

    def set_allowed(self, cls: int, allowed: MaskArray | None) -> None:
        """Change where the class may run; live claims stay."""
        known = self._class(cls)
        known.allowed = None if allowed is None else self._checked_mask(allowed)

    def set_penalty(self, cls: int, penalty: PenaltyArray | None) -> None:
        """Change the penalty of each host for tasks of the class; live claims stay."""
        known = self._class(cls)
        known.penalty = None if penalty is None else self._checked_penalty(penalty)

    def set_host_masks(
        self, slot: int, classes: Int64Array | Int32Array, allowed: MaskArray, penalty: PenaltyArray
    ) -> None:
        """Change the entry of a new or changed host in the masks and penalties of ``classes`` int[n].

        ``allowed`` bool[n], ``penalty`` int[n]: one entry for each class. For a class without a mask the entry must be
        true, and for a class without penalties 0.
        """
        self._host(slot)
        numbers, may, costs = host_masks(classes, allowed, penalty)
        self._check_classes(numbers.tolist())
        given = list(zip((self._classes[n] for n in numbers.tolist()), numbers.tolist(), may, costs, strict=True))
        for known, number, may_use, cost in given:
            check_masked(number, known.allowed is not None, may_use, known.penalty is not None, cost)
        for known, _, may_use, cost in given:
            if known.allowed is not None:
                (known.allowed.add if may_use else known.allowed.discard)(int(slot))
            if known.penalty is not None:
                known.penalty.pop(int(slot), None)
                if cost:
                    known.penalty[int(slot)] = int(cost)

    def set_group_limit(self, group: int, limit: Int64Array | None) -> None:
        """Limit the sum of the requests of all live claims of the group to ``limit`` int64[D]; None: no limit.

        ``match`` respects the limit; existing claims stay. Shared parts do not count.
        """
        number = whole("group", group, 0, MAX_KEY)
        amount = None if limit is None else amounts("limit", limit, self.dimensions).tolist()
        if amount is None:
            self._limits.pop(number, None)
        elif number not in self._limits and len(self._limits) >= MAX_CLASSES:
            raise MatchError(f"a matcher holds at most {MAX_CLASSES} group limits; lift some first")
        else:
            self._limits[number] = amount

    def remove_class(self, cls: int) -> None:
        """Stop matching the class. Its live claims stay, and its number stays in use until the last one is released."""
        known = self._class(cls)
        known.removed = True
        if known.claims == 0:
            del self._classes[int(cls)]

    # ---- placing, releasing, explaining

    def match(self, classes: Int64Array | Int32Array, *, limit: int = -1) -> tuple[Int32Array, Int64Array]:
        """Place one task for each entry of ``classes`` int[n], in this order, at most ``limit`` of them (-1: no limit).

        Returns the slots, int32[n] (REFUSED if no host fits, UNTRIED once the limit is reached), and the release ids,
        int64[n] (-1 if not placed). The claims take effect immediately. Raises MatchError, with nothing placed, if a
        class is unknown or the custom fitness fails.
        """
        wanted = class_numbers(classes).tolist()
        left = whole("limit", limit, -1, 2**63 - 1)
        self._check_classes(wanted)
        slots = [UNTRIED] * len(wanted)
        ids = [-1] * len(wanted)
        before = self._copy() if self.custom_fitness else None
        try:
            self._place(wanted, slots, ids, left)
        except MatchError:
            if before:
                self._hosts, self._classes, self._claims, self._unused = before
            raise
        return np.array(slots, dtype=np.int32), np.array(ids, dtype=np.int64)

    def _place(self, wanted: list[int], slots: list[int], ids: list[int], left: int) -> None:
        for i, number in enumerate(wanted):
            if left == 0:
                break
            slots[i] = self._find(number)
            if slots[i] != REFUSED:
                ids[i] = self._start_claim(number, slots[i])
                left -= 1

    def _copy(self) -> tuple[dict[int, _Host], dict[int, _Class], list[_Claim], list[int]]:
        return copy.deepcopy((self._hosts, self._classes, self._claims, self._unused))

    def match_gang(self, classes: Int64Array | Int32Array, *, minimum: int = -1) -> tuple[Int32Array, Int64Array]:
        """Place one task for each entry of ``classes``, or none if fewer than ``minimum`` (-1: all) find room.

        Returns slots and release ids as ``match`` does. If none is placed, the call changes nothing, not even the
        release ids of later calls. Each slot is then REFUSED, or UNTRIED if its task had found room.
        """
        wanted = class_numbers(classes)
        needed = len(wanted) if whole("minimum", minimum, -1, len(wanted)) < 0 else int(minimum)
        before = self._copy()
        slots, ids = self.match(wanted)
        if int((slots >= 0).sum()) < needed:
            self._hosts, self._classes, self._claims, self._unused = before
            slots[slots >= 0] = UNTRIED
            ids[:] = -1
        return slots, ids

    def assign(self, cls: int, slot: int) -> int:
        """Claim the host for a task that already runs there. Returns the release id.

        Does not check fit, rules, the mask or whether the host is enabled. Raises MatchError if a total would overflow.
        """
        known, host = self._class(cls), self._host(slot)
        for d, (used, need) in enumerate(zip(host.used, self._need(known, host), strict=True)):
            if used + need > MAX_CLAIMED:
                raise MatchError(
                    f"slot {slot} cannot take the claim: more than {MAX_CLAIMED} would be claimed in dimension {d}"
                )
        if self._is_over(known, [MAX_GROUP_CLAIMED] * self.dimensions):
            raise MatchError(f"group {known.group} cannot take the claim: it would claim more than {MAX_GROUP_CLAIMED}")
        return self._start_claim(int(cls), int(slot))

    def release(self, release_ids: Int64Array) -> Int64Array:
        """End the claims. Returns the ids that were not live: unknown, already released, or given twice."""
        unknown = []
        for number in release_numbers(release_ids).tolist():
            if self._is_live(number):
                self._end_claim(number)
            else:
                unknown.append(number)
        return np.array(unknown, dtype=np.int64)

    def slots(self, release_ids: Int64Array) -> Int32Array:
        """The slot of each claim, int32[n]; -1 for ids that are not live."""
        numbers = release_numbers(release_ids).tolist()
        found = [self._claims[n & 0xFFFFFFFF].slot if self._is_live(n) else REFUSED for n in numbers]
        return np.array(found, dtype=np.int32)

    def refusal(self, cls: int) -> Refusal:
        """Why one more task of the class is not placed now."""
        known = self._class(cls)
        usable = {slot: host for slot, host in sorted(self._hosts.items()) if host.enabled}
        allowed = {slot: host for slot, host in usable.items() if _may_use(known, slot)}
        bearable = {slot: host for slot, host in allowed.items() if not _is_crowded(known, host)}
        at_hand = {slot: host for slot, host in bearable.items() if not _is_occupied(known, host)}
        broken = {slot: [self._excess(known, rule, host) > 0 for rule in known.rules] for slot, host in at_hand.items()}
        considered = {
            slot: host
            for slot, host in at_hand.items()
            if not any(broken[slot][r] and rule.weight == 0 for r, rule in enumerate(known.rules))
        }
        missing = {slot: self._missing(known, host) for slot, host in considered.items()}
        free = [_minus(host.capacity, host.used) for host in considered.values()]
        needed = _plus(known.request, known.shared)
        return Refusal(
            hosts=len(self._hosts),
            disabled=len(self._hosts) - len(usable),
            disallowed=len(usable) - len(allowed),
            over_limit=self._is_over(known, self._limit(known)),
            crowded=len(allowed) - len(bearable),
            occupied=len(bearable) - len(at_hand),
            ruled_out=len(at_hand) - len(considered),
            breaking=tuple(sum(on_host[r] for on_host in broken.values()) for r in range(len(known.rules))),
            considered=len(considered),
            fitting=sum(not short for short in missing.values()),
            lacking=tuple(sum(d in short for short in missing.values()) for d in range(self.dimensions)),
            best=tuple(max([0, *(amount[d] for amount in free)]) for d in range(self.dimensions)),
            nearest=self._nearest(known, missing),
            could_ever_fit=any(
                _may_use(known, slot) and _has_values(known, host) and min(_minus(host.capacity, needed)) >= 0
                for slot, host in self._hosts.items()
            ),
        )

    def preemption(self, cls: int, release_ids: Int64Array, costs: Int64Array | None = None) -> Preemption | None:
        """Choose which of the claims ``release_ids`` int64[n] to release for one task of the class. Changes nothing.

        ``costs`` int64[n]: the cost of each claim, 1 by default. Returns None if no host could take the task, not
        even after the release of all these claims. Raises MatchError if an id is not live or is given twice.
        """
        known = self._class(cls)
        numbers, prices = preemptible(release_ids, costs)
        on_slot: dict[int, list[tuple[int, int]]] = {}
        seen: set[int] = set()
        for i, (number, price) in enumerate(zip(numbers.tolist(), prices.tolist(), strict=True)):
            if number in seen or not self._is_live(number):
                raise MatchError(f"release_ids[{i}] is {number}, {'given twice' if number in seen else 'not live'}")
            seen.add(number)
            on_slot.setdefault(self._claims[number & 0xFFFFFFFF].slot, []).append((price, number))
        proposals = []
        for slot, host in self._hosts.items():
            if not host.enabled or not _may_use(known, slot):
                continue
            victims = self._victims(known, slot, on_slot.get(slot, []))
            if victims is not None:
                proposals.append((sum(price for price, _ in victims), len(victims), slot, victims))
        if not proposals:
            return None
        cost, _, slot, victims = min(proposals, key=lambda proposal: proposal[:3])
        return Preemption(slot, tuple(sorted(number for _, number in victims)), cost)

    def _victims(self, known: _Class, slot: int, candidates: list[tuple[int, int]]) -> list[tuple[int, int]] | None:
        """The claims to release on the slot; None if releasing all candidates is not enough.

        Releases all candidates. Then tries to restore each of them, the most expensive first. A candidate is chosen if
        the task does not fit together with it. At the end, all are restored.
        """
        claims = {number: self._claims[number & 0xFFFFFFFF].cls for _, number in candidates}
        for number in claims:
            self._unreserve(claims[number], slot)
        victims = None
        if self._can_take(known, slot):
            victims = []
            for price, number in sorted(candidates, key=lambda candidate: (-candidate[0], candidate[1])):
                self._reserve(claims[number], slot)
                if not self._can_take(known, slot):
                    self._unreserve(claims[number], slot)
                    victims.append((price, number))
        for _, number in candidates if victims is None else victims:
            self._reserve(claims[number], slot)
        return victims

    def _can_take(self, known: _Class, slot: int) -> bool:
        host = self._hosts[slot]
        return (
            not self._is_over(known, self._limit(known))
            and not _is_crowded(known, host)
            and not _is_occupied(known, host)
            and self._fits(known, host)
            and all(rule.weight > 0 or self._excess(known, rule, host) == 0 for rule in known.rules)
        )

    def claims(self, cls: int | None = None) -> int:
        """The number of live claims, or of those of ``cls``, even after its removal. An unknown class has none."""
        if cls is None:
            return sum(claim.slot >= 0 for claim in self._claims)
        number = whole("cls", cls, 0, MAX_CLASSES - 1)
        return self._classes[number].claims if number in self._classes else 0

    def claims_on(self, slot: int) -> Int64Array:
        """The release ids of the claims on the host, int64[n], ascending."""
        self._host(slot)
        return np.array(self._claims_on(int(slot)), dtype=np.int64)

    # ---- copies and checks

    def snapshot(self) -> bytes:
        """The complete state as bytes, slots and ids included."""
        return encode(self._state())

    @classmethod
    def restore(cls, data: bytes, *, engine: str = "index", fitness: CustomFitness | None = None) -> Matcher:
        """A matcher from a snapshot of either twin. It behaves exactly like the original.

        ``fitness``: the custom fitness of the original, which a snapshot cannot hold. Raises MatchError if the snapshot
        is damaged.
        """
        state = decode(data)
        return cls._from_state(state, engine, restored_fitness(state, fitness))

    def __copy__(self) -> Matcher:
        return self.fork()

    def __deepcopy__(self, memo: object) -> Matcher:
        return self.fork()

    def __reduce__(self) -> tuple[Any, ...]:
        return reopened, (Matcher, self.snapshot(), self.engine, self.custom_fitness)

    def fork(self) -> Matcher:
        """An independent copy, for a dry run."""
        return self._from_state(self._state(), self.engine, self.custom_fitness)

    def check(self) -> None:
        """Recompute every total from the claims. Raises MatchStateError, which names the first total that differs."""
        again = self._from_state(self._state(), self.engine, self.custom_fitness)
        for slot, host in self._hosts.items():
            if host != again._hosts[slot]:
                raise MatchStateError(f"the amounts used on slot {slot} differ from the totals of the claims")
        for number, known in self._classes.items():
            if known != again._classes[number]:
                raise MatchStateError(f"the claims of class {number} are miscounted")

    # ---- placing one task

    def _find(self, number: int) -> int:
        known = self._classes[number]
        if self._is_over(known, self._limit(known)):
            return REFUSED
        custom = {slot: self._custom_score(number, slot) for slot in sorted(self._hosts)} if self.custom_fitness else {}
        medians = self._medians()
        counted = self._counted(medians)
        candidates = [
            (
                not self._is_even_alone() and known.key not in host.key_claims,
                self._score(known, host, slot, custom.get(slot), medians, counted),
                slot,
            )
            for slot, host in self._hosts.items()
            if host.enabled and _may_use(known, slot) and not _is_crowded(known, host) and not _is_occupied(known, host)
        ]
        fitting = [candidate for candidate in candidates if candidate[1] != _INT32_MAX]
        return min(fitting)[2] if fitting else REFUSED

    def _custom_score(self, number: int, slot: int) -> int | None:
        """The custom score of a host that is enabled and allowed and that the task fits; otherwise None."""
        known, host = self._classes[number], self._hosts[slot]
        if not self.custom_fitness or not (host.enabled and _may_use(known, slot) and self._fits(known, host)):
            return None
        need, free = tuple(self._need(known, host)), tuple(_minus(host.capacity, host.used))
        return custom_score(self.custom_fitness, number, slot, need, free, tuple(host.capacity))

    def _fits(self, known: _Class, host: _Host) -> bool:
        return min(_minus(_minus(host.capacity, host.used), self._need(known, host))) >= 0

    def _score(
        self, known: _Class, host: _Host, slot: int, custom: int | None, medians: list[int], counted: list[bool]
    ) -> int:
        free, need = _minus(host.capacity, host.used), self._need(known, host)
        if not self._fits(known, host):
            return _INT32_MAX
        paid = 0 if known.penalty is None else known.penalty.get(slot, 0)
        for rule in known.rules:
            excess = self._excess(known, rule, host)
            if excess > 0 and rule.weight == 0:
                return _INT32_MAX
            paid += rule.weight * (excess if rule.kind == "balanced" else min(excess, 1))
        if custom is not None:
            return custom + min(paid, MAX_PENALTY)
        view = _View(host.capacity, free, need, medians, counted)
        fitness = sum(weight * view.part(name) for name, weight in self._weights.items()) >> 10
        if self._is_even_alone() and known.key >= 0 and known.key not in host.key_claims:
            fitness += view.start_cost()
        return fitness + min(paid, MAX_PENALTY)

    def _is_even_alone(self) -> bool:
        return self._weights == {"even": WHOLE_WEIGHT}

    def _medians(self) -> list[int]:
        """For each dimension, the median of the capacities above 0, cut to its 6 highest bits; 0 if there are none."""
        having = [sorted(h.capacity[d] for h in self._hosts.values() if h.capacity[d]) for d in range(self.dimensions)]
        return [_highest_bits(capacities[len(capacities) // 2]) if capacities else 0 for capacities in having]

    def _counted(self, medians: list[int]) -> list[bool]:
        """Whether each dimension counts: whether it has at least a sixteenth of the most votes that a dimension has."""
        if "even" not in self._weights:
            return [True] * self.dimensions
        votes = [0] * self.dimensions
        for known in self._classes.values():
            need = _plus(known.request, known.shared)
            shares = [min(2**40, n * 2**20 // m) if m else 0 for n, m in zip(need, medians, strict=True)]
            votes = _plus(votes, [share * 2**10 // max(1, *shares) for share in shares])
        return [16 * vote >= max(1, *votes) for vote in votes]

    def _excess(self, known: _Class, rule: Rule, host: _Host) -> int:
        """The number of claims by which one more task of the class would break the rule on the host; 0 if it would not.

        A host with too few claims for near() breaks it by 1.
        """
        if rule.attribute == BY_HOST:
            count = host.groups.get(rule.group, 0)
        elif rule.attribute not in host.values:
            return MAX_EXCESS
        else:
            count = self._count(rule, host.values[rule.attribute])
        if rule.kind == "at_most":
            return min(max(count - rule.number + 1, 0), MAX_EXCESS)
        if rule.kind == "near":
            nowhere = not any(rule.group in other.groups for other in self._hosts.values())
            return int(count < rule.number and not (nowhere and known.group == rule.group))
        eligible = {
            other.values[rule.attribute]
            for slot, other in self._hosts.items()
            if other.enabled and _may_use(known, slot) and rule.attribute in other.values
        }
        least = min((self._count(rule, value) for value in eligible), default=0)
        return min(max(count + 1 - least - rule.number, 0), MAX_EXCESS)

    def _count(self, rule: Rule, value: int) -> int:
        return sum(
            host.groups.get(rule.group, 0)
            for host in self._hosts.values()
            if host.values.get(rule.attribute, -1) == value
        )

    def _limit(self, known: _Class) -> list[int]:
        return self._limits.get(known.group, [MAX_GROUP_CLAIMED] * self.dimensions)

    def _is_over(self, known: _Class, limit: list[int]) -> bool:
        """Whether one more claim of the class would exceed the limit of its group."""
        if known.group < 0:
            return False
        members = [member for member in self._classes.values() if member.group == known.group]
        used = [sum(member.claims * member.request[d] for member in members) for d in range(self.dimensions)]
        return any(amount > maximum for amount, maximum in zip(_plus(used, known.request), limit, strict=True))

    def _need(self, known: _Class, host: _Host) -> list[int]:
        return known.request if known.key in host.key_claims else _plus(known.request, known.shared)

    def _missing(self, known: _Class, host: _Host) -> dict[int, int]:
        """For each dimension with too little: the missing part of the need, in units of 2**-20 of the need."""
        short = {}
        available = _minus(host.capacity, host.used)
        for d, (need, has) in enumerate(zip(self._need(known, host), available, strict=True)):
            if has < need:
                short[d] = ((need - max(has, 0)) * (2**53 // need)) >> 33 if need > 0 else 2**20
        return short

    def _nearest(self, known: _Class, missing: dict[int, dict[int, int]]) -> Nearest | None:
        if not missing:
            return None
        slot = min(missing, key=lambda slot: (len(missing[slot]), sum(missing[slot].values()), slot))
        host = self._hosts[slot]
        return Nearest(
            slot=slot,
            asked=tuple(self._need(known, host)),
            available=tuple(max(0, amount) for amount in _minus(host.capacity, host.used)),
            pays_shared=known.key >= 0 and known.key not in host.key_claims,
        )

    # ---- claims

    def _start_claim(self, number: int, slot: int) -> int:
        if not self._unused and len(self._claims) >= MAX_CLAIMS:
            raise MemoryError(f"a matcher holds at most {MAX_CLAIMS} claims")
        self._reserve(number, slot)
        if self._unused:
            index = self._unused.pop()
        else:
            index = len(self._claims)
            self._claims.append(_Claim())
        self._claims[index].cls, self._claims[index].slot = number, slot
        return self._release_id(index)

    def _reserve(self, number: int, slot: int) -> None:
        """Add one task of the class to the host's counts."""
        known, host = self._classes[number], self._hosts[slot]
        host.used = _plus(host.used, self._need(known, host))
        if known.key >= 0:
            host.key_claims[known.key] = host.key_claims.get(known.key, 0) + 1
        if known.group >= 0:
            host.groups[known.group] = host.groups.get(known.group, 0) + 1
        host.claims += 1
        host.exclusive += known.exclusive
        known.claims += 1

    def _end_claim(self, release_id: int) -> None:
        index = release_id & 0xFFFFFFFF
        claim = self._claims[index]
        known = self._classes[claim.cls]
        self._unreserve(claim.cls, claim.slot)
        if known.removed and known.claims == 0:
            del self._classes[claim.cls]
        claim.generation, claim.cls, claim.slot = claim.generation + 1, -1, -1
        if claim.generation <= MAX_GENERATION:
            self._unused.append(index)

    def _unreserve(self, number: int, slot: int) -> None:
        """Remove one task of the class from the host's counts."""
        known, host = self._classes[number], self._hosts[slot]
        if known.key >= 0:
            host.key_claims[known.key] -= 1
            if host.key_claims[known.key] == 0:
                del host.key_claims[known.key]
        host.used = _minus(host.used, self._need(known, host))
        if known.group >= 0:
            host.groups[known.group] -= 1
            if host.groups[known.group] == 0:
                del host.groups[known.group]
        host.claims -= 1
        host.exclusive -= known.exclusive
        known.claims -= 1

    def _release_id(self, index: int) -> int:
        return self._claims[index].generation << 32 | index

    def _is_live(self, release_id: int) -> bool:
        index = release_id & 0xFFFFFFFF
        return (
            release_id > 0
            and index < len(self._claims)
            and self._claims[index].slot >= 0
            and self._claims[index].generation == release_id >> 32
        )

    def _claims_on(self, slot: int) -> list[int]:
        return sorted(self._release_id(index) for index, claim in enumerate(self._claims) if claim.slot == slot)

    # ---- checks

    def _host(self, slot: int) -> _Host:
        at = whole("slot", slot, 0, MAX_SLOTS - 1)
        if at not in self._hosts:
            raise MatchError(f"slot {at} holds no host; add_host says which slot a host got")
        return self._hosts[at]

    def _class(self, cls: int) -> _Class:
        at = whole("cls", cls, 0, MAX_CLASSES - 1)
        if at not in self._classes or self._classes[at].removed:
            raise MatchError(f"class {at} is unknown or removed; add_class says which number a class got")
        return self._classes[at]

    def _check_classes(self, numbers: list[int]) -> None:
        for i, number in enumerate(numbers):
            if number not in self._classes or self._classes[number].removed:
                raise MatchError(
                    f"classes[{i}] is {number}, an unknown or removed class; use the numbers add_class returned"
                )

    def _check_key(self, key: int, shared: list[int]) -> None:
        for known in self._classes.values():
            if key >= 0 and known.key == key and known.shared != shared:
                raise MatchError(
                    f"shared_key {key} already has the shared amounts {known.shared}, not {shared}; use "
                    "another key for other amounts"
                )

    def _checked_mask(self, allowed: MaskArray) -> set[int]:
        mask = allowed_slots(allowed)
        check_present("allowed", mask, self._present())
        return set(np.flatnonzero(mask).tolist())

    def _checked_penalty(self, penalty: PenaltyArray) -> dict[int, int]:
        costs = slot_penalties(penalty)
        check_present("penalty", costs, self._present())
        return {slot: cost for slot, cost in enumerate(costs.tolist()) if cost}

    def _present(self) -> NDArray[np.bool_]:
        return np.array([slot in self._hosts for slot in range(max(self._hosts, default=-1) + 1)], dtype=np.bool_)

    # ---- state

    def _state(self) -> State:
        hosts = [self._hosts.get(slot) for slot in range(max(self._hosts, default=-1) + 1)]
        classes = [self._classes.get(number) for number in range(max(self._classes, default=-1) + 1)]
        nothing = [0] * self.dimensions
        masks = [[slot in c.allowed for slot in range(len(hosts))] for c in classes if c and c.allowed is not None]
        costs = [[c.penalty.get(s, 0) for s in range(len(hosts))] for c in classes if c and c.penalty is not None]
        rules = [
            [number, RULES.index(rule.kind), rule.group, rule.attribute, rule.number, rule.weight]
            for number, c in enumerate(classes)
            for rule in (c.rules if c else ())
        ]
        values = [[host.values.get(a, -1) if host else -1 for host in hosts] for a in sorted(self._attributes)]
        return State(
            dimensions=self.dimensions,
            fitness=_ints([self._weights.get(name, 0) for name in fitness_names(self.dimensions)]),
            custom_fitness=_ints([int(self.custom_fitness is not None)]),
            host_status=_ints([_host_status(host) for host in hosts]),
            host_capacity=_ints([host.capacity if host else nothing for host in hosts]).reshape(-1, self.dimensions),
            class_status=_ints([_class_status(c) for c in classes]),
            class_key=_ints([c.key if c else -1 for c in classes]),
            class_group=_ints([c.group if c else -1 for c in classes]),
            class_max_per_host=_ints([c.max_per_host if c else 0 for c in classes]),
            class_masked=_ints([int(c is not None and c.allowed is not None) for c in classes]),
            class_request=_ints([c.request if c else nothing for c in classes]).reshape(-1, self.dimensions),
            class_shared=_ints([c.shared if c else nothing for c in classes]).reshape(-1, self.dimensions),
            class_allowed=np.array(masks, dtype=np.uint8).reshape(len(masks), len(hosts)),
            class_exclusive=_ints([int(c is not None and c.exclusive) for c in classes]),
            class_penalised=_ints([int(c is not None and c.penalty is not None) for c in classes]),
            class_penalty=_ints(costs).reshape(len(costs), len(hosts)),
            class_rules=_ints(rules).reshape(-1, 6),
            attribute=_ints(sorted(self._attributes)),
            attribute_value=_ints(values).reshape(len(values), len(hosts)),
            claim_generation=_ints([claim.generation for claim in self._claims]),
            claim_class=_ints([claim.cls for claim in self._claims]),
            claim_slot=_ints([claim.slot for claim in self._claims]),
            free_claims=_ints(self._unused),
            limited_group=_ints(sorted(self._limits)),
            group_limit=_ints([self._limits[group] for group in sorted(self._limits)]).reshape(-1, self.dimensions),
        )

    @classmethod
    def _from_state(cls, state: State, engine: str, custom_fitness: CustomFitness | None) -> Matcher:
        names = fitness_names(state.dimensions)
        fitness: Fitness = custom_fitness or dict(zip(names, state.fitness.tolist(), strict=True))
        new = cls(state.dimensions, engine=engine, fitness=fitness)
        for slot, status in enumerate(state.host_status.tolist()):
            if status != HOST_ABSENT:
                capacity = state.host_capacity[slot].tolist()
                new._hosts[slot] = _Host(capacity, [0] * state.dimensions, status == HOST_ENABLED)
        new._attributes = set(state.attribute.tolist())
        for attribute, values in zip(state.attribute.tolist(), state.attribute_value.tolist(), strict=True):
            for slot, host in new._hosts.items():
                if values[slot] >= 0:
                    host.values[attribute] = values[slot]
        masks, penalties = iter(state.class_allowed), iter(state.class_penalty.tolist())
        for number, status in enumerate(state.class_status.tolist()):
            if status != CLASS_ABSENT:
                new._classes[number] = _Class(
                    state.class_request[number].tolist(),
                    int(state.class_key[number]),
                    state.class_shared[number].tolist(),
                    set(np.flatnonzero(next(masks)).tolist()) if state.class_masked[number] else None,
                    int(state.class_group[number]),
                    int(state.class_max_per_host[number]),
                    tuple(
                        Rule(RULES[kind], *rest) for cls_, kind, *rest in state.class_rules.tolist() if cls_ == number
                    ),
                    bool(state.class_exclusive[number]),
                    {s: cost for s, cost in enumerate(next(penalties)) if cost}
                    if state.class_penalised[number]
                    else None,
                    removed=status == CLASS_REMOVED,
                )
        limits = zip(state.limited_group.tolist(), state.group_limit.tolist(), strict=True)
        new._limits = dict(limits)
        columns = (state.claim_generation, state.claim_class, state.claim_slot)
        for generation, number, slot in zip(*(column.tolist() for column in columns), strict=True):
            if slot >= 0:
                new._start_claim(number, slot)
                new._claims[-1].generation = generation
            else:
                new._claims.append(_Claim(generation))
        new._unused = state.free_claims.tolist()
        return new


def _share(amount: int, capacity: int) -> int:
    """``amount`` in units of 2**-20 of the capacity. Only the 16 highest bits of the amount count."""
    bits, shift = max(capacity.bit_length(), 5), max(0, amount.bit_length() - 16)
    return ((amount >> shift) * ((1 << (bits + 15)) // capacity)) >> (bits - 5 - shift)


def _size(capacity: list[int], medians: list[int]) -> int:
    """The size of a host in units of 2**-11 of the median host, cut to its 6 highest bits."""
    there = [(amount, median) for amount, median in zip(capacity, medians, strict=True) if amount]
    relative = [min(2**17 - 1, amount * 2**11 // median) for amount, median in there]
    return _highest_bits(max(2**5, sum(relative) // max(1, len(relative))))


def _highest_bits(number: int) -> int:
    """The number with all but its 6 highest bits set to 0."""
    low = max(0, number.bit_length() - 6)
    return number >> low << low


class _View:
    """A host from the point of view of a task, in units of 2**-20 of its capacity.

    Dimensions without capacity are left out.
    """

    def __init__(
        self, capacity: list[int], free: list[int], need: list[int], medians: list[int], counted: list[bool]
    ) -> None:
        self.known = known = [d for d, amount in enumerate(capacity) if amount > 0]
        self.counted = [counted[d] for d in known]
        self.size = _size(list(compress(capacity, counted)), list(compress(medians, counted)))
        self.untouched = free == capacity
        self.unasked = [need[d] == 0 for d in known]
        whole = [free[d] == capacity[d] and not counted[d] for d in known]
        self.had = [2**20 if w else _share(free[d], capacity[d]) for d, w in zip(known, whole, strict=True)]
        self.asked = [_share(need[d], capacity[d]) for d in known]
        self.left = [had - asked for had, asked in zip(self.had, self.asked, strict=True)]

    def part(self, name: str) -> int:
        """One part of the score."""
        had, asked, left = self.had, self.asked, self.left
        if name == "even":
            return self._even()
        if name == "pack":
            return sum(left)
        if name == "convex":
            return sum(f + (f * f >> 20) + (f * f * f >> 40) for f in left) // 3
        if name == "l2":
            return sum(f * f >> 20 for f in left)
        if name == "spread":
            return sum(2**20 - f for f in left)
        if name == "strand":
            return sum(left) - len(left) * min(left, default=0)
        if name == "dot":
            return sum(2**20 - (f * n >> 20) for f, n in zip(had, asked, strict=True))
        if name.startswith(PACK_ONE):
            return sum(f for d, f in zip(self.known, left, strict=True) if name == f"{PACK_ONE}{d}")
        product = sum(f * n for f, n in zip(had, asked, strict=True))
        squares = sum(f * f for f in had) * sum(n * n for n in asked)
        return 2**20 - (product * product * 2**20 // squares if squares else 0)

    def start_cost(self) -> int:
        """The cost of starting an executor. It rises with the host's load: a full host has room for few tasks.

        The cost has a maximum. So the fullest hosts get the last small tasks, and large gaps remain for large tasks.
        """
        full = (2**20 - min(self.had, default=2**20)) >> 10
        return 2**13 + min(3 * 2**15, full**3 >> 9)

    def _even(self) -> int:
        largest = max(compress(self.had, self.counted), default=0)
        of_largest = 2**27 // largest if largest else 0
        relative = [
            had * of_largest >> 20 if counted else 56 * (had >= 2**13)
            for had, counted in zip(self.had, self.counted, strict=True)
        ]
        imbalance = sum((asked >> 6) * (16 * a - 7 * 128) for asked, a in zip(self.asked, relative, strict=True)) < 0
        kept = sum(unasked and a > 0 for unasked, a in zip(self.unasked, relative, strict=True))
        spent = min(self.had, default=2**20) - min(self.left, default=2**20)
        large = max(0, self.size.bit_length() - (2**11).bit_length())
        score = (spent * self.size >> 11) + 2**16 * kept + 2**12 * large**2
        return score + (2**13 if self.untouched else 0) + (2**14 if imbalance else 0)


def _may_use(known: _Class, slot: int) -> bool:
    return known.allowed is None or slot in known.allowed


def _is_crowded(known: _Class, host: _Host) -> bool:
    return known.max_per_host > 0 and host.groups.get(known.group, 0) >= known.max_per_host


def _is_occupied(known: _Class, host: _Host) -> bool:
    return host.exclusive > 0 or (known.exclusive and host.claims > 0)


def _has_values(known: _Class, host: _Host) -> bool:
    return all(rule.weight > 0 or rule.attribute in (BY_HOST, *host.values) for rule in known.rules)


def _host_status(host: _Host | None) -> int:
    if host is None:
        return HOST_ABSENT
    return HOST_ENABLED if host.enabled else HOST_DISABLED


def _class_status(known: _Class | None) -> int:
    if known is None:
        return CLASS_ABSENT
    return CLASS_REMOVED if known.removed else CLASS_USABLE


def _lowest_absent(taken: dict[int, _Host] | dict[int, _Class]) -> int:
    number = 0
    while number in taken:
        number += 1
    return number


def _plus(one: list[int], other: list[int]) -> list[int]:
    return [a + b for a, b in zip(one, other, strict=True)]


def _minus(one: list[int], other: list[int]) -> list[int]:
    return [a - b for a, b in zip(one, other, strict=True)]


def _ints(values: list[int] | list[list[int]]) -> Int64Array:
    return np.array(values, dtype=np.int64)
