"""The OpenAPI 3.1 document: the routes of FastAPI, with the bodies that routes read themselves and all problems."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from jobcloud.server.api.apply import ApplyBody
from jobcloud.server.api.forward import READS
from jobcloud.server.api.guard import HOOKS, OPEN_PATHS
from jobcloud.server.api.patch import SUFFIX, patch_schema
from jobcloud.server.api.problems import MEDIA_TYPE, SLUGS
from jobcloud.server.api.schema import (
    AdHocConfig,
    AnswerConfig,
    AppConfig,
    BackfillConfig,
    CalendarConfig,
    EventConfig,
    JobConfig,
    MemberConfig,
    NoteConfig,
    PasswordConfig,
    PoolConfig,
    ProblemView,
    RoleConfig,
    SilenceConfig,
    TeamConfig,
    TokenConfig,
    TriggerConfig,
    UserConfig,
    UserPatch,
    WorkflowConfig,
)
from jobcloud.server.api.services import reference
from jobcloud.server.routes import routes_of

# The problems that each request may have: of its head, its parameters, the state of the server.
_ANY = (400, 413, 421, 422, 429, 431, 500, 503)
_OF_WRITES = (403, 404, 408, 409, 507)
_HEADERS = {
    401: "WWW-Authenticate",
    405: "Allow",
    429: "Retry-After",
}
_TEXT = {"schema": {"type": "string"}}


def describe(app: FastAPI) -> dict[str, Any]:
    """The document. Each operation lists the status codes that it may answer with."""
    shown = [route.built for route in routes_of(app.routes) if route.include_in_schema]
    document = get_openapi(title=app.title, version=app.version, routes=shown)
    components = document["components"]
    _add_schemas(components["schemas"])
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    components["responses"] = {str(status): _problem(status) for status in sorted({one for one, _ in SLUGS.values()})}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            operation["security"] = [] if path in OPEN_PATHS or path.startswith(HOOKS) else [{"token": []}]
            _add_responses(path, method.upper(), operation)
    return document


def _add_responses(path: str, method: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    responses.pop("422", None)
    for status in _problems_of(path, method, operation):
        shared = {"$ref": f"#/components/responses/{status}"}
        # An answer of the route itself may have the same status.
        if given := responses.get(str(status)):
            given.setdefault("content", {}).update(_problem(status)["content"])
        else:
            responses[str(status)] = shared
    headers = {parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "header"}
    if "if-none-match" in headers:
        responses["304"] = {"description": "The client has the present answer", "headers": {"ETag": _TEXT}}
        responses["200"]["headers"] = {"ETag": _TEXT}


def _problems_of(path: str, method: str, operation: dict[str, Any]) -> Iterator[int]:
    yield from _ANY
    if operation["security"]:
        yield from (401, 403)
    if "{" in path:
        yield 404
    if method not in READS:
        yield from _OF_WRITES
    if "requestBody" in operation:
        yield 415
    if any(parameter["name"] == "if-match" for parameter in operation.get("parameters", ())):
        yield 412


def _problem(status: int) -> dict[str, Any]:
    """The description of the problem documents with a status."""
    titles = " / ".join(title for code, title in SLUGS.values() if code == status)
    found: dict[str, Any] = {"description": titles, "content": {MEDIA_TYPE: {"schema": reference(ProblemView)}}}
    if status in _HEADERS:
        found["headers"] = {_HEADERS[status]: {"required": True, **_TEXT}}
    return found


def _add_schemas(schemas: dict[str, Any]) -> None:
    """Add the schemas that are in no route's signature."""
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for model in (
        AppConfig, JobConfig, AdHocConfig, ApplyBody, TriggerConfig, BackfillConfig, SilenceConfig, ProblemView,
        CalendarConfig, PoolConfig, TeamConfig, MemberConfig, RoleConfig, UserConfig, UserPatch, PasswordConfig,
        TokenConfig, NoteConfig, WorkflowConfig, AnswerConfig, EventConfig,
    ):  # fmt: skip
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {})
        schemas[model.__name__] = schema
    for config in (AppConfig, JobConfig):
        schemas[config.__name__ + SUFFIX] = patch_schema(schemas[config.__name__], schemas)
