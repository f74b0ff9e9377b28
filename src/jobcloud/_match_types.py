"""The parts that both matchers share: limits, result types, errors, argument checks and the snapshot format.

Nothing here decides a placement. ``docs/matcher.md`` defines the rules; ``_match.pyx`` and ``match/plain.py`` implement
them independently.
"""

from __future__ import annotations

import math
import operator
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import wraps
from threading import get_ident
from types import FunctionType
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

Int64Array: TypeAlias = NDArray[np.int64]
Int32Array: TypeAlias = NDArray[np.int32]
MaskArray: TypeAlias = NDArray[np.uint8] | NDArray[np.bool_]
PenaltyArray: TypeAlias = NDArray[np.int32] | NDArray[np.int64]

MAX_AMOUNT: Final = 2**52  # thousandths; keeps every sum and product below inside int64
#: Thousandths claimed on one host in one dimension. Only claims without a fit check can reach it.
MAX_CLAIMED: Final = 2**60
#: Thousandths claimed by one group in one dimension; the limit of a group without a limit of its own.
MAX_GROUP_CLAIMED: Final = 2**62
MAX_DIMENSIONS: Final = 64
MAX_SLOTS: Final = 2**24
MAX_CLASSES: Final = 2**24
MAX_CLAIMS: Final = 2**31 - 1
MAX_GENERATION: Final = 2**31 - 1
MAX_KEY: Final = 2**63 - 1
MAX_ATTRIBUTES: Final = 64
MAX_RULES: Final = 16  # of one class
MAX_PENALTY: Final = 2**28  # of one rule, and of a host in total for one task
MAX_COST: Final = 2**31 - 1  # of preempting one claim
MAX_EXCESS: Final = 64  # excess tasks that a balanced rule with a weight still counts

ENGINES: Final = ("index", "scan", "tables")  # how the compiled matcher searches; the answers are the same

# FITNESS: the parts of a score (docs/matcher.md, "Fitness"). FIRST: no part at all, so the lowest slot that fits.
FITNESS: Final = ("even", "pack", "convex", "l2", "spread", "strand", "dot", "align")
FIRST: Final = "first"
#: With the number of a dimension: pack this dimension only.
PACK_ONE: Final = "pack_"
WHOLE_WEIGHT: Final = 1024
MAX_WEIGHTS: Final = 4 * WHOLE_WEIGHT  # in total; keeps every score below 2**30

REFUSED: Final = -1  # no host that the task may use has room
UNTRIED: Final = -2  # the limit of placements was reached before this task

HOST_ABSENT, HOST_ENABLED, HOST_DISABLED = 0, 1, 2
CLASS_ABSENT, CLASS_USABLE, CLASS_REMOVED = 0, 1, 2  # removed: no longer matched, but live claims still refer to it

BY_HOST: Final = -1  # in a rule, instead of an attribute: count each host on its own
RULES: Final = ("at_most", "near", "balanced")  # kinds of rules, in the order of their numbers in a snapshot
RULE_AT_MOST, RULE_NEAR, RULE_BALANCED = 0, 1, 2


class MatchError(ValueError):
    """An argument was refused. The text names it and the fix; nothing has changed."""


class MatchStateError(AssertionError):
    """The matcher's totals are inconsistent, or two threads used it at once."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Restricts the hosts of a task by the live claims of a group. Made by at_most, near and balanced.

    A rule counts the claims of ``group`` on all hosts with the same value of ``attribute`` as the host, or on the host
    alone (``BY_HOST``). With ``weight`` 0, a host that breaks the rule is infeasible; with any other weight, the
    weight is added to the score of such a host.
    """

    kind: str
    group: int
    attribute: int = BY_HOST
    number: int = 1
    weight: int = 0


def at_most(number: int, group: int, *, per: int = BY_HOST, weight: int = 0) -> Rule:
    """At most ``number`` claims of the group, the new one included, per host or per value of the attribute ``per``.

    With ``number`` 1, no two tasks of the group share a host or a value.
    """
    return Rule("at_most", group, per, number, weight)


def near(group: int, *, within: int = BY_HOST, minimum: int = 1, weight: int = 0) -> Rule:
    """At least ``minimum`` claims of the group on the host, or on hosts with the same value of ``within``.

    While the group has no claim, a class of the same group may use any host that has the attribute.
    """
    return Rule("near", group, within, minimum, weight)


