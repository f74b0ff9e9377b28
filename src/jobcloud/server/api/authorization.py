"""The rights that each route requires. One table; a route without an entry refuses every request."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache, partial
from typing import Annotated, NamedTuple

from fastapi import Depends, Request
from starlette.routing import compile_path
from starlette.types import Scope

from jobcloud.access.directory import Directory, Principal
from jobcloud.access.verbs import Verb
from jobcloud.config import DEFAULT_TEAM, qualified, team_of
from jobcloud.sentences import Told
from jobcloud.server.api.forward import READS
from jobcloud.server.api.problems import Problem
from jobcloud.server.api.recording import record_of
from jobcloud.server.console.paths import FILE, SHELLS


class Of(Enum):
    """Which team a request concerns."""

    NONE = auto()  # everybody may send the request, also without an identity
    ANYBODY = auto()  # everybody with an identity
    INSTALLATION = auto()
    SOMEWHERE = auto()  # the right in any team is enough
    DEFAULT = auto()  # the team `default`, the only one that clients of Elastic-Job know
    PATH = auto()  # the first parameter of the path is the key of an app, a job …, or the id of a run or a task
    FILTERED = auto()  # needs the right in any team; the answer leaves out all other teams
    SIGNED = auto()  # no identity: the route checks the signature of the request
    CHECKED = auto()  # needs the right in any team; the route finds the teams and calls `Access.require`


@dataclass(frozen=True, slots=True)
class Rule:
    of: Of
    verb: Verb = Verb.VIEW


def _rules() -> dict[tuple[str, str], Rule]:
    every, default, path, filtered, checked = Of.INSTALLATION, Of.DEFAULT, Of.PATH, Of.FILTERED, Of.CHECKED
    see, logs, run, control = Verb.VIEW, Verb.READ_LOGS, Verb.TRIGGER, Verb.CONTROL_RUNS
    pause, configure = Verb.PAUSE, Verb.CONFIGURE
    cluster, operate = Verb.VIEW_CLUSTER, Verb.OPERATE_CLUSTER
    own = {
        "GET /health": Rule(Of.NONE),
        "GET /sign-in": Rule(Of.NONE),
        "GET /sessions": Rule(Of.ANYBODY),  # without manage-access, the route leaves out those of others
        "DELETE /sessions": Rule(Of.ANYBODY),
        "DELETE /sessions/{session_id}": Rule(Of.ANYBODY),
        "POST /login-links": Rule(every, Verb.MANAGE_ACCESS),
        "GET /cron/next": Rule(Of.ANYBODY),
        "GET /whoami": Rule(Of.ANYBODY),
        "GET /users": Rule(every, Verb.MANAGE_ACCESS),
        "POST /users": Rule(every, Verb.MANAGE_ACCESS),
        "GET /users/{user}": Rule(every, Verb.MANAGE_ACCESS),
        "PATCH /users/{user}": Rule(every, Verb.MANAGE_ACCESS),
        "DELETE /users/{user}": Rule(every, Verb.MANAGE_ACCESS),
        "PUT /users/{user}/password": Rule(Of.ANYBODY),  # without manage-access, only the sender's own one
        "GET /teams": Rule(filtered, see),
        "GET /teams/{team}": Rule(checked, see),
        "GET /teams/{team}/usage": Rule(checked, see),
        "PUT /teams/{team}": Rule(every, Verb.MANAGE_ACCESS),
        "DELETE /teams/{team}": Rule(every, Verb.MANAGE_ACCESS),
        "POST /teams/{team}/members": Rule(checked, Verb.MANAGE_TEAM),
        "DELETE /teams/{team}/members": Rule(checked, Verb.MANAGE_TEAM),
        "GET /services": Rule(filtered, Verb.MANAGE_TEAM),
        "DELETE /services/{team}/{name}": Rule(checked, Verb.MANAGE_TEAM),
        "GET /roles": Rule(Of.ANYBODY),
        "GET /roles/{role}": Rule(Of.ANYBODY),
        "PUT /roles/{role}": Rule(every, Verb.MANAGE_ACCESS),
        "DELETE /roles/{role}": Rule(every, Verb.MANAGE_ACCESS),
        "GET /tokens": Rule(Of.ANYBODY),  # the route leaves out those that the sender does not manage
        "POST /tokens": Rule(Of.ANYBODY),  # the scheduler refuses more rights than those of the sender
        "DELETE /tokens/{token_id}": Rule(Of.ANYBODY),  # the scheduler refuses those that the sender does not manage
        "GET /apps": Rule(filtered, see),
        "POST /apps": Rule(checked, configure),
        "GET /apps/{app}": Rule(path, see),
        "GET /apps/{app}/rollout": Rule(path, see),
        "GET /apps/{app}/versions": Rule(path, see),
        "POST /apps/{app}/rollback": Rule(path, configure),
        "PUT /apps/{app}": Rule(path, configure),
        "PATCH /apps/{app}": Rule(path, configure),
        "DELETE /apps/{app}": Rule(path, configure),
        "POST /apps/{app}/{switch:switch}": Rule(path, pause),
        "POST /apps/{app}/{pausing:pausing}": Rule(path, pause),
        "POST /apply": Rule(checked, configure),
        "GET /calendars": Rule(filtered, see),
        "GET /calendars/{calendar}": Rule(path, see),
        "PUT /calendars/{calendar}": Rule(path, configure),
        "DELETE /calendars/{calendar}": Rule(path, configure),
        "GET /packages": Rule(filtered, see),
        "GET /packages/{sha256}": Rule(filtered, see),
        "POST /packages": Rule(Of.SOMEWHERE, configure),
        "GET /jobs": Rule(filtered, see),
        "POST /jobs": Rule(checked, configure),
        "GET /jobs/{job}": Rule(path, see),
        "PUT /jobs/{job}": Rule(path, configure),
        "PATCH /jobs/{job}": Rule(path, configure),
        "DELETE /jobs/{job}": Rule(path, configure),
        "POST /jobs/{job}/trigger": Rule(path, run),
        "GET /jobs/{job}/explain": Rule(path, see),
        "GET /jobs/{job}/fit": Rule(path, see),  # without view-cluster, the route leaves out the names of agents
        "POST /jobs/{job}/{switch:switch}": Rule(path, pause),
        "POST /jobs/{job}/{pausing:pausing}": Rule(path, pause),
        "POST /jobs/{job}/backfill": Rule(path, run),
        "DELETE /jobs/{job}/backfill": Rule(path, run),
        "POST /hooks/{job}": Rule(Of.SIGNED, run),
        "POST /runs": Rule(checked, Verb.RUN_AD_HOC),
        "GET /runs": Rule(filtered, see),
        "GET /runs/{run_id}": Rule(path, see),
        "GET /runs/{run_id}/notes": Rule(path, see),
        "POST /runs/{run_id}/notes": Rule(path, control),
        "POST /runs/{run_id}/retry": Rule(path, control),
        "POST /runs/{run_id}/cancel": Rule(path, control),
        "GET /runs/{run_id}/shards/{item}": Rule(path, see),
        "GET /runs/{run_id}/shards/{item}/attempts": Rule(path, see),
        "GET /runs/{run_id}/shards/{item}/attempts/{attempt}/logs": Rule(path, logs),
        "GET /runs/{run_id}/shards/{item}/attempts/{attempt}/logs/stream": Rule(path, logs),
        "GET /tasks": Rule(filtered, see),
        "GET /tasks/{task_id}": Rule(path, see),
        "POST /tasks/{task_id}/kill": Rule(path, control),
        "POST /tasks/{task_id}/forget": Rule(path, control),
        "GET /tasks/{task_id}/logs": Rule(path, logs),
        "GET /tasks/{task_id}/logs/stream": Rule(path, logs),
        "GET /history/runs": Rule(filtered, see),
        "GET /history/attempts": Rule(filtered, see),
        "GET /history/events": Rule(filtered, see),
        "GET /history/configurations": Rule(filtered, see),
        "GET /statistics": Rule(filtered, see),
        "GET /statistics/series": Rule(filtered, see),  # without view-cluster, the route leaves out the cluster
        "GET /events": Rule(filtered, see),
        "GET /changes": Rule(filtered, see),
        "GET /overview": Rule(filtered, see),
        "GET /queue": Rule(filtered, see),
        "GET /alerts": Rule(filtered, see),
        "POST /alerts/channels/{channel}/test": Rule(every, operate),
        "GET /silences": Rule(filtered, see),
        "POST /silences": Rule(checked, pause),
        "DELETE /silences/{silence_id}": Rule(checked, pause),
        "GET /pools": Rule(filtered, see),  # with those of all teams
        "GET /pools/{pool}": Rule(checked, see),
        "PUT /pools/{pool}": Rule(checked, configure),
        "DELETE /pools/{pool}": Rule(checked, configure),
        "GET /workflows": Rule(filtered, see),
        "GET /workflows/{workflow}": Rule(path, see),
        "PUT /workflows/{workflow}": Rule(path, configure),
        "DELETE /workflows/{workflow}": Rule(path, configure),
        "GET /workflows/{workflow}/runs": Rule(path, see),
        "GET /workflow-runs/{run}": Rule(path, see),
        "POST /workflow-runs/{run}/cancel": Rule(path, control),
        "POST /workflow-runs/{run}/retry": Rule(path, control),
        "POST /workflow-runs/{run}/{pausing:pausing}": Rule(path, control),
        "POST /workflow-runs/{run}/nodes/{node}/answer": Rule(checked, control),  # a callback needs `trigger`
        "POST /workflow-events": Rule(checked, run),
        "GET /audit": Rule(every, Verb.READ_AUDIT),
        "GET /executors": Rule(every, cluster),
        "GET /cluster": Rule(every, cluster),
        "POST /cluster/{pausing:pausing}": Rule(every, operate),
        "POST /agents/{agent}/drain": Rule(every, operate),
        "POST /agents/{agent}/undrain": Rule(every, operate),
        "POST /framework/teardown": Rule(every, Verb.TEARDOWN),
    }  # fmt: skip
    elastic_job = {
        "POST /login": Rule(Of.NONE),
        "POST /app": Rule(default, configure),
        "PUT /app": Rule(default, configure),
        "GET /app/list": Rule(default, see),
        "GET /app/{name}": Rule(default, see),
        "DELETE /app/{name}": Rule(default, configure),
        "GET /app/{name}/disable": Rule(default, see),
        "POST /app/{name}/disable": Rule(default, pause),
        "DELETE /app/{name}/disable": Rule(default, pause),
        "POST /app/{name}/enable": Rule(default, pause),
        "POST /job/register": Rule(default, configure),
        "PUT /job/update": Rule(default, configure),
        "DELETE /job/deregister": Rule(default, configure),
        "DELETE /job/{name}/deregister": Rule(default, configure),
        "POST /job/trigger": Rule(default, run),
        "GET /job/jobs": Rule(default, see),
        "GET /job/jobs/{name}": Rule(default, see),
        "GET /job/{name}/disable": Rule(default, see),
        "POST /job/{name}/disable": Rule(default, pause),
        "DELETE /job/{name}/disable": Rule(default, pause),
        "POST /job/{name}/enable": Rule(default, pause),
        "GET /job/tasks/running": Rule(default, see),
        "GET /job/tasks/ready": Rule(default, see),
        "GET /job/tasks/failover": Rule(default, see),
        "GET /job/events/executions": Rule(default, see),
        "GET /job/events/statusTraces": Rule(default, see),
        "GET /job/statistics/tasks/results": Rule(default, see),
        "GET /job/statistics/tasks/results/{period}": Rule(default, see),
        "GET /job/statistics/tasks/running": Rule(default, see),
        "GET /job/statistics/jobs/type": Rule(default, see),
        "GET /job/statistics/jobs/executionType": Rule(default, see),
        "GET /job/statistics/jobs/running": Rule(default, see),
        "GET /job/statistics/jobs/register": Rule(default, see),
        "POST /operate/reconcile/explicit": Rule(every, operate),
        "POST /operate/reconcile/implicit": Rule(every, operate),
        "GET /operate/sandbox": Rule(every, cluster),
    }  # fmt: skip
    rules: dict[tuple[str, str], Rule] = {("GET", "/metrics"): Rule(every, Verb.READ_METRICS)}
    for path_of_browser in ("/login/oidc", "/login/oidc/callback", "/logout/oidc"):
        rules["GET", path_of_browser] = Rule(Of.NONE)
    rules |= {("GET", path): Rule(Of.NONE) for path in ("/login", "/login/link", "/login/style.css", "/login/link.js")}
    rules |= {("POST", path): Rule(Of.NONE) for path in ("/login", "/login/link")}
    rules |= {("GET", path): Rule(Of.NONE) for path in (*SHELLS, FILE)}
    rules |= {("GET", "/account"): Rule(Of.ANYBODY)}
    rules |= {("POST", path): Rule(Of.ANYBODY) for path in ("/logout", "/logout/everywhere")}
    for prefix, routes in (("/api/v1", own), ("/api", elastic_job)):
        for route, rule in routes.items():
            method, _, where = route.partition(" ")
            rules[method, f"{prefix}{where}"] = rule
    return rules


RULES = _rules()


class Rights(NamedTuple):
    """The things that a sender may see: those of some teams (None: of all), and the cluster or not.

    Senders with equal rights get the same answers.
    """

    teams: frozenset[str] | None
    cluster: bool

    def sees(self, team: str) -> bool:
        """Whether the sender may see things of a team, or those of the cluster if `team` is ""."""
        return (self.teams is None or team in self.teams) if team else self.cluster


#: the key of the rights of the sender in the scope of a request
ACCESS = "jobcloud.access"


class Access:
    """The rights of the sender of one request.

    A route whose rule is FILTERED or CHECKED must ask for rights before it answers. `forgotten` is True until then.
    """

    def __init__(self, principal: Principal, directory: Directory) -> None:
        self.principal = principal
        self.forgotten = False
        self._directory = directory
        self._rule = _NO_RULE
        self._team = ""

    def authorize(self, rule: Rule, team: str) -> None:
        """Apply the rule of a route. `team` is that of a rule of the kind PATH. Raises Problem (forbidden)."""
        self._rule, self._team = rule, DEFAULT_TEAM if rule.of is Of.DEFAULT else team
        self._check()
        self.forgotten = rule.of in (Of.FILTERED, Of.CHECKED)

    def renew(self, principal: Principal, directory: Directory) -> None:
        """Take over the present rights of the sender, for the rest of a long answer. Raises Problem (forbidden)."""
        self.principal, self._directory = principal, directory
        self._check()

    def allows(self, verb: Verb, team: str = "") -> bool:
        """Whether the sender may do something in a team, or in the installation if `team` is ""."""
        self.forgotten = False
        return self._directory.allows(self.principal, verb, team)

    def require(self, verb: Verb, team: str = "") -> None:
        """Raises Problem (forbidden) if the sender may not do something."""
        if not self.allows(verb, team):
            raise self._refusal(verb, team)

    def require_each(self, verb: Verb, teams: Iterable[str]) -> None:
        """`require` for each team of a request, which may name none."""
        self.forgotten = False
        for team in teams:
            self.require(verb, team)

    def sees(self, key: str) -> bool:
        """Whether the sender may see the app, job, run or task with a key or id.

        With the key "", whether the sender may see things of the installation.
        """
        return self.allows(Verb.VIEW, team_of(key)) if key else self.allows(Verb.VIEW_CLUSTER)

    def in_teams(self, verb: Verb) -> Callable[[str], bool]:
        """Whether the sender may do something in a team, for a list that may be empty."""
        self.forgotten = False
        return partial(self.allows, verb)

    def filter(self) -> Callable[[str], bool]:
        """`sees`, for a stream that asks about each item when it sends the item."""
        self.forgotten = False
        return self.sees

    def rights(self) -> Rights:
        """The things that the sender may see at present."""
        self.forgotten = False
        return Rights(
            self._directory.teams_of(self.principal, Verb.VIEW),
            self._directory.allows(self.principal, Verb.VIEW_CLUSTER),
        )

    def shown_teams(self, team: str = "", verb: Verb = Verb.VIEW) -> frozenset[str] | None:
        """The teams that a list shows; None: all. `team` is the team that the sender asks for, if it is not "".

        Raises Problem (forbidden) if the sender does not have the verb in that team.
        """
        if team:
            self.require(verb, team)
            return frozenset((team,))
        self.forgotten = False
        return self._directory.teams_of(self.principal, verb)

    def _check(self) -> None:
        rule = self._rule
        if rule.of in (Of.INSTALLATION, Of.DEFAULT, Of.PATH):
            self.require(rule.verb, self._team)
        elif rule.of in _SOMEWHERE and not self._directory.allows_somewhere(self.principal, rule.verb):
            raise self._refusal(rule.verb, anywhere=True)

    def _refusal(self, verb: Verb, team: str = "", *, anywhere: bool = False) -> Problem:
        subject = self.principal.subject
        lacks = f"{subject} has no role with the verb {verb}"
        if anywhere:
            detail = Told(f"{lacks} in any team.", "no_right_anywhere", subject=subject, verb=str(verb))
        elif team:
            text = f"{lacks} in the team {team[:80]}."
            detail = Told(text, "no_right_in_team", subject=subject, verb=str(verb), team=team[:80])
        else:
            detail = Told(f"{lacks} in this installation.", "no_right", subject=subject, verb=str(verb))
        return Problem("forbidden", detail)


_SOMEWHERE = (Of.SOMEWHERE, Of.FILTERED, Of.CHECKED)
_NO_RULE = Rule(Of.NONE)


def access_of(request: Request) -> Access:
    """The rights of the sender of a request."""
    access: Access = request.scope[ACCESS]
    return access


async def _access(request: Request) -> Access:
    return access_of(request)


AccessDep = Annotated[Access, Depends(_access)]


async def authorize(request: Request) -> None:
    """A dependency of all routes. Raises Problem (forbidden) if the sender of a request may not send it."""
    route = request.scope["route"].path
    rule = RULES[request.method, route]
    key = str(next(iter(request.path_params.values()))) if rule.of in (Of.PATH, Of.SIGNED) else ""
    team = team_of(qualified(key))
    record = record_of(request.scope)
    target = "/".join(str(value) for value in request.path_params.values())
    record.routed(route, None if rule.of is Of.NONE else rule.verb, team=team, target=target)
    access_of(request).authorize(rule, team)
    if rule.of not in (Of.NONE, Of.SIGNED) and request.method not in READS:
        await record.intend()


def note_passed_on(scope: Scope) -> None:
    """Note in the record of a request that the leader answers it. The first rule that fits tells the verb."""
    method, path = scope["method"], scope["path"]
    for (own_method, route), rule in RULES.items():
        if own_method == method and _pattern(route).match(path):
            record_of(scope).passed_on(route, None if rule.of is Of.NONE else rule.verb)
            return
    record_of(scope).passed_on("", Verb.VIEW if method in READS else Verb.CONFIGURE)


@lru_cache(maxsize=1_000)
def _pattern(route: str) -> re.Pattern[str]:
    return compile_path(route)[0]
