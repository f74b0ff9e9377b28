"""Waits for the end of a run, and copies the output of its shards meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic, sleep

from jobcloud.client.http import ApiError, Client, Json

#: the shards of a run whose output is copied
MAX_FOLLOWED = 20
_STREAMS = ("stdout", "stderr")
_POLL_S = 0.5
# How long a server may be unreachable.
_RECONNECT_S = 30.0

#: takes a stream, the item of a shard, and a piece of its output
Show = Callable[[str, int, str], None]


def wait_for_run(client: Client, run_id: str, within_s: float = float("inf"), show: Show | None = None) -> Json:
    """The run after its end, or its last state when `within_s` seconds are over. `show` gets the output of its shards.

    It continues after the server was unreachable, for at most 30 s. Raises ApiError.
    """
    outputs = Outputs(client)
    broken_at, until = 0.0, monotonic() + within_s
    found: Json = {"id": run_id, "state": "WAITING", "endedAt": None, "shards": []}
    while True:
        try:
            found, broken_at = client.run(run_id) if show else client.run_state(run_id), 0.0
        except ApiError as error:
            broken_at = broken_at or monotonic()
            if error.status not in (0, 503) or monotonic() - broken_at > _RECONNECT_S:
                raise
        if show is not None and not broken_at:
            for piece in outputs.read(found):
                show(*piece)
        if found["endedAt"] or monotonic() >= until:
            return found if show else client.run(run_id)
        sleep(_POLL_S)


class Outputs:
    """The output of the first shards of a run. Each call of `read` continues after the last one."""

    def __init__(self, client: Client) -> None:
        self._client = client
        #: (task, stream) → the first byte that has not been read
        self._read: dict[tuple[str, str], int] = {}

    def read(self, run: Json) -> Iterator[tuple[str, int, str]]:
        """The new output of the last attempt of each shard, as (stream, item, text)."""
        for shard in [shard for shard in run["shards"] if shard["taskId"] and not shard["step"]][:MAX_FOLLOWED]:
            for stream in _STREAMS:
                for text in self._new(shard["taskId"], stream):
                    yield stream, shard["item"], text

    def _new(self, task_id: str, stream: str) -> Iterator[str]:
        place = task_id, stream
        while True:
            try:
                piece = self._client.log(task_id, stream, offset=self._read.get(place, 0))
            except ApiError:
                return  # the attempt has no output yet, or its agent cannot be reached; the next call tries again
            self._read[place] = piece["nextOffset"]
            if piece["text"]:
                yield piece["text"]
            if not piece["text"] or piece["nextOffset"] >= piece["size"]:
                return


class Prefixed:
    """Prints output line by line. With several shards, each line begins with the item of its shard."""

    def __init__(self, write: Callable[[str, str], None], *, several: bool) -> None:
        self._write = write
        self._several = several
        self._begun: dict[tuple[str, int], str] = {}

    def show(self, stream: str, item: int, text: str) -> None:
        if not self._several:
            self._write(stream, text)
            return
        *lines, rest = (self._begun.pop((stream, item), "") + text).split("\n")
        for line in lines:
            self._write(stream, f"{item}: {line}\n")
        if rest:
            self._begun[stream, item] = rest

    def end(self) -> None:
        """Print the lines without an end."""
        for (stream, item), rest in self._begun.items():
            self._write(stream, f"{item}: {rest}\n")
        self._begun.clear()
