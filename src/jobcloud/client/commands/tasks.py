"""`jobcloud tasks`, `logs`, `kill` and `task`: single tasks. A task is one attempt at one shard."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from jobcloud.client import render
from jobcloud.client.commands.connection import connect
from jobcloud.client.commands.options import (
    MAX_CANDIDATES,
    AsJson,
    Limit,
    Watch,
    Wide,
    grouped,
    instant,
    key_of,
    run_of,
    team_of,
    the_only,
)
from jobcloud.errors import ConfigError, NotFound

if TYPE_CHECKING:
    from jobcloud.client.http import Client, Json
    from jobcloud.client.logs import Line

commands = typer.Typer(no_args_is_help=True)
_MAX_KILLED = 10_000
_NO_TASKS = "no tasks: no task has been launched yet"

TaskName = Annotated[
    str,
    typer.Argument(
        metavar="TASK",
        help="Id of the task, its beginning or its end. JOB/SHARD or JOB: the newest task of that shard or job.",
    ),
]


def list_tasks(
    ctx: typer.Context,
    job: Annotated[str, typer.Option(help="Only tasks of this job.")] = "",
    state: Annotated[
        str, typer.Option(help="Only tasks in this state, such as RUNNING, or in a group of states: active or ended.")
    ] = "",
    limit: Limit = 50,
    wide: Wide = False,
    watch: Watch = False,
    as_json: AsJson = False,
) -> None:
    """List the last task of each shard, the newest first. A task is one attempt at one shard.

    WAITING: the task has ended, and the shard waits for its next attempt.

    `jobcloud run show RUN --shard N` lists earlier attempts too.
    """
    key = key_of(ctx, job)
    with connect(ctx) as client:
        if job:
            client.check_job(key)
        whose = {"job": key} if job else {"team": team_of(ctx)}
        given = {"--job": job, "--state": state, "--team": "" if job else team_of(ctx)}
        table = partial(render.tasks, wide=wide, empty=render.nothing("task", given, _NO_TASKS))
        render.watched(lambda: client.tasks(limit, **whose, state=state), table, watch=watch, as_json=as_json)


class _Which(NamedTuple):
    """The tasks whose output is printed."""

    run: Annotated[str, typer.Option(metavar="RUN", help="All shards of this run; at most 20.")] = ""
    app: Annotated[str, typer.Option(metavar="APP", help="The newest 20 tasks of this app.")] = ""
    attempt: Annotated[
        int | None, typer.Option(min=0, help="Number of an earlier attempt of the same shard. Default: the last one.")
    ] = None


class _Part(NamedTuple):
    """The part of the output."""

    stdout: Annotated[bool, typer.Option("--stdout", help="Only standard output.")] = False
    stderr: Annotated[bool, typer.Option("--stderr", help="Only standard error.")] = False
    tail: Annotated[
        int, typer.Option(min=0, max=10_000, help="Number of lines to print from the end; 0: all lines.")
    ] = 0
    since: Annotated[
        str,
        typer.Option(
            metavar="TIME", help="Begin with lines of this time: how long ago, such as 10m, or a time (ISO 8601)."
        ),
    ] = ""


@grouped
def logs(
    ctx: typer.Context,
    which: _Which,
    part: _Part,
    task: Annotated[
        str,
        typer.Argument(metavar="TASK", help="Id of a task, its beginning or its end; JOB/SHARD; JOB: its newest task."),
    ] = "",
    timestamps: Annotated[
        bool, typer.Option("--timestamps", "-t", help="Begin each line with its time and with out or err.")
    ] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow the output until the task ends.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the output of a task, of a run or of an app.

    If a shard waits for its next attempt, the output of its last attempt is printed.

    The task's standard error is printed to standard error.

    With --timestamps, --run or --app, all output is printed to standard output, and each line is marked out or err.
    """
    from jobcloud.client import logs as output

    if bool(task) + bool(which.run) + bool(which.app) != 1:
        problem = "cannot be combined with --run and --app" if task else f"{task!r} names no task"
        fix = "give one of TASK, --run and --app, such as `jobcloud logs report/0`"
        raise ConfigError(problem, field="TASK", fix=fix)
    if part.since and part.tail:
        raise ConfigError("cannot be combined with --tail", field="--since", fix="leave one of them out")
    streams = [stream for stream in output.STREAMS if getattr(part, stream)] or output.STREAMS
    where: dict[str, int | str] = {"tail": part.tail} if part.tail else {"offset": 0}
    if part.since:
        where = {"since": instant("--since", part.since)}
    if timestamps or part.since or len(streams) > 1:
        where["times"] = "true"
    with connect(ctx) as client:
        found = _tasks_to_print(ctx, client, task, which)
        if follow and len(found) != 1:
            raise ConfigError(f"there are {len(found)} tasks", field="--follow", fix="follow one task: JOB/SHARD")
        printed = []
        for one in found:
            source = output.follow if follow else output.read
            begin = f"{one['jobName']}/{one['step'] or one['item']}:" if which.run or which.app else ""
            printer = output.Printer(_write, begin=begin, time=_time if timestamps else None)
            lines = []
            for line in source(client, one["id"], streams, where):
                if isinstance(line, output.Missing):
                    _report_missed(one["id"], line.size)
                elif as_json:
                    lines.append(line)
                else:
                    printer.show(line)
            printer.end()
            printed.append(_as_json(one["id"], streams, lines))
        if as_json:
            render.show_json(printed if which.run or which.app else printed[0])
        elif follow:
            sys.stderr.write(f"({_ending(client.task(found[0]['id']))})\n")


