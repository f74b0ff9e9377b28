"""The journal of the ZooKeeper and etcd stores, without their servers."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobcloud.adapters import journal as journals
from jobcloud.adapters.journal import Damaged, Journal, Place, Segment, assemble, decode, encode, entry_size, marks

_places = st.tuples(st.just("task"), st.sampled_from("abcdefgh"))
_batches = st.lists(st.dictionaries(_places, st.none() | st.binary(max_size=60), min_size=1, max_size=4), max_size=60)


class Log:
    """The segments as stored in ZooKeeper, and the journal of a leader."""

    def __init__(self) -> None:
        self.blobs: dict[int, bytes] = {}
        self.journal = Journal()

    def write(self, batch: dict[Place, bytes | None]) -> None:
        plan = self.journal.plan(batch)
        number = self.journal.last + 1
        self.blobs[number] = encode(plan.entries)
        size = sum(entry_size(*entry) for entry in plan.entries)
        self.journal.append(Segment(number, (str(number),), self.blobs[number], size), plan.entries)
        self.journal.drop(plan.cleaned)
        for segment in plan.cleaned:
            del self.blobs[segment.number]

    def read(self) -> tuple[dict[Place, bytes], Journal]:
        found: dict[Place, bytes] = {}
        journal = Journal()
        for number, blob in sorted(self.blobs.items()):
            entries = decode(blob)
            journal.append(Segment(number, (str(number),), blob, sum(entry_size(*entry) for entry in entries)), entries)
            for kind, key, value in entries:
                found.pop((kind, key), None)
                if value is not None:
                    found[kind, key] = value
        return found, journal


@pytest.mark.parametrize(("spare", "most"), [(0, 1_000), (10_000, 5), (500, 20)])
@given(_batches)
def test_latest_write_of_each_record_is_always_read(
    spare: int, most: int, batches: list[dict[Place, bytes | None]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journals, "_SPARE_BYTES", spare)
        patch.setattr(journals, "_MAX_SEGMENTS", most)
        log = Log()
        wanted: dict[Place, bytes] = {}
        for batch in batches:
            log.write(batch)
            for place, value in batch.items():
                wanted.pop(place, None)
                if value is not None:
                    wanted[place] = value
            found, journal = log.read()
            assert found == wanted
            assert (journal.latest, journal.live, journal.size) == (
                log.journal.latest,
                log.journal.live,
                log.journal.size,
            )
            assert len(log.blobs) <= most + 1


def test_size_of_the_journal_is_limited_by_its_valid_records() -> None:
    log = Log()
    log.write({("task", f"lasting-{number}"): bytes(200) for number in range(1_000)})
    for number in range(5_000):
        log.write({("firing", "f"): number.to_bytes(4) * 500})
        assert log.journal.size <= 2 * log.journal.live + (1 << 20) + 4_096
    assert len(log.blobs) <= 2_001
    assert len(log.read()[0]) == 1_001


def test_cleaning_copies_a_bounded_part_however_many_records_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended shards of wide firings are many small records that stay valid for long."""
    monkeypatch.setattr(journals, "_MAX_SEGMENTS", 20)
    monkeypatch.setattr(journals, "_SEGMENT_BYTES", 2_000)
    log, copied = Log(), []
    for number in range(3_000):
        batch: dict[Place, bytes | None] = {("shard", f"f/{number}"): bytes(400), ("task", str(number)): bytes(100)}
        if number:
            batch["task", str(number - 1)] = None
        copied.append(sum(entry_size(*entry) for entry in log.journal.plan(batch).entries) - 600)
        log.write(batch)
    assert sum(copied) / len(copied) < 4_000
    assert max(copied) < 20_000
    assert len(log.blobs) <= log.journal.live // 2_000 + 1


def test_deletion_of_a_missing_record_takes_no_space() -> None:
    assert Journal().plan({("task", "t"): None}).entries == []


@pytest.mark.parametrize(
    "blob", [b"", b"x", zlib.compress(b"x"), zlib.compress(b"\x91\x93\x01\x02\x03"), encode([])[:-1]]
)
def test_invalid_segment_raises_damaged(blob: bytes) -> None:
    with pytest.raises(Damaged):
        decode(blob)


def test_marks_are_eight_bytes_for_each_record() -> None:
    entries = [("task", str(number), None) for number in range(100)]
    assert len(marks(entries)) == 800
    assert marks(entries) == marks(entries[::-1])


@pytest.mark.parametrize("count", [b"1", b"999999999999999"])
def test_segment_whose_header_names_more_parts_than_exist_is_damaged(count: bytes) -> None:
    # A wrong number must not fill the memory.
    with pytest.raises(Damaged, match="more parts than there are nodes"):
        assemble("0000000000000001", b"1 token " + count + b"\nrest", {})
