"""The tree of errors that cross a boundary of this package.

JobcloudError
├── Refused            a request was turned down; nothing changed
│   ├── ConfigError    a field of an app, a job or the settings is wrong
│   ├── NotFound       it names something that does not exist
│   ├── Conflict       it contradicts what exists
│   └── Unavailable    it may succeed later (no leader here, store or master out of reach)
├── InvalidTransition  a (task state, update) pair that the table does not list: a defect of ours
├── StoreError         the state could not be read or written
│   ├── Fenced         another leader has raised the epoch: this one must stop
│   ├── StoreFull      the disk or quota is full
│   ├── RecordTooLarge a record is larger than the store takes
│   └── StoreUnusable  damaged, or written by a newer version
└── NotConnected       a call could not be handed to Mesos
"""

from __future__ import annotations


class JobcloudError(Exception):
    """Base of every error raised on purpose."""


class Refused(JobcloudError):
    """A request turned down before it changed anything.

    `field` names the offending input where there is one; `fix` says what to do instead.
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
    """A field is wrong. `others` holds the further ones found in the same pass."""

    def __init__(self, problem: str, *, field: str, fix: str = "", others: tuple[ConfigError, ...] = ()) -> None:
        super().__init__(problem, field=field, fix=fix)
        self.others = others


class NotFound(Refused):
    """No such app, job, task or package."""


class Conflict(Refused):
    """It contradicts what exists: a duplicate name, an app that still has jobs."""


class Unavailable(Refused):
    """It cannot be done now; trying again later may succeed."""


class InvalidTransition(JobcloudError):
    """A (state, update) pair outside the table of `status`."""


class StoreError(JobcloudError):
    """The state could not be read or written."""


class Fenced(StoreError):
    """The epoch was raised by another leader; nothing was written."""


class StoreFull(StoreError):
    """No room; nothing was written, what was stored before is intact."""


class RecordTooLarge(StoreError):
    """A record is larger than the store takes; nothing was written, and trying again would not help."""


class StoreUnusable(StoreError):
    """The stored state is damaged or of a newer version; it was left untouched."""


class NotConnected(JobcloudError):
    """There is no master to hand a call to; it was certainly not sent."""
