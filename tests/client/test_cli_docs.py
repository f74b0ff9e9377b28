"""docs/cli.md, README.md and `--help` describe the command line that exists."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from jobcloud.client.cli import PANELS, cli

ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs" / "cli.md").read_text()
README = (ROOT / "README.md").read_text()


def commands(group: TyperGroup, prefix: str = "") -> Iterator[tuple[str, TyperCommand]]:
    """(name as it is typed, command)"""
    context = typer.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, TyperGroup):
            yield from commands(command, f"{prefix}{name} ")
        else:
            assert isinstance(command, TyperCommand)
            yield f"{prefix}{name}", command


def options(command: TyperCommand) -> set[str]:
    return {
        word
        for parameter in command.params
        for word in (*parameter.opts, *parameter.secondary_opts)
        if word.startswith("--")
    }


_ROOT = get_command(cli)
assert isinstance(_ROOT, TyperGroup)
COMMANDS = dict(commands(_ROOT))


@pytest.mark.parametrize("name", COMMANDS)
def test_command_is_documented(name: str) -> None:
    assert re.search(rf"`{name}[ `]", DOC), f"docs/cli.md does not mention `{name}`"


@pytest.mark.parametrize("name", COMMANDS)
def test_command_and_its_options_have_a_help_text(name: str) -> None:
    command = COMMANDS[name]
    assert command.help
    assert command.help.split("\n\n")[0].rstrip().endswith(".")
    for parameter in command.params:
        assert getattr(parameter, "help", ""), f"{name} {parameter.name}"


@pytest.mark.parametrize("name", COMMANDS)
def test_further_paragraphs_of_a_help_text_are_one_line_each(name: str) -> None:
    # Typer joins the lines of the first paragraph only. In the others, it would print the line breaks of the source.
    further = inspect.cleandoc(COMMANDS[name].help or "").split("\n\n")[1:]
    assert not [paragraph for paragraph in further if "\n" in paragraph]


def test_options_in_docs_exist() -> None:
    in_docs = re.findall(r"`([a-z-]+(?: [a-z]+){0,2})((?: [^`]*)?)`", DOC)
    in_readme = re.findall(r"^jobcloud ([a-z-]+(?: [a-z]+){0,2})(.*)", README, re.MULTILINE)
    for words, rest in [*in_docs, *in_readme]:
        name = words
        while name and name not in COMMANDS:
            name = name.rpartition(" ")[0]
        if name:
            assert set(re.findall(r"--[a-z-]+", rest)) <= options(COMMANDS[name]), name


def test_commands_without_json_are_those_in_docs() -> None:
    without = {name for name, command in COMMANDS.items() if "--json" not in options(command)}
    assert without == {"app init", "run-local", "dev", "scheduler", "login", "logout"}
    assert "All commands except `app init`, `run-local`, `dev`, `scheduler`, `login` and `logout` have `--json`" in DOC


def test_every_command_has_a_panel_in_help() -> None:
    assert {name for names in PANELS.values() for name in names} == {name.partition(" ")[0] for name in COMMANDS}