def balanced(group: int, across: int, *, skew: int = 1, weight: int = 0) -> Rule:
    """The claims of the group are spread evenly over the values of the attribute ``across``.

    Among the values of the enabled hosts that the class may use, the host's value has at most ``skew`` claims more than
    the value with the fewest. The new claim is included. A weight is paid for each claim in excess, at most
    64 times.
    """
    return Rule("balanced", group, across, skew, weight)


@dataclass(frozen=True, slots=True)
class Nearest:
    """The host that is closest to taking one task of a class; amounts in thousandths by dimension.

    ``asked`` is the request plus, if ``pays_shared``, the shared part. ``available`` is the free amount of the host,
    never below zero.
    """

    slot: int
    asked: tuple[int, ...]
    available: tuple[int, ...]
    pays_shared: bool


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one more task of a class is not placed now: counts of hosts, and amounts in thousandths by dimension.

    ``hosts`` = ``disabled`` + ``disallowed`` + ``crowded`` + ``occupied`` + ``ruled_out`` + ``considered``; each host
    counts once, under the first reason that applies. ``crowded``: the host has as many claims of the group as the class
    allows. ``occupied``: the host has an exclusive claim, or the class is exclusive and the host has claims.
    ``ruled_out``: the host breaks a rule without a weight. ``breaking[r]``: how many of the ruled out and considered
    hosts break rule r, with or without a weight. ``over_limit``: one more task would exceed the limit of the group on
    any host; ``fitting`` may then be above 0. ``lacking[d]``: how many considered hosts have too little of d.
    ``best[d]``: the largest free amount of dimension d on any considered host. ``fitting``: how many considered hosts
    have room; 0 unless the class could be placed after all. ``could_ever_fit``: a host that the class may use, enabled
    or not, could take one task if it had no claims.
    """

    hosts: int
    disabled: int
    disallowed: int
    considered: int
    fitting: int
    lacking: tuple[int, ...]
    best: tuple[int, ...]
    nearest: Nearest | None
    could_ever_fit: bool
    crowded: int = 0
    over_limit: bool = False
    occupied: int = 0
    ruled_out: int = 0
    breaking: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Preemption:
    """The claims to release so that one task of a class fits: ``release_ids``, ascending, on the host in ``slot``.

    ``cost`` is the sum of the costs of these claims.
    """

    slot: int
    release_ids: tuple[int, ...]
    cost: int


_Class = TypeVar("_Class", bound=type)


def one_call_at_a_time(cls: _Class) -> _Class:
    """Let each public method of the class mark its object as in use.

    While it is in use, a call of another thread raises MatchStateError. The thread that uses it may make further calls,
    for example from a generator that it has passed. Instances need a dict `_calls` for the mark. `dict.setdefault` is
    atomic: of two threads, only one gets its own mark back.
    """

    def claiming(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def claimed(self: Any, *arguments: Any, **named: Any) -> Any:
            mine = (get_ident(), object())
            try:
                if self._calls.setdefault("claim", mine)[0] != mine[0]:
                    raise MatchStateError("another thread's call is using this object; make one call at a time")
                return method(self, *arguments, **named)
            finally:
                if self._calls.get("claim") is mine:
                    del self._calls["claim"]

        return claimed

    for name, method in list(vars(cls).items()):
        if isinstance(method, FunctionType) and not name.startswith("_"):
            setattr(cls, name, claiming(method))
    return cls


def whole(name: str, value: object, low: int, high: int) -> int:
    """``value`` as an int within [low, high]. Raises MatchError for other values, bools, floats and text."""
    if type(value) is int and low <= value <= high:
        return value
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise MatchError(f"{name} must be a whole number, not {type(value).__name__} {value!r:.60}") from None
    if not low <= number <= high:
        raise MatchError(f"{name} must be between {low} and {high}, not {number}")
    return number


def engine_name(value: object) -> str:
    """``value``, which must be in ``ENGINES``. Raises MatchError if it is not."""
    if not isinstance(value, str) or value not in ENGINES:
        raise MatchError(f"engine must be one of {', '.join(ENGINES)}, not {value!r:.60}")
    return value


Amounts: TypeAlias = tuple[int, ...]
# (class, slot, need, free, capacity) → the score, 0 to MAX_PENALTY, lower is better. A pure function of these
# arguments.
CustomFitness: TypeAlias = Callable[[int, int, Amounts, Amounts, Amounts], int]
Fitness: TypeAlias = str | Mapping[str, int] | CustomFitness


def fitness_names(dimensions: int) -> tuple[str, ...]:
    """The names of the parts of a score: ``FITNESS``, then ``pack_0`` and so on, one for each dimension."""
    return (*FITNESS, *(f"{PACK_ONE}{d}" for d in range(dimensions)))


def fitness_weights(value: object, dimensions: int) -> tuple[int, ...]:
    """The weight of each of ``fitness_names``, from a name or a mapping of names to 1024ths; zeros for a function.

    Raises MatchError if a name is unknown or a weight is out of range.
    """
    if isinstance(value, str):
        value = {value: WHOLE_WEIGHT}
    if callable(value):
        value = {}
    if not isinstance(value, Mapping):
        raise MatchError(
            f"fitness must be a name, a mapping of names to weights or a function, not {type(value).__name__}"
        )
    names = fitness_names(dimensions)
    for name in value:
        if name not in (*names, FIRST):
            known = (*FITNESS, FIRST, *names[len(FITNESS) :][:1], *names[len(FITNESS) + 1 :][-1:])
            raise MatchError(f"fitness must be one of {', '.join(known)}, not {name!r:.60}")
    given = {name: whole(f"fitness[{name!r}]", weight, 0, MAX_WEIGHTS) for name, weight in value.items()}
    weights = tuple(given.get(name, 0) for name in names)
    if sum(weights) > MAX_WEIGHTS:
        raise MatchError(f"the weights of fitness add up to {sum(weights)}; the maximum is {MAX_WEIGHTS}")
    return weights


def custom_score(fitness: CustomFitness, cls: int, slot: int, need: Amounts, free: Amounts, capacity: Amounts) -> int:
    """The result of the custom fitness. Raises MatchError if the function raises or returns an invalid score."""
    try:
        value = fitness(cls, slot, need, free, capacity)
    except Exception as error:
        raise MatchError(
            f"fitness raised {type(error).__name__} for class {cls} and slot {slot}: {error}; nothing was placed"
        ) from error
    return whole(f"fitness(class {cls}, slot {slot})", value, 0, MAX_PENALTY)


def reopened(matcher: Any, data: bytes, engine: str, fitness: Any) -> Any:
    """The matcher or placer that ``pickle`` wrote."""
    return matcher.restore(data, engine=engine, fitness=fitness)


def restored_fitness(state: State, fitness: object) -> CustomFitness | None:
    """The custom fitness for a restored matcher, or None.

    Raises MatchError if the snapshot needs a function and ``fitness`` is none, or the other way round.
    """
    custom_fitness = bool(state.custom_fitness[0])
    if custom_fitness and not callable(fitness):
        raise MatchError("the snapshot was taken with a function as fitness; pass it as fitness")
    if not custom_fitness and fitness is not None:
        raise MatchError("the snapshot holds a built-in fitness; leave fitness out")
    return fitness if callable(fitness) else None


def preemptible(release_ids: object, costs: object) -> tuple[Int64Array, Int64Array]:
    """The release ids of preemptible claims, int64[n], and their costs, int64[n]; the default cost is 1."""
    ids = _vector("release_ids", release_ids, ("int64",), "release ids")
    if costs is None:
        return ids, np.ones(len(ids), dtype=np.int64)
    array = _vector("costs", costs, ("int64", "int32"), "costs").astype(np.int64, copy=False)
    if len(array) != len(ids):
        raise MatchError(f"costs must have one entry for each of the {len(ids)} release_ids, not {len(array)}")
    _check_range("costs", array, 0, MAX_COST, "a cost is")
    return ids, array


def amounts(name: str, value: object, dimensions: int) -> Int64Array:
    """``value`` as int64[dimensions] of thousandths in [0, MAX_AMOUNT]. Raises MatchError if it is not."""
    array = _vector(name, value, ("int64",), "thousandths")
    if array.shape[0] != dimensions:
        raise MatchError(f"{name} must have one amount for each of the {dimensions} dimensions, not {array.shape[0]}")
    bad = np.flatnonzero((array < 0) | (array > MAX_AMOUNT))
    if bad.size:
        where = int(bad[0])
        raise MatchError(
            f"{name}[{where}] is {array[where]}; an amount is between 0 and {MAX_AMOUNT} and counts thousandths"
        )
    return array


def amount_rows(name: str, value: object, dimensions: int) -> Int64Array:
    """``value`` as int64[n, dimensions] of thousandths; each row as in ``amounts``."""
    if not isinstance(value, np.ndarray) or value.dtype != "int64" or value.ndim != 2:
        got = f"{value.dtype}{list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
        raise MatchError(f"{name} must be an array int64[n, {dimensions}] of thousandths, not {got}")
    value = np.ascontiguousarray(value)  # the rows of an array in column-major order have gaps
    if value.shape[1] != dimensions:
        raise MatchError(f"{name} must have one amount for each of the {dimensions} dimensions, not {value.shape[1]}")
    for row in np.flatnonzero(((value < 0) | (value > MAX_AMOUNT)).any(axis=1))[:1]:
        amounts(f"{name}[{row}]", value[row], dimensions)
    return value


def free_rows(slots: object, free: object, dimensions: int) -> tuple[Int64Array, Int64Array]:
    """The slots as int64[n] and their free amounts as int64[n, dimensions] of thousandths."""
    numbers = _vector("slots", slots, ("int64", "int32"), "slot numbers").astype(np.int64, copy=False)
    rows = amount_rows("free", free, dimensions)
    if len(rows) != len(numbers):
        raise MatchError(f"free must have one row for each of the {len(numbers)} slots, not {len(rows)}")
    return numbers, rows


def class_numbers(value: object) -> Int64Array:
    """``value``, int64[n] or int32[n], as int64[n]."""
    return _vector("classes", value, ("int64", "int32"), "class numbers").astype(np.int64, copy=False)


def release_numbers(value: object) -> Int64Array:
    """``value`` as int64[n]. Any number is accepted; ``release`` reports unknown ones."""
    return _vector("release_ids", value, ("int64",), "release ids")


def group_limit(group: object, max_per_host: object) -> tuple[int, int]:
    """The group's number or -1, and the maximum of its claims on a host; 0 for no maximum."""
    number = whole("group", group, -1, MAX_KEY)
    limit = whole("max_per_host", max_per_host, 0, MAX_CLAIMS)
    if limit and number < 0:
        raise MatchError("max_per_host is given without a group; name the group whose claims count")
    return number, limit


