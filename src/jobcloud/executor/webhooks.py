"""Reports of failed executions to webhooks: one POST for each, sent by one thread of the daemon."""

from __future__ import annotations

import json
import queue
import threading
from typing import Any, Mapping, Optional, Tuple

from jobcloud.executor.loop import log

# Reports that may wait for a slow server. More are dropped, with a line in the daemon's log.
MAX_WAITING = 1_000
_CONNECT_MS, _ANSWER_MS = 3_000, 5_000


class Webhooks:
    """Any thread may call this. The sending thread starts with the first report."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[Tuple[str, bytes]] = queue.Queue(MAX_WAITING)
        self._thread: Optional[threading.Thread] = None

    @property
    def busy(self) -> bool:
        """Whether a report is still to be sent."""
        return self._waiting.unfinished_tasks > 0

    def report(self, url: str, report: Mapping[str, Any]) -> None:
        """Send `report` as JSON. A failed attempt is logged and not repeated."""
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
    """Raises OSError, HTTPException, or Refused if the server does not take the report."""
    from jobcloud.executor import http_job  # imports ssl: only for jobs with a webhook

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
