"""`jobcloud`: the command line. A thin client of the REST API; docs/cli.md lists commands and exit codes.

What a command needs is imported when it runs, so that `--help` and completion are quick, and the client works where
the server's libraries are not installed.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import jobcloud
from jobcloud.errors import ConfigError, JobcloudError, NotFound, Refused

if TYPE_CHECKING:
    from jobcloud.client.http import ApiError, Client, Json


class Exit(IntEnum):
    """What the exit code says."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    NOT_REACHABLE = 3
    NOT_FOUND = 4
    NOT_ALLOWED = 5
    SERVER_FAILED = 6


class Dialect(StrEnum):
    QUARTZ = "quartz"
    UNIX = "unix"


cli = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, help="A private job cloud: sharded jobs on a shared cluster."
)
app_commands = typer.Typer(no_args_is_help=True, help="Apps: packages of code and what their executors need.")
job_commands = typer.Typer(no_args_is_help=True, help="Jobs: when they fire, into how many shards.")
task_commands = typer.Typer(no_args_is_help=True, help="Tasks: attempts of shards.")
agent_commands = typer.Typer(no_args_is_help=True, help="Agents: emptied before somebody works on them.")
framework_commands = typer.Typer(no_args_is_help=True, help="The framework as Mesos knows it.")
cli.add_typer(app_commands, name="app")
cli.add_typer(job_commands, name="job")
cli.add_typer(framework_commands, name="framework")
cli.add_typer(agent_commands, name="agent")
cli.add_typer(task_commands, name="task")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="How many at most, the newest first.")]

# Where the server is, from the options before the command.
_server: dict[str, str] = {"server": "", "token": ""}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        cli(args=arguments, prog_name="jobcloud")
    except JobcloudError as error:
        sys.exit(_report(error, as_json="--json" in arguments))
    except BrokenPipeError:
        # Whoever read our output has seen enough; nothing may be flushed into the closed pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(Exit.OK)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"jobcloud {jobcloud.__version__} (matcher: {_matcher()})")
        raise typer.Exit


def _matcher() -> str:
    # The setting pure_matcher, read as the server reads it; pydantic is not there in a bare install.
    if os.environ.get("JOBCLOUD_PURE_MATCHER", "").lower() in ("1", "true", "t", "yes", "y", "on"):
        return "plain"
    if importlib.util.find_spec("jobcloud._match") is None:
        return "not built"
    from jobcloud.match import vector_path

    return f"compiled, {vector_path()}"


@cli.callback()
def root(
    server: Annotated[str, typer.Option(envvar="JOBCLOUD_SERVER", help="URL of the server.")] = "",
    token: Annotated[
        str, typer.Option(envvar="JOBCLOUD_TOKEN", show_envvar=True, help="Better set in the environment.")
    ] = "",
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_version)] = False,
) -> None:
    _server.update(server=server, token=token)


# ------------------------------------------------------------------------------------------------------------- apps


@app_commands.command("add")
def app_add(
    path: Annotated[Path, typer.Argument(exists=True, help="The app's directory, or its zip, tar or wheel.")],
    name: Annotated[str, typer.Option(help="The app's name; else the manifest's, else the directory's.")] = "",
    jobs: Annotated[bool, typer.Option("--jobs/--no-jobs", help="Register the manifest's jobs too.")] = True,
    as_json: AsJson = False,
) -> None:
    """Pack an app, upload it and register it with its jobs. Repeated, it updates what has changed."""
    from jobcloud.client import render
    from jobcloud.client.apps import add_app

    with _client() as client:
        added = add_app(client, path, name=name, jobs=jobs)
    if as_json:
        render.show_json({"app": added.app, "jobs": list(added.jobs)})
        return
    names = [("app " + added.app["appName"], ""), *(("job " + job["jobName"], job["nextFiring"]) for job in added.jobs)]
    for title, due in names:
        state = "registered" if title in added.new else "up to date"
        render.say(f"{title} is {state}" + (f", next firing {render.moment(due)}" if due else ""))