def class_rules(value: object) -> tuple[Rule, ...]:
    """``value`` as rules, each checked."""
    if type(value) is tuple and not value:
        return ()
    rules = tuple(value) if isinstance(value, Iterable) else (value,)
    if not all(isinstance(rule, Rule) for rule in rules):
        raise MatchError(f"rules must be a list of at_most(), near() and balanced() rules, not {value!r:.80}")
    if len(rules) > MAX_RULES:
        raise MatchError(f"rules has {len(rules)} entries; a class may have at most {MAX_RULES}")
    for i, rule in enumerate(rules):
        if rule.kind not in RULES:
            raise MatchError(f"rules[{i}].kind must be one of {', '.join(RULES)}, not {rule.kind!r:.60}")
        whole(f"rules[{i}].group", rule.group, 0, MAX_KEY)
        whole(f"rules[{i}].attribute", rule.attribute, -1, MAX_ATTRIBUTES - 1)
        whole(f"rules[{i}].number", rule.number, 1, MAX_CLAIMS)
        whole(f"rules[{i}].weight", rule.weight, 0, MAX_PENALTY)
        if rule.kind == "balanced" and rule.attribute == BY_HOST:
            raise MatchError(
                f"rules[{i}] balances without an attribute; to balance hosts, give each host its own value of one"
            )
    return rules


