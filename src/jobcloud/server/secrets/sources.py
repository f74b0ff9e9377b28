"""Sources of secrets: a directory, the environment of the scheduler. `vault` has a further one.

A secret belongs to a team: `TEAM/NAME`. A secret of SHARED may be used by each team that has none of the
same name. Values are at most MAX_BYTES long. Errors contain names, never values.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from pydantic_core import PydanticCustomError

from jobcloud.server.settings import read_private

MAX_BYTES = 65_536
#: in place of a team; no team has this name
SHARED = "_shared"


class Missing(Exception):
    """The source answers, and has no secret of this name."""


class SourceFailed(Exception):
    """The source cannot be read now. The text gives the reason, without any value."""


class Source(Protocol):
    def read(self, team: str, name: str) -> bytes:
        """The present value of a secret of a team, or of SHARED. May block. Raises Missing or SourceFailed."""


def value_of(source: Source, team: str, name: str) -> bytes:
    """The present value of the secret that a job of the team means by `name`. Raises Missing or SourceFailed."""
    try:
        return source.read(team, name)
    except Missing:
        return source.read(SHARED, name)


def checked(name: str, value: bytes) -> bytes:
    """The value. Raises SourceFailed if it is too large."""
    if len(value) > MAX_BYTES:
        raise SourceFailed(f"{name} has more than {MAX_BYTES:,} bytes")
    return value


class DirectorySource:
    """A file `TEAM/NAME` for each secret, private to the user of the scheduler and its group."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self, team: str, name: str) -> bytes:
        path = self._directory / team / name
        try:
            return checked(name, read_private(path, MAX_BYTES + 1))
        except PydanticCustomError as error:
            if self._directory.is_dir() and not path.exists():
                raise Missing from None
            raise SourceFailed(error.message()) from None


class EnvironmentSource:
    """A variable `PREFIX` `TEAM__NAME` for each secret, in capitals, with `_` in place of `-`.

    Two names could mean one variable if they contained `--` or ended with `-`, so such names have no variable.
    """

    def __init__(self, prefix: str, environ: Mapping[str, str] = os.environ) -> None:
        self._prefix, self._environ = prefix, environ

    def read(self, team: str, name: str) -> bytes:
        if any("--" in part or part.endswith("-") for part in (team, name)):
            raise Missing
        value = self._environ.get(f"{self._prefix}{re.sub('-', '_', f'{team}__{name}').upper()}")
        if value is None:
            raise Missing
        return checked(name, os.fsencode(value))
