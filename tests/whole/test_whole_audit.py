"""The audit log of a whole dev cluster whose scheduler is killed while it carries out changes."""

from __future__ import annotations

import json
import os
import signal
import threading
from typing import Any

import pytest
from tests.whole_kit import Product, scheduler_of, until

from jobcloud.audit.folder import files_in
from jobcloud.audit.verify import verify

pytestmark = pytest.mark.dev_cluster


def test_no_confirmed_change_lacks_an_entry_although_the_scheduler_was_killed(dev: Product) -> None:
    dev.start("dev", "--demo", "--data", str(dev.data), "--port", str(dev.port))
    until(dev.healthy, "a healthy server")
    until(lambda: dev.call("jobs/sales")[0] == 200, "the demo's job")
    config = dev.get("jobs/sales")["config"]
    confirmed: list[str] = []
    stop = threading.Event()

    def change() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            if dev.call("jobs/sales", "PUT", {**config, "description": f"change {number}"})[0] == 200:
                confirmed.append(f"change {number}")

    writer = threading.Thread(target=change)
    writer.start()
    for _ in range(2):
        before, first = len(confirmed), scheduler_of(dev.data)
        until(lambda before=before: len(confirmed) > before + 5, "some changes")  # type: ignore[misc]
        os.kill(first, signal.SIGKILL)
        until(lambda first=first: dev.healthy() and scheduler_of(dev.data) != first, "a new scheduler")  # type: ignore[misc]
    stop.set()
    writer.join()

    (folder,) = {path.parent for path in dev.data.rglob("audit-000001.jsonl")}
    report = until(lambda: found if not (found := verify(files_in(folder))).torn else None, "a whole line")
    assert report.fault is None
    assert len(report.heads) == 1
    entries: list[dict[str, Any]] = [
        json.loads(line) for path in files_in(folder) for line in path.read_text().splitlines()
    ]
    assert [entry["kind"] for entry in entries].count("start") == 3
    intents = [entry for entry in entries if entry["kind"] == "intent" and entry.get("target") == "sales"]
    assert len(intents) >= len(confirmed)
    told = {
        change["after"]["description"]
        for entry in entries
        for change in entry.get("changes", ())
        if "description" in (change.get("after") or {})
    }
    # A kill may lose the outcome of the change that was confirmed last.
    assert len(set(confirmed) - told) <= 2
    assert "entries are whole" in dev.run("audit", "verify", str(folder))
    newest = entries[-1]["seq"]

    def known() -> bool:
        status, found = dev.call("audit", limit="50")
        return status == 200 and any(entry["seq"] >= newest for entry in found["items"])

    until(known, "the history")
    assert "token:server" in dev.run("audit", "list", "--target", "sales")
