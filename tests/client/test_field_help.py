"""The list of fields at the end of a command's help."""

from __future__ import annotations

import typer
from typer.testing import CliRunner

from jobcloud.client.commands.field_help import ListsJobFields
from jobcloud.config import Job
from jobcloud.fields import names

commands = typer.Typer()


@commands.command(cls=ListsJobFields)
def register() -> None:
    """Register a job."""


def test_help_lists_every_field_of_a_job() -> None:
    shown = CliRunner().invoke(commands, ["--help"], env={"COLUMNS": "500"}).output
    listed = shown.partition("job-configuration.md: ")[2]
    assert {name.strip(" .\n") for name in listed.split(",")} == {name.partition(".")[0] for name in names(Job)}