def truth(name: str, value: object) -> bool:
    """``value`` as a bool. Raises MatchError for anything other than a Python or numpy bool."""
    if not isinstance(value, (bool, np.bool_)):
        raise MatchError(f"{name} must be True or False, not {value!r:.60}")
    return bool(value)


def attribute_values(value: object) -> Int64Array:
    """``value`` as int64[n], one entry per slot: the number of the host's value, -1 for no value."""
    array = _vector("values", value, ("int64", "int32"), "value numbers").astype(np.int64, copy=False)
    _check_range("values", array, -1, MAX_SLOTS - 1, "a value's number is")
    return array


def slot_penalties(value: object) -> Int64Array:
    """``value`` as int64[n], one entry per slot: the penalty of the host for tasks of the class."""
    array = _vector("penalty", value, ("int64", "int32"), "penalties").astype(np.int64, copy=False)
    _check_range("penalty", array, 0, MAX_PENALTY, "a penalty is")
    return array


def _check_range(name: str, array: Int64Array, low: int, high: int, hint: str) -> None:
    bad = np.flatnonzero((array < low) | (array > high))
    if bad.size:
        where = int(bad[0])
        raise MatchError(f"{name}[{where}] is {array[where]}; {hint} between {low} and {high}")


def check_present(name: str, marked: NDArray[Any], present: NDArray[np.bool_]) -> None:
    """Raise MatchError if the array marks a slot without a host."""
    slots = np.flatnonzero(marked)
    wrong = slots[(slots >= len(present)) | ~present[np.minimum(slots, len(present) - 1)]] if len(present) else slots
    if wrong.size:
        raise MatchError(f"{name}[{wrong[0]}] is set, but slot {wrong[0]} holds no host; add the host first")


