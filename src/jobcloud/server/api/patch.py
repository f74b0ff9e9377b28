"""Changes of single fields: JSON Merge Patch (RFC 7396)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request

from jobcloud.config import App, Job
from jobcloud.errors import Outdated
from jobcloud.scheduler import revisions
from jobcloud.server.api.body import parse, read_object
from jobcloud.server.api.problems import Problem
from jobcloud.server.api.schema import Config
from jobcloud.server.api.services import reference

V = TypeVar("V")

#: the end of the name of each schema of a patch
SUFFIX = "Patch"

_MERGE_PATCH = "application/merge-patch+json"
_TYPES = ("application/json", _MERGE_PATCH)
_ATTEMPTS = 5


async def _read_patch(request: Request) -> dict[str, Any]:
    """The body as a patch. Raises Problem."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _TYPES:
        detail = f"Send {_MERGE_PATCH}, not {kind[:80] or 'no type'!r}."
        raise Problem("unsupported-media-type", detail, headers={"Accept-Patch": ", ".join(_TYPES)})
    return await read_object(request)


Patch = Annotated[dict[str, Any], Depends(_read_patch)]


def patch_body(config: type[Config]) -> dict[str, Any]:
    """The OpenAPI description of a patch of a configuration."""
    schema = reference(config, SUFFIX)
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema} for kind in _TYPES}}}


def patch_schema(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON schema of a patch from that of the configuration: each field may be left out, or be null.

    `schemas` has the schemas of nested objects.
    """
    properties = {}
    for name, field in schema["properties"].items():
        nested = str(field.get("$ref", "")).rpartition("/")[2]
        given = patch_schema(schemas[nested], schemas) if "properties" in schemas.get(nested, {}) else field
        properties[name] = {
            "anyOf": [{key: value for key, value in given.items() if key != "default"}, {"type": "null"}]
        }
    return {"type": "object", "additionalProperties": False, "properties": properties}


async def change(attempt: Callable[[], Awaitable[V]], expected: tuple[str, ...] | None) -> V:
    """Carry out a change that depends on the present record.

    If another request changes the record first, and any revision will do, try again.

    Raises the errors of `attempt`.
    """
    for _ in range(_ATTEMPTS - 1 if expected is None else 0):
        with suppress(Outdated):
            return await attempt()
    return await attempt()


def fresh(known: App | Job, expected: tuple[str, ...] | None) -> tuple[str, ...]:
    """The revisions for which a change of this record may be stored: its own, if it is one of the expected ones."""
    revision = revisions.of_record(known)
    return (revision,) if expected is None or revision in expected else ()


def patched(config: Config, patch: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON of a configuration after a patch. Null removes a field, so that the field gets its default.

    An unknown field stays, even if it is null, so that the configuration is refused.
    """
    merged: dict[str, Any] = _merged(parse(config.model_dump_json(by_alias=True).encode()), patch, known_only=True)
    return merged


def _merged(target: Any, patch: Any, *, known_only: bool = False) -> Any:
    """The result of RFC 7396, section 2. `known_only`: null removes only a field that is there."""
    if not isinstance(patch, Mapping):
        return patch
    found = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None and (name in found or not known_only):
            found.pop(name, None)
        else:
            found[name] = _merged(found.get(name), value)
    return found
