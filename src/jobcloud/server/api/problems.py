"""Errors as RFC 9457 problem details: `{type, title, status, detail, errors: [{field, problem, fix}]}`.

A `detail` or a `problem` that is a Told has `code` and `parameters` beside it. A `fix` that is one has `fixCode` and
`fixParameters`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse

from jobcloud.errors import (
    ConfigError,
    Conflict,
    NotAllowed,
    NotConnected,
    NotFound,
    Outdated,
    Refused,
    StoreError,
    StoreFull,
    Unavailable,
)
from jobcloud.sentences import Told

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:jobcloud:problem:"
MAX_ISSUES = 100

# The slug of a problem's type is part of the interface: scripts distinguish problems by it.
SLUGS = {
    "malformed-json": (400, "The body is not valid JSON"),
    "bad-request": (400, "The request is malformed"),
    "unauthenticated": (401, "A valid token is required"),
    "forbidden": (403, "The sender has no right to this"),
    "forbidden-origin": (403, "Writes from this origin are refused"),
    "not-found": (404, "The resource does not exist"),
    "method-not-allowed": (405, "The resource does not have this method"),
    "timeout": (408, "The body did not arrive in time"),
    "conflict": (409, "The request conflicts with the current state"),
    "precondition-failed": (412, "The resource has changed"),
    "too-large": (413, "The body is too large"),
    "unsupported-media-type": (415, "The content type is not supported"),
    "misdirected": (421, "This server does not have that host name"),
    "invalid": (422, "The request has invalid fields"),
    "too-many": (429, "Too many requests of this kind at once"),
    "head-too-large": (431, "The head of the request is too large"),
    "internal": (500, "The server failed"),
    "unavailable": (503, "The request cannot be carried out now"),
    "storage-full": (507, "There is no storage space left"),
}


_REFUSALS: tuple[tuple[type[Refused], str], ...] = (
    (NotFound, "not-found"),
    (NotAllowed, "forbidden"),
    (Outdated, "precondition-failed"),
    (Conflict, "conflict"),
    (Unavailable, "unavailable"),
)


@dataclass(frozen=True, slots=True)
class Issue:
    """A problem with one field, in its JSON spelling, and a way to fix it."""

    field: str
    problem: str
    fix: str = ""


class Problem(Exception):
    """An error answer. `slug` is one of SLUGS."""

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
            "detail": _utf8(self.detail),
            **_words(self.detail),
            "errors": [
                {"field": _utf8(issue.field), "problem": _utf8(issue.problem), "fix": _utf8(issue.fix)}
                | _words(issue.problem)
                | _words(issue.fix, "fixCode", "fixParameters")
                for issue in self.issues
            ],
        }

    def response(self) -> JSONResponse:
        return JSONResponse(self.document(), self.status, self.headers, media_type=MEDIA_TYPE)


def _words(text: str, code: str = "code", parameters: str = "parameters") -> dict[str, Any]:
    """The code and the parameters of a sentence under these names, if it has some."""
    if not isinstance(text, Told):
        return {}
    given = text.words.parameters.items()
    return {
        code: text.words.code,
        parameters: {name: _utf8(value) if isinstance(value, str) else value for name, value in given},
    }


def _utf8(text: str) -> str:
    """The text with halves of surrogate pairs escaped. Names of files in a package may have some."""
    return text.encode("utf-8", "backslashreplace").decode()


def from_refused(error: Refused) -> Problem:
    """The problem for a refusal of the scheduler."""
    for kind, slug in _REFUSALS:
        if isinstance(error, kind):
            headers = {"Retry-After": "5"} if slug == "unavailable" else None
            return Problem(slug, str(error), [Issue(error.field, error.problem, error.fix)], headers=headers)
    faults = (error, *error.others) if isinstance(error, ConfigError) else (error,)
    return invalid([Issue(fault.field, fault.problem, fault.fix) for fault in faults])


def from_error(error: Exception) -> Problem | None:
    """The problem for an error raised on purpose; None for an unexpected error."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, Refused):
        return from_refused(error)
    if isinstance(error, StoreFull):
        return Problem("storage-full", "There is no storage space left for the state; nothing was changed.")
    if isinstance(error, NotConnected):
        return Problem("unavailable", "The scheduler is not connected to a Mesos master.")
    if isinstance(error, StoreError):
        return Problem("unavailable", "The state cannot be read or written now.")
    if isinstance(error, TimeoutError):
        detail = "The scheduler did not answer in time. The request may still take effect: check before you repeat it."
        return Problem("unavailable", detail, headers={"Retry-After": "5"})
    return None


def invalid(issues: Iterable[Issue]) -> Problem:
    """The problem for the invalid fields of a request, at most MAX_ISSUES of them and a count of the others."""
    found = list(issues)
    first = found[0]
    where = f"{first.field}: " if first.field else ""
    more = f"; and {len(found) - 1} more" if len(found) > 1 else ""
    if len(found) > MAX_ISSUES + 1:
        rest = f"{len(found) - MAX_ISSUES} more fields are invalid"
        found[MAX_ISSUES:] = [Issue("", rest, Told("correct the others first", "correct_others"))]
    return Problem("invalid", f"{where}{first.problem}{f' ({first.fix})' if first.fix else ''}{more}", found)


def from_status(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Problem:
    """The problem for a status of the web framework."""
    for slug, (code, title) in SLUGS.items():
        if code == status and slug != "malformed-json":
            return Problem(slug, title if detail in ("", HTTPStatus(status).phrase) else detail, headers=headers)
    return Problem("bad-request" if status < 500 else "internal", detail, headers=headers)
