"""Telling a webhook of runs that failed: one POST each, by one thread of the daemon, never in the way of anything."""

from __future__ import annotations

import json
import queue
import threading
from typing import Any, Mapping, Optional, Tuple

from jobcloud.executor.loop import log

# Calls that may wait for a slow server; further ones are dropped with a line in the daemon's log.
MOST_WAITING = 1_000
_CONNECT_MS, _ANSWER_MS = 3_000, 5_000


class Webhooks:
    """Any thread may call. The thread starts with the first report."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[Tuple[str, bytes]] = queue.Queue(MOST_WAITING)
        self._thread: Optional[threading.Thread] = None

    @property
    def busy(self) -> bool:
        """Whether a report has not been handed over yet."""
        return self._waiting.unfinished_tasks > 0

    def report(self, url: str, report: Mapping[str, Any]) -> None:
        """Send `report` as JSON, once; nothing comes of a server that does not take it but a line in the log."""
        try:
            self._waiting.put_nowait((url, json.dumps(report).encode()))
        except queue.Full:
            log(f"{MOST_WAITING} reports wait for webhooks; one more is dropped")
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
                log(f"the webhook {url:.200} was not told of a failure: {type(error).__name__}: {error}")
            finally:
                self._waiting.task_done()


def _post(url: str, report: bytes) -> None:
    """Raises OSError, HTTPException, or Refused where it is not taken."""
    from jobcloud.executor import http_job  # ssl and what it needs: only where there is a webhook

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
