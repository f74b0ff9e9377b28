"""The loops of ``Placer`` over all tasks of a call, in plain Python. ``_placer`` has the same loops, compiled."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

MAX_RELEASE_ID: Final = 2**63 - 1
INDEX: Final = 0xFFFF_FFFF  # the bits of a release id that hold the index of the claim

_Made = TypeVar("_Made")


@dataclass(slots=True)
class Claim:
    """A task's name and its release id. The id is -1 before the task is placed."""

    task: str
    release_id: int = -1


def thousandths(amounts: Any, dimensions: tuple[str, ...]) -> list[int] | None:
    """Always None, so that the caller converts the amounts. The compiled function converts simple amounts quickly."""
    return None


def hidden(cls: type[_Made], values: tuple[Any, ...]) -> _Made:
    """An instance of a frozen dataclass with slots. The compiled function hides it from the garbage collector."""
    return cls(*values)


def named(names: Sequence[str], row: Sequence[int]) -> dict[str, int]:
    """The amounts of the row by name."""
    return dict(zip(names, row, strict=True))


def restored(
    tasks: Sequence[Any], release_ids: Sequence[Any], claims: dict[str, Claim], by_index: list[Claim | None]
) -> tuple[NDArray[np.int64], int]:
    """Add a claim for each task to ``claims``, and to ``by_index`` if that has the index of the release id.

    Returns the release ids, int64[tasks], and the number of valid tasks. The task after these has an invalid entry.
    """
    found: list[int] = []
    for name, number in zip(tasks, release_ids, strict=True):
        if type(name) is not str or not name or type(number) is not int or not 0 <= number <= MAX_RELEASE_ID:
            break
        claims[name] = claim = Claim(name, number)
        if number & INDEX < len(by_index):
            by_index[number & INDEX] = claim
        found.append(number)
    return np.array(found, dtype=np.int64), len(found)


def names_as_json(claims: Mapping[str, Claim]) -> bytes:
    """The names of the tasks as the JSON text of a list, in ASCII."""
    return json.dumps([*claims], separators=(",", ":")).encode()


def ids_as_json(claims: Mapping[str, Claim]) -> bytes:
    """The release ids of the tasks as the JSON text of a list, in ASCII."""
    return json.dumps([claim.release_id for claim in claims.values()], separators=(",", ":")).encode()


def enter(
    tasks: list[Any], numbers: Mapping[Any, int], claims: dict[str, Claim]
) -> tuple[list[Claim], NDArray[np.int32], int]:
    """Add a claim without a release id to ``claims`` for each (name, shape) pair of ``tasks``.

    Returns the claims; the class of each task, int32[tasks], from ``numbers``; and the number of valid tasks. If a task
    is invalid, ``claims`` is unchanged, and only the tasks before it count as valid. A task is invalid if it is not a
    pair, its name is invalid or already present, or its shape is unknown.
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
    by_index: list[Claim | None],
) -> list[tuple[str, str | None]]:
    """Set the release ids of the claims. Returns (task, host) for each. Claims of tasks without a host are removed.

    ``by_index`` gets each claim at the index of its release id, and grows as needed.
    """
    pairs: list[tuple[str, str | None]] = []
    for claim, slot, release_id in zip(entered, slots.tolist(), ids.tolist(), strict=True):
        claim.release_id = release_id
        if release_id >= 0:
            by_index += [None] * ((release_id & INDEX) + 1 - len(by_index))
            by_index[release_id & INDEX] = claim
            pairs.append((claim.task, hosts[slot]))
        else:
            del claims[claim.task]
            pairs.append((claim.task, None))
    return pairs


def leave(names: Sequence[str], claims: dict[str, Claim], by_index: list[Claim | None]) -> NDArray[np.int64]:
    """Remove the claims of these tasks. Returns their release ids, int64[tasks]; -1 for an unknown task."""
    found = [claims.pop(name, None) for name in names]
    for claim in found:
        if claim is not None and claim.release_id >= 0:
            by_index[claim.release_id & INDEX] = None
    return np.array([-1 if claim is None else claim.release_id for claim in found], dtype=np.int64)
