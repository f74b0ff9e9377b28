"""Conditional requests (RFC 9110, section 13) for apps and jobs.

The entity tag of an app or a job is `"REVISION.STATE"`. REVISION is the revision of the stored configuration. STATE is
a hash of the whole answer, which also has the next fire time, the last run and so on. If-None-Match compares whole
tags, so a client that waits for a change misses none. If-Match compares revisions only: otherwise each run of a job
would prevent a change of its configuration. The scheduler compares them when it handles the command.
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, NamedTuple

from fastapi import Depends, Header, Request, Response
from pydantic import Field, WithJsonSchema

from jobcloud.sentences.frequent import LEAVE_OUT
from jobcloud.server.api.problems import Issue, Problem
from jobcloud.server.api.schema import View

_TAG = re.compile(r'(W/)?"([!#-~\x80-\xff]*)"')
_MAX_LENGTH = 2_000
# The form of both headers: `*`, or entity tags with commas between them.
_PATTERN = r'^(\*|(W/)?"[!#-~]*"( ?, ?(W/)?"[!#-~]*")*)$'
_Header = Annotated[str | None, WithJsonSchema({"type": "string", "pattern": _PATTERN, "maxLength": _MAX_LENGTH})]


class Revised(View):
    """A view of an app or a job."""

    revision: str = Field(description="changes with the configuration, and with nothing else; for If-Match")


class _Tag(NamedTuple):
    text: str
    weak: bool


def mark(response: Response, view: Revised) -> None:
    """Set the header ETag of an answer."""
    response.headers["ETag"] = _tag(view, view.model_dump_json(by_alias=True))


def shown(request: Request, view: Revised) -> Response:
    """The answer to a GET: 304 if the header If-None-Match has the tag of the view. Raises Problem."""
    body = view.model_dump_json(by_alias=True)
    headers = {"ETag": _tag(view, body)}
    known = _tags(request, "If-None-Match")
    if known is None or any(f'"{tag.text}"' == headers["ETag"] for tag in known):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


def _tag(view: Revised, body: str) -> str:
    return f'"{view.revision}.{hashlib.sha256(body.encode()).hexdigest()[:16]}"'


def _tags(request: Request, name: str) -> list[_Tag] | None:
    """The entity tags of a header; None for "*". Empty elements of the list are ignored. Raises Problem."""
    text = ", ".join(request.headers.getlist(name)).strip(" \t")
    if text == "*":
        return None
    if len(text) > _MAX_LENGTH:
        raise Problem("bad-request", f"{name} is too long.", [Issue(name, f"has over {_MAX_LENGTH:,} characters")])
    found: list[_Tag] = []
    rest = text
    while rest := rest.lstrip(" \t,"):
        match = _TAG.match(rest)
        rest = rest[match.end() :].lstrip(" \t") if match else rest
        if match is None or (rest and rest[0] != ","):
            fix = 'send *, or the ETag of an answer, such as "4f2a"'
            raise Problem("bad-request", f"{name} is malformed.", [Issue(name, "is not a list of entity tags", fix)])
        found.append(_Tag(match[2], bool(match[1])))
    if name in request.headers and not found:
        raise Problem("bad-request", f"{name} is empty.", [Issue(name, "has no entity tag", LEAVE_OUT)])
    return found


async def _expected(
    request: Request,
    if_match: Annotated[
        _Header, Header(description="refuse the change unless the revision is one of these tags")
    ] = None,
) -> tuple[str, ...] | None:
    """The revisions that If-Match accepts; None if it accepts any. A weak tag accepts none. Raises Problem."""
    if if_match is None or (tags := _tags(request, "If-Match")) is None:
        return None
    return tuple(tag.text.partition(".")[0] for tag in tags if not tag.weak)


async def _seen(
    if_none_match: Annotated[_Header, Header(description="answer 304 if the ETag is one of these tags")] = None,
) -> None:
    """Describes the header. `shown` reads it."""


Expected = Annotated[tuple[str, ...] | None, Depends(_expected)]
SEEN = Depends(_seen)
