"""What `jobcloud dev` prints of the server's notices."""

from __future__ import annotations

import io

from rich.console import Console

from jobcloud.dev.terminal import EventPrinter


def test_job_text_cannot_control_terminal() -> None:
    screen = io.StringIO()
    view = EventPrinter(Console(file=screen, width=200))
    view.show(
        {
            "topic": "ended",
            "at": "2026-01-01T00:00:00.000Z",
            "jobName": "loud",
            "item": 0,
            "state": "FAILED",
            "text": "no \x1b]0;stock\x07 [red]here",
            "hostname": "agent1.localhost",
        }
    )
    said = screen.getvalue()
    assert "\x1b" not in said
    assert "no �]0;stock" in said
    assert "[red]here" in said
