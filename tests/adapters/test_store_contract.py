"""The contract of every store. Each test runs on each of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobcloud.errors import Fenced, StoreError
from jobcloud.messages import Kind
from jobcloud.ports import MAX_RECORD_BYTES, LastingStore, Store, StoredWrite

OpenStore = Callable[[], LastingStore]

JOB_A = StoredWrite(Kind.JOB, "a", b"1")


def test_new_store_is_empty(store: Store) -> None:
    stored = store.load()
    assert stored.records == {kind: {} for kind in Kind}
    assert stored.faults == []


def test_each_acquire_raises_the_epoch(open_store: OpenStore) -> None:
    assert [open_store().acquire() for _ in range(3)] == [1, 2, 3]


def test_epoch_is_raised_to_the_floor_and_goes_on_above_it(open_store: OpenStore) -> None:
    assert [open_store().acquire(floor) for floor in (0, 400_000, 400_000, 7, 400_003, 0)] == [
        1, 400_000, 400_001, 400_002, 400_003, 400_004,
    ]  # fmt: skip


def test_leader_with_a_raised_epoch_writes_and_fences_the_one_before(open_store: OpenStore) -> None:
    old, new = open_store(), open_store()
    epochs = old.acquire(), new.acquire(5_000)
    assert epochs == (1, 5_000)
    new.write(5_000, [JOB_A])
    for wrong in (1, 2, 4_999, 5_001):
        with pytest.raises(Fenced):
            new.write(wrong, [StoredWrite(Kind.JOB, "a", b"2")])
    with pytest.raises(Fenced):
        old.write(1, [StoredWrite(Kind.JOB, "a", b"2")])
    assert old.load().records[Kind.JOB] == {"a": b"1"}


def test_epoch_can_be_read_without_raising_it(open_store: OpenStore) -> None:
    assert open_store().epoch() == 0
    leader = open_store()
    epoch = leader.acquire(300)
    assert open_store().epoch() == epoch == 300
    leader.write(epoch, [JOB_A])


def test_snapshot_holds_all_records_and_does_not_disturb_the_leader(open_store: OpenStore) -> None:
    leader = open_store()
    epoch = leader.acquire()
    leader.write(epoch, [JOB_A, StoredWrite(Kind.TASK, "t", b"2")])
    assert open_store().snapshot() == leader.load()
    leader.write(epoch, [StoredWrite(Kind.TASK, "t", None)])
    assert open_store().snapshot().records[Kind.TASK] == {}


def test_written_records_are_loaded_by_the_next_leader(open_store: OpenStore) -> None:
    first = open_store()
    epoch = first.acquire()
    for kind in Kind:
        first.write(epoch, [StoredWrite(kind, "key/with @-@ é", kind.encode())])
    first.close()
    assert open_store().load().records == {kind: {"key/with @-@ é": kind.encode()} for kind in Kind}


def test_none_deletes_a_record_and_missing_records_may_be_deleted(store: Store) -> None:
    epoch = store.acquire()
    store.write(epoch, [JOB_A])
    store.write(epoch, [StoredWrite(Kind.JOB, "a", None), StoredWrite(Kind.JOB, "b", None)])
    assert store.load().records[Kind.JOB] == {}


def test_keys_of_teams_are_loaded_as_they_were_written(open_store: OpenStore) -> None:
    first = open_store()
    epoch, keys = first.acquire(), ("report", "billing:report", "billing:report.20260101T000000Z@prod", "b-2:a.b/7")
    first.write(epoch, [StoredWrite(kind, key, key.encode()) for kind in Kind for key in keys])
    first.write(epoch, [StoredWrite(kind, "report", None) for kind in Kind])
    first.close()
    assert open_store().load().records == {kind: {key: key.encode() for key in keys[1:]} for kind in Kind}


@pytest.mark.parametrize("values", [(b"1", b"2"), (None, b"1"), (b"1", None), (b"1", None, b"2")])
def test_last_write_of_a_key_in_a_batch_wins(store: Store, values: tuple[bytes | None, ...]) -> None:
    store.write(store.acquire(), [StoredWrite(Kind.TASK, "t", value) for value in values])
    assert store.load().records[Kind.TASK].get("t") == values[-1]


def test_same_key_of_another_kind_is_another_record(store: Store) -> None:
    store.write(store.acquire(), [JOB_A, StoredWrite(Kind.APP, "a", b"2")])
    assert (store.load().records[Kind.JOB], store.load().records[Kind.APP]) == ({"a": b"1"}, {"a": b"2"})


def test_superseded_leader_writes_nothing(open_store: OpenStore) -> None:
    old, new = open_store(), open_store()
    old_epoch = old.acquire()
    old.write(old_epoch, [JOB_A])
    new_epoch = new.acquire()
    with pytest.raises(Fenced):
        old.write(old_epoch, [StoredWrite(Kind.JOB, "a", b"old"), StoredWrite(Kind.JOB, "b", b"old")])
    assert new.load().records[Kind.JOB] == {"a": b"1"}
    new.write(new_epoch, [StoredWrite(Kind.JOB, "a", b"new")])
    assert old.load().records[Kind.JOB] == {"a": b"new"}


def test_empty_batch_checks_the_epoch(open_store: OpenStore) -> None:
    old = open_store()
    epoch = old.acquire()
    old.write(epoch, [])
    open_store().acquire()
    with pytest.raises(Fenced):
        old.write(epoch, [])


@pytest.mark.parametrize("epoch", [0, 2, -1])
def test_epoch_never_acquired_writes_nothing(store: Store, epoch: int) -> None:
    store.acquire()
    with pytest.raises(Fenced):
        store.write(epoch, [JOB_A])
    assert store.load().records[Kind.JOB] == {}


def test_large_batch_and_large_value_are_accepted(store: Store) -> None:
    batch = [StoredWrite(Kind.TASK, f"t{number}", b"x" * 500) for number in range(10_000)]
    store.write(store.acquire(), [*batch, StoredWrite(Kind.FIRING, "f", b"y" * 4_000_000)])
    assert len(store.load().records[Kind.TASK]) == 10_000
    assert len(store.load().records[Kind.FIRING]["f"]) == 4_000_000


@pytest.mark.parametrize("kind", list(Kind))
def test_batch_of_records_of_the_largest_size_is_accepted(store: Store, kind: Kind) -> None:
    values = {str(number): bytes([number]) * MAX_RECORD_BYTES for number in range(24)}
    store.write(store.acquire(), [StoredWrite(kind, key, value) for key, value in values.items()])
    assert store.load().records[kind] == values


def test_batch_of_many_small_records_is_accepted_and_deleted_again(store: Store) -> None:
    """A wide firing has a record for each of its shards."""
    epoch, keys = store.acquire(), [f"report.trigger-1-1/{item}" for item in range(20_000)]
    store.write(epoch, [StoredWrite(Kind.SHARD, key, b'{"v":1,"r":{"state":"FAILED"}}') for key in keys])
    assert store.load().records[Kind.SHARD].keys() == set(keys)
    store.write(epoch, [StoredWrite(Kind.SHARD, key, None) for key in keys])
    assert store.load().records[Kind.SHARD] == {}


def test_closed_store_refuses_everything_and_may_be_closed_again(store: Store) -> None:
    epoch = store.acquire()
    store.close()
    store.close()
    for use in (store.acquire, store.load, lambda: store.write(epoch, [JOB_A])):
        with pytest.raises(StoreError):
            use()


_writes = st.builds(
    StoredWrite,
    st.sampled_from(list(Kind)),
    st.text(st.characters(codec="utf-8"), max_size=5),
    st.none() | st.binary(max_size=20),
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 2), st.lists(_writes, max_size=6)), max_size=12))
def test_random_batches_and_leaders_leave_only_writes_of_current_leaders(
    open_store: OpenStore, steps: list[tuple[int, list[StoredWrite]]]
) -> None:
    leaders = [open_store() for _ in range(3)]
    epochs = [leader.acquire() for leader in leaders]
    leaders[2].write(epochs[2], _all_deleted(leaders[2]))
    expected: dict[Kind, dict[str, bytes]] = {kind: {} for kind in Kind}
    for number, batch in steps:
        if number != 2:
            with pytest.raises(Fenced):
                leaders[number].write(epochs[number], batch)
            continue
        leaders[2].write(epochs[2], batch)
        for write in batch:
            expected[write.kind].pop(write.key, None)
            if write.value is not None:
                expected[write.kind][write.key] = write.value
    assert leaders[0].load().records == expected
    for leader in leaders:
        leader.close()


def _all_deleted(store: Store) -> list[StoredWrite]:
    return [StoredWrite(kind, key, None) for kind, keys in store.load().records.items() for key in keys]
