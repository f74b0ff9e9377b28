"""The output of a task in lines: one stream, or both in the order of time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from jobcloud.client.http import Client, Json

STREAMS = ("stdout", "stderr")
#: the tasks whose output is shown at once
MAX_TASKS = 20


class Line(NamedTuple):
    """A line of output, with its line feed if it has one. `at` is an instant of the API, or "" if it is not known."""

    at: str
    stream: str
    text: str


class Missing(NamedTuple):
    """Output that no longer exists: its size in bytes, or -1 if a task that has ended has none at all."""

    stream: str
    size: int


Where = Mapping[str, int | str]


def read(client: Client, task_id: str, streams: Sequence[str], where: Where) -> Iterator[Line | Missing]:
    """The output that is there, in the order of time. `where`: see `Client.log`."""
    found = {stream: list(_pieces(client, task_id, stream, where)) for stream in streams}
    if all(piece["missing"] for pieces in found.values() for piece in pieces):
        yield Missing(streams[0], -1)
    parts: list[list[Line]] = []
    for stream, pieces in found.items():
        expected = pieces[0]["offset"] if "tail" in where or "since" in where else 0
        lines: list[Line] = []
        for piece in pieces:
            if piece["offset"] > expected:
                yield Missing(stream, piece["offset"] - expected)
            expected = piece["nextOffset"]
            lines += _lines(piece, stream, lines.pop() if lines and not lines[-1].text.endswith("\n") else None)
        parts.append(lines)
    # Without times, all of one stream comes before the other one.
    merged = [line for lines in parts for line in lines]
    if all(line.at for line in merged):
        merged.sort(key=lambda line: line.at)
    tail = int(where.get("tail", 0))
    yield from merged[-tail:]


def _pieces(client: Client, task_id: str, stream: str, where: Where) -> Iterator[Json]:
    piece = client.log(task_id, stream, **where)
    yield piece
    while piece["text"] and piece["nextOffset"] < piece["size"]:
        piece = client.log(task_id, stream, offset=piece["nextOffset"], times=str(where.get("times", "false")))
        yield piece


def _lines(piece: Json, stream: str, begun: Line | None = None) -> list[Line]:
    """The lines of a piece of output. `begun`: the line without an end that the piece continues."""
    times = {time["line"]: str(time["at"]) for time in piece.get("times", ())}
    at = begun.at if begun else ""
    found = []
    for number, text in enumerate(piece["text"].split("\n")):
        at = times.get(number, at) if number or not begun else at
        found.append(Line(at, stream, text + "\n"))
    last = found.pop()
    if last.text != "\n":
        found.append(last._replace(text=last.text[:-1]))
    if begun and found:
        found[0] = found[0]._replace(text=begun.text + found[0].text)
    return found or ([begun] if begun else [])


def follow(client: Client, task_id: str, streams: Sequence[str], where: Where) -> Iterator[Line | Missing]:
    """The output as the task writes it, until the task ends. Raises ApiError."""
    arrived: queue.SimpleQueue[list[Line | Missing] | Exception | None] = queue.SimpleQueue()

    def copy(stream: str) -> None:
        try:
            for event in client.follow(task_id, stream, **where):
                missing = [Missing(stream, event["missed"])] if event["missed"] > 0 else []
                arrived.put([*missing, *_lines(event, stream)])
            arrived.put(None)
        except Exception as error:  # raised in the thread that reads the queue
            arrived.put(error)

    for stream in streams:
        threading.Thread(target=copy, args=(stream,), daemon=True).start()
    left = len(streams)
    while left:
        match arrived.get():
            case None:
                left -= 1
            case Exception() as error:
                raise error
            case lines:
                yield from lines


class Printer:
    """Prints lines with `write`, which takes a stream and a text.

    With `time` or `begin`, both streams go to standard output, and each line begins with its time, `out` or `err`, and
    `begin`.
    """

    def __init__(
        self, write: Callable[[str, str], None], *, begin: str = "", time: Callable[[str], str] | None = None
    ) -> None:
        self._write, self._begin, self._time = write, begin, time
        #: the stream of a line whose end has not been printed
        self._open = ""

    def show(self, line: Line) -> None:
        if not (self._begin or self._time):
            self._write(line.stream, line.text)
            return
        if self._open and self._open != line.stream:
            self._write("stdout", "\n")
            self._open = ""
        head = "" if self._open else self._head(line)
        self._write("stdout", head + line.text)
        self._open = "" if line.text.endswith("\n") else line.stream

    def end(self) -> None:
        """End a line without an end."""
        if self._open:
            self._write("stdout", "\n")

    def _head(self, line: Line) -> str:
        time = self._time(line.at) if self._time else ""
        return "".join(f"{part} " for part in (time, line.stream.removeprefix("std"), self._begin) if part)
