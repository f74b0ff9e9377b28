"""Pools, calendars, apps, jobs and workflows of a server as a document for `jobcloud apply`."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any

from jobcloud.client.http import Client, Json
from jobcloud.config import DEFAULT_TEAM, App, Job, key_of, split_key
from jobcloud.fields import OBJECTS, REQUIRED, Field, Unit, fields_of


def exported(
    apps: Iterable[Json],
    jobs: Iterable[Json],
    pools: Iterable[Json] = (),
    calendars: Iterable[Json] = (),
    workflows: Iterable[Json] = (),
) -> Json:
    """The document of apps, jobs, pools, calendars and workflows as the API shows them."""
    limits = {"pools": [_pool(pool) for pool in pools], "calendars": [_calendar(one) for one in calendars]}
    graphs = [_workflow(one) for one in workflows]
    return {name: group for name, group in limits.items() if group} | {
        "apps": [without_defaults(app["config"], App) for app in apps],
        "jobs": [without_defaults(job["config"], Job) for job in jobs],
        **({"workflows": graphs} if graphs else {}),
    }


def workflows_of(client: Client, team: str = "", jobs: Iterable[Json] | None = None) -> list[Json]:
    """The workflows of a team, or of all teams; or those whose jobs are all among some jobs."""
    found = client.workflows(team)
    if jobs is None:
        return found
    known = {job["jobName"] for job in jobs}
    return [one for one in found if all(key_of(one["team"], job) in known for job in _jobs_of(one))]


def _jobs_of(workflow: Json) -> list[str]:
    return [node["job"] for node in workflow["nodes"] if node["job"]]


def limits_of(client: Client, team: str = "", jobs: Iterable[Json] | None = None) -> tuple[list[Json], list[Json]]:
    """The pools and calendars of a team, or of all teams; or those that some jobs name."""
    if jobs is None:
        pools = [pool for pool in client.pools() if team in ("", pool["team"])]
        return pools, [client.calendar(one["calendar"]) for one in client.calendars(team)]
    named_pools, named_calendars = set[str](), dict[str, None]()
    for job in jobs:
        config, of_team = job["config"], split_key(job["jobName"])[0]
        for text in config.get("pools", ()):
            name = text.rpartition(" ")[2]
            named_pools.add(name if name.startswith("*:") else key_of(of_team, name))
        for name in (*config.get("skipOn", ()), *config.get("onlyOn", ())):
            named_calendars[key_of(of_team, name)] = None
    pools = [pool for pool in client.pools() if pool["name"] in named_pools] if named_pools else []
    return pools, [client.calendar(key) for key in named_calendars]


def _pool(pool: Json) -> Json:
    team, name = split_key(pool["name"])
    found = {"poolName": name, "team": team, "slots": pool["slots"], "description": pool["description"]}
    return _given(found)


def _calendar(calendar: Json) -> Json:
    """A calendar of an iCalendar file has the hash of the file: the server does not keep the text."""
    team, name = split_key(calendar["calendar"])
    return _given({"calendarName": name, "team": team, **calendar["source"], "description": calendar["description"]})


def _workflow(workflow: Json) -> Json:
    """A workflow whose nodes have no field at its default. A condition of success is the name of the node."""
    team, name = split_key(workflow["workflow"])
    nodes = [
        {
            **({"job": node["job"]} if node["job"] else {"waitFor": node.get("waitFor")}),
            **({"name": node["name"]} if node["name"] != node["job"] else {}),
            **({"event": node["event"]} if node.get("event") else {}),
            **({"after": list(map(_after, node["after"]))} if node["after"] else {}),
            **({"join": node["join"]} if node["join"] != "all" else {}),
            **({"deadlineSeconds": node["deadlineSeconds"]} if node.get("deadlineSeconds") else {}),
        }
        for node in workflow["nodes"]
    ]
    first = [node["name"] for node in workflow["nodes"] if node["job"] and not node["after"]]
    start = workflow["start"] if len(first) > 1 else ""
    about = {"workflowName": name, "team": team, "description": workflow["description"], "start": start}
    about |= {"deadlineSeconds": workflow.get("deadlineSeconds") or None}
    return _given(about) | {"nodes": nodes}


def _after(after: Json) -> Json | str:
    given = {"node": after["node"], "on": after["on"], **({"result": after["result"]} if after.get("result") else {})}
    return str(after["node"]) if given == {"node": after["node"], "on": "success"} else given


def _given(fields: Json) -> Json:
    """The fields without those that have their defaults."""
    defaults: tuple[Any, ...] = ("", None, [], DEFAULT_TEAM)
    return {name: value for name, value in fields.items() if value is not False and value not in defaults}


def without_defaults(config: Json, record: type) -> Json:
    """The configuration without the fields that have their defaults. Registering it gives the same configuration."""
    defaults = {field.spec.name: _default(field) for field in fields_of(record)}
    found: Json = {}
    for name, value in config.items():
        if isinstance(value, dict) and name not in OBJECTS:
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
    if field.spec.unit is Unit.FILES:
        return {}
    return default
