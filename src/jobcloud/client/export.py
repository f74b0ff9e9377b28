"""Apps and jobs of a server as a document for `jobcloud apply`."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any

from jobcloud.client.http import Json
from jobcloud.config import App, Job
from jobcloud.fields import REQUIRED, Field, Unit, fields_of


def exported(apps: Iterable[Json], jobs: Iterable[Json]) -> Json:
    """The document of apps and jobs as the API shows them."""
    return {
        "apps": [without_defaults(app["config"], App) for app in apps],
        "jobs": [without_defaults(job["config"], Job) for job in jobs],
    }


def without_defaults(config: Json, record: type) -> Json:
    """The configuration without the fields that have their defaults. Registering it gives the same configuration."""
    defaults = {field.spec.name: _default(field) for field in fields_of(record)}
    found: Json = {}
    for name, value in config.items():
        if isinstance(value, dict) and name != "shardingItemParameters":
            # An object with a required member is null if it is absent, so all of its members count.
            inner = {key: item for key, item in value.items() if item != defaults.get(f"{name}.{key}", REQUIRED)}
            if inner:
                found[name] = inner
        elif value is not None and value != defaults.get(name, REQUIRED):
            found[name] = value
    return found


def _default(field: Field) -> Any:
    """The default of a field in JSON."""
    default = field.json_default
    if default is REQUIRED or default is None:
        return default
    if isinstance(default, Enum):
        return default.value
    if isinstance(default, tuple):
        return list(default)
    if field.spec.unit is Unit.MILLI:
        return default / 1_000
    return default
