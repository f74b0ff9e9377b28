"""Reports of failed executions to webhooks. One thread of the daemon sends one POST for each report."""

from __future__ import annotations

import json
import queue
import threading
from typing import Any, Mapping, Optional, Tuple

from jobcloud.executor.loop import log

# At most this many reports wait to be sent. Further reports are dropped, with a line in the daemon's log.
MAX_WAITING = 1_000
_CONNECT_MS, _ANSWER_MS = 3_000, 5_000


class Webhooks:
    """The waiting reports. The first report starts the thread that sends them. Only one thread may call `report`."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[Tuple[str, bytes]] = queue.Queue(MAX_WAITING)
        self._thread: Optional[threading.Thread] = None

    @property
    def busy(self) -> bool:
        """Whether a report is still to be sent."""
        return self._waiting.unfinished_tasks > 0

    def report(self, url: str, report: Mapping[str, Any]) -> None:
        """Let the thread send `report` as JSON.

        If the server does not accept the report, a line is logged, and the report is not sent again.
        """
        try:
            self._waiting.put_nowait((url, json.dumps(report).encode()))
        except queue.Full:
            log(f"dropped a webhook report: {MAX_WAITING} are waiting already")
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            url, report = self._waiting.get()
            try:
                _post(url, report)
            except Exception as error:
                log(f"the webhook {url:.200} did not take a report: {type(error).__name__}: {error}")
            finally:
                self._waiting.task_done()


def _post(url: str, report: bytes) -> None:
    """Send a report. Raises OSError, HTTPException or Refused if the server does not accept it."""
    from jobcloud.executor import http_job  # imported only for jobs with a webhook: it imports ssl

    request = {
        "uri": url,
        "method": "POST",
        "data": report.decode(),
        "contentType": "application/json",
        "connectTimeout": _CONNECT_MS,
        "readTimeout": _ANSWER_MS,
    }
    status, reason = http_job.send(request, {})
    if not 200 <= status < 300:
        raise http_job.Refused(f"it answered {status} {reason}")