@app_commands.command("update")
def app_update(
    path: Annotated[Path, typer.Argument(exists=True, help="The app's directory, or its zip, tar or wheel.")],
    name: Annotated[str, typer.Option(help="The app's name; else the manifest's, else the directory's.")] = "",
    jobs: Annotated[bool, typer.Option("--jobs/--no-jobs", help="Update the manifest's jobs too.")] = True,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow until all residents are new.")] = True,
    timeout: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="Follow no longer; 0: to the end.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Roll an app to a new version: pack, upload and register it, and see its residents replaced.

    Transient jobs use the new version from their next firing. Ends with 1 where the new version does not run: then what
    has not been replaced goes on as it was. So it does when --timeout is over, and the roll-out goes on. Repeated, it
    follows what is under way.
    """
    from jobcloud.client import render
    from jobcloud.client.apps import add_app

    with _client() as client:
        added = add_app(client, path, name=name, jobs=jobs, known=True)
        app = added.app["appName"]
        state = client.rollout(app)
        for state in client.follow_rollout(app, timeout or math.inf) if wait else ():
            if not as_json:
                render.rollout(state)
    if as_json:
        render.show_json(state)
    elif not wait:
        render.say(f"app {app} is registered in its new version; its roll-out is {state['state']}")
    elif state["state"] == "rolling":
        render.say(f"app {app} is still rolling after {timeout:g} s, and goes on; run this again to follow it")
    if wait and state["state"] != "done":
        raise typer.Exit(Exit.REFUSED)


@app_commands.command("init")
def app_init(name: Annotated[Path, typer.Argument(help="The new app's directory; it gives the name.")]) -> None:
    """Write a small app that works: a job, its test, its manifest."""
    from jobcloud.client import render
    from jobcloud.client.skeleton import init_app

    for path in init_app(name):
        render.say(f"wrote {path}")
    render.say(f"try it: jobcloud run-local {name} hello")


@cli.command("run-local")
def run_local_command(
    app: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="The app's directory.")],
    job: Annotated[str, typer.Argument(help="A job of its manifest.")],
    shard: Annotated[int | None, typer.Option(min=0, help="This shard alone; else all, one after the other.")] = None,
) -> None:
    """Run a job here, in this process and without a cluster. Ends with 1 where a shard fails."""
    import logging

    from jobcloud.client import render
    from jobcloud.client.local import run_local

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    failed = False
    for run in run_local(app, job, shard):
        failed |= run.failed
        ended = "failed" if run.failed else "finished"
        render.say(f"shard {run.item} {ended}: {f'handled {run.handled}' if run.handled else repr(run.result)}")
    if failed:
        raise typer.Exit(Exit.REFUSED)


@app_commands.command("list")
def app_list(as_json: AsJson = False) -> None:
    """All apps."""
    with _client() as client:
        _show("apps", client.apps(), as_json)


@app_commands.command("show")
def app_show(app: str, as_json: AsJson = False) -> None:
    """One app with its configuration."""
    with _client() as client:
        _show("app", client.app(app), as_json)


@app_commands.command("remove")
def app_remove(
    app: str, jobs: Annotated[bool, typer.Option("--jobs", help="Its jobs too.")] = False, as_json: AsJson = False
) -> None:
    """Remove an app."""
    with _client() as client:
        client.remove_app(app, jobs=jobs)
    _say_removed("app", app, as_json)


@app_commands.command("enable")
def app_enable(app: str, as_json: AsJson = False) -> None:
    """Let the app's jobs fire again."""
    with _client() as client:
        _show("app", client.switch_app(app, enabled=True), as_json)


@app_commands.command("disable")
def app_disable(app: str, as_json: AsJson = False) -> None:
    """Stop the app's jobs and let none of them fire."""
    with _client() as client:
        _show("app", client.switch_app(app, enabled=False), as_json)


# ------------------------------------------------------------------------------------------------------------- jobs

JobFile = Annotated[str, typer.Argument(metavar="[FILE|-]", help="JSON of one job, or of a list of them.")]
Fields = Annotated[
    list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="A field by its JSON name; may be repeated.")
]


@job_commands.command("add")
def job_add(
    file: JobFile = "",
    fields: Fields = None,
    disabled: Annotated[bool, typer.Option("--disabled", help="They fire only once they are enabled.")] = False,
    as_json: AsJson = False,
) -> None:
    """Register jobs from JSON, from --set fields, or both. See docs/job-configuration.md."""
    from jobcloud.client import render

    if not file and not fields:
        raise ConfigError("there is no job to add", field="FILE", fix="name a JSON file, or give --set jobName=… etc.")
    configs = _read_jobs(file) if file else [{}]
    with _client() as client:
        added = [client.create_job(config | _assignments(fields), enabled=not disabled) for config in configs]
    if as_json:
        render.show_json(added if len(added) > 1 else added[0])
    else:
        render.jobs(added)


