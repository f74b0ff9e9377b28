"""Tables of users, teams, roles, service accounts and tokens. Each fits into 80 columns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from jobcloud.client.render import moment, say, short_moment, show_fields, show_table

if TYPE_CHECKING:
    from jobcloud.client.http import Json


def users(items: Iterable[Json]) -> None:
    rows = (
        (user["name"], "disabled" if user["disabled"] else "enabled", user["hasPassword"], moment(user["createdAt"]))
        for user in items
    )
    show_table(("USER", "STATE", "PASSWORD", "CREATED"), rows, "there is no local user", cut=True)


def user(item: Json) -> None:
    show_fields(
        [
            ("user", item["name"]),
            ("state", "disabled" if item["disabled"] else "enabled"),
            ("password", item["hasPassword"]),
            ("created", moment(item["createdAt"])),
            ("roles", _grants(item["roles"]) or "-"),
        ]
    )


def teams(items: Iterable[Json]) -> None:
    rows = ((team["name"], team["weight"], len(team["members"]), _quota(team["quota"]) or "-") for team in items)
    show_table(("TEAM", "WEIGHT#", "MEMBERS#", "QUOTA"), rows, "there is no team that you may see", cut=True)


def team(item: Json) -> None:
    show_fields([("team", item["name"]), ("weight", item["weight"]), ("quota", _quota(item["quota"]) or "no limit")])
    rows = ((member["subject"], member["role"]) for member in item["members"])
    show_table(("MEMBER", "ROLE"), rows, "no members", cut=True)


def roles(items: Iterable[Json]) -> None:
    rows = ((role["name"], "built in" if role["builtIn"] else "own", ", ".join(role["verbs"])) for role in items)
    show_table(("ROLE", "KIND", "VERBS"), rows, "there are no roles")


def role(item: Json) -> None:
    kind = "built in" if item["builtIn"] else "own"
    verbs = ", ".join(item["verbs"])
    show_fields([("role", item["name"]), ("kind", kind), ("verbs", verbs), ("revision", item["revision"])])


def services(items: Iterable[Json]) -> None:
    rows = ((f"{one['team']}/{one['name']}", one["tokens"], _grants(one["roles"]) or "-") for one in items)
    show_table(("SERVICE", "TOKENS#", "ROLES"), rows, "there is no service account that you manage", cut=True)


def tokens(items: Iterable[Json]) -> None:
    rows = (
        (token["id"], token["name"], token["subject"], token["state"], short_moment(token["expiresAt"]),
         _grants(token["scope"]) or "all")
        for token in items
    )  # fmt: skip
    show_table(("ID", "NAME", "SUBJECT", "STATE", "EXPIRES", "SCOPE"), rows, "there is no token", cut=True)


def new_token(item: Json) -> None:
    """A new token with its secret, which is on a line of its own."""
    show_fields(
        [
            ("token", item["id"]),
            ("name", item["name"]),
            ("subject", item["subject"]),
            ("scope", _grants(item["scope"]) or "all roles of the subject"),
            ("expires", moment(item["expiresAt"])),
        ]
    )
    say("The secret is shown only now:")
    say(item["token"])


def who(item: Json) -> None:
    scope = item["scope"]
    show_fields(
        [
            ("subject", item["subject"]),
            ("via", item["via"]),
            ("groups", ", ".join(item["groups"])),
            ("scope", _grants(scope) if scope is not None else ""),
        ]
    )
    rows = ((one["team"], ", ".join(one["roles"]), ", ".join(one["verbs"]) or "-") for one in item["teams"])
    show_table(("TEAM", "ROLES", "VERBS"), rows, "no roles in any team")


def _grants(grants: Iterable[Json]) -> str:
    return ", ".join(f"{grant['team']}:{grant['role']}" for grant in grants)


_UNITS = {
    "cpuCount": "cpus",
    "memoryMB": "MB",
    "gpuCount": "gpus",
    "jobs": "jobs",
    "shards": "shards",
    "queue": "queued",
}


def _quota(quota: Json) -> str:
    return ", ".join(f"{quota[name]:g} {unit}" for name, unit in _UNITS.items() if quota[name] is not None)
