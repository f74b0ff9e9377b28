"""Passwords for commands: from a prompt or a file, never from the command line, which other users can see."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from jobcloud.errors import ConfigError

PasswordFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A file with the password; `-` for standard input. Default: a prompt."),
]
_MAX_BYTES = 4_096


def read_password(file: Path | None, option: str, text: str, *, twice: bool = False) -> str:
    """The password from a file without its line end, or from a prompt. `twice`: ask again, and compare.

    Raises ConfigError.
    """
    if file is None:
        if not sys.stdin.isatty():
            raise ConfigError("is not given, and there is no terminal to ask for it", field=option, fix="name a file")
        return str(typer.prompt(text, hide_input=True, confirmation_prompt=twice, err=True))
    try:
        if str(file) == "-":
            content = sys.stdin.buffer.read(_MAX_BYTES)
        else:
            with file.open("rb") as opened:
                content = opened.read(_MAX_BYTES)
        return content.decode().removesuffix("\n").removesuffix("\r")
    except (OSError, ValueError) as error:
        problem = f"{file} cannot be read: {getattr(error, 'strerror', None) or 'it is not text in UTF-8'}"
        raise ConfigError(problem, field=option, fix="check the path") from None