@job_commands.command("update")
def job_update(job: str, file: JobFile = "", fields: Fields = None, as_json: AsJson = False) -> None:
    """Replace a job's configuration by FILE's, or change single fields of it."""
    if not file and not fields:
        raise ConfigError("there is nothing to change", field="FILE", fix="name a JSON file, or give --set FIELD=VALUE")
    configs = _read_jobs(file) if file else []
    if len(configs) > 1:
        raise ConfigError(f"{file} holds {len(configs)} jobs", field="FILE", fix="one job is updated at a time")
    with _client() as client:
        config = configs[0] if configs else client.job(job)["config"]
        _show("job", client.update_job(job, config | _assignments(fields)), as_json)


@job_commands.command("list")
def job_list(app: Annotated[str, typer.Option(help="Only this app's.")] = "", as_json: AsJson = False) -> None:
    """All jobs."""
    with _client() as client:
        if app:
            client.app(app)  # says so where there is no such app
        _show("jobs", client.jobs(app), as_json)


@job_commands.command("show")
def job_show(job: str, as_json: AsJson = False) -> None:
    """One job with its configuration."""
    with _client() as client:
        _show("job", client.job(job), as_json)


@job_commands.command("remove")
def job_remove(job: str, as_json: AsJson = False) -> None:
    """Remove a job; what runs of it is killed."""
    with _client() as client:
        client.remove_job(job)
    _say_removed("job", job, as_json)


@job_commands.command("trigger")
def job_trigger(job: str, as_json: AsJson = False) -> None:
    """Fire a job now."""
    from jobcloud.client import render

    with _client() as client:
        run = client.trigger(job)
    if as_json:
        render.show_json(run)
    else:
        render.say(f"run {run['id']} is {run['state']}")


@job_commands.command("enable")
def job_enable(job: str, as_json: AsJson = False) -> None:
    """Let a job fire again."""
    with _client() as client:
        _show("job", client.switch_job(job, enabled=True), as_json)


@job_commands.command("disable")
def job_disable(job: str, as_json: AsJson = False) -> None:
    """Stop a job and let it not fire."""
    with _client() as client:
        _show("job", client.switch_job(job, enabled=False), as_json)


def _read_jobs(file: str) -> list[Json]:
    """Raises ConfigError."""
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text()
        found = json.loads(text)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}", field="FILE") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is no JSON: {error}", field="FILE") from error
    jobs = found if isinstance(found, list) else [found]
    if not jobs or not all(isinstance(job, dict) for job in jobs):
        raise ConfigError(f"{file} holds no job", field="FILE", fix='write {"jobName": …, …}, or a list of such')
    return jobs


def _assignments(fields: list[str] | None) -> Json:
    """`cpuCount=0.5` → a number where it reads as JSON, text otherwise. Raises ConfigError."""
    found: Json = {}
    for field in fields or ():
        name, sign, text = field.partition("=")
        if not sign or not name:
            raise ConfigError(f"{field!r} is no FIELD=VALUE", field="--set", fix="such as --set cpuCount=0.5")
        try:
            found[name] = json.loads(text)
        except (ValueError, RecursionError):
            found[name] = text
    return found


# ---------------------------------------------------------------------------------------------------- what happens


