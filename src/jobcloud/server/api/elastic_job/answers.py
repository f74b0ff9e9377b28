"""Answers in the form of Elastic-Job-Cloud 3.0.x for its clients, and in the form of 2.1.5 for all others."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

from fastapi import Request, Response

from jobcloud.config import SEPARATOR
from jobcloud.errors import NotFound
from jobcloud.model import cut
from jobcloud.server.api.elastic_job.access import is_elastic_job, speaks_version_3
from jobcloud.server.api.hints import warning_header, warning_text
from jobcloud.server.api.problems import Problem

log = logging.getLogger(__name__)

#: problems that 2.1.5 and 3.0.x answer with status 500
_FAILURES = frozenset({"malformed-json", "invalid", "not-found", "conflict", "precondition-failed"})


def done(request: Request, notes: Sequence[str] = (), *, version_3: bool = False) -> Response:
    """The answer of an operation without a result. `notes` are texts for the header Warning and the log."""
    headers = _warning(request, notes)
    if version_3 or speaks_version_3(request.scope):
        return Response(b"true", 200, headers, "application/json")
    return Response(status_code=204, headers=headers)


def shown(request: Request, value: Any) -> Response:
    """A value as JSON. 3.0.x writes null, 2.1.5 leaves the field out."""
    content = value if speaks_version_3(request.scope) else _without_nulls(value)
    # Halves of surrogate pairs, which old rows of a history may have, are escaped as JSON escapes them.
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
    return Response(text, media_type="application/json")


def missing(request: Request) -> Response:
    """The answer for an app or a job that does not exist."""
    return Response(status_code=200 if speaks_version_3(request.scope) else 404)


def answer(path: str, problem: Problem, *, by_route: bool = False) -> Response:
    """The answer for a problem of a request: text for Elastic-Job-Cloud's clients, otherwise the problem document.

    `by_route`: the code of a route raised the problem, not the web server or the guard around the routes.
    """
    if not is_elastic_job(path):
        return problem.response()
    if problem.slug == "unauthenticated":
        document = {"message": "Unauthorized.", "detail": problem.detail}
        return Response(json.dumps(document), 401, problem.headers, "application/json")
    lines = [
        f"{issue.field}: {issue.problem}" + (f" ({issue.fix})" if issue.fix else "")
        for issue in problem.issues
        if issue.field
    ]
    text = ("\n".join(lines) or problem.detail).encode("utf-8", "backslashreplace")
    status = 500 if by_route and problem.slug in _FAILURES else problem.status
    return Response(text, status, problem.headers, "text/plain")


def is_own(name: str) -> bool:
    """Whether a name can be one of the team `default`. A key with a colon belongs to another team."""
    return SEPARATOR not in name


def own(name: str, kind: str) -> str:
    """The key of an "app" or a "job" that a client names. Raises NotFound for the key of another team."""
    if not is_own(name):
        raise NotFound(f"there is no {kind} {name[:200]}", field=f"{kind}Name")
    return name


def _warning(request: Request, notes: Sequence[str]) -> dict[str, str]:
    if not notes:
        return {}
    place = cut(request.url.path, 300)
    log.warning("%s %s of an Elastic-Job client: %s", request.method, place, warning_text(notes))
    return warning_header(notes)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
