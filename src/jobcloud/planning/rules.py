"""Parses the constraints of a task, given as one text in a table.

    anti:J<=N;K<=M            on a host that runs a task of this job, at most N tasks of job J
                              (if J is the job itself: N + 1 of its tasks in total)
    max_per_host=N            at most N tasks of this job on a host
    ATTRIBUTE=VALUE|VALUE     only on hosts whose attribute has one of the values
    zone in a, b              and every other constraint of `jobcloud.match.constraints`

Several constraints are separated by ";". Parts of the form JOB<=N continue the last "anti:" if no constraint on an
attribute comes between.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from jobcloud.match.constraints import Constraint, ConstraintError, Op, parse

#: The value for no limit.
MAX_PER_HOST: Final = 1_000_000

_ANTI: Final = "anti:"
_LIMIT: Final = re.compile(r"(.*\S)\s*<=\s*([0-9]{1,18})")
_ANY_OF: Final = re.compile(r"([^\s=!<>~|]+)\s*=(?!=)\s*(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Rules:
    """The constraints of one row. `neighbours[J]`: the maximum number of tasks of job J next to a task of this job."""

    max_per_host: int = MAX_PER_HOST
    neighbours: Mapping[str, int] = field(default_factory=dict)
    attributes: tuple[Constraint, ...] = ()


@lru_cache(maxsize=65_536)
def parse_rules(text: str) -> Rules:
    """The rules in a text. Raises ConstraintError, which names the invalid part and its correct form."""
    max_per_host, neighbours, attributes, in_anti = MAX_PER_HOST, dict[str, int](), list[Constraint](), False
    for part in filter(None, (part.strip() for part in text.split(";"))):
        limit = _LIMIT.fullmatch(part.removeprefix(_ANTI).strip()) if in_anti or part.startswith(_ANTI) else None
        if limit:
            in_anti = True
            neighbours[limit[1]] = min(neighbours.get(limit[1], MAX_PER_HOST), int(limit[2]), MAX_PER_HOST)
        elif part.startswith(_ANTI):
            raise ConstraintError(f"{part!r:.80} is not a rule; write anti:JOB<=N with a whole number N")
        elif part.startswith("max_per_host"):
            max_per_host = min(max_per_host, _parse_max_per_host(part))
        else:
            in_anti = False
            attributes.append(_attribute(part))
    return Rules(max_per_host, neighbours, tuple(attributes))


def _parse_max_per_host(part: str) -> int:
    _, sign, number = (text.strip() for text in part.partition("="))
    if not sign or not re.fullmatch("[0-9]{1,18}", number) or int(number) < 1:
        raise ConstraintError(f"{part!r:.80} is not a limit; write max_per_host=N with a whole number N from 1 on")
    return min(int(number), MAX_PER_HOST)


def _attribute(part: str) -> Constraint:
    found = _ANY_OF.fullmatch(part)
    if not found:
        return parse(part)
    return Constraint(found[1], Op.IN, tuple(value.strip() for value in found[2].split("|")))