@cli.command("tasks")
def list_tasks(
    job: Annotated[str, typer.Option(help="Only this job's.")] = "",
    state: Annotated[str, typer.Option(help="A state such as RUNNING, or 'active', 'ended'.")] = "",
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """The newest tasks: one a shard and attempt."""
    with _client() as client:
        if job:
            client.job(job)
        _show("tasks", client.tasks(limit, job=job, state=state), as_json)


@cli.command("runs")
def list_runs(
    job: Annotated[str, typer.Argument()] = "",
    state: Annotated[str, typer.Option(help="Such as FAILED, or DEAD: those whose attempts are used up.")] = "",
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """The newest firings and how they ended."""
    with _client() as client:
        if job:
            client.job(job)  # says so where there is no such job
        filters = {"state": state.upper()} if state else {}
        _show("runs", client.runs(limit, job=job, **filters), as_json)


@cli.command("retry")
def retry_run(
    run: Annotated[str, typer.Argument(help="A run's id, see `jobcloud runs --state DEAD`.")],
    shard: Annotated[int | None, typer.Option(min=0, help="This shard alone; else all that failed.")] = None,
    as_json: AsJson = False,
) -> None:
    """Put back what has failed of a run, as if it had never failed."""
    from jobcloud.client import render

    with _client() as client:
        found = client.retry(run, shard)
    if as_json:
        render.show_json(found)
    else:
        render.say(f"run {found['id']} is {found['state']}")


@cli.command("explain")
def explain(job: str, as_json: AsJson = False) -> None:
    """Why a job is, or is not, running: what it lacks, asked and best available."""
    with _client() as client:
        _show("explanation", client.explain(job), as_json)


@cli.command("cluster")
def show_cluster(as_json: AsJson = False) -> None:
    """The agents, what they offer and what our tasks use."""
    with _client() as client:
        _show("cluster", client.cluster(), as_json)


TaskName = Annotated[str, typer.Argument(metavar="TASK", help="A task's id or how it begins, JOB/SHARD, or JOB.")]


@cli.command("logs")
def show_log(
    task: TaskName,
    stderr: Annotated[bool, typer.Option("--stderr", help="What it wrote there, not to standard output.")] = False,
    tail: Annotated[int, typer.Option(min=0, max=10_000, help="Only the last lines.")] = 0,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the task has ended.")] = False,
    as_json: AsJson = False,
) -> None:
    """What a task has written."""
    from jobcloud.client import render

    stream = "stderr" if stderr else "stdout"
    with _client() as client:
        task_id = _find_task(client, task)["id"]
        pieces = _read_log(client, task_id, stream, tail, follow=follow)
        if as_json:
            render.show_json({"taskId": task_id, "stream": stream, "text": "".join(pieces)})
            return
        for text in pieces:
            sys.stdout.write(text)
            sys.stdout.flush()


@cli.command("kill")
def kill_task(task: TaskName, as_json: AsJson = False) -> None:
    """End one task. A resident job's shard starts again: disable the job to stop it."""
    from jobcloud.client import render

    with _client() as client:
        killed = client.kill(_find_task(client, task)["id"])
    if as_json:
        render.show_json(killed)
    else:
        render.say(f"{killed['id']} is asked to end")


@task_commands.command("forget")
def task_forget(
    task: TaskName,
    force: Annotated[bool, typer.Option("--force", help="Though Mesos says that it is alive.")] = False,
    as_json: AsJson = False,
) -> None:
    """Treat a task as lost that you know to be dead. Should it come back after all, it is ended."""
    from jobcloud.client import render

    with _client() as client:
        forgotten = client.forget(_find_task(client, task)["id"], force=force)
    if as_json:
        render.show_json(forgotten)
    else:
        render.say(f"{forgotten['id']} is forgotten")


AgentName = Annotated[str, typer.Argument(help="An agent's id or host name; `jobcloud cluster` lists them.")]


@agent_commands.command("drain")
def agent_drain(
    agent: AgentName,
    deadline: Annotated[int, typer.Option(min=1, max=30 * 86_400, help="Seconds until it has to be empty.")] = 600,
    reason: Annotated[str, typer.Option(help="For those who look at `jobcloud cluster`.")] = "",
    as_json: AsJson = False,
) -> None:
    """Give an agent nothing new and empty it: residents move away, the rest ends or is moved at the deadline."""
    from jobcloud.client import render

    with _client() as client:
        drained = client.drain(agent, deadline, reason)
    if as_json:
        render.show_json(drained)
    else:
        render.say(f"{drained['hostname'] or drained['agentId']} gets nothing new; {drained['tasks']} tasks are there")


@agent_commands.command("undrain")
def agent_undrain(agent: AgentName, as_json: AsJson = False) -> None:
    """Give an agent tasks again."""
    from jobcloud.client import render

    with _client() as client:
        opened = client.undrain(agent)
    if as_json:
        render.show_json(opened)
    else:
        render.say(f"{opened['hostname'] or opened['agentId']} gets tasks again")


@cli.command("next")
def next_firings(
    cron: Annotated[str, typer.Argument(help="Such as '0 0/5 * * * ?'.")],
    zone: Annotated[str, typer.Option(help="A name of the tz database.")] = "UTC",
    dialect: Dialect = Dialect.QUARTZ,
    count: Annotated[int, typer.Option(min=1, max=1000)] = 5,
    as_json: AsJson = False,
) -> None:
    """When a cron expression fires. Computed here: no server is asked."""
    from datetime import UTC, datetime
    from zoneinfo import ZoneInfo

    from jobcloud import cron as crons
    from jobcloud.client import render

    try:
        schedule = crons.Schedule.parse(cron, zone=zone, dialect=crons.Dialect(dialect.value))
    except crons.CronError as error:
        raise ConfigError(str(error), field="CRON") from error
    instants = schedule.between(time.time_ns() // 1_000_000, 1 << 45, count)
    moments = [datetime.fromtimestamp(instant / 1000, UTC) for instant in instants]
    if as_json:
        times = [f"{moment:%Y-%m-%dT%H:%M:%S.000Z}" for moment in moments]
        render.show_json({"cron": cron, "timeZone": zone, "times": times})
        return
    now = datetime.now(UTC)
    rows = [
        (f"{m.astimezone(ZoneInfo(zone)):%a %Y-%m-%d %H:%M:%S %Z}", render.age((now - m).total_seconds()))
        for m in moments
    ]
    render.show_table(("FIRES", ""), rows, "never, until the end of 2099")


@cli.command("plan")
def plan_capacity(
    hosts: Annotated[Path | None, typer.Option(metavar="FILE", help="The hosts there are, as CSV (-: stdin).")] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=AMOUNT,…", help="A type: how many? cpus=64,mem_mb=131072,price=900; repeatable."),
    ] = None,
    cluster: Annotated[bool, typer.Option("--cluster", help="The agents of the running cluster.")] = False,
    tasks: Annotated[Path | None, typer.Option(metavar="FILE", help="The demand, as CSV (-: stdin).")] = None,
    manifest: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="The jobs of an app's manifest; repeatable.")
    ] = None,
    jobs: Annotated[bool, typer.Option("--jobs", help="The jobs that are registered.")] = False,
    how_many: Annotated[
        bool, typer.Option("--how-many", help="The rows of --hosts are types, each to be had in any number.")
    ] = False,
    run_times: Annotated[Path | None, typer.Option(metavar="FILE", help="CSV: job,seconds of a run.")] = None,
    run_time: Annotated[float, typer.Option(min=0.001, max=2_592_000, help="Seconds, of other jobs.")] = 600.0,
    all_at_once: Annotated[bool, typer.Option("--all-at-once", help="Every job at once, not the peak.")] = False,
    day: Annotated[str, typer.Option(help="First day to look at; today.")] = "",
    days: Annotated[int, typer.Option(min=1, max=31, help="How many days.")] = 1,
    zone: Annotated[str, typer.Option(help="Where the day begins: a name of the tz database.")] = "UTC",
    fail: Annotated[list[int] | None, typer.Option(min=0, help="After so many hosts fail; repeatable. 1.")] = None,
    fail_by: Annotated[str, typer.Option(metavar="ATTRIBUTE", help="What fails as a whole.")] = "zone",
    more: Annotated[list[str] | None, typer.Option(metavar="JOB", help="How much more of it fits; repeatable.")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, max=86_400, help="Time to find better answers.")] = 30.0,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="A picture: .png, .svg or .html.")] = None,
    placement: Annotated[Path | None, typer.Option(metavar="FILE", help="Write job,host of each task as CSV.")] = None,
    as_json: AsJson = False,
) -> None:
    """Whether a demand fits, how many hosts it takes, what a failure does. docs/planning.md. Ends with 1 if not."""
    from jobcloud.client import planning, render
    from jobcloud.planning.plan import Question, document, make_plan

    _one_of({"--hosts": hosts, "--host": host, "--cluster": cluster})
    _one_of({"--tasks": tasks, "--manifest": manifest, "--jobs": jobs})
    if str(hosts) == str(tasks) == "-":
        raise ConfigError("both are standard input", field="--hosts, --tasks", fix="give one of them as a file")
    from jobcloud.planning import plot as drawing

    if plot:
        drawing.check_path(plot)
    if placement:
        drawing.check_writable(placement, "--placement")
    when = planning.When(planning.day_of(day, zone), days, run_time, all_at_once)
    with planning.progress_bar() as progress:
        if hosts:
            there = planning.hosts_of_table(hosts, how_many=how_many)
        elif host:
            there = planning.hosts_of_type(host)
        else:
            with _client() as client:
                there = planning.hosts_of_cluster(client)
        capacity = planning.capacity_of(there)
        if tasks:
            asked = planning.demand_of_table(tasks, capacity)
        else:
            if manifest:
                found, apps, times = planning.manifest_jobs(manifest)
            else:
                with _client() as client:
                    found, apps, times = planning.registered_jobs(client)
            times |= planning.run_times(run_times) if run_times else {}
            source = "the manifest" if manifest else "the registered jobs"
            asked = planning.demand_of_jobs(source, found, apps, times, when, capacity, progress)
            there, asked = planning.with_kept_executors(there, asked, apps)
        problem = planning.problem_of(there, asked)
        failures = tuple(fail) if fail else (1,)
        question = Question(there.how_many, failures, fail_by, tuple(more or ()), seconds)
        with planning.solver_silenced():
            plan = make_plan(problem, question, progress)
    # First what took the time: a disk that is full does not cost the answer.
    if as_json:
        render.show_json(document(plan) | planning.peak_document(asked))
    else:
        planning.show(plan, asked, zone)
    if placement:
        planning.write_placement(plan, placement)
    if plot:
        drawing.draw(plan, plot, planning.cut_load(asked.load, asked, problem), zone)
    if not plan.fits:
        raise typer.Exit(Exit.REFUSED)