def _tasks_to_print(ctx: typer.Context, client: Client, text: str, which: _Which) -> list[Json]:
    from jobcloud.client.logs import MAX_TASKS

    if text:
        found = _find_task(ctx, client, text)
        return [found if which.attempt is None else client.task(_find_attempt(client, found, which.attempt))]
    if which.attempt is not None:
        raise ConfigError("needs a TASK", field="--attempt", fix="such as `jobcloud logs report/0 --attempt 1`")
    if which.run:
        run_id = run_of(client, which.run)
        shards = [shard for shard in client.run(run_id)["shards"] if shard["taskId"]]
        found_ids = [shard["taskId"] for shard in shards]
    else:
        key = key_of(ctx, which.app, "app")
        client.app(key)  # raises if the app does not exist
        found_ids = [task["id"] for task in client.tasks(MAX_TASKS + 1, app=key)]
    if len(found_ids) > MAX_TASKS:
        sys.stderr.write(f"(only the output of {MAX_TASKS} tasks is printed)\n")
    return [client.task(task_id) for task_id in found_ids[:MAX_TASKS]]


def _write(stream: str, text: str) -> None:
    file = sys.stderr if stream == "stderr" else sys.stdout
    file.write(text)
    file.flush()


def _time(at: str) -> str:
    """An instant in UTC, in 24 characters: the times of output are compared with those of other logs."""
    return at.ljust(24) if at else "-".ljust(24)


def _as_json(task_id: str, streams: Sequence[str], lines: Sequence[Line]) -> Json:
    text = "".join(line.text for line in lines)
    stream = streams[0] if len(streams) == 1 else "both"
    return {"taskId": task_id, "stream": stream, "text": text, "lines": [line._asdict() for line in lines]}


def _ending(task: Json) -> str:
    """How a task has ended, in one line: a traceback is in its output."""
    reason = (task["message"] or task["cause"]).partition("\n")[0]
    return f"task {task['id']} is {task['state']}" + (f": {reason}" if reason else "")


