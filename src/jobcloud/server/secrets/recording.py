"""Requests of executors for secrets, in the audit log. No entry has a value or a token."""

from __future__ import annotations

from jobcloud.audit.entries import Entry, Kind, Outcome
from jobcloud.audit.service import Audit
from jobcloud.config import team_of
from jobcloud.model import cut
from jobcloud.server.secrets.service import OnRead, Read

_FAILED = (Read.MISSING, Read.SOURCE_FAILED)


def recorder(audit: Audit) -> OnRead:
    """Records each secret that is handed over. Refusals and failures have at most a few entries for each task."""

    def record(task: str, secret: str, agent: str, client: str, outcome: Read) -> None:
        subject = f"task:{cut(task, 250)}"
        given = outcome is Read.GIVEN
        if not given and not audit.windows.admits_refusal(subject, known=True):
            return
        ended = Outcome.SUCCEEDED if given else Outcome.FAILED if outcome in _FAILED else Outcome.REFUSED
        entry = Entry(
            at=audit.now_ms(), kind=Kind.REQUEST, subject=subject, via="token of the task", client=client,
            method="POST", route="/secrets", team=cut(team_of(task), 100), target=f"secret {cut(secret, 200)}",
            outcome=ended, reason="" if given else outcome.value, details={"agent": cut(agent, 255)},
        )  # fmt: skip
        audit.record(entry)

    return record