def _one_of(options: dict[str, object]) -> None:
    given = [name for name, value in options.items() if value]
    if len(given) != 1:
        problem = f"{' and '.join(given)} contradict each other" if given else "is missing"
        raise ConfigError(problem, field=", ".join(options), fix="give one of them")


def _find_task(client: Client, text: str) -> Json:
    """The task meant: by id, by JOB/SHARD (the newest of it), by JOB (the newest), by how its id begins."""
    job, _, item = text.partition("/")
    if not job:
        # An unset variable of a script must not end the newest task of whatever job.
        raise ConfigError(f"{text!r} names no task", field="TASK", fix="an id or how it begins, JOB/SHARD, or JOB")
    if item.isascii() and item.isdigit():
        found = client.tasks(1, job=job, item=int(item))
    elif exact := client.tasks(1, job=text):
        found = exact
    else:
        found = client.tasks(21, prefix=text)
        whole = [task for task in found if task["id"] == text]
        if len(found) > 1 and not whole:
            names = "\n  ".join(task["id"] for task in found[:20])
            raise ConfigError(f"{text!r} fits {len(found)} tasks", field="TASK", fix=f"write more of one:\n  {names}")
        found = whole or found
    if not found:
        raise NotFound(f"there is no task {text!r}", field="TASK", fix="`jobcloud tasks` lists those there are")
    return found[0]


