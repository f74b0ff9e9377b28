"""`jobcloud events`: notices of the scheduler."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from jobcloud.client import render
from jobcloud.client.commands.connection import connect
from jobcloud.client.commands.options import AsJson, key_of, team_of


def events(
    ctx: typer.Context,
    job: Annotated[str, typer.Option(metavar="JOB", help="Only notices about this job and its tasks.")] = "",
    app: Annotated[str, typer.Option(metavar="APP", help="Only notices about this app itself.")] = "",
    topic: Annotated[str, typer.Option(help="Only this topic, such as fired, ended, done, fault or config.")] = "",
    limit: Annotated[
        int, typer.Option(min=0, max=2_000, help="Maximum number of remembered notices, the newest ones.")
    ] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with each new notice, until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what happens: firings, launches, ends, faults, changes. The server remembers the newest 2,000 notices.

    With --follow, the command continues if the server is away for at most 30 s.
    """
    wanted = {"jobName": key_of(ctx, job), "appName": key_of(ctx, app, "app"), "topic": topic.lower()}
    wanted["team"] = "" if job or app else team_of(ctx)
    shown = 0
    with connect(ctx) as client:
        try:
            for missed, event in client.recent_events(limit, follow=follow):
                if missed > 0:
                    sys.stderr.write(f"({missed} notices are missing here: the server no longer has them)\n")
                if all(event[name] == value for name, value in wanted.items() if value):
                    shown += 1
                    render.show_line(event) if as_json else render.event(event)
                    sys.stdout.flush()
        except KeyboardInterrupt:
            return
    if not shown and not as_json:
        given = {"--job": job, "--app": app, "--topic": topic, "--team": wanted["team"]}
        render.say(render.nothing("notice", given, "no notices: nothing has happened since the server started"), "dim")
