"""A connection of psycopg that gives up when its limit is over. psycopg itself waits for a hanging server for ever."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import psycopg

from jobcloud.history.connections import Limit


class PatientConnection(psycopg.Connection[Any]):
    """Gives up a statement when the limit is over, and closes itself, because an answer may still arrive."""

    limit: Limit | None = None

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **more: Any) -> Any:
        if self.limit is None:
            return super().wait(gen, *args, **more)
        return super().wait(self._limited(gen, self.limit), *args, **more)

    def _limited(self, gen: Generator[Any, Any, Any], limit: Limit) -> Generator[Any, Any, Any]:
        """The steps of a statement. psycopg asks for the next step at least every 0.1 s, even without an answer.

        A batch is one statement after another without a wait: each part of the server's answer shows that it works.
        """
        until = limit.until()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if ready:
                    until = limit.until()
                elif time.monotonic() >= until:
                    self.close()
                    raise psycopg.OperationalError("the server has not answered in time")
                wanted = gen.send(ready)
        except StopIteration as end:
            return end.value