def allowed_slots(value: object) -> NDArray[np.uint8]:
    """``value`` as uint8[n], one entry per slot: 1 if the class may run there."""
    return np.asarray(_vector("allowed", value, ("bool", "uint8"), "slots") != 0, dtype=np.uint8)


def host_masks(classes: object, allowed: object, penalty: object) -> tuple[Int64Array, NDArray[np.uint8], Int64Array]:
    """The classes, and for each of them whether the host is allowed, and the host's penalty."""
    numbers, may, costs = class_numbers(classes), allowed_slots(allowed), slot_penalties(penalty)
    for name, array in (("allowed", may), ("penalty", costs)):
        if len(array) != len(numbers):
            raise MatchError(f"{name} must have one entry for each of the {len(numbers)} classes, not {len(array)}")
    return numbers, may, costs


def check_masked(cls: int, masked: bool, allowed: bool, penalised: bool, penalty: int) -> None:
    """Raise MatchError if a host is excluded or gets a penalty, but the class has no mask or no penalties."""
    if not masked and not allowed:
        raise MatchError(f"class {cls} has no mask, so each host is allowed; call set_allowed first")
    if not penalised and penalty:
        raise MatchError(f"class {cls} has no penalties; call set_penalty first")


_DTYPES: Final = {name: np.dtype(name) for name in ("bool", "uint8", "int32", "int64")}


def _vector(name: str, value: object, dtypes: tuple[str, ...], of_what: str) -> NDArray[Any]:
    if not isinstance(value, np.ndarray):
        fault = f"not {type(value).__name__}; use np.array(..., dtype=np.{_numpy_name(dtypes[0])})"
    elif value.dtype not in map(_DTYPES.__getitem__, dtypes):
        fault = f"not {value.dtype}; use .astype(np.{_numpy_name(dtypes[0])})"
    elif value.ndim != 1:
        fault = f"not of shape {value.shape}; use .reshape(-1)"
    elif not value.flags.c_contiguous or not value.flags.aligned:
        fault = "not a view with gaps; use np.ascontiguousarray(...)"
    else:
        return value
    wanted = f"a one-dimensional, contiguous numpy array of {of_what} ({' or '.join(dtypes)})"
    raise MatchError(f"{name} must be {wanted}, {fault}")


def _numpy_name(dtype: str) -> str:
    return "bool_" if dtype == "bool" else dtype


