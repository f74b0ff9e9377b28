"""The loops of ``Placer`` over all tasks of a call, in plain Python; ``_placer`` is the same compiled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(slots=True)
class Claim:
    """A task's name and its release id, -1 until it has one."""

    task: str
    release_id: int = -1


def enter(
    tasks: list[Any], numbers: Mapping[Any, int], claims: dict[str, Claim]
) -> tuple[list[Claim], NDArray[np.int32], int]:
    """Enter a claim without an id into ``claims`` for each of (name, shape) pairs.

    Returns the claims, int32[tasks] what ``numbers`` says of each shape, and how many tasks were looked at: fewer than
    there are where one is no pair of a name that is not there yet and a shape that is known. Then, and where it
    raises, ``claims`` is as before.
    """
    entered: list[Claim] = []
    classes: list[int] = []
    try:
        for name, shape in tasks:
            number = numbers.get(shape)
            if number is None or not isinstance(name, str) or not name:
                break
            claim = Claim(str.__str__(name))
            if claims.setdefault(claim.task, claim) is not claim:
                break
            entered.append(claim)
            classes.append(number)
    except (TypeError, ValueError):
        pass
    finally:
        if len(entered) < len(tasks):
            for claim in entered:
                del claims[claim.task]
    return entered, np.array(classes, dtype=np.int32), len(entered)


def answer(
    entered: Sequence[Claim],
    slots: NDArray[np.int32],
    ids: NDArray[np.int64],
    hosts: Sequence[str | None],
    claims: dict[str, Claim],
) -> list[tuple[str, str | None]]:
    """Each task with the name of its host; without a release id, which they get here, it has none and is forgotten."""
    pairs: list[tuple[str, str | None]] = []
    for claim, slot, release_id in zip(entered, slots.tolist(), ids.tolist(), strict=True):
        claim.release_id = release_id
        if release_id >= 0:
            pairs.append((claim.task, hosts[slot]))
        else:
            del claims[claim.task]
            pairs.append((claim.task, None))
    return pairs


def leave(names: Sequence[str], claims: dict[str, Claim]) -> NDArray[np.int64]:
    """Forget the claims of these tasks; returns int64[tasks], their release ids, -1 for a task that is not there."""
    found = [claims.pop(name, None) for name in names]
    return np.array([-1 if claim is None else claim.release_id for claim in found], dtype=np.int64)
