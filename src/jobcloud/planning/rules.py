"""The constraints of a task, as one text in a table → rules.

    anti:J<=N;K<=M            on a host that runs a task of this job, at most N tasks of job J beside it
                              (J the job itself: N + 1 of it in all)
    max_per_host=N            at most N tasks of this job on a host
    ATTRIBUTE=VALUE|VALUE     only on hosts whose attribute has one of the values
    zone in a, b              and all else that `jobcloud.match.constraints` reads

Several are separated by ";". What follows "anti:" belongs to it as long as it reads JOB<=N.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from jobcloud.match.constraints import Constraint, ConstraintError, Op, parse

#: More of one job on a host is no limit at all.
MOST_PER_HOST: Final = 1_000_000

_ANTI: Final = "anti:"
_LIMIT: Final = re.compile(r"(.*\S)\s*<=\s*([0-9]{1,18})")
_ANY_OF: Final = re.compile(r"([^\s=!<>~|]+)\s*=(?!=)\s*(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Rules:
    """What the constraints of one row say. `beside[J]` is the most tasks of job J beside one of this job."""

    max_per_host: int = MOST_PER_HOST
    beside: Mapping[str, int] = field(default_factory=dict)
    attributes: tuple[Constraint, ...] = ()


@lru_cache(maxsize=65_536)
def parse_rules(text: str) -> Rules:
    """Raises ConstraintError, which names the part that is wrong and says what would be right."""
    most, beside, attributes, in_anti = MOST_PER_HOST, dict[str, int](), list[Constraint](), False
    for part in filter(None, (part.strip() for part in text.split(";"))):
        limit = _LIMIT.fullmatch(part.removeprefix(_ANTI).strip()) if in_anti or part.startswith(_ANTI) else None
        if limit:
            in_anti = True
            beside[limit[1]] = min(beside.get(limit[1], MOST_PER_HOST), int(limit[2]), MOST_PER_HOST)
        elif part.startswith(_ANTI):
            raise ConstraintError(f"{part!r:.80} is no rule; write anti:JOB<=N with a whole number N")
        elif part.startswith("max_per_host"):
            most = min(most, _most_per_host(part))
        else:
            in_anti = False
            attributes.append(_attribute(part))
    return Rules(most, beside, tuple(attributes))


def _most_per_host(part: str) -> int:
    _, sign, number = (text.strip() for text in part.partition("="))
    if not sign or not re.fullmatch("[0-9]{1,18}", number) or int(number) < 1:
        raise ConstraintError(f"{part!r:.80} is no limit; write max_per_host=N with a whole number N from 1 on")
    return min(int(number), MOST_PER_HOST)


def _attribute(part: str) -> Constraint:
    found = _ANY_OF.fullmatch(part)
    if not found:
        return parse(part)
    return Constraint(found[1], Op.IN, tuple(value.strip() for value in found[2].split("|")))