@dataclass(frozen=True, slots=True)
class State:
    """The complete state of a matcher.

    H slots, C classes (M with a mask, P with penalties), R rules, A attributes, N claim indices, D dimensions. Free
    amounts are not stored; they follow from the capacities and the claims. Hosts and classes end at the highest one in
    use.
    """

    dimensions: int
    fitness: Int64Array  # [8 + D], the weights in the order of fitness_names
    custom_fitness: Int64Array  # [1], 1 if the fitness is custom; the function is not stored
    host_status: Int64Array  # [H]
    host_capacity: Int64Array  # [H, D]
    class_status: Int64Array  # [C]
    class_key: Int64Array  # [C], -1 without a key
    class_group: Int64Array  # [C], -1 without a group
    class_max_per_host: Int64Array  # [C], of claims of the group, the new one included; 0: no maximum
    class_masked: Int64Array  # [C], 1 if the class has a row of class_allowed; rows are in class order
    class_request: Int64Array  # [C, D]
    class_shared: Int64Array  # [C, D]
    class_allowed: NDArray[np.uint8]  # [M, H]
    class_exclusive: Int64Array  # [C], 1 if exclusive
    class_penalised: Int64Array  # [C], 1 if the class has a row of class_penalty; rows are in class order
    class_penalty: Int64Array  # [P, H]
    class_rules: Int64Array  # [R, 6], class, index in RULES, group, attribute, number, weight; in class order
    attribute: Int64Array  # [A], numbers in use, ascending
    attribute_value: Int64Array  # [A, H], -1 for no value
    claim_generation: Int64Array  # [N], of the live claim, or of the next claim with this index
    claim_class: Int64Array  # [N], -1 if not live
    claim_slot: Int64Array  # [N], -1 if not live
    free_claims: Int64Array  # [F], indices to reuse, from the end
    limited_group: Int64Array  # [L], ascending
    group_limit: Int64Array  # [L, D]


_MAGIC: Final = b"JCMATCH5"
_FORMER_MAGIC: Final = b"JCMATCH4"  # no weights by dimension; still written if there are none
_HEADER_WORDS: Final = 10


def encode(state: State) -> bytes:
    """The snapshot, little-endian: magic, header (D, H, C, M, N, F, L, P, R, A), the arrays of ``State``, CRC-32."""
    magic = _MAGIC if state.fitness[len(FITNESS) :].any() else _FORMER_MAGIC
    header = (
        state.dimensions,
        len(state.host_status),
        len(state.class_status),
        len(state.class_allowed),
        len(state.claim_slot),
        len(state.free_claims),
        len(state.limited_group),
        len(state.class_penalty),
        len(state.class_rules),
        len(state.attribute),
    )
    body = [np.array(header, dtype="<i8").tobytes()]
    for name, shape in _layout(magic, *header):
        array = getattr(state, name)[: shape[0]]
        body.append(array.tobytes() if array.dtype == np.uint8 else array.astype("<i8").tobytes())
    data = magic + b"".join(body)
    return data + zlib.crc32(data).to_bytes(4, "little")


def decode(data: object, *, checked: bool = False) -> State:
    """The state in a snapshot. Raises MatchError if it is damaged or of another version.

    ``checked``: an earlier call has found the state consistent.
    """
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise MatchError(f"a snapshot is bytes, not {type(data).__name__}")
    data = bytes(data)
    start = len(_MAGIC) + 8 * _HEADER_WORDS
    magic = data[: len(_MAGIC)]
    if magic not in (_MAGIC, _FORMER_MAGIC):
        raise MatchError("this is not a matcher snapshot of this version; take a new one")
    if len(data) < start + 4 or zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
        raise MatchError("the snapshot is damaged (its checksum does not match); take an older one")
    header = tuple(int(n) for n in np.frombuffer(data, "<i8", _HEADER_WORDS, len(_MAGIC)))
    _check_header(magic, header, len(data) - start - 4)
    state = _read_arrays(data, start, magic, header)
    if not checked:
        _check_state(state)
    return state


def _layout(
    magic: bytes, d: int, h: int, c: int, m: int, n: int, f: int, g: int, p: int, r: int, a: int
) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return (
        ("fitness", (len(FITNESS) + (d if magic == _MAGIC else 0),)),
        ("custom_fitness", (1,)),
        ("host_status", (h,)),
        ("host_capacity", (h, d)),
        ("class_status", (c,)),
        ("class_key", (c,)),
        ("class_group", (c,)),
        ("class_max_per_host", (c,)),
        ("class_masked", (c,)),
        ("class_request", (c, d)),
        ("class_shared", (c, d)),
        ("class_allowed", (m, h)),
        ("class_exclusive", (c,)),
        ("class_penalised", (c,)),
        ("class_penalty", (p, h)),
        ("class_rules", (r, 6)),
        ("attribute", (a,)),
        ("attribute_value", (a, h)),
        ("claim_generation", (n,)),
        ("claim_class", (n,)),
        ("claim_slot", (n,)),
        ("free_claims", (f,)),
        ("limited_group", (g,)),
        ("group_limit", (g, d)),
    )


