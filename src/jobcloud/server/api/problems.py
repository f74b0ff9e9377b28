"""Errors as RFC 9457 problem details: `{type, title, status, detail, errors: [{field, problem, fix}]}`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse

from jobcloud.errors import ConfigError, Conflict, NotConnected, NotFound, Refused, StoreError, StoreFull, Unavailable

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:jobcloud:problem:"

# The slug of a problem's type is part of the interface: scripts tell problems apart by it.
SLUGS = {
    "malformed-json": (400, "The body is no valid JSON"),
    "bad-request": (400, "The request cannot be understood"),
    "unauthenticated": (401, "A valid token is needed"),
    "forbidden-origin": (403, "Writes from this origin are refused"),
    "not-found": (404, "There is no such thing"),
    "method-not-allowed": (405, "The method does not exist here"),
    "timeout": (408, "The body did not arrive in time"),
    "conflict": (409, "It contradicts what exists"),
    "too-large": (413, "The body is too large"),
    "unsupported-media-type": (415, "The content type is not supported"),
    "misdirected": (421, "This server does not answer to that host name"),
    "invalid": (422, "The request names something that is not valid"),
    "too-many": (429, "Too many at once"),
    "internal": (500, "The server failed"),
    "unavailable": (503, "It cannot be done now"),
    "storage-full": (507, "There is no room to store it"),
}


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing that is wrong: the field in its JSON spelling, what is wrong with it, what to do instead."""

    field: str
    problem: str
    fix: str = ""


class Problem(Exception):
    """An answer that is an error. `slug` is one of SLUGS."""

    def __init__(
        self,
        slug: str,
        detail: str,
        issues: Iterable[Issue] = (),
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.slug = slug
        self.detail = detail
        self.issues = tuple(issues)
        self.headers = dict(headers or {})

    @property
    def status(self) -> int:
        return SLUGS[self.slug][0]

    def document(self) -> dict[str, Any]:
        status, title = SLUGS[self.slug]
        return {
            "type": TYPE_PREFIX + self.slug,
            "title": title,
            "status": status,
            "detail": self.detail,
            "errors": [asdict(issue) for issue in self.issues],
        }

    def response(self) -> JSONResponse:
        return JSONResponse(self.document(), self.status, self.headers, media_type=MEDIA_TYPE)


def from_refused(error: Refused) -> Problem:
    """The problem a refusal of the core becomes."""
    for kind, slug in ((NotFound, "not-found"), (Conflict, "conflict"), (Unavailable, "unavailable")):
        if isinstance(error, kind):
            return Problem(slug, str(error), [Issue(error.field, error.problem, error.fix)])
    faults = (error, *error.others) if isinstance(error, ConfigError) else (error,)
    return invalid([Issue(fault.field, fault.problem, fault.fix) for fault in faults])


def from_error(error: Exception) -> Problem | None:
    """The problem for an error raised on purpose; None where it is a defect of ours."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, Refused):
        return from_refused(error)
    if isinstance(error, StoreFull):
        return Problem("storage-full", "There is no room left where the state is stored; nothing was changed.")
    if isinstance(error, NotConnected):
        return Problem("unavailable", "There is no Mesos master to hand this to at the moment.")
    if isinstance(error, StoreError):
        return Problem("unavailable", "The state cannot be read or written at the moment.")
    if isinstance(error, TimeoutError):
        detail = "The scheduler did not answer in time; the request may still take effect: look before you repeat it."
        return Problem("unavailable", detail, headers={"Retry-After": "5"})
    return None


def invalid(issues: Iterable[Issue]) -> Problem:
    """All that is wrong with one request, at once."""
    found = list(issues)
    first = found[0]
    where = f"{first.field}: " if first.field else ""
    more = f"; and {len(found) - 1} more" if len(found) > 1 else ""
    return Problem("invalid", f"{where}{first.problem}{f' ({first.fix})' if first.fix else ''}{more}", found)


def from_status(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Problem:
    """The problem for a status that the web framework chose."""
    for slug, (code, title) in SLUGS.items():
        if code == status and slug != "malformed-json":
            return Problem(slug, title if detail in ("", HTTPStatus(status).phrase) else detail, headers=headers)
    return Problem("bad-request" if status < 500 else "internal", detail, headers=headers)
