"""What `jobcloud dev` shows on the terminal: one line a firing, and what goes wrong."""

from __future__ import annotations

import time
from collections import Counter
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

_AGAIN_S = 0.5
_STYLES = {"FINISHED": "green", "FAILED": "bold red", "KILLED": "yellow", "CANCELLED": "yellow"}


@dataclass(slots=True)
class _Run:
    """A firing on its way: where its shards went."""

    fired: datetime
    hosts: Counter[str] = field(default_factory=Counter)


class View:
    """Follows the server's notices and prints them in a form for people."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._runs: dict[str, _Run] = {}

    def follow(self, client: Client) -> None:
        """Print until the process ends; the server may go and come back meanwhile."""
        while True:
            try:
                for notice in client.events():
                    self.show(notice)
            except (ApiError, NotReachable):
                time.sleep(_AGAIN_S)

    def show(self, notice: dict[str, Any]) -> None:
        """Take one notice, in the JSON form of the events route."""
        handler = getattr(self, f"_on_{notice['topic']}", None)
        if handler is not None:
            handler(notice, _instant(notice))

    def _on_fired(self, notice: dict[str, Any], at: datetime) -> None:
        self._runs[notice["runId"]] = _Run(at)

    def _on_launched(self, notice: dict[str, Any], at: datetime) -> None:
        self._runs.setdefault(notice["runId"], _Run(at)).hosts[notice["hostname"]] += 1

    def _on_running(self, notice: dict[str, Any], at: datetime) -> None:
        if notice["text"] == "COMPLETE":
            self._line(at, notice["jobName"], Text("ran, resident", style="cyan"), notice["hostname"])

    def _on_ended(self, notice: dict[str, Any], at: datetime) -> None:
        if notice["state"] != "FINISHED":
            what = f"shard {notice['item']} {notice['state']}: {notice['text'].partition(chr(10))[0]}"
            self._line(at, notice["jobName"], Text(what, style="red"), notice["hostname"])

    def _on_done(self, notice: dict[str, Any], at: datetime) -> None:
        run = self._runs.pop(notice["runId"], _Run(at))
        style = next(
            (style for state, style in _STYLES.items() if state in notice["text"] and state != "FINISHED"), "green"
        )
        took = f" in {(at - run.fired).total_seconds():.2f} s"
        hosts = "  ".join(f"{host.removesuffix('.localhost')}×{count}" for host, count in sorted(run.hosts.items()))
        self._line(at, notice["jobName"], Text(notice["text"].lower() + took, style=style), hosts)

    def _on_skipped(self, notice: dict[str, Any], at: datetime) -> None:
        self._line(at, notice["jobName"], Text(notice["text"], style="yellow"), "")

    _on_refused = _on_skipped

    def _on_fault(self, notice: dict[str, Any], at: datetime) -> None:
        self._line(at, notice["jobName"] or "-", Text(notice["text"], style="bold red"), "")

    def _on_cluster(self, notice: dict[str, Any], at: datetime) -> None:
        self._line(at, "cluster", Text(notice["text"], style="dim"), "")

    def _on_config(self, notice: dict[str, Any], at: datetime) -> None:
        self._line(at, "config", Text(notice["text"], style="dim"), "")

    def _line(self, at: datetime, who: str, what: Text, where: str) -> None:
        # What jobs say is theirs to choose; Rich would hand its escape sequences to the terminal.
        what.plain, where = clean(what.plain), clean(where)
        line = Text.assemble((f"{at:%H:%M:%S} ", "dim"), (f"{who:<12.24} ", "bold"), what)
        if where:
            line.append(f"   {where.removesuffix('.localhost')}", style="blue")
        self._console.print(line)


def _instant(notice: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(notice["at"]).astimezone()


def banner(url: str, data: Path | None, demo: bool) -> RenderableType:
    """Where things are and what to try next."""
    facts = Table.grid(padding=(0, 2))
    facts.add_row("API", f"{url}/api/v1")
    facts.add_row("its description", f"{url}/api/v1/openapi.json")
    facts.add_row("state", str(data) if data else "a temporary folder, removed at the end (keep it: --data DIR)")
    commands = Table.grid(padding=(0, 2))
    for command, what in (
        ("jobcloud runs", "what has run, where, how it ended"),
        ("jobcloud job trigger sales", "run it now") if demo else ("jobcloud app add DIR", "register your app"),
        ("jobcloud explain sales", "why it is, or is not, running")
        if demo
        else ("jobcloud next '0 0 3 ? * MON'", "try a cron"),
    ):
        commands.add_row(f"[bold]{command}[/]", what)
    body = Group(
        facts, Text("\nTry next, in another terminal:"), commands, Text("\nCtrl-C ends everything.", style="dim")
    )
    return Panel(
        body, title="jobcloud dev - for laptops and tests, not for production", expand=False, border_style="blue"
    )
