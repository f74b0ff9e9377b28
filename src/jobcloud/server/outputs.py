"""Output of ended attempts from their agents, for the archive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from jobcloud.adapters.sandbox import Output, OutputReader
from jobcloud.archive.names import Ended
from jobcloud.errors import JobcloudError, Unavailable
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import TRY_SOON

_KNOWN_S = 30.0


class AgentOutputs:
    """Reads output for one thread. `where` returns the id of the framework, and the address of each known agent."""

    def __init__(
        self,
        where: Callable[[], tuple[str, Mapping[str, str]]],
        *,
        reader: OutputReader | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._where, self._monotonic = where, monotonic
        self._runner = asyncio.Runner()
        self._reader = reader or OutputReader()
        self._framework_id, self._addresses = "", dict[str, str]()
        self._asked_at = -_KNOWN_S

    def read(self, ended: Ended, stream: str, offset: int, limit: int, *, earlier: bool) -> tuple[bytes, int, int]:
        """As OutputReader.read. `earlier`: the executor may have ended. Raises NotFound, Unavailable."""
        address = self._address(ended.agent_id)
        wanted = Output(self._framework_id, ended.executor_id, ended.task_id, stream, earlier)
        return self._runner.run(self._reader.read(address, wanted, offset, limit))

    def close(self) -> None:
        self._runner.close()

    def _address(self, agent_id: str) -> str:
        """Raises Unavailable."""
        now = self._monotonic()
        if agent_id not in self._addresses or now - self._asked_at >= _KNOWN_S:
            try:
                self._framework_id, addresses = self._where()
            except (JobcloudError, TimeoutError) as error:
                raise Unavailable(Told(f"the scheduler does not answer: {error}", "no_answer"), fix=TRY_SOON) from error
            self._addresses, self._asked_at = dict(addresses), now
        if not (address := self._addresses.get(agent_id, "")):
            raise Unavailable(Told("the address of the agent is unknown", "no_address"), fix=TRY_SOON)
        return address
