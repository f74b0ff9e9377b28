"""The form of archived logs."""

from __future__ import annotations

import io
import json
import zipfile
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.archive_kit import ended

from jobcloud.archive import form
from jobcloud.archive.copying import Throttle, copy_stream
from jobcloud.archive.form import Stream, Unreadable, pack, read

NOTHING = Stream(0, ())


def archived(stream: Stream) -> io.BytesIO:
    return io.BytesIO(pack(ended(), {"stdout": stream, "stderr": NOTHING}))


def test_log_is_a_zip_file_with_a_description() -> None:
    with zipfile.ZipFile(archived(Stream(5, ((0, b"hello"),)))) as file:
        assert file.namelist() == ["stdout/000000000000000", "meta.json"]
        meta = json.loads(file.read("meta.json"))
    assert meta == {
        "format": 1, "taskId": ended().task_id, "runId": "report.run-0@test", "jobName": "report", "item": 0,
        "attempt": 1, "agentId": "agent-1", "hostname": "host-a1", "outcome": "SUCCEEDED",
        "endedMs": ended().ended_ms, "sizes": {"stdout": 5, "stderr": 0},
    }  # fmt: skip


def test_same_log_has_the_same_bytes() -> None:
    assert archived(Stream(1, ((0, b"x"),))).getvalue() == archived(Stream(1, ((0, b"x"),))).getvalue()


@settings(max_examples=50)
@given(
    st.binary(max_size=2_000), st.integers(8, 600), st.integers(0, 500), st.integers(-2_200, 2_200), st.integers(1, 700)
)
def test_copied_and_archived_stream_has_the_bytes_of_the_agent(
    data: bytes, limit: int, rotated: int, offset: int, wanted: int
) -> None:
    """The agent no longer has the first `rotated` bytes."""
    first = min(rotated, len(data))

    def agent(at: int, count: int) -> tuple[bytes, int, int]:
        start = max(first, min(at, len(data)))
        return data[start : start + min(count, 64)], start, len(data)

    stream = copy_stream(agent, limit)
    assert sum(len(piece) for _, piece in stream.pieces) == min(limit, len(data) - first)
    found = read(archived(stream), "stdout", offset, wanted)
    start = min(offset, len(data)) if offset >= 0 else max(0, len(data) + offset)
    assert found.offset >= start
    assert found.data == data[found.offset : found.offset + len(found.data)]
    assert (found.size, found.task_id) == (len(data), ended().task_id)
    kept = {at for begin, piece in stream.pieces for at in range(begin, begin + len(piece))}
    ahead = sorted(at for at in kept if at >= start)
    assert found.data == b"" if not ahead else (found.offset == ahead[0] and found.data)


@settings(max_examples=20)
@given(st.integers(1, 400))
def test_whole_log_is_read_in_pieces(step: int) -> None:
    data = bytes(range(256)) * 4
    file, place, got = archived(Stream(len(data), ((0, data),))), 0, b""
    while place < len(data):
        piece = read(file, "stdout", place, step)
        got, place = got + piece.data, piece.offset + len(piece.data)
    assert got == data


def test_pieces_that_are_longer_than_a_chunk_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(form, "CHUNK_BYTES", 10)
    file = archived(Stream(35, ((0, b"a" * 25), (30, b"b" * 5))))
    assert read(file, "stdout", 8, 20)[:3] == (b"a" * 17, 8, 35)
    assert read(file, "stdout", 26, 20)[:3] == (b"b" * 5, 30, 35)


def changed(**meta: object) -> io.BytesIO:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("meta.json", json.dumps({"format": 1, "taskId": "t", "sizes": {"stdout": 1}} | meta))
    return out


@pytest.mark.parametrize(
    "file",
    [
        io.BytesIO(b""),
        io.BytesIO(b"PK" * 100),
        io.BytesIO(archived(Stream(1, ((0, b"x"),))).getvalue()[:-5]),
        changed(format=2),
        changed(sizes=[]),
        changed(sizes={"stdout": -1}),
        changed(taskId=None, sizes=None),
    ],
)
def test_damaged_or_newer_log_is_refused(file: io.BytesIO) -> None:
    with pytest.raises(Unreadable):
        read(file, "stdout", 0, 10)


@settings(max_examples=200)
@given(st.data())
def test_any_damage_gives_the_log_or_is_refused(data: st.DataObject) -> None:
    content = bytearray(archived(Stream(300, ((0, b"some text\n" * 30),))).getvalue())
    for place, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=4)
    ):
        content[place] = value
    with suppress(Unreadable):
        read(io.BytesIO(bytes(content)), "stdout", 0, 1_000)


def test_chunk_that_is_too_long_is_not_expanded() -> None:
    out = changed()
    with zipfile.ZipFile(out, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("stdout/000000000000000", b"\0" * (form.CHUNK_BYTES + 1))
    with pytest.raises(Unreadable, match="longer"):
        read(out, "stdout", 0, 10)


def test_copied_bytes_are_spread_over_time() -> None:
    now, waits = [0.0], list[float]()
    throttle = Throttle(1_000, lambda: now[0], waits.append)
    throttle.spend(500)
    throttle.spend(2_000)
    throttle.spend(0)
    assert waits == [0.5, 2.5]
    now[0] = 10.0
    throttle.spend(1)
    assert waits == [0.5, 2.5]
