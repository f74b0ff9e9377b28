"""Constraints on host attributes, parsed from text, and their masks over the matcher's slots.

A mask is computed once per class; placements do no further work for it. Rules between tasks (``at_most``, ``near`` and
``balanced``) belong to the matcher. ``docs/matcher.md`` describes the texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import Enum
from fnmatch import fnmatchcase
from typing import Final

import numpy as np
from numpy.typing import NDArray

#: The attribute that holds a host's name.
HOST: Final = "host"


class ConstraintError(ValueError):
    """A constraint is invalid. The text says how to correct it."""


class Op(Enum):
    """How an attribute is compared. The values are the operators in constraint texts."""

    EQUALS = "=="
    DIFFERS = "!="
    IN = "in"
    NOT_IN = "not in"
    LIKE = "~"
    UNLIKE = "!~"
    AT_LEAST = ">="
    AT_MOST = "<="
    MORE = ">"
    LESS = "<"


#: A host without the attribute meets constraints with these operators, and fails all others.
_NEGATED: Final = {Op.DIFFERS: Op.EQUALS, Op.NOT_IN: Op.IN, Op.UNLIKE: Op.LIKE}
_NUMERIC: Final = {Op.AT_LEAST, Op.AT_MOST, Op.MORE, Op.LESS}
_FORM: Final = re.compile(r"\s*([^\s=!<>~]+)\s*(==|!=|!~|>=|<=|>|<|~|\bnot\s+in\b|\bin\b)\s*(.*?)\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Constraint:
    """``attribute`` compared by ``op`` with ``values``: one text, or several for IN and NOT_IN.

    LIKE takes a case-sensitive glob (``*``, ``?``, ``[…]``). ``>=``, ``<=``, ``>`` and ``<`` compare decimal numbers; a
    host whose attribute is not a number fails them. Raises ConstraintError if a value is missing or not a number.
    """

    attribute: str
    op: Op
    values: tuple[str, ...]

    def __post_init__(self) -> None:
        if not all(self.values) or not self.values:
            raise ConstraintError(f"{self.attribute} {self.op.value} needs a value after it")
        if self.op in _NUMERIC and _number(self.values[0]) is None:
            raise ConstraintError(f"{self.attribute} {self.op.value} needs a number, not {self.values[0]!r:.60}")

    def __hash__(self) -> int:
        return hash((self.attribute, self.values))  # the hash of an Enum is slow

    def __str__(self) -> str:
        return f"{self.attribute} {self.op.value} {', '.join(self.values)}"

    def holds(self, attributes: Mapping[str, str]) -> bool:
        """Whether a host with these attributes meets the constraint."""
        value = attributes.get(self.attribute)
        if self.op in _NEGATED:
            return value is None or not self._compares(_NEGATED[self.op], value)
        return value is not None and self._compares(self.op, value)

    def _compares(self, op: Op, value: str) -> bool:
        if op is Op.LIKE:
            return fnmatchcase(value, self.values[0])
        if op in _NUMERIC:
            return _ordered(op, _number(value), _number(self.values[0]))
        return value in self.values


def parse(text: str) -> Constraint:
    """The constraint in ``text``: ``zone == a``, ``zone in a, b``, ``host !~ db-*``, ``cores >= 16``.

    Raises ConstraintError if the text is not a constraint.
    """
    found = _FORM.fullmatch(text)
    if not found:
        operators = ", ".join(op.value for op in Op)
        raise ConstraintError(f"{text!r:.80} is not a constraint; write an attribute, one of {operators}, and a value")
    op = Op(" ".join(found[2].split()))
    several = op in (Op.IN, Op.NOT_IN)
    values = tuple(part.strip() for part in found[3].split(",")) if several else (found[3],)
    return Constraint(found[1], op, values)


def mask(constraints: Iterable[Constraint], hosts: Sequence[Mapping[str, str] | None]) -> NDArray[np.bool_]:
    """bool[len(hosts)] for ``add_class(allowed=…)`` and ``set_allowed``: the hosts that meet all constraints.

    ``hosts[slot]``: the attributes of the host in that slot, with its name under ``HOST``; None for an empty slot.
    """
    wanted = tuple(constraints)
    return np.array([h is not None and all(c.holds(h) for c in wanted) for h in hosts], dtype=np.bool_)


def penalties(soft: Iterable[tuple[Constraint, int]], hosts: Sequence[Mapping[str, str] | None]) -> NDArray[np.int64]:
    """int64[len(hosts)] for ``add_class(penalty=…)``: the sum of the weights of the constraints that the host fails.

    Weights are in the matcher's units: 2**20 stands for the whole capacity of a host in one dimension.
    """
    wanted = tuple(soft)
    costs = [0 if h is None else sum(weight for c, weight in wanted if not c.holds(h)) for h in hosts]
    return np.array(costs, dtype=np.int64)


def numbers(attribute: str, hosts: Sequence[Mapping[str, str] | None]) -> NDArray[np.int64]:
    """int64[len(hosts)] for ``Matcher.set_attribute``: values numbered in sorted order, -1 for no value."""
    texts = [None if h is None else h.get(attribute) for h in hosts]
    number = {text: i for i, text in enumerate(sorted({text for text in texts if text is not None}))}
    return np.array([-1 if text is None else number[text] for text in texts], dtype=np.int64)


def failing(constraints: Iterable[Constraint], hosts: Sequence[Mapping[str, str] | None]) -> tuple[int, ...]:
    """The number of hosts that fail each constraint."""
    return tuple(sum(h is not None and not c.holds(h) for h in hosts) for c in constraints)


def _number(text: str) -> Decimal | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _ordered(op: Op, left: Decimal | None, right: Decimal | None) -> bool:
    if left is None or right is None:
        return False
    if op is Op.AT_LEAST:
        return left >= right
    if op is Op.AT_MOST:
        return left <= right
    return left > right if op is Op.MORE else left < right
