"""Teams and clusters, and the keys of apps and jobs.

The names of apps and of jobs are unique within a team, a *key* is unique in a cluster. The key of an app or a job of
the team `default` is its name; any other key is `TEAM:NAME`. The scheduler, the stored records, the ids of tasks and
runs and the paths of the API use keys. No name contains a colon, so a key has one team and one name.
"""

from __future__ import annotations

import re
from functools import lru_cache

from jobcloud.errors import ConfigError

DEFAULT_TEAM = "default"
SEPARATOR = ":"
DEFAULT_CLUSTER = "jobcloud"
#: the most characters of the name of a team or a cluster
MAX_LABEL = 32
LABEL_RULE = f"1 to {MAX_LABEL} lower-case letters, digits or '-', the first a letter"
_LABEL = re.compile(rf"[a-z][a-z0-9-]{{0,{MAX_LABEL - 1}}}")


def key_of(team: str, name: str) -> str:
    """The key of an app or a job."""
    return name if team == DEFAULT_TEAM else _joined(team, name)


# Each key is one object, so that the records of many tasks share it.
@lru_cache(maxsize=65_536)
def _joined(team: str, name: str) -> str:
    return f"{team}{SEPARATOR}{name}"


def split_key(key: str) -> tuple[str, str]:
    """The team and the name of a key."""
    team, separator, name = key.partition(SEPARATOR)
    return (team, name) if separator else (DEFAULT_TEAM, key)


def team_of(key: str) -> str:
    """The team of a key; "" for "", which is the key of nothing."""
    return split_key(key)[0] if key else ""


def qualified(text: str, team: str = "") -> str:
    """The key that `[TEAM:]NAME` means. `team` is that of a bare name; "" stands for the team `default`.

    The text is not checked: a key that nothing can have names nothing.
    """
    if SEPARATOR in text:
        return key_of(*split_key(text))
    return key_of(team or DEFAULT_TEAM, text) if text else ""


def is_label(text: str) -> bool:
    """Whether a text may be the name of a team or a cluster: a part of ids, paths and URLs."""
    return _LABEL.fullmatch(text) is not None


def check_team(field: str, team: str) -> None:
    """Raises ConfigError if a text cannot be the name of a team."""
    if not is_label(team):
        raise ConfigError(f"{team[:80]!r} is not a valid name of a team", field=field, fix=f"use {LABEL_RULE}")
