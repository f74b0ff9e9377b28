"""`jobcloud workflow`: which job of a team runs after which."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobcloud.client import render
from jobcloud.client.commands.connection import connect
from jobcloud.client.commands.exit_codes import Exit
from jobcloud.client.commands.options import AsJson, Limit, Watch, states, team_of

commands = typer.Typer(no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="WORKFLOW", help="The workflow, as [TEAM:]NAME.")]
Rejected = Annotated[bool, typer.Option("--reject", help="The node fails.")]
Result = Annotated[str, typer.Option(metavar="TEXT", help="The result of the node, for conditions.")]
Note = Annotated[str, typer.Option(metavar="TEXT", help="Text for people.")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="Id of the run, as `jobcloud workflow runs` shows it.")]


@commands.command("set")
def set_workflows(
    ctx: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="File in YAML, TOML, JSON or Python.")
    ],
    as_json: AsJson = False,
) -> None:
    """Create or change the workflow of a file, or all workflows in its list `workflows`.

    If one is refused, none is set. Runs that have begun keep their nodes.

    A Python file makes workflows with the module jobcloud.workflow. It is run on this machine.
    """
    from jobcloud.client import workflow_files

    given = workflow_files.read(file, team_of(ctx))
    with connect(ctx) as client:
        if as_json:
            render.show_json(list(workflow_files.send(client, given)))
            return
        for made in workflow_files.send(client, given):
            render.say(f"workflow {made['workflow']} starts with {made['start']}; nodes: {len(made['nodes'])}")


@commands.command("list")
def list_workflows(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the workflows, with the state of their newest runs."""
    from jobcloud.client import workflow_tables

    with connect(ctx) as client:
        render.show(client.workflows(team_of(ctx)), workflow_tables.workflows, as_json=as_json)


@commands.command("show")
def show(ctx: typer.Context, workflow: Name, as_json: AsJson = False) -> None:
    """Show a workflow with its nodes. `workflow set` takes the output of --json."""
    from jobcloud.client import workflow_tables

    with connect(ctx) as client:
        render.show(client.workflow(_key(ctx, workflow)), workflow_tables.workflow, as_json=as_json)


@commands.command("rm")
def remove(ctx: typer.Context, workflow: Name, as_json: AsJson = False) -> None:
    """Remove a workflow. Its runs that have begun go on."""
    key = _key(ctx, workflow)
    with connect(ctx) as client:
        client.remove_workflow(key)
    render.answer({"workflow": key, "removed": True}, f"workflow {key} is removed", as_json=as_json)


