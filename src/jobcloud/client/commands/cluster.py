"""`jobcloud cluster`, `agent` and `framework`: the agents and the Mesos framework."""

from __future__ import annotations

import sys
from functools import partial
from typing import Annotated

import typer

from jobcloud.client import render
from jobcloud.client.commands.connection import connect
from jobcloud.client.commands.options import AsJson, Watch, Wide, team_of
from jobcloud.errors import ConfigError

agent_commands = typer.Typer(no_args_is_help=True)
framework_commands = typer.Typer(no_args_is_help=True)

AgentName = Annotated[
    str, typer.Argument(metavar="AGENT", help="Id or host name of the agent, as in `jobcloud cluster`.")
]


def show_cluster(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Show the agents with their offered and used resources, drains and maintenance windows."""
    with connect(ctx) as client:
        render.show(client.cluster(), render.cluster, as_json=as_json)


def list_executors(ctx: typer.Context, wide: Wide = False, watch: Watch = False, as_json: AsJson = False) -> None:
    """List the executors on agents: their app, package, tasks and age.

    On an agent, the tasks of one version of an app share an executor.
    """
    team = team_of(ctx)
    empty = render.nothing("executor", {"--team": team}, "no executors: nothing runs")
    with connect(ctx) as client:
        table = partial(render.executors, wide=wide, empty=empty)
        render.watched(lambda: client.executors(team), table, watch=watch, as_json=as_json)


@agent_commands.command("drain")
def drain(
    ctx: typer.Context,
    agent: AgentName,
    deadline: Annotated[
        str, typer.Option(metavar="DURATION", help="Time until the deadline, such as 90s or 2h; at least 1s.")
    ] = "10m",
    reason: Annotated[str, typer.Option(help="Text that `jobcloud cluster` shows as the reason.")] = "",
    as_json: AsJson = False,
) -> None:
    """Drain an agent: it gets no new tasks, and its shards move to other agents if they can.

    DAEMON shards move a few at a time. When half of the time until the deadline has passed, the rest move at once.

    TRANSIENT shards may finish. At the deadline, those of jobs with failover move, and others stay until they end.
    """
    from jobcloud.durations import parse_ms

    seconds, rest = divmod(parse_ms(deadline, "--deadline"), 1_000)
    if rest or not 1 <= seconds <= 30 * 86_400:
        raise ConfigError(f"{deadline} is out of range", field="--deadline", fix="whole seconds, 1s to 30d")
    with connect(ctx) as client:
        drained = client.drain(agent, seconds, reason)
    name = drained["hostname"] or drained["agentId"]
    render.answer(drained, f"{name} gets no new tasks; tasks on it now: {drained['tasks']}", as_json=as_json)


@agent_commands.command("undrain")
def undrain(ctx: typer.Context, agent: AgentName, as_json: AsJson = False) -> None:
    """End the drain of an agent. The agent gets new tasks again, unless Mesos has a maintenance window for it."""
    with connect(ctx) as client:
        uncordoned = client.undrain(agent)
    name = uncordoned["hostname"] or uncordoned["agentId"]
    render.answer(uncordoned, f"{name} gets new tasks again", as_json=as_json)


@framework_commands.command("teardown")
def tear_down(
    ctx: typer.Context,
    confirm: Annotated[
        str, typer.Option(help="Id of the framework, as a confirmation. Default: the command asks for the id.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Remove the framework from Mesos. This KILLS all its tasks.

    Mesos also removes the framework if no scheduler connects for the time mesos.failover_timeout (a week by default).
    """
    with connect(ctx) as client:
        framework_id = client.cluster()["frameworkId"]
        if not confirm and framework_id and sys.stdin.isatty():
            confirm = typer.prompt(f"All tasks of framework {framework_id} will be killed. Type its id to continue")
        done = client.tear_down(confirm)
    render.answer(done, f"framework {done['frameworkId']} is removed", as_json=as_json)
