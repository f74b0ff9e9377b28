"""Query parameters, bodies and conditions that a route does not have are refused on every route.

If they were ignored, a misspelt parameter would change the meaning of a request in silence.
"""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from jobcloud.sentences import Told
from jobcloud.sentences.frequent import LEAVE_OUT
from jobcloud.server.api.forward import READS
from jobcloud.server.api.problems import Issue, invalid


async def refuse_surplus(request: Request) -> None:
    """A dependency of all routes. Raises Problem."""
    route: APIRoute = request.scope["route"].built
    fields = dict(_parameters(route.dependant))
    # A model refuses unknown parameters itself, together with invalid ones.
    if not any(_is_model(field) for field in fields.values()):
        unknown = [name for name in request.query_params if name not in fields]
        if unknown:
            raise invalid(Issue(name[:200], "is not a known parameter", LEAVE_OUT) for name in unknown)
    for condition in () if request.method in READS else ("if-match", "if-none-match"):
        if condition in request.headers and condition not in _headers(route.dependant):
            fix = "leave it out; the replacement, change and removal of an app or a job, and a rollback, take If-Match"
            raise invalid([Issue(condition, "is not taken by this request", fix)])
    if not _takes_body(route) and _may_have_body(request) and await request.body():
        raise invalid([Issue("body", "is not expected by this route", Told("send no body", "no_body"))])


def _parameters(dependant: Dependant) -> Iterator[tuple[str, FieldInfo]]:
    for parameter in dependant.query_params:
        yield parameter.alias, parameter.field_info
    for inner in dependant.dependencies:
        yield from _parameters(inner)


def _headers(dependant: Dependant) -> set[str]:
    inner = (_headers(one) for one in dependant.dependencies)
    return {parameter.alias for parameter in dependant.header_params}.union(*inner)


def _is_model(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _takes_body(route: APIRoute) -> bool:
    return "requestBody" in (route.openapi_extra or {})


def _may_have_body(request: Request) -> bool:
    return "transfer-encoding" in request.headers or request.headers.get("content-length", "0") != "0"