def _read_log(client: Client, task_id: str, stream: str, tail: int, *, follow: bool) -> Iterator[str]:
    where = {"tail": tail} if tail else {"offset": 0}
    if follow:
        for event in client.follow(task_id, stream, **where):
            _say_missed(event["missed"])
            yield event["text"]
        return
    while True:
        piece = client.log(task_id, stream, **where)
        _say_missed(piece["offset"] - where.get("offset", piece["offset"]))
        yield piece["text"]
        where = {"offset": piece["nextOffset"]}
        if not piece["text"] or piece["nextOffset"] >= piece["size"]:
            return


def _say_missed(count: int) -> None:
    if count > 0:
        sys.stderr.write(f"({count} bytes that stood here are kept no more)\n")


# ------------------------------------------------------------------------------------------------------ the server


@framework_commands.command("teardown")
def tear_down(
    confirm: Annotated[str, typer.Option(help="The framework's id, instead of being asked for it.")] = "",
    as_json: AsJson = False,
) -> None:
    """Remove the framework from Mesos: every task of it is KILLED. Nothing else ever does that."""
    from jobcloud.client import render

    with _client() as client:
        framework_id = client.cluster()["frameworkId"]
        if not confirm and framework_id and sys.stdin.isatty():
            confirm = typer.prompt(f"Every task of framework {framework_id} will be killed. Type its id to go on")
        done = client.tear_down(confirm)
    if as_json:
        render.show_json(done)
    else:
        render.say(f"framework {done['frameworkId']} is torn down")


