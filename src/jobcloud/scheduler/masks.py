"""Which agents meet the conditions of jobs: masks over the slots of the matcher, from the attributes of agents.

A condition is evaluated once for each value of its attribute, not once for each agent. The results are kept until an
agent comes, goes or changes its attributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from jobcloud.match.constraints import HOST, Constraint, Op
from jobcloud.scheduler.places import Where

#: The most conditions of which the results are kept.
_MAX_KEPT: Final = 20_000
# The operators that are true for some listed values, and those that are false for them.
_LISTED: Final = {Op.EQUALS: True, Op.IN: True, Op.DIFFERS: False, Op.NOT_IN: False}


class _Column:
    """The values of one attribute by slot, as numbers. An agent without the attribute has the last number."""

    def __init__(self, values: list[str | None]) -> None:
        self.number = {value: at for at, value in enumerate({value: None for value in values if value is not None})}
        missing = len(self.number)
        numbers = [missing if value is None else self.number[value] for value in values]
        self.by_slot = np.array(numbers, dtype=np.int64)

    def holds(self, constraint: Constraint) -> NDArray[np.bool_]:
        table = np.empty(len(self.number) + 1, dtype=np.bool_)
        listed = _LISTED.get(constraint.op)
        if listed is None:
            table[:-1] = [constraint.holds({constraint.attribute: value}) for value in self.number]
        else:
            table[:-1] = not listed
            table[[self.number[value] for value in constraint.values if value in self.number]] = listed
        table[-1] = constraint.holds({})
        return table[self.by_slot]


class Masks:
    """The attributes of the agents by slot. `version` grows with each change."""

    def __init__(self) -> None:
        self.version = 0
        #: None for a slot without an agent
        self._attributes: list[Mapping[str, str] | None] = []
        self._present: NDArray[np.bool_] | None = None
        self._columns: dict[str, _Column] = {}
        self._holds: dict[Constraint, NDArray[np.bool_]] = {}

    @property
    def size(self) -> int:
        """The number of slots."""
        return len(self._attributes)

    def put(self, slot: int, attributes: Mapping[str, str] | None) -> None:
        """Set the attributes of the agent in a slot; None if the agent is gone."""
        self._attributes += [None] * (slot + 1 - len(self._attributes))
        self._attributes[slot] = attributes
        self.version += 1
        self._present = None
        self._columns.clear()
        self._holds.clear()

    def allows(self, slot: int, where: Where) -> bool:
        """Whether the agent in a slot meets all conditions."""
        attributes = self._attributes[slot]
        return attributes is not None and all(constraint.holds(attributes) for constraint in where.hard)

    def allowed(self, where: Where) -> NDArray[np.bool_]:
        """The slots of the agents that meet all conditions."""
        mask = self._there().copy()
        for constraint in where.hard:
            mask &= self._met(constraint)
        return mask

    def penalty(self, where: Where) -> NDArray[np.int64]:
        """The sum of the penalties of each agent, by slot."""
        total = np.zeros(len(self._attributes), dtype=np.int64)
        for constraint, penalty in where.soft:
            total += np.where(self._met(constraint), 0, penalty)
        total[~self._there()] = 0
        return total

    def numbers(self, attribute: str) -> NDArray[np.int64]:
        """The value of an attribute by slot, as a number; -1 for none. Each agent is a value of its own of HOST."""
        if attribute == HOST:
            return np.where(self._there(), np.arange(len(self._attributes)), -1)
        column = self._column(attribute)
        return np.where(column.by_slot == len(column.number), -1, column.by_slot)

    def touch(self) -> None:
        """The agents that may be used have changed."""
        self.version += 1

    def failing(self, where: Where, slots: NDArray[np.int64]) -> list[tuple[str, int]]:
        """How many of the agents in `slots` fail each condition. An agent counts for the first one that it fails."""
        left, found = slots, []
        for constraint in where.hard:
            met = self._met(constraint)[left]
            found.append((str(constraint), int(len(left) - met.sum())))
            left = left[met]
        return found

    def _there(self) -> NDArray[np.bool_]:
        """The slots that have an agent."""
        if self._present is None:
            self._present = np.array([attributes is not None for attributes in self._attributes], dtype=np.bool_)
        return self._present

    def _met(self, constraint: Constraint) -> NDArray[np.bool_]:
        found = self._holds.get(constraint)
        if found is None:
            if len(self._holds) >= _MAX_KEPT:
                self._holds.clear()
            found = self._holds[constraint] = self._column(constraint.attribute).holds(constraint)
        return found

    def _column(self, attribute: str) -> _Column:
        found = self._columns.get(attribute)
        if found is None:
            values = [None if each is None else each.get(attribute) for each in self._attributes]
            found = self._columns[attribute] = _Column(values)
        return found
