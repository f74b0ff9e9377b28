"""Bodies of requests as dependencies of routes."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request

from jobcloud.server.api.body import parse
from jobcloud.server.api.problems import Problem


async def read_given(request: Request) -> dict[str, Any]:
    """The JSON object of a body. Raises Problem."""
    _check_type(request)
    value = parse(await request.body())
    if not isinstance(value, dict):
        raise Problem("malformed-json", "The body must be a JSON object.")
    return value


async def read_name(request: Request) -> str:
    """The name that is the whole body, with or without quotes around it. Raises Problem."""
    _check_type(request)
    try:
        text = (await request.body()).decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise Problem("malformed-json", "The body is not UTF-8: send the name of a job.") from None
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


Given = Annotated[dict[str, Any], Depends(read_given)]
Name = Annotated[str, Depends(read_name)]


def _check_type(request: Request) -> None:
    """Raises Problem for a media type that is not JSON. Elastic-Job-Cloud's clients send names as JSON too."""
    given = request.headers.get("content-type", "")
    kind = given.partition(";")[0].strip().lower()
    if kind and kind != "application/json" and not kind.endswith("+json"):
        raise Problem("unsupported-media-type", f"Send application/json, not {kind[:80]!r}.")
