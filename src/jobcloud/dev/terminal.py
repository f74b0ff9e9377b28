"""Terminal output of `jobcloud dev`: one line for each run, and failures."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from jobcloud.client.http import ApiError, Client, NotReachable
from jobcloud.client.render import clean

_RECONNECT_S = 0.5
_STYLES = {"FINISHED": "green", "FAILED": "bold red", "KILLED": "yellow", "CANCELLED": "yellow"}


@dataclass(slots=True)
class _Run:
    """A run that has not ended: the time of its firing, and the number of its launches by host."""

    fired: datetime
    hosts: Counter[str] = field(default_factory=Counter)


class EventPrinter:
    """Prints the server's events as lines for people."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._runs: dict[str, _Run] = {}
        self._printers: dict[str, Callable[[dict[str, Any], datetime], None]] = {
            "fired": self._fired,
            "launched": self._launched,
            "running": self._running,
            "ended": self._ended,
            "done": self._done,
            "skipped": self._skipped,
            "refused": self._skipped,
            "fault": self._fault,
            "cluster": self._cluster,
            "config": self._config,
        }

    def follow(self, client: Client) -> None:
        """Print events until the process ends. Reconnects when the server comes back."""
        while True:
            try:
                for event in client.events():
                    self.show(event)
            except (ApiError, NotReachable):
                time.sleep(_RECONNECT_S)

    def show(self, event: dict[str, Any]) -> None:
        """Print one event. `event` has the JSON form of the events route."""
        printer = self._printers.get(event["topic"])
        if printer is not None:
            printer(event, datetime.fromisoformat(event["at"]).astimezone())

    def _fired(self, event: dict[str, Any], at: datetime) -> None:
        self._runs[event["runId"]] = _Run(at)

    def _launched(self, event: dict[str, Any], at: datetime) -> None:
        self._runs.setdefault(event["runId"], _Run(at)).hosts[event["hostname"]] += 1

    def _running(self, event: dict[str, Any], at: datetime) -> None:
        if event["text"] == "COMPLETE":
            self._line(at, event["jobName"], Text("ran, resident", style="cyan"), event["hostname"])

    def _ended(self, event: dict[str, Any], at: datetime) -> None:
        if event["state"] != "FINISHED":
            text = f"shard {event['item']} {event['state']}: {event['text'].partition(chr(10))[0]}"
            self._line(at, event["jobName"], Text(text, style="red"), event["hostname"])

    def _done(self, event: dict[str, Any], at: datetime) -> None:
        run = self._runs.pop(event["runId"], _Run(at))
        style = next(
            (style for state, style in _STYLES.items() if state in event["text"] and state != "FINISHED"), "green"
        )
        took = f" in {(at - run.fired).total_seconds():.2f} s"
        hosts = "  ".join(f"{host.removesuffix('.localhost')}×{count}" for host, count in sorted(run.hosts.items()))
        self._line(at, event["jobName"], Text(event["text"].lower() + took, style=style), hosts)

    def _skipped(self, event: dict[str, Any], at: datetime) -> None:
        self._line(at, event["jobName"], Text(event["text"], style="yellow"), "")

    def _fault(self, event: dict[str, Any], at: datetime) -> None:
        self._line(at, event["jobName"] or "-", Text(event["text"], style="bold red"), "")

    def _cluster(self, event: dict[str, Any], at: datetime) -> None:
        self._line(at, "cluster", Text(event["text"], style="dim"), "")

    def _config(self, event: dict[str, Any], at: datetime) -> None:
        self._line(at, "config", Text(event["text"], style="dim"), "")

    def _line(self, at: datetime, subject: str, text: Text, host: str) -> None:
        # Texts of jobs may contain escape sequences, and Rich would pass these on to the terminal.
        text.plain, host = clean(text.plain), clean(host)
        line = Text.assemble((f"{at:%H:%M:%S} ", "dim"), (f"{subject:<12.24} ", "bold"), text)
        if host:
            line.append(f"   {host.removesuffix('.localhost')}", style="blue")
        self._console.print(line)


def banner(url: str, data: Path | None, demo: bool) -> RenderableType:
    """The addresses of the server, and commands to try."""
    facts = Table.grid(padding=(0, 2))
    facts.add_row("console", f"{url}/")
    facts.add_row("API", f"{url}/api/v1")
    facts.add_row("OpenAPI", f"{url}/api/v1/openapi.json")
    facts.add_row("state", str(data) if data else "in a temporary folder, removed at the end (to keep it: --data DIR)")
    commands = Table.grid(padding=(0, 2))
    for command, purpose in (
        ("jobcloud login-link", "print a link that signs a browser in"),
        ("jobcloud runs", "list runs, with hosts and results"),
        ("jobcloud job trigger sales", "run a job now") if demo else ("jobcloud app add DIR", "register your app"),
        ("jobcloud explain sales", "explain why a job runs or does not run")
        if demo
        else ("jobcloud next '0 0 3 ? * MON'", "list the next times of a cron expression"),
    ):
        commands.add_row(f"[bold]{command}[/]", purpose)
    body = Group(
        facts, Text("\nTry in another terminal:"), commands, Text("\nCtrl-C stops all processes.", style="dim")
    )
    return Panel(
        body, title="jobcloud dev - for laptops and tests, not for production", expand=False, border_style="blue"
    )