def _check_header(magic: bytes, header: tuple[int, ...], size: int) -> None:
    d, _, c, _, n, *_ = header
    limits = (MAX_DIMENSIONS, MAX_SLOTS, MAX_CLASSES, c, MAX_CLAIMS, n, MAX_CLASSES, c, c * MAX_RULES, MAX_ATTRIBUTES)
    within = d >= 1 and all(0 <= count <= limit for count, limit in zip(header, limits, strict=True))
    if not within or size != sum(math.prod(shape) * _width(name) for name, shape in _layout(magic, *header)):
        raise MatchError("the snapshot is damaged (its header does not fit its length); take an older one")


def _width(name: str) -> int:
    return 1 if name == "class_allowed" else 8


def _read_arrays(data: bytes, offset: int, magic: bytes, header: tuple[int, ...]) -> State:
    arrays: dict[str, Any] = {}
    for name, shape in _layout(magic, *header):
        dtype = np.dtype(np.uint8 if name == "class_allowed" else "<i8")
        count = int(np.prod(shape))
        array = np.frombuffer(data, dtype, count, offset).reshape(shape)
        arrays[name] = array if dtype == np.uint8 else array.astype(np.int64)
        offset += count * dtype.itemsize
    missing = len(FITNESS) + header[0] - len(arrays["fitness"])  # the weights by dimension in the former format
    arrays["fitness"] = np.concatenate((arrays["fitness"], np.zeros(missing, dtype=np.int64)))
    return State(dimensions=header[0], **arrays)


def _check_state(state: State) -> None:
    present, usable = state.host_status != HOST_ABSENT, state.class_status != CLASS_ABSENT
    weights = state.fitness
    _require(_within(weights, 0, MAX_WEIGHTS) and int(weights.sum()) <= MAX_WEIGHTS, "an unknown fitness")
    _require(
        _within(state.custom_fitness, 0, 1) and not (state.custom_fitness[0] and weights.any()),
        "both a built-in and a custom fitness",
    )
    _require(_within(state.host_status, 0, 2) and _within(state.class_status, 0, 2), "an unknown host or class status")
    _require(not state.host_status.size or bool(present[-1]), "a gap at the end of the hosts")
    _require(not state.class_status.size or bool(usable[-1]), "a gap at the end of the classes")
    for table in (state.host_capacity, state.class_request, state.class_shared, state.group_limit):
        _require(_within(table, 0, MAX_AMOUNT), "an amount out of range")
    _require(not state.host_capacity[~present].any(), "a capacity without a host")
    absent = ~usable
    _require(not (state.class_request[absent].any() or state.class_shared[absent].any()), "a request without a class")
    _require(
        bool(np.all(state.class_key[absent] == -1)) and not state.class_masked[absent].any(), "a key without a class"
    )
    _require(bool(np.all(state.class_key >= -1)), "a negative shared key")
    _require(not state.class_shared[state.class_key < 0].any(), "a shared amount without a key")
    _require(_one_shared_amount_a_key(state), "two shared amounts for one key")
    _require(
        bool(np.all(state.class_group >= -1)) and _within(state.class_max_per_host, 0, MAX_CLAIMS), "a wrong group"
    )
    _require(not (state.class_max_per_host[state.class_group < 0].any()), "a limit without a group")
    _require(bool(np.all(state.class_group[absent] == -1)), "a group without a class")
    _require(_within(state.class_masked, 0, 1), "an unknown mask mark")
    _require(int(state.class_masked.sum()) == len(state.class_allowed), "a wrong number of masks")
    _require(_within(state.class_allowed, 0, 1) and not state.class_allowed[:, ~present].any(), "a wrong mask")
    limited = state.limited_group
    _require(bool(np.all(limited >= 0) and np.all(limited[1:] > limited[:-1])), "a wrong list of limited groups")
    _check_rules(state, present, usable)
    _check_claims(state, present, usable)


