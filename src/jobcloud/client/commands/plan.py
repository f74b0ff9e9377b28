"""`jobcloud plan`: how many hosts a demand needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from jobcloud.client import render
from jobcloud.client.commands.connection import connect
from jobcloud.client.commands.exit_codes import Exit
from jobcloud.client.commands.options import AsJson, grouped, key_of, team_of
from jobcloud.errors import ConfigError

if TYPE_CHECKING:
    from jobcloud.client.planning import Demand, Hosts, When
    from jobcloud.planning.packing import Progress
    from jobcloud.triggers import Days

_HOSTS, _DEMAND = "Hosts: give one of --hosts, --host, --cluster", "Demand: give one of --tasks, --manifest, --jobs"
_TIME, _QUESTIONS, _OUTPUT = "Time: the plan is for the peak of the demand", "Questions", "Output"


class HostOptions(NamedTuple):
    hosts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="File of hosts, CSV or JSON, or - for standard input.", rich_help_panel=_HOSTS
        ),
    ] = None
    host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=AMOUNT,…",
            help="A type of host, such as cpus=64,mem_mb=131072,price=900: calculate how many are needed. Repeatable.",
            rich_help_panel=_HOSTS,
        ),
    ] = None
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Use the agents of the running cluster.", rich_help_panel=_HOSTS)
    ] = False
    how_many: Annotated[
        bool,
        typer.Option(
            "--how-many",
            help="Each row of --hosts is a type of host. Calculate how many hosts of each type are needed.",
            rich_help_panel=_HOSTS,
        ),
    ] = False


class DemandOptions(NamedTuple):
    tasks: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="CSV file of tasks, or - for standard input.", rich_help_panel=_DEMAND),
    ] = None
    manifest: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR", help="Use the jobs of the app in this directory. Repeatable.", rich_help_panel=_DEMAND
        ),
    ] = None
    jobs: Annotated[
        bool,
        typer.Option("--jobs", help="Use the jobs that are registered with the scheduler.", rich_help_panel=_DEMAND),
    ] = False
    run_times: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="CSV file with the columns job and seconds: the duration of a run.",
            rich_help_panel=_DEMAND,
        ),
    ] = None
    calendar: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE",
            help="An iCalendar file with the days of a calendar that jobs name. Repeatable.",
            rich_help_panel=_DEMAND,
        ),
    ] = None
    pool: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SLOTS", help="The slots of a pool that jobs name. Repeatable.", rich_help_panel=_DEMAND
        ),
    ] = None
    run_time: Annotated[
        float,
        typer.Option(
            min=0.001,
            max=2_592_000,
            help="Seconds that a run takes if its duration is not known.",
            rich_help_panel=_DEMAND,
        ),
    ] = 600.0


class TimeOptions(NamedTuple):
    all_at_once: Annotated[
        bool, typer.Option("--all-at-once", help="Assume that all jobs run at once.", rich_help_panel=_TIME)
    ] = False
    day: Annotated[
        str, typer.Option(help="First day of the period, YYYY-MM-DD. Default: today.", rich_help_panel=_TIME)
    ] = ""
    days: Annotated[int, typer.Option(min=1, max=31, help="Length of the period in days.", rich_help_panel=_TIME)] = 1
    zone: Annotated[
        str, typer.Option(help="Time zone of these days, such as Europe/Berlin.", rich_help_panel=_TIME)
    ] = "UTC"


class QuestionOptions(NamedTuple):
    fail: Annotated[
        list[int] | None,
        typer.Option(
            min=0,
            help="Calculate the effect of the failure of this number of hosts. Repeatable. Default: 1.",
            rich_help_panel=_QUESTIONS,
        ),
    ] = None
    fail_by: Annotated[
        str,
        typer.Option(
            metavar="ATTRIBUTE",
            help="Attribute of hosts that names their failure domain.",
            rich_help_panel=_QUESTIONS,
        ),
    ] = "zone"
    more: Annotated[
        list[str] | None,
        typer.Option(
            metavar="JOB", help="Calculate how many more tasks of this job fit. Repeatable.", rich_help_panel=_QUESTIONS
        ),
    ] = None
    seconds: Annotated[
        float,
        typer.Option(
            min=0.1, max=86_400, help="Maximum seconds to search for better answers.", rich_help_panel=_QUESTIONS
        ),
    ] = 30.0


class OutputOptions(NamedTuple):
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw a plot into this file: .png, .svg or .html.", rich_help_panel=_OUTPUT),
    ] = None
    placement: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a CSV file with the columns job, task and host: the host of each task.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None


@grouped
def plan(
    ctx: typer.Context,
    hosts: HostOptions,
    demand: DemandOptions,
    time: TimeOptions,
    questions: QuestionOptions,
    output: OutputOptions,
    as_json: AsJson = False,
) -> None:
    """Calculate whether tasks fit on hosts, how many hosts they need, and the effect of failed hosts.

    Exits with 1 if not every task has a host. See docs/planning.md.
    """
    from jobcloud.client import plan_report, planning
    from jobcloud.planning import plot
    from jobcloud.planning.plan import Question, make_plan

    _check(hosts, demand)
    if output.plot:
        plot.check_path(output.plot)
    if output.placement:
        plot.check_writable(output.placement, "--placement")
    first_day = planning.day_of(time.day, time.zone)
    when = planning.When(first_day, time.days, demand.run_time, time.all_at_once)
    with plan_report.progress_bar() as progress:
        found = _hosts(ctx, hosts)
        found, asked = _demand(ctx, demand, when, found, progress)
        asked = replace(asked, notes=(*found.notes, *asked.notes))
        problem = planning.problem_of(found, asked)
        failures = tuple(questions.fail) if questions.fail else (1,)
        # The names in a table of tasks are names that the user has chosen, not keys of jobs.
        more = tuple(job if demand.tasks else key_of(ctx, job) for job in questions.more or ())
        question = Question(found.how_many, failures, questions.fail_by, more, questions.seconds)
        with plan_report.solver_silenced():
            made = make_plan(problem, question, progress)
    # The answer comes before the files: a full disk must not cost the result of a long calculation.
    if as_json:
        render.show_json(plan_report.document(made, asked))
    else:
        plan_report.show(made, asked, time.zone)
    if output.placement:
        plan_report.write_placement(made, asked, output.placement)
    if output.plot:
        plot.draw(made, output.plot, planning.load_of(asked, problem), time.zone)
    if not made.fits:
        raise typer.Exit(Exit.REFUSED)


def _check(hosts: HostOptions, demand: DemandOptions) -> None:
    """Raises ConfigError if the options do not name exactly one source of hosts and one source of demand."""
    _one_of({"--hosts": hosts.hosts, "--host": hosts.host, "--cluster": hosts.cluster})
    _one_of({"--tasks": demand.tasks, "--manifest": demand.manifest, "--jobs": demand.jobs})
    if str(hosts.hosts) == str(demand.tasks) == "-":
        raise ConfigError("both are standard input", field="--hosts, --tasks", fix="give one of them as a file")


def _one_of(options: dict[str, object]) -> None:
    given = [name for name, value in options.items() if value]
    if len(given) != 1:
        problem = f"{' and '.join(given)} exclude each other" if given else "one of them is required"
        raise ConfigError(problem, field=", ".join(options), fix="give one of them")


def _hosts(ctx: typer.Context, options: HostOptions) -> Hosts:
    from jobcloud.client import planning

    if options.hosts:
        return planning.hosts_of_table(options.hosts, how_many=options.how_many)
    if options.host:
        return planning.hosts_of_types(options.host)
    with connect(ctx) as client:
        return planning.hosts_of_cluster(client)


def _demand(
    ctx: typer.Context, options: DemandOptions, when: When, hosts: Hosts, progress: Progress | None
) -> tuple[Hosts, Demand]:
    """Returns (hosts, demand). If an app keeps an executor on each host, these hosts lack the room for it."""
    from jobcloud.client import planning

    capacity = planning.capacity_of(hosts)
    if options.tasks:
        return hosts, planning.demand_of_table(options.tasks, capacity)
    if options.manifest:
        jobs = planning.manifest_jobs(options.manifest, team_of(ctx))
    else:
        with connect(ctx) as client:
            jobs = planning.registered_jobs(client)
    if options.run_times:
        jobs = jobs.with_run_times(options.run_times)
    days: dict[str, Days] = {}
    if options.calendar or options.manifest:
        from jobcloud.client.commands.calendar_files import read_calendars, read_manifests

        days = read_manifests(options.manifest or (), team_of(ctx))
        days |= {key: found.days for key, found in read_calendars(options.calendar, team_of(ctx)).items()}
    jobs = jobs.with_limits(days, planning.pools_of(options.pool, team_of(ctx)))
    return planning.with_warm_executors(hosts, planning.demand_of_jobs(jobs, when, capacity, progress), jobs.apps)
