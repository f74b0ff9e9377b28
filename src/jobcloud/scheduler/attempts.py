"""The earlier attempts of a firing's shards, for people. No decision depends on them.

The last attempt of a shard is part of the shard. When the shard is put into the queue again, that attempt gets a record
of its own. So a shard that succeeds at the first try costs no further write, and a record is never rewritten.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator

from jobcloud.model import Attempt, End, Shard, ShardState, cut

# The maximum number of earlier attempts that are kept of one shard.
MOST_OF_SHARD = 10
# If a firing has this number of earlier attempts, a new one displaces the oldest one of its own shard, if there is one.
MOST_OF_FIRING = 10_000
# The message of an earlier attempt is cut to this number of bytes.
MESSAGE_BYTES = 1_000


class Attempts:
    """The earlier attempts of the shards of one firing. `total` is their number."""

    __slots__ = ("_by_item", "total")

    def __init__(self) -> None:
        self._by_item: dict[int, tuple[Attempt, ...]] = {}
        self.total = 0

    def of(self, item: int) -> tuple[Attempt, ...]:
        """The attempts of one shard, oldest first."""
        return self._by_item.get(item, ())

    def restore(self, item: int, attempt: Attempt) -> None:
        """Add a stored attempt. Those of one shard must come in the order of their numbers."""
        self._by_item[item] = (*self.of(item), attempt)
        self.total += 1

    def add(self, item: int, attempt: Attempt) -> tuple[Attempt, ...] | None:
        """Add the newest attempt of a shard. Returns the attempts that it displaces; None if it was added before."""
        known = self._by_item.get(item, ())
        if known and known[-1].number >= attempt.number:
            return None
        displaced = len(known) == MOST_OF_SHARD or (bool(known) and self.total >= MOST_OF_FIRING)
        self._by_item[item] = (*known[displaced:], attempt)
        self.total += not displaced
        return known[:displaced]

    def by_item(self) -> ItemsView[int, tuple[Attempt, ...]]:
        """The attempts of each shard that has some, oldest first."""
        return self._by_item.items()

    def __iter__(self) -> Iterator[tuple[int, Attempt]]:
        """All attempts, as (item, attempt)."""
        return ((item, attempt) for item, kept in self._by_item.items() for attempt in kept)


def key_of(firing_id: str, item: int, number: int) -> str:
    return f"{firing_id}/{item}/{number}"


def place_of(key: str) -> tuple[str, int, int]:
    """The firing, the item and the number in an attempt's key. Raises ValueError."""
    rest, _, number = key.rpartition("/")
    firing_id, _, item = rest.rpartition("/")
    if key != key_of(firing_id, int(item), int(number)) or int(item) < 0:
        raise ValueError("its key is not that of an attempt")
    return firing_id, int(item), int(number)


def fits(attempt: Attempt, shard: Shard) -> bool:
    """Whether the shard can have had this attempt before its present one."""
    active = shard.state is ShardState.ACTIVE
    return attempt.number < shard.attempt or (attempt.number == shard.attempt and not active)


def attempt_of(shard: Shard) -> Attempt | None:
    """The last attempt of an ended shard; None if the shard has not ended, or had no attempt."""
    # A shard is cancelled while it waits. If it had an attempt, this attempt has a record already.
    if not shard.attempt or not shard.state.ended or shard.state is ShardState.CANCELLED:
        return None
    return Attempt(
        shard.attempt, shard.task_id, shard.agent_id, shard.hostname, shard.executor_id, shard.execution, end_of(shard),
        shard.started_ms, shard.ended_ms, cut(shard.message, MESSAGE_BYTES), shard.outcome,
    )  # fmt: skip


def end_of(shard: Shard) -> End:
    """The end of the last attempt of an ended shard.

    Older versions did not store whether the last attempt of a FAILED shard was lost.
    """
    known = {ShardState.FINISHED: End.SUCCEEDED, ShardState.KILLED: End.KILLED}
    return shard.end or known.get(shard.state, End.FAILED)