def _check_rules(state: State, present: NDArray[np.bool_], usable: NDArray[np.bool_]) -> None:
    absent = ~usable
    for marks in (state.class_exclusive, state.class_penalised):
        _require(_within(marks, 0, 1) and not marks[absent].any(), "an unknown mark of a class")
    _require(int(state.class_penalised.sum()) == len(state.class_penalty), "a wrong number of penalties")
    _require(_within(state.class_penalty, 0, MAX_PENALTY), "a penalty out of range")
    _require(not state.class_penalty[:, ~present].any(), "a penalty without a host")
    of, kind, group, attribute, number, weight = state.class_rules.T
    _require(
        _within(of, 0, len(usable) - 1) and bool(usable[of].all() and np.all(of[1:] >= of[:-1])),
        "a rule without a class",
    )
    _require(not len(of) or int(np.bincount(of).max()) <= MAX_RULES, "too many rules of a class")
    _require(_within(kind, 0, len(RULES) - 1) and bool(np.all(group >= 0)), "an unknown rule")
    _require(_within(attribute, -1, MAX_ATTRIBUTES - 1), "an attribute out of range")
    _require(bool(np.all((kind != RULE_BALANCED) | (attribute >= 0))), "a balanced rule without an attribute")
    _require(_within(number, 1, MAX_CLAIMS) and _within(weight, 0, MAX_PENALTY), "a rule out of range")
    known = state.attribute
    _require(_within(known, 0, MAX_ATTRIBUTES - 1) and bool(np.all(known[1:] > known[:-1])), "a wrong attribute")
    _require(_within(state.attribute_value, -1, MAX_SLOTS - 1), "a value out of range")
    _require(bool(np.all(state.attribute_value[:, ~present] == -1)), "a value without a host")


def _check_claims(state: State, present: NDArray[np.bool_], usable: NDArray[np.bool_]) -> None:
    live = state.claim_slot >= 0
    slots, classes = state.claim_slot[live], state.claim_class[live]
    _require(_within(state.claim_slot, -1, len(present) - 1) and bool(present[slots].all()), "a claim without a host")
    _require(_within(state.claim_class, -1, len(usable) - 1), "a claim without a class")
    _require(bool(np.all((state.claim_class >= 0) == live)) and bool(usable[classes].all()), "a claim without a class")
    counts = np.bincount(classes, minlength=len(usable))
    _require(bool(np.all(counts[state.class_status == CLASS_REMOVED] > 0)), "a removed class without claims")
    _require(_claimed_within_limit(state, slots, classes), "more claimed than can be counted")
    _require(_within(state.claim_generation, 1, MAX_GENERATION + 1), "a generation out of range")
    reusable = ~live & (state.claim_generation <= MAX_GENERATION)
    _require(bool(np.all(state.claim_generation[live] <= MAX_GENERATION)), "a generation out of range")
    _require(_within(state.free_claims, 0, len(live) - 1), "an unknown free claim")
    _require(bool(np.array_equal(np.sort(state.free_claims), np.flatnonzero(reusable))), "a wrong list of free claims")


def _claimed_within_limit(state: State, slots: Int64Array, classes: Int64Array) -> bool:
    """Whether the sums cannot overflow. Floats are exact enough to detect a forged snapshot."""
    of_class = (state.class_request + state.class_shared).astype(np.float64)
    if (np.bincount(classes, minlength=len(of_class)) @ of_class).max() <= MAX_CLAIMED:
        return True  # even all claims together, each with its shared part
    keys = state.class_key[classes]
    _, first_with_key = np.unique(np.stack((slots, keys)), axis=1, return_index=True)
    for d in range(state.dimensions):
        claimed = np.bincount(slots, weights=state.class_request[classes, d], minlength=1)
        shared = state.class_shared[classes[first_with_key], d]
        claimed += np.bincount(slots[first_with_key], weights=shared, minlength=len(claimed))
        if claimed.max() > MAX_CLAIMED * 1.001:
            return False
        _, members = np.unique(state.class_group[classes], return_inverse=True)
        if np.bincount(members, weights=state.class_request[classes, d], minlength=1).max() > MAX_GROUP_CLAIMED:
            return False
    return True


def _one_shared_amount_a_key(state: State) -> bool:
    known: dict[int, bytes] = {}
    pairs = zip(state.class_key.tolist(), state.class_shared, strict=True)
    return all(key < 0 or known.setdefault(key, shared.tobytes()) == shared.tobytes() for key, shared in pairs)


def _within(array: NDArray[Any], low: int, high: int) -> bool:
    return bool(np.all((array >= low) & (array <= high)))


def _require(holds: bool, contradiction: str) -> None:
    if not holds:
        raise MatchError(f"the snapshot is inconsistent ({contradiction}); take an older one")
