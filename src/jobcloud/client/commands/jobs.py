"""`jobcloud job`: register, change, run and remove jobs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from jobcloud.client import render
from jobcloud.client.commands.connection import connect
from jobcloud.client.commands.exit_codes import Exit
from jobcloud.client.commands.field_help import ListsJobFields
from jobcloud.client.commands.options import AsJson, JobName, grouped, key_of, team_of
from jobcloud.errors import ConfigError

if TYPE_CHECKING:
    from jobcloud.client.http import Client, Json

commands = typer.Typer(no_args_is_help=True)

JobFile = Annotated[
    str, typer.Argument(metavar="FILE|-", help="JSON file with a job or a list of jobs; - reads standard input.")
]
NewConfig = Annotated[str, typer.Argument(metavar="FILE|-", help="JSON file with the job; - reads standard input.")]
Fields = Annotated[
    list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Set a field by its JSON name. Repeatable.")
]


@commands.command("add", cls=ListsJobFields)
def add(
    ctx: typer.Context,
    file: JobFile = "",
    fields: Fields = None,
    disabled: Annotated[
        bool,
        typer.Option("--disabled", help="Register the jobs as disabled. To enable a job, use `jobcloud job enable`."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Register jobs from JSON, from --set fields, or from both. See docs/job-configuration.md for the fields."""
    if not file and not fields:
        raise ConfigError("there is no job to add", field="FILE", fix="name a JSON file, or give --set jobName=… etc.")
    configs = _read_jobs(file) if file else [{}]
    with connect(ctx) as client:
        given = [_with_team(config | _assignments(fields), team_of(ctx)) for config in configs]
        added = [client.create_job(config, enabled=not disabled) for config in given]
    if as_json:
        render.show_json(added if len(added) > 1 else added[0])
    else:
        render.jobs(added)


@commands.command("update", cls=ListsJobFields)
def update(
    ctx: typer.Context, job: JobName, file: NewConfig = "", fields: Fields = None, as_json: AsJson = False
) -> None:
    """Replace a job's configuration with FILE, change single fields with --set, or both."""
    from jobcloud.config import split_key

    if not file and not fields:
        raise ConfigError("there is nothing to change", field="FILE", fix="name a JSON file, or give --set FIELD=VALUE")
    configs = _read_jobs(file) if file else []
    if len(configs) > 1:
        raise ConfigError(f"{file} holds {len(configs)} jobs", field="FILE", fix="update one job at a time")
    key = key_of(ctx, job)
    with connect(ctx) as client:
        config = _with_team(configs[0], split_key(key)[0]) if configs else client.job(key)["config"]
        updated = client.update_job(key, config | _assignments(fields))
        render.show(updated, render.job, as_json=as_json)


@commands.command("list")
def list_jobs(
    ctx: typer.Context, app: Annotated[str, typer.Option(help="Only jobs of this app.")] = "", as_json: AsJson = False
) -> None:
    """List jobs."""
    with connect(ctx) as client:
        if app:
            client.app(key_of(ctx, app))  # raises if the app does not exist
        found = client.jobs(key_of(ctx, app)) if app else client.jobs(team=team_of(ctx))
        render.show(found, render.jobs, as_json=as_json)


@commands.command("show")
def show(ctx: typer.Context, job: JobName, as_json: AsJson = False) -> None:
    """Show a job and its configuration."""
    with connect(ctx) as client:
        render.show(client.job(key_of(ctx, job)), render.job, as_json=as_json)


@commands.command("remove")
def remove(ctx: typer.Context, job: JobName, as_json: AsJson = False) -> None:
    """Remove a job and kill its tasks."""
    key = key_of(ctx, job)
    with connect(ctx) as client:
        client.remove_job(key)
    render.answer({"jobName": key, "removed": True}, f"job {key} is removed", as_json=as_json)


class _Terms(NamedTuple):
    """What the run has in place of the job's own values."""

    parameter: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Parameter of all shards, in place of jobParameter.")
    ] = None
    item_parameter: Annotated[
        list[str] | None, typer.Option(metavar="N=TEXT", help="Parameter of shard N. Repeatable.")
    ] = None
    shard: Annotated[
        list[int] | None, typer.Option(min=0, help="Run only this shard. Repeatable. Default: all shards.")
    ] = None
    priority: Annotated[
        int | None, typer.Option(min=-1000, max=1000, help="Priority of the run. Default: that of the job.")
    ] = None
    key: Annotated[
        str, typer.Option(help="A name for the run. If the job has a run with this key, no other one is started.")
    ] = ""


class _Waiting(NamedTuple):
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the end of the run. Exit with 1 if it is not FINISHED.")
    ] = False
    follow: Annotated[bool, typer.Option("--follow", "-f", help="As --wait, and print the output of its shards.")] = (
        False
    )
    timeout: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Maximum time of --wait and --follow; 0: no limit.")
    ] = 0


