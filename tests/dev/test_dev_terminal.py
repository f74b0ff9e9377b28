"""Terminal output of `jobcloud dev`."""

from __future__ import annotations

import io

from rich.console import Console

from jobcloud.dev.terminal import EventPrinter


def test_job_text_cannot_control_terminal() -> None:
    screen = io.StringIO()
    printer = EventPrinter(Console(file=screen, width=200))
    printer.show(
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
    output = screen.getvalue()
    assert "\x1b" not in output
    assert "no �]0;stock" in output
    assert "[red]here" in output