def kill(
    ctx: typer.Context,
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK|JOB",
            help="Id of a task, its beginning or its end; JOB/SHARD; or JOB: all its running tasks or, if none runs, "
            "all its shards that wait for their next attempt.",
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Kill a task, or all running tasks of a job. Shards of a DAEMON job then start again: to stop it, disable it.

    A shard of a TRANSIENT job that waits for its next attempt does not start again if it is killed.
    """
    with connect(ctx) as client:
        killed = [client.kill(one["id"]) for one in _running(ctx, client, task) or [_find_task(ctx, client, task)]]
    if as_json:
        render.show_json(killed if len(killed) > 1 else killed[0])
        return
    for one in killed:
        if one["state"] == "WAITING":
            shard = f"shard {one['item']} of {one['runId']}"
            render.say(f"{shard} waited for its next attempt, and does not start again")
        else:
            render.say(f"task {one['id']} is being killed")


def _running(ctx: typer.Context, client: Client, text: str) -> list[Json]:
    """The active tasks of a JOB or a JOB/SHARD, or else those that wait for their next attempt."""
    from jobcloud.config import DELIMITER

    job, slash, item = text.partition("/")
    if not job or DELIMITER in text or (slash and not (item.isascii() and item.isdigit())):
        return []
    of: dict[str, str | int] = {"job": key_of(ctx, job)}
    if slash:
        of["item"] = int(item)
    return client.tasks(_MAX_KILLED, **of, state="active") or client.tasks(_MAX_KILLED, **of, state="WAITING")


@commands.command("show")
def show_task(ctx: typer.Context, task: TaskName, as_json: AsJson = False) -> None:
    """Show a task: its job, agent, times and end."""
    with connect(ctx) as client:
        render.show(client.task(_find_task(ctx, client, task)["id"]), render.task, as_json=as_json)


@commands.command("forget")
def forget(
    ctx: typer.Context,
    task: TaskName,
    force: Annotated[
        bool, typer.Option("--force", help="Declare the task lost even if Mesos reports it as alive.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Declare a task lost. Do this only if you know that it no longer runs. If the task comes back, it is killed."""
    with connect(ctx) as client:
        forgotten = client.forget(_find_task(ctx, client, task)["id"], force=force)
    render.answer(forgotten, f"task {forgotten['id']} is forgotten", as_json=as_json)


def _find_task(ctx: typer.Context, client: Client, text: str) -> Json:
    """The task with this id, or the newest of JOB/SHARD or JOB, or the only task whose id begins or ends with `text`.

    A JOB may be `TEAM:NAME`. An id is always whole: `--team` does not change it.

    Raises ConfigError if `text` is empty or fits several ids, NotFound if it fits none.
    """
    from jobcloud.config import DELIMITER

    job, _, item = text.partition("/")
    if not job:
        # An empty variable in a script must not select the newest task of all jobs.
        raise ConfigError(f"{text!r} names no task", field="TASK", fix="give an id or its beginning, JOB/SHARD, or JOB")
    if DELIMITER in text and (exact := _task_by_id(client, text)):  # lists lack earlier attempts
        return exact
    if item.isascii() and item.isdigit():
        found = client.tasks(1, job=key_of(ctx, job), item=int(item))
    elif DELIMITER in text:
        found = client.tasks(MAX_CANDIDATES + 1, match=text)
    elif not (found := client.tasks(1, job=key_of(ctx, text))):
        # Ids begin with the key of the job. Without it, `--team` would find tasks of the team `default`.
        found = client.tasks(MAX_CANDIDATES + 1, match=key_of(ctx, text))
    the_only([task["id"] for task in found], text, "task")
    return found[0]


def _task_by_id(client: Client, task_id: str) -> Json | None:
    from jobcloud.client.http import ApiError

    try:
        return client.task(task_id)
    except NotFound:
        return None
    except ApiError as error:
        if error.status == 404:
            return None
        raise


def _find_attempt(client: Client, task: Json, number: int) -> str:
    """The task id of another attempt of the task's shard. Raises NotFound."""
    known = {attempt["number"]: attempt["taskId"] for attempt in client.attempts(task["runId"], task["item"])}
    if number not in known:
        raise NotFound(
            f"shard {task['item']} of {task['runId']} has no attempt {number}",
            field="--attempt",
            fix=f"the known ones are: {', '.join(map(str, sorted(known)))}",
        )
    return str(known[number])


def _report_missed(task_id: str, count: int) -> None:
    text = f"{count} bytes are missing here: older output has been deleted"
    if count < 0:
        text = f"no output of {task_id}: the task printed nothing, or the agent has removed its output"
    sys.stderr.write(f"({text})\n")
