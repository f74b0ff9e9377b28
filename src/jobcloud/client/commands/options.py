"""Options that several commands share, and groups of options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, NamedTuple, get_type_hints

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="Maximum number of rows, the newest first.")]
Wide = Annotated[bool, typer.Option("--wide", "-w", help="Show all columns.")]
Watch = Annotated[bool, typer.Option("--watch", help="Show the list again every 2 seconds, until Ctrl-C.")]
AppName = Annotated[str, typer.Argument(metavar="APP", help="The app, as [TEAM:]NAME.")]
JobName = Annotated[str, typer.Argument(metavar="JOB", help="The job, as [TEAM:]NAME.")]


class GlobalOptions(NamedTuple):
    """The options that stand before the command; "" if not given. Commands find them in `ctx.obj`.

    `team` is the team of all names that are given without `TEAM:`. If it is set, lists show only this team.
    """

    server: str = ""
    token: str = ""
    team: str = ""


def team_of(ctx: typer.Context) -> str:
    """The value of `--team`, or "" if not given. Raises ConfigError if the value is not a valid name of a team."""
    team = ctx.ensure_object(GlobalOptions).team
    if team:
        from jobcloud.config import check_team

        check_team("--team", team)
    return team


def key_of(ctx: typer.Context, text: str) -> str:
    """The key for a name that is given as `[TEAM:]NAME`, with `--team` as the default team; "" for ""."""
    from jobcloud.config import qualified

    return qualified(text, team_of(ctx))


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