@cli.command("scheduler")
def run_scheduler(
    mesos: Annotated[
        str | None, typer.Option(metavar="HOST:PORT|zk://…", help="The master, or where to find it.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Directory of the state; in memory otherwise.")] = None,
    zookeeper: Annotated[
        str | None, typer.Option(metavar="HOST:PORT,…", help="Keep the state there; only one of several leads.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings.")] = None,
    host: Annotated[str | None, typer.Option(help="Address of the API.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the API.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="File that holds the API's token.")] = None,
    artifact_host: Annotated[str | None, typer.Option(help="Address that agents fetch packages from.")] = None,
    artifact_port: Annotated[int | None, typer.Option(help="Its port.")] = None,
    role: Annotated[str | None, typer.Option(help="Mesos role; several with commas.")] = None,
    principal: Annotated[str | None, typer.Option(help="Mesos principal.")] = None,
    secret_file: Annotated[Path | None, typer.Option(help="File that holds the principal's secret.")] = None,
    tls_ca: Annotated[Path | None, typer.Option(help="Certificates that the master's is checked by.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Our certificate.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key.")] = None,
) -> None:
    """Run the scheduler on a Mesos cluster. Settings come from --config, JOBCLOUD_* and these options."""
    settings = _server_part("jobcloud.server.settings").load(
        config,
        {
            "data": data,
            "http.host": host,
            "http.port": port,
            "http.token_file": token_file,
            "artifacts.host": artifact_host,
            "artifacts.port": artifact_port,
            "mesos.master": mesos,
            "zookeeper.hosts": zookeeper,
            "mesos.roles": role,
            "mesos.principal": principal,
            "mesos.secret_file": secret_file,
            "mesos.tls": True if tls_ca or tls_cert or tls_key else None,
            "mesos.tls_ca_file": tls_ca,
            "mesos.tls_cert_file": tls_cert,
            "mesos.tls_key_file": tls_key,
        },
    )
    raise typer.Exit(_server_part("jobcloud.server.wiring").run_scheduler(settings))


@cli.command("dev")
def run_dev(
    demo: Annotated[bool, typer.Option("--demo", help="Register the demo app.")] = False,
    agents: Annotated[int, typer.Option(min=1, max=1000, help="How many agents.")] = 2,
    data: Annotated[Path | None, typer.Option(help="Directory of the state; in memory otherwise.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port of the API.")] = 8899,
) -> None:
    """Run a whole cluster on this machine: master, agents, scheduler."""
    supervisor = _server_part("jobcloud.dev.supervisor")
    raise typer.Exit(supervisor.run_dev(supervisor.DevOptions(demo, agents, data, port)))


@cli.command("import-ej")
def import_elastic_job(
    zookeeper: Annotated[str, typer.Option(metavar="HOST:PORT,…", help="The servers of Elastic-Job-Cloud.")],
    namespace: Annotated[str, typer.Option(help="Its zk_namespace.")] = "elastic-job-cloud",
    auth_file: Annotated[Path | None, typer.Option(help="File that holds its zk_digest, USER:PASSWORD.")] = None,
    zone: Annotated[str, typer.Option(help="The time zone its scheduler ran in.")] = "UTC",
    package: Annotated[
        list[str] | None, typer.Option(metavar="APP=DIR|FILE", help="An app made ready for jobcloud; repeatable.")
    ] = None,
    fetch: Annotated[
        bool, typer.Option("--fetch", help="Take the other packages as they are from their appURL.")
    ] = False,
    disabled: Annotated[bool, typer.Option("--disabled", help="Register every job disabled.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take over the apps, jobs and disabled marks of an Elastic-Job-Cloud 2.1.5. Ends with 1 where any was refused."""
    from jobcloud.client import import_ej, render

    _check_zone(zone)
    options = import_ej.Options(zone, _packages(package), fetch, disabled, dry_run)
    check = _server_part("jobcloud.server.api.convert").check
    tree = _server_part("jobcloud.adapters.zookeeper.elastic_job").read_tree(zookeeper, namespace, _secret(auth_file))
    with _client() as client:
        report = import_ej.import_tree(client, tree, namespace, options, check)
    if as_json:
        render.show_json(report.document())
    else:
        render.imported(report.document())
    if report.refused:
        raise typer.Exit(Exit.REFUSED)


def _check_zone(zone: str) -> None:
    from jobcloud import cron as crons

    try:
        crons.Schedule.parse("0 0 0 * * ?", zone=zone)
    except crons.CronError as error:
        raise ConfigError(str(error), field="--zone") from error


def _packages(given: list[str] | None) -> dict[str, Path]:
    """Raises ConfigError."""
    found = {}
    for text in given or ():
        app, sign, path = text.partition("=")
        if not (app and sign and Path(path).exists()):
            raise ConfigError(f"{text!r} names no app and package", field="--package", fix="APP=DIR, APP=FILE")
        found[app] = Path(path)
    return found


def _secret(path: Path | None) -> str:
    """Raises ConfigError."""
    try:
        return path.read_text().strip() if path else ""
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", field="--auth-file") from error


def _server_part(module: str) -> Any:
    """Raises ConfigError where the server's libraries are not installed."""
    try:
        # One of the server's extra, asked for by itself: `dev` needs it only in the processes that it starts.
        importlib.import_module("structlog")
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "jobcloud":
            raise
        problem = f"the server is not installed here ({error.name} is missing)"
        raise ConfigError(problem, field="", fix="pip install ./compat/http-parser '.[server]'") from error


# --------------------------------------------------------------------------------------------------------- plumbing


@contextmanager
def _client() -> Iterator[Client]:
    from jobcloud.client import context
    from jobcloud.client.http import Client

    found = context.find(_server["server"], _server["token"])
    with Client(found.url, found.token) as client:
        yield client


def _show(what: str, value: object, as_json: bool) -> None:
    from jobcloud.client import render

    if as_json:
        render.show_json(value)
    else:
        getattr(render, what)(value)


def _say_removed(what: str, name: str, as_json: bool) -> None:
    from jobcloud.client import render

    if as_json:
        render.show_json({f"{what}Name": name, "removed": True})
    else:
        render.say(f"{what} {name} is removed")


def _report(error: JobcloudError, *, as_json: bool) -> Exit:
    """Say what went wrong; returns the exit code that stands for it."""
    from jobcloud.client import render
    from jobcloud.client.http import ApiError, NotReachable

    if as_json:
        sys.stderr.write(json.dumps(_problem(error)) + "\n")
    elif isinstance(error, NotReachable):
        render.complain(f"{error}; is it running? (`jobcloud dev` starts one; --server names another)")
    elif isinstance(error, ApiError):
        render.complain(_refusal(error))
    else:
        for fault in (error, *getattr(error, "others", ())):
            render.complain(str(fault))
    if isinstance(error, NotReachable):
        return Exit.NOT_REACHABLE
    if isinstance(error, ApiError):
        return _exit_code(error.status)
    if isinstance(error, NotFound):
        return Exit.NOT_FOUND
    return Exit.USAGE if isinstance(error, Refused) else Exit.SERVER_FAILED


def _problem(error: JobcloudError) -> Json:
    """The problem document of the API, or one of the same form for what went wrong here, which has no status."""
    from jobcloud.client.http import ApiError, NotReachable

    if isinstance(error, ApiError) and not isinstance(error, NotReachable):
        return error.problem
    faults = [fault for fault in (error, *getattr(error, "others", ())) if isinstance(fault, Refused)]
    issues = [{"field": fault.field, "problem": fault.problem, "fix": fault.fix} for fault in faults]
    return {"type": "about:blank", "title": "It was not done", "detail": str(error), "errors": issues}


def _refusal(error: ApiError) -> str:
    if error.status == 401:
        return f"{error} Set JOBCLOUD_TOKEN, or give --token."
    if len(error.errors) < 2:
        return str(error)
    lines = [
        f"\n  {issue.get('field')}: {issue.get('problem')}" + (f" ({issue['fix']})" if issue.get("fix") else "")
        for issue in error.errors
    ]
    return f"{len(lines)} things are wrong:" + "".join(lines)


def _exit_code(status: int) -> Exit:
    if status in (401, 403, 421):
        return Exit.NOT_ALLOWED
    if status == 404:
        return Exit.NOT_FOUND
    return Exit.SERVER_FAILED if status >= 500 else Exit.REFUSED