@commands.command("trigger")
@grouped
def trigger(ctx: typer.Context, job: JobName, terms: _Terms, waiting: _Waiting, as_json: AsJson = False) -> None:
    """Run a job now, also with other parameters or only some shards."""
    if waiting.follow and as_json:
        raise ConfigError("--follow prints text", field="--json", fix="use --wait with --json")
    with connect(ctx) as client:
        run = client.trigger(key_of(ctx, job), _terms(terms))
        text = f"run {run['id']} is {run['state']}" + (", and was triggered before" if run["existed"] else "")
        if not (waiting.wait or waiting.follow):
            render.answer(run, text, as_json=as_json)
            return
        if not as_json:
            render.say(text)
        ended = _wait(client, run["id"], waiting)
    if ended["endedAt"]:
        render.answer(ended, f"run {ended['id']} is {ended['state']}", as_json=as_json)
    else:
        render.answer(ended, f"run {ended['id']} continues after {waiting.timeout:g} s", as_json=as_json)
    if ended["state"] != "FINISHED":
        raise typer.Exit(Exit.REFUSED)


def _terms(given: _Terms) -> Json:
    """The body of a trigger. Raises ConfigError."""
    items: Json = {}
    for pair in given.item_parameter or ():
        item, sign, text = pair.partition("=")
        if not sign or item in items:
            raise ConfigError(f"{pair!r} is not a new N=TEXT", field="--item-parameter", fix="such as 0=Berlin")
        items[item] = text
    body = {
        "jobParameter": given.parameter,
        "shardingItemParameters": items or None,
        "shards": given.shard or None,
        "priority": given.priority,
        "key": given.key or None,
    }
    return {name: value for name, value in body.items() if value is not None}


def _wait(client: Client, run_id: str, waiting: _Waiting) -> Json:
    """The run after its end or after the time limit. Prints its output if it is followed."""
    from jobcloud.client.following import MAX_FOLLOWED, Prefixed, wait_for_run

    within_s = waiting.timeout or float("inf")
    if not waiting.follow:
        return wait_for_run(client, run_id, within_s)
    shown = client.run_state(run_id)
    count = len(shown["terms"]["shards"] if shown["terms"] else ()) or shown["shardCount"]
    if count > MAX_FOLLOWED:
        sys.stderr.write(f"(only the output of the first {MAX_FOLLOWED} shards is printed)\n")
    printed = Prefixed(_print, several=count > 1)
    try:
        return wait_for_run(client, run_id, within_s, printed.show)
    finally:
        printed.end()


def _print(stream: str, text: str) -> None:
    file = sys.stderr if stream == "stderr" else sys.stdout
    file.write(text)
    file.flush()


@commands.command("enable")
def enable(ctx: typer.Context, job: JobName, as_json: AsJson = False) -> None:
    """Enable a job. It fires again, unless its app is disabled."""
    with connect(ctx) as client:
        render.show(client.switch_job(key_of(ctx, job), enabled=True), render.job, as_json=as_json)


@commands.command("disable")
def disable(ctx: typer.Context, job: JobName, as_json: AsJson = False) -> None:
    """Disable a job. It does not fire, and its tasks are killed."""
    with connect(ctx) as client:
        render.show(client.switch_job(key_of(ctx, job), enabled=False), render.job, as_json=as_json)


def _with_team(config: Json, team: str) -> Json:
    """The configuration with this team, unless it names one. The default is left out."""
    from jobcloud.config import DEFAULT_TEAM

    return config if team in ("", DEFAULT_TEAM) else {"team": team, **config}


def _read_jobs(file: str) -> list[Json]:
    """Raises ConfigError if the file cannot be read or is not JSON of jobs."""
    import json

    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        # A byte order mark
        found = json.loads(text.removeprefix("\ufeff"))
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}", field="FILE") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is not valid JSON: {error}", field="FILE") from error
    jobs = found if isinstance(found, list) else [found]
    if not jobs or not all(isinstance(job, dict) for job in jobs):
        raise ConfigError(
            f"{file} holds no job", field="FILE", fix='write {"jobName": …, …}, or a list of such objects'
        )
    return jobs


def _assignments(fields: list[str] | None) -> Json:
    """`cpuCount=0.5` → {"cpuCount": 0.5}. A value that is not JSON counts as text. Raises ConfigError."""
    import json

    found: Json = {}
    for field in fields or ():
        name, sign, text = field.partition("=")
        if not sign or not name:
            raise ConfigError(f"{field!r} is not FIELD=VALUE", field="--set", fix="such as --set cpuCount=0.5")
        try:
            found[name] = json.loads(text)
        except (ValueError, RecursionError):
            found[name] = text
    return found
