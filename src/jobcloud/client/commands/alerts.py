"""`jobcloud alerts`: alerts, silences and tests of channels."""

from __future__ import annotations

from typing import Annotated

import typer

from jobcloud.client import render
from jobcloud.client.commands.connection import connect
from jobcloud.client.commands.exit_codes import Exit
from jobcloud.client.commands.options import AsJson, Wide, key_of, team_of
from jobcloud.errors import ConfigError

commands = typer.Typer()
_MAX_SILENCE_S = 30 * 86_400


@commands.callback(invoke_without_command=True)
def list_alerts(ctx: typer.Context, wide: Wide = False, as_json: AsJson = False) -> None:
    """List the open alerts, and the channels that get messages about them.

    An alert that has ended is listed as closed until its channels know that.
    """
    if ctx.invoked_subcommand is None:
        with connect(ctx) as client:
            found = client.alerts(team_of(ctx))
        render.show(found, lambda item: render.alerts(item, wide=wide), as_json=as_json)


@commands.command("silence")
def silence(
    ctx: typer.Context,
    subject: Annotated[
        str, typer.Argument(metavar="[SUBJECT]", help="A job as [TEAM:]NAME, an agent's id, or a glob. Default: all.")
    ] = "",
    duration: Annotated[
        str, typer.Option("--for", metavar="DURATION", help="Length of the silence, such as 30m; 1s to 30d.")
    ] = "1h",
    condition: Annotated[str, typer.Option(help="Only alerts with this condition, such as late.")] = "",
    owner: Annotated[str, typer.Option(help="Only alerts of jobs of this owner; a glob is allowed.")] = "",
    comment: Annotated[str, typer.Option(help="Text for people.")] = "",
    as_json: AsJson = False,
) -> None:
    """Send no messages about some alerts for a while. `--team` before the command: only alerts of this team's jobs.

    Afterwards, messages about alerts that are still open are sent.
    """
    from jobcloud.durations import parse_ms

    seconds, rest = divmod(parse_ms(duration, "--for"), 1_000)
    if rest or not 1 <= seconds <= _MAX_SILENCE_S:
        raise ConfigError(f"{duration} is out of range", field="--for", fix="whole seconds, 1s to 30d")
    given = {
        "forSeconds": seconds,
        "subject": key_of(ctx, subject),
        "team": team_of(ctx),
        "owner": owner,
        "comment": comment,
        **({"condition": condition} if condition else {}),
    }
    with connect(ctx) as client:
        made = client.add_silence(given)
    text = f"silence {made['id']} ends {render.moment(made['until'])}"
    render.answer(made, text, as_json=as_json)


@commands.command("silences")
def list_silences(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the silences that have not ended."""
    with connect(ctx) as client:
        render.show(client.silences(), render.silences, as_json=as_json)


@commands.command("unsilence")
def unsilence(
    ctx: typer.Context,
    silence_id: Annotated[str, typer.Argument(metavar="ID", help="The id, as in `jobcloud alerts silences`.")],
    as_json: AsJson = False,
) -> None:
    """End a silence. Messages about alerts that are still open are sent."""
    with connect(ctx) as client:
        client.remove_silence(silence_id)
    render.answer({"id": silence_id, "removed": True}, f"silence {silence_id} has ended", as_json=as_json)


@commands.command("test")
def try_channel(
    ctx: typer.Context,
    channel: Annotated[str, typer.Argument(metavar="CHANNEL", help="A channel, as in `jobcloud alerts`.")],
    as_json: AsJson = False,
) -> None:
    """Send a test message to a channel. Exits with 1 if the channel does not accept it."""
    with connect(ctx) as client:
        found = client.test_channel(channel)
    problem = found["problem"]
    text = f"channel {channel} has not accepted it: {problem}" if problem else f"channel {channel} has accepted it"
    render.answer(found, text, as_json=as_json)
    if problem:
        raise typer.Exit(Exit.REFUSED)
