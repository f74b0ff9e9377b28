"""The keys of webhooks, from the source of secrets."""

from __future__ import annotations

from collections.abc import Sequence

from jobcloud.config import MAX_WEBHOOK_KEYS
from jobcloud.server.secrets.sources import SHARED, Missing, Source, SourceFailed

# In place of the name of a secret. No job can name it.
_NOTHING = "_nothing"


def keys_of(source: Source, team: str, names: Sequence[str]) -> tuple[list[bytes], list[str]]:
    """The values of the secrets of a team that can be read, and why others cannot. May block.

    It reads as often for each call, so that its duration does not tell whether there are names, and whose secrets they
    are. Raises SourceFailed if nothing could be read.
    """
    padded = (*names, *(_NOTHING for _ in range(MAX_WEBHOOK_KEYS)))[:MAX_WEBHOOK_KEYS]
    found: list[bytes] = []
    failures: list[SourceFailed] = []
    for name in padded:
        values: list[bytes] = []
        for owner in (team, SHARED):
            try:
                values.append(source.read(owner, name))
            except Missing:
                continue
            except SourceFailed as error:
                failures.append(error)
        if values and name != _NOTHING:
            found.append(values[0])
    if len(failures) == 2 * len(padded):
        raise failures[0]
    return found, [str(failure) for failure in failures]
