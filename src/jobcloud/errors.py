"""The errors that cross package boundaries.

JobcloudError
├── Refused            a request was refused; nothing changed
│   ├── ConfigError    a field of an app, a job or the settings is wrong
│   ├── NotFound       the request names something that does not exist
│   ├── Conflict       the request contradicts the present state
│   │   └── Outdated   it was made for another revision of the app, the job or the record
│   ├── NotAllowed     the sender has no right to the request
│   └── Unavailable    the request may succeed later (no leader here, store or master out of reach); its text says if
│                      the request may have taken effect
├── InvalidTransition  the table of task states has no entry for a (state, update) pair: a bug in jobcloud
├── StoreError         the state could not be read or written
│   ├── Fenced         another leader has raised the epoch; the old leader must stop
│   │   └── StoreGone  the state was deleted or replaced under this leader, which must stop
│   ├── StoreFull      the disk or quota is full
│   ├── RecordTooLarge records exceed the size limit of the store
│   └── StoreUnusable  the state is damaged, of a newer version, or closed to us
│       └── StoreDamaged
└── NotConnected       no master is connected, or it does not answer
"""

from __future__ import annotations

from collections.abc import Mapping


class JobcloudError(Exception):
    """Base class of all errors of jobcloud."""


class Refused(JobcloudError):
    """A request was refused before it changed anything. Only the text of an Unavailable may say otherwise.

    `field` names the wrong input, or is ""; `fix` tells the caller what to do.
    """

    def __init__(self, problem: str, *, field: str = "", fix: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.field = field
        self.fix = fix

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        return f"{where}{self.problem}" + (f" ({self.fix})" if self.fix else "")


class ConfigError(Refused):
    """A field is wrong. `others` are further errors found in the same check."""

    def __init__(self, problem: str, *, field: str, fix: str = "", others: tuple[ConfigError, ...] = ()) -> None:
        super().__init__(problem, field=field, fix=fix)
        self.others = others


class NotFound(Refused):
    """The request names something that does not exist, such as an app or a task."""


class Conflict(Refused):
    """The request contradicts the present state: a duplicate name, an app that still has jobs."""


class Outdated(Conflict):
    """The request was made for another revision of an app, a job or a record than the present one."""


class NotAllowed(Refused):
    """The sender of the request has no right to it."""


class Unavailable(Refused):
    """The request cannot be carried out now; it may succeed later."""


class InvalidTransition(JobcloudError):
    """The table in `scheduler.status` has no entry for a (state, update) pair."""


class StoreError(JobcloudError):
    """The state could not be read or written."""


class Fenced(StoreError):
    """Another leader has raised the epoch; nothing was written."""


class StoreGone(Fenced):
    """The state was deleted or replaced while this leader used it.

    Nobody would ever read the writes of this leader, so it must stop.
    """


class StoreFull(StoreError):
    """No space left; nothing was written, and the stored state is intact."""


class RecordTooLarge(StoreError):
    """Records exceed the size limit of the store; nothing was written. Writing them again fails too.

    `problems` is (kind, key) → problem.
    """

    def __init__(self, problems: Mapping[tuple[str, str], str]) -> None:
        super().__init__("; ".join(problems.values())[:1_000])
        self.problems = dict(problems)


class StoreUnusable(StoreError):
    """The stored state is damaged, of a newer version, or closed to this process. It was left unchanged."""


class StoreDamaged(StoreUnusable):
    """The stored state is damaged; it was left unchanged."""


class NotConnected(JobcloudError):
    """No master is connected, or it does not answer. The call was not sent, unless the message says otherwise."""