@commands.command("runs")
def list_runs(
    ctx: typer.Context,
    workflow: Name,
    state: Annotated[
        str, typer.Option(metavar="STATE,…", help="Only these states: RUNNING, SUCCEEDED, FAILED, CANCELLED.")
    ] = "",
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """List the newest runs of a workflow."""
    from jobcloud.client import workflow_tables

    with connect(ctx) as client:
        found = client.workflow_runs(_key(ctx, workflow), limit, states(state))
    render.show(found, workflow_tables.runs, as_json=as_json)


@commands.command("run")
def show_run(ctx: typer.Context, run: RunId, watch: Watch = False, as_json: AsJson = False) -> None:
    """Show a run of a workflow as a tree of its nodes.

    A node stands under the last of the nodes that it waits for. The column AFTER names all of them if it has several.
    """
    from jobcloud.client import workflow_tables

    with connect(ctx) as client:
        render.watched(lambda: client.workflow_run(run), workflow_tables.run, watch=watch, as_json=as_json)


@commands.command("cancel")
def cancel(ctx: typer.Context, run: RunId, as_json: AsJson = False) -> None:
    """Cancel a run of a workflow: the runs of its nodes are cancelled, and no further node starts."""
    with connect(ctx) as client:
        found = client.cancel_workflow_run(run)
    ending = found["nodeStates"].get("RUNNING", 0)
    text = f"run {found['id']} is cancelled" + (f"; nodes that are being ended: {ending}" if ending else "")
    render.answer(found, text, as_json=as_json)


@commands.command("retry")
def retry(ctx: typer.Context, run: RunId, as_json: AsJson = False) -> None:
    """Repeat the failed and cancelled nodes of a run. Skipped nodes behind them wait again."""
    with connect(ctx) as client:
        found = client.retry_workflow_run(run)
    render.answer(found, f"run {found['id']} is {found['state']}", as_json=as_json)


@commands.command("pause")
def pause(ctx: typer.Context, run: RunId, as_json: AsJson = False) -> None:
    """Start no further node of a run until it is resumed. Nodes that have begun go on."""
    with connect(ctx) as client:
        found = client.pause_workflow_run(run, "pause")
    render.answer(found, f"run {found['id']} is paused", as_json=as_json)


@commands.command("resume")
def resume(ctx: typer.Context, run: RunId, as_json: AsJson = False) -> None:
    """Continue a paused run."""
    with connect(ctx) as client:
        found = client.pause_workflow_run(run, "resume")
    render.answer(found, f"run {found['id']} is resumed", as_json=as_json)


@commands.command("answer")
def answer(
    ctx: typer.Context,
    run: RunId,
    node: Annotated[str, typer.Argument(metavar="NODE", help="The node that waits for an approval or a callback.")],
    rejected: Rejected = False,
    result: Result = "",
    note: Note = "",
    as_json: AsJson = False,
) -> None:
    """Approve or reject a node that waits for it, or tell the end of what a callback reports."""
    with connect(ctx) as client:
        found = client.answer_node(run, node, {"succeeded": not rejected, "result": result, "note": note})
    text = f"node {node} of run {found['id']} is {'rejected' if rejected else 'approved'}"
    render.answer(found, text, as_json=as_json)


@commands.command("event")
def send_event(
    ctx: typer.Context,
    event: Annotated[str, typer.Argument(metavar="EVENT", help="The name of the event.")],
    fire_time: Annotated[
        int | None,
        typer.Option("--fire-time", metavar="MS", help="Only in runs with this fire time, in ms since 1970."),
    ] = None,
    rejected: Rejected = False,
    result: Result = "",
    note: Note = "",
    as_json: AsJson = False,
) -> None:
    """Send an event to the nodes of a team that wait for it."""
    from jobcloud.config import DEFAULT_TEAM

    team = team_of(ctx) or DEFAULT_TEAM
    sent = {"event": event, "team": team, "succeeded": not rejected, "result": result, "note": note}
    with connect(ctx) as client:
        answered = client.send_event(sent if fire_time is None else {**sent, "fireTime": fire_time})
    text = f"{answered} nodes of team {team} waited for the event {event}"
    render.answer({"answered": answered}, text, as_json=as_json)


@commands.command("trigger")
def trigger(ctx: typer.Context, workflow: Name, as_json: AsJson = False) -> None:
    """Trigger the job of the start now, which begins a run of each workflow that starts with this job."""
    from jobcloud.config import key_of

    with connect(ctx) as client:
        known = client.workflow(_key(ctx, workflow))
        (job,) = (node["job"] for node in known["nodes"] if node["name"] == known["start"])
        made = client.run_state(client.trigger(key_of(known["team"], job))["id"])
        runs = [client.workflow_run(place["run"]) for place in made["workflowNodes"]]
        began = [run for run in runs if run["workflow"] == known["workflow"]]
        if as_json:
            render.show_json(began)
        elif began:
            render.say(f"run {began[0]['id']} began")
    if not began:
        if not as_json:
            render.complain(f"run {made['id']} began no run of the workflow: too many of its runs have not ended")
        raise typer.Exit(Exit.REFUSED)


def _key(ctx: typer.Context, text: str) -> str:
    from jobcloud.config import qualified

    return qualified(text, team_of(ctx))
