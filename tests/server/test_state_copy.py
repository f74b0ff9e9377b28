"""`jobcloud state copy` between all pairs of stores."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from jobcloud.adapters.sqlite import SqliteStore
from jobcloud.client.cli import cli
from jobcloud.errors import ConfigError, Conflict, NotFound, StoreError
from jobcloud.messages import Kind
from jobcloud.ports import LastingStore, StoredWrite
from jobcloud.server import epochs, state_commands, state_copy
from jobcloud.server.wiring import STATE_FILE

RECORDS = [
    StoredWrite(Kind.JOB, "a", b'{"v":1}'),
    StoredWrite(Kind.APP, "shop é/@-@", b"\xff damaged \x00"),
    StoredWrite(Kind.FRAMEWORK, "id", b'{"v":1,"r":"f"}'),
    *(StoredWrite(Kind.TASK, f"t{number}", b"x" * 5_000) for number in range(1_000)),
]
ZOOKEEPER = pytest.param("zookeeper", marks=pytest.mark.zookeeper)
ETCD = pytest.param("etcd", marks=pytest.mark.etcd)
PAIRS = [
    ("sqlite", "sqlite"),
    pytest.param("sqlite", "zookeeper", marks=pytest.mark.zookeeper),
    pytest.param("zookeeper", "sqlite", marks=pytest.mark.zookeeper),
    pytest.param("sqlite", "etcd", marks=pytest.mark.etcd),
    pytest.param("etcd", "sqlite", marks=pytest.mark.etcd),
    pytest.param("etcd", "etcd", marks=pytest.mark.etcd),
    pytest.param("etcd", "zookeeper", marks=[pytest.mark.etcd, pytest.mark.zookeeper]),
    pytest.param("zookeeper", "etcd", marks=[pytest.mark.etcd, pytest.mark.zookeeper]),
]
Url = Callable[[str], str]


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Url:
    """The URL of a new place in a store."""

    def make(kind: str) -> str:
        name = uuid.uuid4().hex
        return f"sqlite://{tmp_path / name}" if kind == "sqlite" else f"{kind}://{hosts[kind]}/test/{name}"

    hosts = {
        kind: request.getfixturevalue(f"{kind}_hosts")
        for kind in ("zookeeper", "etcd")
        if kind in str(request.node.callspec.params.values() if hasattr(request.node, "callspec") else "")
    }
    return make


def opened(url: str) -> Any:
    return state_commands.opened(state_copy.place("--from", url, None).wanted)


def led(url: str) -> int:
    with opened(url) as store:
        epoch: int = store.acquire(70_000)
        store.write(epoch, RECORDS)
        return epoch


def content(url: str) -> tuple[int, dict[Kind, dict[str, bytes]]]:
    with opened(url) as store:
        return store.epoch(), store.snapshot().records


def file_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite://")) / STATE_FILE


def copy(source: str, target: str) -> state_copy.Copied:
    return state_copy.copy(state_copy.place("--from", source, None), state_copy.place("--to", target, None))


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_copy_moves_every_record_and_leaves_the_source_alone(url: Url, before: str, after: str) -> None:
    source, target = url(before), url(after)
    led(source)
    old = content(source)
    done = copy(source, target)
    assert content(source) == old
    epoch, records = content(target)
    assert records == old[1]
    assert epoch == done.epoch > old[0]
    assert done.content.count(Kind.TASK) == 1_000
    # The copy can be led, and copied again.
    with opened(target) as store:
        store.write(store.acquire(), [StoredWrite(Kind.JOB, "b", b"2")])
    with pytest.raises(Conflict, match="not empty"):
        copy(source, target)


@pytest.mark.parametrize("kind", [ZOOKEEPER, ETCD])
def test_copy_is_refused_while_a_scheduler_leads(url: Url, kind: str) -> None:
    busy, other = url(kind), url("sqlite")
    led(busy)
    wanted = state_copy.place("--from", busy, None).wanted
    with state_commands.elected(wanted, "http://leader:1"), pytest.raises(Conflict, match="http://leader:1 leads"):
        copy(busy, other)
    led(other)
    with (
        state_commands.elected(state_copy.place("--to", url(kind), None).wanted, "x"),
        pytest.raises(Conflict, match="not empty"),
    ):
        copy(other, busy)


def test_copy_of_a_file_in_use_is_refused(url: Url) -> None:
    source = url("sqlite")
    led(source)
    with opened(source), pytest.raises(Conflict, match="a scheduler uses"):
        copy(source, url("sqlite"))


def test_missing_and_unused_sources_are_refused(url: Url) -> None:
    missing = url("sqlite")
    with pytest.raises(NotFound, match="there is no state"):
        copy(missing, url("sqlite"))
    assert not Path(missing.removeprefix("sqlite://")).exists()
    with opened(missing):
        pass
    with pytest.raises(NotFound, match="ever led"):
        copy(missing, url("sqlite"))


def test_state_with_unreadable_entries_is_refused(url: Url) -> None:
    source, target = url("sqlite"), url("sqlite")
    led(source)
    store = SqliteStore(file_of(source))
    store._db.execute("INSERT INTO record VALUES ('future', 'x', x'00')")
    store.close()
    with pytest.raises(Conflict, match="future/x"):
        copy(source, target)
    assert not file_of(target).exists()


def test_failed_copy_leaves_a_target_that_existed_before(url: Url) -> None:
    source, target = url("sqlite"), url("sqlite")
    led(source)
    led(target)
    before = content(target)
    with pytest.raises(Conflict, match="not empty"):
        copy(source, target)
    assert content(target) == before


def test_same_place_is_refused(url: Url) -> None:
    source = url("sqlite")
    led(source)
    with pytest.raises(ConfigError, match="same place"):
        copy(source, f"{source}/../{source.rpartition('/')[2]}")


@pytest.mark.parametrize("kind", [ZOOKEEPER, ETCD])
def test_same_place_under_another_address_is_refused(url: Url, kind: str) -> None:
    source = url(kind)
    led(source)
    with pytest.raises(ConfigError, match="same place") as refused:
        copy(source, source.replace("127.0.0.1", "localhost"))
    assert refused.value.field == "--to"
    # Both leaderships are given up.
    copy(source, url("sqlite"))


@pytest.mark.parametrize(
    "text", ["", "x", "sqlite://", "mysql://a/b", "etcd://a:1/../b", "zookeeper:///x", "etcd://u:p@a:1/b"]
)
def test_invalid_url_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        state_copy.place("--from", text, None)


def test_epoch_of_the_target_is_above_those_recorded_in_both_directories(url: Url) -> None:
    source, target = url("sqlite"), url("sqlite")
    led(source)
    far = epochs.of_clock(state_commands.now_ms()) + 1_000
    for number, side in enumerate((source, target)):
        folder = Path(side.removeprefix("sqlite://"))
        folder.mkdir(exist_ok=True)
        epochs.record(folder / epochs.FILE_NAME, epochs.Recorded(far + number, "another"))
    assert copy(source, target).epoch == far + 2
    assert epochs.read(Path(target.removeprefix("sqlite://")) / epochs.FILE_NAME) == (far + 2, STATE_FILE)


@pytest.mark.parametrize("side", ["source", "target"])
def test_side_that_is_changed_during_the_copy_is_noticed(url: Url, side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = url("sqlite"), url("sqlite")
    led(source)
    verify = state_copy._verify

    def late(stored: Any, epoch: int, old: LastingStore, new: LastingStore) -> None:
        changed = old if side == "source" else new
        changed.write(changed.acquire(), [StoredWrite(Kind.JOB, "late", b"1")])
        verify(stored, epoch, old, new)

    monkeypatch.setattr(state_copy, "_verify", late)
    with pytest.raises(StoreError, match="changed during the copy" if side == "source" else "differs"):
        copy(source, target)
    assert not file_of(target).exists()


def test_command_prints_what_it_copied(url: Url) -> None:
    source, target = url("sqlite"), url("sqlite")
    led(source)
    done = CliRunner().invoke(
        cli, ["state", "copy", "--from", source, "--to", target, "--json"], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    answer = json.loads(done.output)
    assert (answer["jobs"], answer["tasks"], answer["records"]) == (1, 1_000, len(RECORDS))
