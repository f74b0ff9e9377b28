"""`jobcloud tasks`, `logs`, `kill` and `task`: single tasks. A task is one attempt at one shard."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from jobcloud.client import render
from jobcloud.client.commands.connection import connect
from jobcloud.client.commands.options import MAX_CANDIDATES, AsJson, Limit, Watch, Wide, key_of, team_of, the_only
from jobcloud.errors import ConfigError, NotFound

if TYPE_CHECKING:
    from jobcloud.client.http import Client, Json

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


def logs(
    ctx: typer.Context,
    task: TaskName,
    stderr: Annotated[bool, typer.Option("--stderr", help="Print standard error instead of standard output.")] = False,
    tail: Annotated[
        int, typer.Option(min=0, max=10_000, help="Number of lines to print from the end; 0: all lines.")
    ] = 0,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow the output until the task ends.")] = False,
    attempt: Annotated[
        int | None, typer.Option(min=0, help="Number of an earlier attempt of the same shard. Default: the last one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the output of a task. If the shard is between two attempts, print the output of the one that has ended."""
    stream = "stderr" if stderr else "stdout"
    with connect(ctx) as client:
        found = _find_task(ctx, client, task)
        task_id = found["id"] if attempt is None else _find_attempt(client, found, attempt)
        pieces = _read_log(client, task_id, stream, tail, follow=follow)
        if as_json:
            render.show_json({"taskId": task_id, "stream": stream, "text": "".join(pieces)})
            return
        for text in pieces:
            sys.stdout.write(text)
            sys.stdout.flush()


def kill(
    ctx: typer.Context,
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK|JOB", help="Id of a task, its beginning or its end; JOB/SHARD; or JOB: all that runs of it."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Kill a task, or all running tasks of a job. Shards of a DAEMON job then start again: to stop it, disable it.

    If a shard of a TRANSIENT job waits for its next attempt, it does not start again.
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


def _read_log(client: Client, task_id: str, stream: str, tail: int, *, follow: bool) -> Iterator[str]:
    where = {"tail": tail} if tail else {"offset": 0}
    if follow:
        for event in client.follow(task_id, stream, **where):
            _report_missed(event["missed"])
            yield event["text"]
        return
    while True:
        piece = client.log(task_id, stream, **where)
        _report_missed(piece["offset"] - where.get("offset", piece["offset"]))
        yield piece["text"]
        where = {"offset": piece["nextOffset"]}
        if not piece["text"] or piece["nextOffset"] >= piece["size"]:
            return


def _report_missed(count: int) -> None:
    if count > 0:
        sys.stderr.write(f"({count} bytes are missing here: older output has been deleted)\n")
