"""Options that several commands share, and groups of options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, get_type_hints

import typer

from jobcloud.errors import ConfigError, NotFound

if TYPE_CHECKING:
    from jobcloud.client.http import Client

MAX_CANDIDATES = 20
_LISTS = {
    "app": "`jobcloud app list`",
    "job": "`jobcloud job list`",
    "run": "`jobcloud runs`",
    "task": "`jobcloud tasks`",
}

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="Maximum number of rows, the newest first.")]
Wide = Annotated[bool, typer.Option("--wide", "-w", help="Show all columns.")]
Watch = Annotated[
    bool, typer.Option("--watch", help="Show the list again every 2 seconds, until Ctrl-C; JSON in one line.")
]
OfApp = Annotated[str, typer.Option("--app", help="App of the jobs. Register it before the jobs.")]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", metavar="FILE", help="New file for the manifest: JSON if its name ends in .json, otherwise YAML."
    ),
]
Rename = Annotated[
    list[str] | None,
    typer.Option("--rename", metavar="OLD=NEW", help="Another name for a job of the report. Repeatable."),
]
Cpus = Annotated[float, typer.Option("--cpus", min=0.001, max=4096, help="CPUs of each job.")]
MemoryMb = Annotated[float, typer.Option("--memory-mb", min=1, max=67_108_864, help="Memory of each job in MB.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the report and write nothing.")]
AppName = Annotated[str, typer.Argument(metavar="APP", help="The app, as [TEAM:]NAME.")]
JobName = Annotated[str, typer.Argument(metavar="JOB", help="The job, as [TEAM:]NAME.")]


class GlobalOptions(NamedTuple):
    """The options that stand before the command; "" if not given. Commands find them in `ctx.obj`.

    `team` is the team of all names that are given without `TEAM:`. If it is set, lists show only this team.
    """

    server: str = ""
    token: str = ""
    team: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""


def team_of(ctx: typer.Context) -> str:
    """The value of `--team`, or "" if not given. Raises ConfigError if the value is not a valid name of a team."""
    team = ctx.ensure_object(GlobalOptions).team
    if team:
        from jobcloud.config import check_team

        check_team("--team", team)
    return team


def key_of(ctx: typer.Context, text: str, kind: Literal["app", "job"] = "job") -> str:
    """The key for a name that is given as `[TEAM:]NAME`, with `--team` as the default team; "" for "".

    A name with `…` in it, as tables show long ones, is looked up on the server. Raises ConfigError, NotFound, ApiError.
    """
    from jobcloud.config import ELLIPSIS, abbreviates, qualified

    if ELLIPSIS not in text:
        return qualified(text, team_of(ctx))
    from jobcloud.client.commands.connection import connect

    with connect(ctx) as client:
        keys = [job["jobName"] for job in client.jobs()] if kind == "job" else [a["appName"] for a in client.apps()]
    return the_only([key for key in keys if abbreviates(text, key)], text, kind)


def the_only(found: Sequence[str], text: str, kind: str) -> str:
    """The only name or id that `text` stands for. Raises NotFound, or ConfigError that lists the first 20."""
    if not found:
        raise NotFound(f"there is no {kind} {text!r}", field=kind.upper(), fix=f"list them: {_LISTS[kind]}")
    if len(found) > 1:
        count = len(found) if len(found) <= MAX_CANDIDATES else f"more than {MAX_CANDIDATES}"
        names = "\n  ".join(found[:MAX_CANDIDATES])
        raise ConfigError(f"{text!r} fits {count} {kind}s", field=kind.upper(), fix=f"give more of it:\n  {names}")
    return found[0]


def run_of(client: Client, text: str) -> str:
    """The id of the run that a text stands for: the id, its beginning, its end, or both with `…` between them.

    Raises ConfigError, NotFound, ApiError.
    """
    from jobcloud.client.http import ApiError

    try:
        return str(client.run_state(text)["id"])
    except NotFound:
        raise
    except ApiError as error:
        if error.status != 404:
            raise
    return the_only([run["id"] for run in client.runs(MAX_CANDIDATES + 1, match=text)], text, "run")


def names(option: str, given: Sequence[str] | None) -> dict[str, str]:
    """The values OLD=NEW of an option. The last `=` separates them. Raises ConfigError."""
    from jobcloud.config import check_name

    found: dict[str, str] = {}
    for text in given or ():
        old, sign, new = text.rpartition("=")
        if not (old and sign):
            raise ConfigError(f"{text[:120]!r} is not OLD=NEW", field=option, fix="e.g. old-name=new-name")
        if old in found:
            raise ConfigError(f"{old[:120]!r} is given twice", field=option, fix="give it once")
        check_name(option, new)
        found[old] = new
    return found


def instant(option: str, text: str) -> str:
    """A time of an option as the API takes it; "" for "". Raises ConfigError."""
    from datetime import UTC, datetime

    from jobcloud.durations import parse_instant

    return parse_instant(text, option, datetime.now(UTC)) if text else ""


def states(text: str) -> list[str]:
    """The states in the value of an option, such as `failed,DEAD`."""
    return [state.strip().upper() for state in text.split(",") if state.strip()]


def grouped(function: Callable[..., None]) -> Callable[..., None]:
    """Make a command of a function. Each field of a NamedTuple parameter becomes an option of the command.

    Typer reads the options from the signature of the command. With these groups of options, the signature of the
    function is short.
    """
    parameters = _parameters(function)
    groups = {name: parameter.annotation for name, parameter in parameters.items() if _is_group(parameter.annotation)}
    options = {name: _parameters(group) for name, group in groups.items()}

    def command(**values: object) -> None:
        parts = {
            name: group(**{option: values.pop(option) for option in options[name]}) for name, group in groups.items()
        }
        function(**values, **parts)

    flat: list[inspect.Parameter] = []
    for name, parameter in parameters.items():
        flat += options[name].values() if name in groups else [parameter]
    command.__doc__ = function.__doc__
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    vars(command)["__signature__"] = inspect.Signature(flat)
    return command


def _is_group(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, tuple)


def _parameters(function: Callable[..., object]) -> dict[str, inspect.Parameter]:
    """The parameters of a function or class by name, with evaluated annotations."""
    hints = get_type_hints(function, include_extras=True)
    return {
        name: parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(function).parameters.items()
    }
