"""Each route × each role × each defect of a credential: nobody gets an answer without the right to it."""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from tests.alert_kit import make_channel
from tests.api_kit import ARTIFACTS, START, FakeLoop, app_body, client_of, job_body, make_api, package_bytes
from tests.history_kit import DESCRIBE, make_attempt, make_run

from jobcloud.access import tokens
from jobcloud.history.database import Database
from jobcloud.history.elastic_job_search import ElasticJobSearch
from jobcloud.history.elastic_job_statistics import ElasticJobStatistics
from jobcloud.history.notes import Notes
from jobcloud.history.queries import Reader
from jobcloud.history.rows import of_events
from jobcloud.messages import AgentLost, ConfigTraced, Kind, PutAccess, RemoveAccess
from jobcloud.model import AccessToken, Member, Role, Session, Team, User
from jobcloud.scheduler import Policy, Scheduler, Stored
from jobcloud.server.api import Access, ApiOptions, LogChunk, LogRequest, Notices
from jobcloud.server.api.authorization import RULES, Of
from jobcloud.server.api.follow import Followers
from jobcloud.server.api.metrics import router as metrics_router
from jobcloud.server.api.snapshot import take
from jobcloud.server.console.routes import version
from jobcloud.server.routes import routes_of

SERVER_TOKEN = "t0ken-of-the-server"
TEAMS = ("alpha", "beta", "default")
ROLES = ("viewer", "operator", "author", "admin", "auditor", "metrics", "teardown")
_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")
Headers = list[tuple[str, str]]
#: the cookie of a session of an admin that ends at this instant
ENDED = tokens.make("jcs", b"e" * 38)

#: who has a verb, written by hand
HOLDERS: Mapping[str, frozenset[str]] = {
    verb: frozenset(roles.split())
    for verb, roles in {
        "view": "viewer operator author admin",
        "read-logs": "viewer operator author admin",
        "trigger": "operator author admin",
        "control-runs": "operator author admin",
        "pause": "operator author admin",
        "configure": "author admin",
        "run-ad-hoc": "author admin",
        "view-cluster": "viewer operator author admin",
        "operate-cluster": "operator admin",
        "read-metrics": "admin metrics",
        "manage-team": "admin",
        "manage-access": "admin",
        "read-audit": "admin auditor",
        "teardown": "teardown",
    }.items()
}

# Each route: method and path; the place of the right; the verb. The requests below concern the team alpha.
# alpha, default: the right in this team. any: in any team. cluster: in the installation. signed-in: any identity.
# open: no identity. own: any identity, for things of the sender; tests of accounts and sessions have the rest. page: a
# browser without an identity is led to the sign-in. form: a form of a page, which has tests of its own. signed: a
# signature in place of an identity (test_hooks.py).
EXPECTED = """
GET / | open
GET /{page:page} | open
GET /{page:page}/{rest:path} | open
GET /console/{folder}/{path:path} | open
GET /account | page
GET /login | open
GET /login/link | open
GET /login/link.js | open
GET /login/style.css | open
POST /login | form
POST /login/link | form
POST /logout | form
POST /logout/everywhere | form
GET /api/v1/sign-in | open
GET /api/v1/whoami | signed-in
GET /api/v1/sessions | signed-in
DELETE /api/v1/sessions | own
DELETE /api/v1/sessions/{session_id} | own
POST /api/v1/login-links | cluster manage-access
GET /api/v1/users | cluster manage-access
POST /api/v1/users | cluster manage-access
GET /api/v1/users/{user} | cluster manage-access
PATCH /api/v1/users/{user} | cluster manage-access
DELETE /api/v1/users/{user} | cluster manage-access
PUT /api/v1/users/{user}/password | own
GET /api/v1/teams | any view
GET /api/v1/teams/{team} | alpha view
GET /api/v1/teams/{team}/usage | alpha view
PUT /api/v1/teams/{team} | cluster manage-access
DELETE /api/v1/teams/{team} | cluster manage-access
POST /api/v1/teams/{team}/members | alpha manage-team
DELETE /api/v1/teams/{team}/members | alpha manage-team
GET /api/v1/services | any manage-team
DELETE /api/v1/services/{team}/{name} | alpha manage-team
GET /api/v1/roles | signed-in
GET /api/v1/roles/{role} | signed-in
PUT /api/v1/roles/{role} | cluster manage-access
DELETE /api/v1/roles/{role} | cluster manage-access
GET /api/v1/tokens | signed-in
POST /api/v1/tokens | own
DELETE /api/v1/tokens/{token_id} | own
GET /api/v1/workflows | any view
GET /api/v1/workflows/{workflow} | alpha view
PUT /api/v1/workflows/{workflow} | alpha configure
DELETE /api/v1/workflows/{workflow} | alpha configure
GET /api/v1/workflows/{workflow}/runs | alpha view
GET /api/v1/workflow-runs/{run} | alpha view
POST /api/v1/workflow-runs/{run}/cancel | alpha control-runs
POST /api/v1/workflow-runs/{run}/retry | alpha control-runs
POST /api/v1/workflow-runs/{run}/{pausing:pausing} | alpha control-runs
POST /api/v1/workflow-runs/{run}/nodes/{node}/answer | alpha control-runs
POST /api/v1/workflow-events | alpha trigger
GET /api/v1/audit | cluster read-audit
GET /metrics | cluster read-metrics
GET /api/v1/health | open
GET /api/v1/cron/next | signed-in
GET /api/v1/apps | any view
POST /api/v1/apps | alpha configure
GET /api/v1/apps/{app} | alpha view
GET /api/v1/apps/{app}/rollout | alpha view
GET /api/v1/apps/{app}/versions | alpha view
POST /api/v1/apps/{app}/rollback | alpha configure
PUT /api/v1/apps/{app} | alpha configure
PATCH /api/v1/apps/{app} | alpha configure
DELETE /api/v1/apps/{app} | alpha configure
POST /api/v1/apps/{app}/{switch:switch} | alpha pause
POST /api/v1/apps/{app}/{pausing:pausing} | alpha pause
POST /api/v1/apply | alpha configure
GET /api/v1/calendars | any view
GET /api/v1/calendars/{calendar} | alpha view
PUT /api/v1/calendars/{calendar} | alpha configure
DELETE /api/v1/calendars/{calendar} | alpha configure
GET /api/v1/packages | any view
GET /api/v1/packages/{sha256} | any view
POST /api/v1/packages | any configure
GET /api/v1/jobs | any view
POST /api/v1/jobs | alpha configure
GET /api/v1/jobs/{job} | alpha view
PUT /api/v1/jobs/{job} | alpha configure
PATCH /api/v1/jobs/{job} | alpha configure
DELETE /api/v1/jobs/{job} | alpha configure
POST /api/v1/jobs/{job}/trigger | alpha trigger
GET /api/v1/jobs/{job}/explain | alpha view
GET /api/v1/jobs/{job}/fit | alpha view
POST /api/v1/jobs/{job}/{switch:switch} | alpha pause
POST /api/v1/jobs/{job}/{pausing:pausing} | alpha pause
POST /api/v1/jobs/{job}/backfill | alpha trigger
DELETE /api/v1/jobs/{job}/backfill | alpha trigger
POST /api/v1/hooks/{job} | signed
POST /api/v1/runs | alpha run-ad-hoc
GET /api/v1/runs | any view
GET /api/v1/runs/{run_id} | alpha view
GET /api/v1/runs/{run_id}/notes | alpha view
POST /api/v1/runs/{run_id}/notes | alpha control-runs
POST /api/v1/runs/{run_id}/retry | alpha control-runs
POST /api/v1/runs/{run_id}/cancel | alpha control-runs
GET /api/v1/runs/{run_id}/shards/{item} | alpha view
GET /api/v1/runs/{run_id}/shards/{item}/attempts | alpha view
GET /api/v1/runs/{run_id}/shards/{item}/attempts/{attempt}/logs | alpha read-logs
GET /api/v1/runs/{run_id}/shards/{item}/attempts/{attempt}/logs/stream | alpha read-logs
GET /api/v1/tasks | any view
GET /api/v1/tasks/{task_id} | alpha view
POST /api/v1/tasks/{task_id}/kill | alpha control-runs
POST /api/v1/tasks/{task_id}/forget | alpha control-runs
GET /api/v1/tasks/{task_id}/logs | alpha read-logs
GET /api/v1/tasks/{task_id}/logs/stream | alpha read-logs
GET /api/v1/history/runs | any view
GET /api/v1/history/attempts | any view
GET /api/v1/history/events | alpha view
GET /api/v1/history/configurations | any view
GET /api/v1/statistics | any view
GET /api/v1/statistics/series | any view
GET /api/v1/events | any view
GET /api/v1/changes | any view
GET /api/v1/overview | any view
GET /api/v1/queue | any view
GET /api/v1/alerts | any view
POST /api/v1/alerts/channels/{channel}/test | cluster operate-cluster
GET /api/v1/silences | any view
POST /api/v1/silences | alpha pause
DELETE /api/v1/silences/{silence_id} | alpha pause
GET /api/v1/pools | any view
GET /api/v1/pools/{pool} | alpha view
PUT /api/v1/pools/{pool} | alpha configure
DELETE /api/v1/pools/{pool} | alpha configure
GET /api/v1/executors | cluster view-cluster
GET /api/v1/cluster | cluster view-cluster
POST /api/v1/cluster/{pausing:pausing} | cluster operate-cluster
POST /api/v1/agents/{agent}/drain | cluster operate-cluster
POST /api/v1/agents/{agent}/undrain | cluster operate-cluster
POST /api/v1/framework/teardown | cluster teardown
POST /api/login | open
POST /api/app | default configure
PUT /api/app | default configure
GET /api/app/list | default view
GET /api/app/{name} | default view
DELETE /api/app/{name} | default configure
GET /api/app/{name}/disable | default view
POST /api/app/{name}/disable | default pause
DELETE /api/app/{name}/disable | default pause
POST /api/app/{name}/enable | default pause
POST /api/job/register | default configure
PUT /api/job/update | default configure
DELETE /api/job/deregister | default configure
DELETE /api/job/{name}/deregister | default configure
POST /api/job/trigger | default trigger
GET /api/job/jobs | default view
GET /api/job/jobs/{name} | default view
GET /api/job/{name}/disable | default view
POST /api/job/{name}/disable | default pause
DELETE /api/job/{name}/disable | default pause
POST /api/job/{name}/enable | default pause
GET /api/job/tasks/running | default view
GET /api/job/tasks/ready | default view
GET /api/job/tasks/failover | default view
GET /api/job/events/executions | default view
GET /api/job/events/statusTraces | default view
GET /api/job/statistics/tasks/results | default view
GET /api/job/statistics/tasks/results/{period} | default view
GET /api/job/statistics/tasks/running | default view
GET /api/job/statistics/jobs/type | default view
GET /api/job/statistics/jobs/executionType | default view
GET /api/job/statistics/jobs/running | default view
GET /api/job/statistics/jobs/register | default view
POST /api/operate/reconcile/explicit | cluster operate-cluster
POST /api/operate/reconcile/implicit | cluster operate-cluster
GET /api/operate/sandbox | cluster view-cluster
"""


class Expectation(NamedTuple):
    method: str
    path: str
    place: str
    verb: str


def _expectation(line: str) -> Expectation:
    route, _, right = line.partition(" | ")
    method, path = route.split()
    place, _, verb = right.partition(" ")
    return Expectation(method, path, place, verb)


EXPECTATIONS = [_expectation(line) for line in EXPECTED.strip().splitlines()]


class Person(NamedTuple):
    """A holder of one role in one team. The team "" is none."""

    role: str
    team: str

    @property
    def name(self) -> str:
        return f"{self.role}-{self.team}".replace("*", "all").strip("-")

    def may(self, expected: Expectation, team: str = "") -> bool:
        """Whether the person has a right. `team` replaces the place."""
        place = team or expected.place
        if place in ("open", "signed-in", "page"):
            return True
        places = {"any": (*TEAMS, "*"), "cluster": ("*",)}.get(place, (place, "*"))
        return self.team in places and self.role in HOLDERS[expected.verb]


PEOPLE = [Person("nobody", ""), *(Person(role, team) for team in (*TEAMS, "*") for role in ROLES)]


class Channels:
    """Channels for alerts. The messages arrive nowhere."""

    channels = (make_channel("ops"), *(make_channel(f"of-{team}", teams=[team]) for team in TEAMS))

    def test(self, name: str) -> str:
        return ""


@dataclass
class World:
    """An API over an installation in which each team has the same things."""

    loop: FakeLoop
    app: Any
    torn: list[str]
    reader: Reader
    notes: Notes
    names: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    #: the ids of an ended task and its run
    ended: dict[str, str] = field(default_factory=dict)
    #: the names of things of each team
    of_team: dict[str, dict[str, str]] = field(default_factory=dict)

    def close(self) -> None:
        self.reader.close()
        self.notes.close()

    def send(self, expected: Expectation, headers: Headers) -> httpx.Response:
        # A stream of output ends with its task, and only a failed run can be retried.
        names = {**self.names, **(self.ended if expected.path.endswith(("/stream", "/retry")) else {})}
        if "{team}/{name}" not in expected.path:
            names["name"] = "demo" if expected.path.startswith("/api/app") else "hello"
        if expected[:2] == ("DELETE", "/api/v1/teams/{team}"):
            names["team"] = "gamma"  # the others have apps
        path = _PARAMETER.sub(lambda found: names[found[1]], expected.path)
        content = BODIES.get(f"{expected.method} {expected.path}", {})
        given = content(self) if callable(content) else content
        client = client_of(self.app, url="http://127.0.0.1")
        return client.request(expected.method, path, headers=headers, **given)

    def ask(self, path: str, who: Person, method: str = "GET", **given: Any) -> httpx.Response:
        url = f"/api/v1/{path}"
        return client_of(self.app, url="http://127.0.0.1").request(method, url, headers=self.token(who), **given)

    def token(self, who: Person) -> Headers:
        return [("authorization", f"Bearer {self.secrets[who.name]}")]

    def put(self, record: Any) -> None:
        self.loop.feed(PutAccess(self.loop.now, record))

    def new_token(self, name: str, subject: str, **changes: Any) -> str:
        secret = tokens.make("jct", bytes([len(self.secrets) + 1]) * 38)
        values: dict[str, Any] = {"hash": secret.hash, "subject": subject, "created_ms": START} | changes
        self.put(AccessToken(secret.id, name, **values))
        self.secrets[name] = secret.text
        return secret.text

    def state(self) -> Any:
        """Everything that a request could change."""
        snapshot = take(self.loop.scheduler, self.loop.now)
        directory = self.loop.scheduler.directory
        tables = (dict(directory.teams), dict(directory.tokens), dict(directory.users), dict(directory.sessions))
        packages = self.app.state.services.packages.stored()
        scheduler = self.loop.scheduler
        others = (
            dict(scheduler.silences),
            dict(scheduler.pools),
            dict(scheduler.workflows),
            dict(scheduler.workflow_runs),
        )
        return snapshot, tables, packages, len(self.loop.effects), list(self.torn), others


def body(content: Any) -> dict[str, Any]:
    return {"json": content}


def _ad_hoc(world: World) -> dict[str, Any]:
    config = job_body(team="alpha")
    for name in ("jobName", "jobExecutionType", "cron"):
        del config[name]
    return body(config | {"jobName": "once"})


BODIES: dict[str, Any] = {
    "POST /api/v1/login-links": {"params": {"user": "ann"}},
    "POST /api/v1/users": body({"name": "new"}),
    "PATCH /api/v1/users/{user}": body({"disabled": True}),
    "PUT /api/v1/teams/{team}": body({"weight": 2}),
    "POST /api/v1/teams/{team}/members": body({"subject": "user:new", "role": "viewer"}),
    "DELETE /api/v1/teams/{team}/members": {"params": {"subject": "user:mixed"}},
    "PUT /api/v1/roles/{role}": body({"verbs": ["view", "trigger"]}),
    "GET /api/v1/cron/next": {"params": {"cron": "0 0 0 * * ?"}},
    "POST /api/v1/apps": lambda world: body(app_body(world.names["sha256"], "new", team="alpha")),
    "PUT /api/v1/apps/{app}": lambda world: body(app_body(world.names["sha256"], team="alpha", cpuCount=1)),
    "PATCH /api/v1/apps/{app}": body({"cpuCount": 2}),
    "DELETE /api/v1/apps/{app}": {"params": {"jobs": "true"}},
    "POST /api/v1/tasks/{task_id}/forget": {"params": {"force": "true"}},
    "POST /api/v1/apply": lambda world: body({"apps": [app_body(world.names["sha256"], team="alpha", cpuCount=3)]}),
    "PUT /api/v1/calendars/{calendar}": body({"days": ["2026-12-24"]}),
    "POST /api/v1/packages": {"content": package_bytes({"new.py": ""})},
    "POST /api/v1/jobs": body(job_body("new", team="alpha")),
    "PUT /api/v1/jobs/{job}": body(job_body(team="alpha", cpuCount=0.2)),
    "PATCH /api/v1/jobs/{job}": body({"cpuCount": 0.3}),
    "POST /api/v1/jobs/{job}/backfill": body({"from": "2023-11-14T22:12:00Z", "to": "2023-11-14T22:13:00Z"}),
    "POST /api/v1/runs": _ad_hoc,
    "POST /api/v1/runs/{run_id}/notes": body({"text": "disk was full"}),
    "GET /api/v1/history/events": lambda world: {"params": {"task": world.names["task_id"]}},
    "GET /api/v1/statistics": {"params": {"since": "2020-01-01T00:00:00Z", "until": "2027-01-01T00:00:00Z"}},
    "GET /api/v1/statistics/series": {
        "params": {"since": "2023-01-01T00:00:00Z", "until": "2026-01-01T00:00:00Z", "by": "day"}
    },
    "GET /api/v1/events": {"params": {"follow": "false", "recent": "2000"}},
    "GET /api/v1/changes": {"params": {"follow": "false", "recent": "2000"}},
    "POST /api/v1/silences": body({"forSeconds": 60, "team": "alpha"}),
    "PUT /api/v1/pools/{pool}": body({"slots": 2}),
    "PUT /api/v1/workflows/{workflow}": body({"nodes": [{"job": "step"}], "description": "new"}),
    "POST /api/v1/workflow-runs/{run}/nodes/{node}/answer": body({}),
    "POST /api/v1/workflow-events": body({"event": "arrived", "team": "alpha"}),
    "POST /api/v1/framework/teardown": body({"confirm": "framework-1"}),
    "POST /api/login": body({"username": "u", "password": SERVER_TOKEN}),
    "POST /api/app": lambda world: body(app_body(world.names["sha256"], "old", appCacheEnable=True)),
    "PUT /api/app": body({"appName": "demo", "cpuCount": 1}),
    "POST /api/job/register": body(job_body("old")),
    "PUT /api/job/update": body(job_body(cpuCount=0.2)),
    "DELETE /api/job/deregister": {"content": '"hello"'},
    "POST /api/job/trigger": {"content": '"hello"'},
    "GET /api/operate/sandbox": {"params": {"appName": "demo"}},
}


async def _read_log(request: LogRequest) -> LogChunk:
    offset = min(max(0, request.offset), 7)
    return LogChunk(b"output\n"[offset:], offset, 7)


_NUMBERS = itertools.count()


def _make_world(folder: Path, **more: Any) -> World:
    loop = FakeLoop()
    policy = replace(Policy(ARTIFACTS), alert_channels=tuple(each.filter for each in Channels.channels))
    loop.scheduler = Scheduler(policy, Stored(), epoch=1, at=loop.now)
    loop.subscribe()
    url = f"sqlite:///{folder / f'history-{next(_NUMBERS)}.db'}"
    database = Database(url)
    database.upgrade()
    torn: list[str] = []
    reader, notes = Reader(lambda: Database(url, reading=True)), Notes(lambda: Database(url))
    notices = Notices()
    feed = loop.feed

    def publishing(event: Any) -> Any:
        done = feed(event)
        for effect in done:
            notices.publish(effect)
        return done

    loop.feed = publishing  # type: ignore[method-assign]
    app = make_api(
        folder, loop,
        options=ApiOptions(access=Access(token=SERVER_TOKEN)), notices=notices, read_log=_read_log,
        teardown=lambda: torn.append("torn"), clock=lambda: loop.now, history=reader, notes=notes,
        alert_channels=Channels(),
        followers=Followers(notices, poll_s=0.0), traces=ElasticJobSearch(reader),
        statistics=ElasticJobStatistics(reader, lambda: loop.now),
        **more, more_routes=[metrics_router(lambda accept: (b"up 1\n", "text/plain"))],
    )  # fmt: skip
    world = World(loop, app, torn, reader, notes)
    server = client_of(app, SERVER_TOKEN)
    for team in TEAMS:
        prefix = "" if team == "default" else f"{team}:"
        package = server.post("packages", content=package_bytes({"hello.py": "class Hello: ...", f"{team}.py": ""}))
        sha256 = package.json()["sha256"]
        for cpus in (0.5, 0.6):
            config = app_body(sha256, team=team, cpuCount=cpus)
            assert server.put(f"apps/{prefix}demo", json=config).status_code == 200 or (
                server.post("apps", json=config).status_code == 201
            )
        assert server.post("jobs", json=job_body(team=team, cron="0 0 0 1 1 ?")).status_code == 201
        failed = server.post(f"jobs/{prefix}hello/trigger").json()["id"]
        loop.offer(f"agent-of-{team}")
        ended = loop.tick()
        for task in ended:
            loop.update(task, "TASK_FAILED", message=f"{team} broke")
        run = server.post(f"jobs/{prefix}hello/trigger").json()["id"]
        loop.offer(f"agent-of-{team}")
        task, _ = loop.tick()
        loop.update(task, "TASK_RUNNING")
        # It waits for the end of the run before.
        assert server.post(f"jobs/{prefix}hello/trigger").status_code == 202
        silence = server.post("silences", json={"forSeconds": 600, "team": team, "comment": f"by {team}"})
        assert server.put(f"pools/{prefix}spare", json={"slots": 1}).status_code == 201
        assert server.put(f"calendars/{prefix}closed", json={"days": ["2026-12-25"]}).status_code == 201
        world.of_team[team] = {
            "task_id": task, "run_id": run, "failed": failed, "ended": ended[0], "sha256": sha256,
            "silence_id": silence.json()["id"], "app": f"{prefix}demo", "job": f"{prefix}hello",
            "pool": f"{prefix}spare", "calendar": f"{prefix}closed",
        }  # fmt: skip
        database.write(of_events([
            make_attempt(job=f"{prefix}hello", app=f"{prefix}demo", message=team),
            make_run(job=f"{prefix}hello", app=f"{prefix}demo"),
            ConfigTraced(loop.now, loop.scheduler.jobs[f"{prefix}hello"], 1, f"user:{team}"),
        ], DESCRIBE))  # fmt: skip
    database.close()
    for team in TEAMS:
        _add_workflows(world, server, team)
    assert server.post("silences", json={"forSeconds": 600, "comment": "of the cluster"}).status_code == 201
    loop.feed(AgentLost(loop.now, "agent-of-cluster"))
    of_alpha = world.of_team["alpha"]
    world.ended = {"run_id": of_alpha["failed"], "task_id": of_alpha["ended"], "run": of_alpha["cancelled"]}
    world.names = of_alpha | {
        "item": "0", "attempt": "1", "channel": "ops", "agent": "agent-of-alpha", "period": "online",
        "switch": "disable", "pausing": "pause", "team": "alpha", "user": "ann", "role": "helper", "name": "ci",
        "token_id": "0" * 12, "session_id": "0" * 12, "node": "approve",
        "page": "jobs", "rest": "x", "folder": version(), "path": "main.js",
    }  # fmt: skip
    _add_people(world)
    return world


def _add_workflows(world: World, server: httpx.Client, team: str) -> None:
    """Add a workflow without a run, and one with a cancelled run and an unfinished one."""
    prefix = "" if team == "default" else f"{team}:"
    app = app_body(world.of_team[team]["sha256"], "steps", team=team)
    assert server.post("apps", json=app).status_code == 201
    assert server.post("jobs", json=job_body("step", "steps", team=team, cron="0 0 0 1 1 ?")).status_code == 201
    runs = []
    nodes = [{"job": "step"}, {"name": "approve", "waitFor": "approval"}]
    assert server.put(f"workflows/{prefix}busy", json={"nodes": nodes}).status_code == 201
    for _ in range(2):
        assert server.post(f"jobs/{prefix}step/trigger").status_code == 202
        runs.append(server.get(f"workflows/{prefix}busy/runs").json()["items"][0]["id"])
        if len(runs) == 1:
            assert server.post(f"workflow-runs/{runs[0]}/cancel").json()["state"] == "CANCELLED"
    assert server.put(f"workflows/{prefix}idle", json={"nodes": [{"job": "step"}]}).status_code == 201
    world.of_team[team] |= {"workflow": f"{prefix}idle", "cancelled": runs[0], "run": runs[1]}


def _add_people(world: World) -> None:
    for team in (*TEAMS, "*"):
        people = [Member(f"user:{person.name}", person.role) for person in PEOPLE if person.team == team]
        if team in TEAMS:
            people.append(Member(f"service:{team}/ci", "viewer"))
        world.put(Team(team, tuple(people)))
    world.put(User("ann", START))
    world.put(User("root", START))
    world.put(Session(ENDED.id, ENDED.hash, "user:root", "password", START - 1, START - 1, START))
    world.put(Role("helper", ("view",)))
    for person in PEOPLE:
        world.new_token(person.name, f"user:{person.name}")
    of_all = world.loop.scheduler.directory.teams["*"].members
    world.put(Team("*", (*of_all, Member("user:root", "admin"), Member("user:root", "teardown"))))
    for team, role in (("alpha", "viewer"), ("beta", "admin")):
        members = world.loop.scheduler.directory.teams[team].members
        world.put(Team(team, (*members, Member("user:mixed", role))))
    world.new_token("viewer of alpha, admin of beta", "user:mixed")
    world.new_token("of root", "user:root")
    world.new_token("of root for beta", "user:root", scope=(("beta", "admin"), ("beta", "teardown")))
    world.new_token("of root for nothing", "user:root", scope=(("alpha", "auditor"),))
    world.new_token("expired", "user:root", expires_ms=START - 1)
    world.new_token("expires now", "user:root", expires_ms=START)
    world.new_token("revoked", "user:root", revoked_ms=START - 1)
    world.put(User("off", START, disabled=True))
    world.put(Team("gamma", (Member("user:off", "admin"), Member("user:gone", "admin"))))
    world.new_token("of a disabled user", "user:off")
    world.put(User("gone", START))
    world.new_token("of a removed user", "user:gone")
    world.loop.feed(RemoveAccess(world.loop.now, Kind.USER, "gone"))


def _bearer(world: World, name: str) -> Headers:
    return [("authorization", f"Bearer {world.secrets[name]}")]


def _changed_secret(world: World) -> Headers:
    text = world.secrets["of root"]
    return [("authorization", f"Bearer {text[:-1]}{'A' if text[-1] != 'A' else 'B'}")]


def _unknown_id(world: World) -> Headers:
    return [("authorization", f"Bearer jct_{'0' * 12}_{world.secrets['of root'][-43:]}")]


def _session_form(world: World) -> Headers:
    return [("authorization", f"Bearer {world.secrets['of root'].replace('jct_', 'jcs_')}")]


def _twice(world: World) -> Headers:
    return [*_bearer(world, "of root"), *_bearer(world, "of root")]


def _basic(world: World) -> Headers:
    encoded = base64.b64encode(f"{world.secrets['of root']}:x".encode()).decode()
    return [("authorization", f"Basic {encoded}")]


def _cookie(text: str) -> Headers:
    """The headers of a script of an own page."""
    return [("cookie", f"jobcloud={text}"), ("origin", "http://127.0.0.1"), ("jobcloud-request", "1")]


#: credentials that prove nothing: a name and the headers. Other kinds of credentials add theirs.
DEFECTS: list[tuple[str, Callable[[World], Headers]]] = [
    ("none", lambda world: []),
    ("empty", lambda world: [("authorization", "")]),
    ("wrong", lambda world: [("authorization", "Bearer wrong")]),
    ("expired", lambda world: _bearer(world, "expired")),
    ("expired at this instant", lambda world: _bearer(world, "expires now")),
    ("revoked", lambda world: _bearer(world, "revoked")),
    ("changed secret", _changed_secret),
    ("unknown id", _unknown_id),
    ("form of a session", _session_form),
    ("twice", _twice),
    ("after a wrong one", lambda world: [("authorization", "Bearer wrong"), *_bearer(world, "of root")]),
    ("as the user of Basic", _basic),
    ("expired session", lambda world: _cookie(ENDED.text)),
    ("unknown session", lambda world: _cookie(f"jcs_{'0' * 12}_{ENDED.text[-43:]}")),
    ("token as the cookie of a session", lambda world: _cookie(world.secrets["of root"])),
    ("as a cookie", lambda world: [("cookie", f"session={world.secrets['of root']}")]),
    ("expired, for 3.0.x", lambda world: [("accesstoken", world.secrets["expired"])]),
    ("disabled user", lambda world: _bearer(world, "of a disabled user")),
    ("removed user", lambda world: _bearer(world, "of a removed user")),
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world for requests that change nothing."""
    with closing(_make_world(tmp_path_factory.mktemp("shared"))) as world:
        yield world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with closing(_make_world(tmp_path)) as world:
        yield world


def by_route(expectations: list[Expectation]) -> pytest.MarkDecorator:
    ids = [f"{expected.method} {expected.path}" for expected in expectations]
    return pytest.mark.parametrize("expected", expectations, ids=ids)


def assert_refused(answer: httpx.Response, expected: Expectation, status: int) -> None:
    who = f"{expected.method} {expected.path}: {answer.status_code} {answer.text[:300]}"
    assert answer.status_code == status, who
    if expected.path.startswith(("/api/v1", "/metrics")):
        assert answer.headers["content-type"] == "application/problem+json", who
        slug = {401: "unauthenticated", 403: "forbidden"}[status]
        assert answer.json()["type"] == f"urn:jobcloud:problem:{slug}"
    if status == 401:
        assert answer.headers["www-authenticate"].startswith("Bearer"), who


def test_each_route_has_an_expectation(shared: World) -> None:
    found = {(route.method, route.path) for route in routes_of(shared.app.routes)}
    assert found == {(expected.method, expected.path) for expected in EXPECTATIONS}


@by_route([expected for expected in EXPECTATIONS if expected.place not in ("open", "form", "signed")])
def test_defect_of_a_credential_opens_no_route(shared: World, expected: Expectation) -> None:
    before = shared.state()
    for name, headers in DEFECTS:
        answer = shared.send(expected, headers(shared))
        if expected.place == "page":
            assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (303, "/login"), name
            continue
        assert answer.status_code == 401, name
        assert_refused(answer, expected, 401)
    assert shared.state() == before


@by_route([expected for expected in EXPECTATIONS if expected.place in (*TEAMS, "any", "cluster")])
def test_role_without_the_right_is_refused_and_changes_nothing(shared: World, expected: Expectation) -> None:
    before = shared.state()
    invisible = expected.path.endswith("{silence_id}")
    for person in PEOPLE:
        if not person.may(expected):
            answer = shared.send(expected, shared.token(person))
            if invisible and answer.status_code == 404:
                assert not person.may(expected._replace(verb="view")), person
                assert person.may(expected, "any")
                continue
            assert_refused(answer, expected, 403)
    if expected.place == "alpha" and expected.verb not in ("view", "read-logs"):
        # The right in another team, and a view of this one, are not enough together.
        assert_refused(shared.send(expected, _bearer(shared, "viewer of alpha, admin of beta")), expected, 403)
    for name in ("of root for beta", "of root for nothing"):
        if expected.place != "any" or name == "of root for nothing":
            answer = shared.send(expected, _bearer(shared, name))
            assert answer.status_code in ((403, 404) if invisible else (403,)), name
    assert shared.state() == before


@by_route([expected for expected in EXPECTATIONS if expected.place not in ("own", "form", "signed")])
def test_role_with_the_right_is_let_through(request: pytest.FixtureRequest, expected: Expectation) -> None:
    world: World = request.getfixturevalue("shared" if expected.method == "GET" else "world")
    allowed = [person for person in PEOPLE if person.may(expected)]
    assert allowed
    for number, person in enumerate(allowed):
        answer = world.send(expected, world.token(person))
        assert answer.status_code not in (401, 403), (person, answer.text)
        if number == 0:
            assert answer.status_code < 300, (person, answer.text)
    for headers in (_bearer(world, "of root"), [("authorization", f"Bearer {SERVER_TOKEN}")]):
        assert world.send(expected, headers).status_code not in (401, 403)


# Its answer names no team; test_api_series.py compares the numbers.
_WITHOUT_NAMES = "/api/v1/statistics/series"


@by_route(
    [
        expected
        for expected in EXPECTATIONS
        if expected.place == "any" and expected.method == "GET" and expected.path != _WITHOUT_NAMES
    ]
)
def test_list_shows_the_teams_of_the_sender_alone(shared: World, expected: Expectation) -> None:
    one = expected.path.endswith("{sha256}")
    for person in PEOPLE:
        if person.may(expected):
            answer = shared.send(expected, shared.token(person))
            shown = {team for team in ("alpha", "beta") if team in answer.text}
            known = {team for team in ("alpha", "beta") if person.team in (team, "*")}
            assert shown == (known & {"alpha"} if one else known), (person, answer.text)
            assert "of-cluster" not in answer.text or person.team == "*"
            assert "of the cluster" not in answer.text or person.team == "*"
    answer = shared.send(expected, _bearer(shared, "of root for beta"))
    assert "alpha" not in answer.text


def test_team_that_the_sender_may_not_see_is_refused_as_a_filter(shared: World) -> None:
    viewer = Person("viewer", "beta")
    for path in (
        "apps",
        "jobs",
        "runs",
        "tasks",
        "alerts",
        "history/runs",
        "history/attempts",
        "history/configurations",
        "statistics",
        "statistics/series",
        "workflows",
    ):
        assert shared.ask(path, viewer, params={"team": "beta"}).status_code == 200
        for team in ("alpha", "no-such-team"):
            assert shared.ask(path, viewer, params={"team": team}).status_code == 403, path
    for path, name in (
        ("jobs", "app"), ("runs", "job"), ("tasks", "job"), ("tasks", "app"), ("history/attempts", "job"),
        ("history/runs", "app"), ("statistics", "job"), ("statistics/series", "app"), ("history/attempts", "run"),
        ("history/configurations", "job"), ("history/configurations", "app"),
    ):  # fmt: skip
        for key in ("alpha:demo", "alpha:absent"):
            assert shared.ask(path, viewer, params={name: key}).status_code == 403, path


def test_answer_does_not_tell_whether_a_thing_of_another_team_exists(shared: World) -> None:
    viewer = Person("author", "beta")
    of_alpha = shared.of_team["alpha"]
    for path, known, unknown in (
        ("apps", "alpha:demo", "alpha:none"),
        ("jobs", "alpha:hello", "alpha:none"),
        ("runs", of_alpha["run_id"], "alpha:none.1@test"),
        ("tasks", of_alpha["task_id"], "alpha:none@-@0@-@READY@-@a@-@1"),
        ("packages", of_alpha["sha256"], "0" * 64),
        ("workflows", "alpha:idle", "alpha:none"),
        ("workflow-runs", of_alpha["run"], "alpha:none.1-1"),
    ):
        found = [shared.ask(f"{path}/{name}", viewer) for name in (known, unknown)]
        assert len({answer.status_code for answer in found}) == 1
        assert found[0].text.replace(known, "") == found[1].text.replace(unknown, "")
    found = [shared.ask(f"silences/{name}", viewer, "DELETE") for name in (of_alpha["silence_id"], "0" * 8)]
    assert [answer.status_code for answer in found] == [404, 404]
    assert found[0].text.replace(of_alpha["silence_id"], "") == found[1].text.replace("0" * 8, "")


def test_body_may_name_only_teams_in_which_the_sender_has_the_right(world: World) -> None:
    author, sha256 = Person("author", "alpha"), world.names["sha256"]
    before = world.state()
    for method, path, content in (
        ("POST", "apps", app_body(sha256, "new", team="beta")),
        ("POST", "apps", app_body(sha256, "new")),
        ("POST", "jobs", job_body("new", team="beta")),
        ("POST", "runs", _ad_hoc(world)["json"] | {"team": "beta"}),
        ("POST", "silences", {"forSeconds": 60, "team": "beta"}),
        ("POST", "silences", {"forSeconds": 60}),
        ("POST", "apply", {"apps": [app_body(sha256, team="alpha"), app_body(sha256, team="beta")]}),
        ("POST", "apply", {"jobs": [job_body("a", team="alpha"), job_body("b", team="beta")]}),
        ("POST", "apply?dryRun=true", {"jobs": [job_body("b", team="beta")]}),
        ("POST", "apply", {"pools": [{"poolName": "p", "team": "beta", "slots": 1}]}),
        ("POST", "apply", {"pools": [{"poolName": "p", "team": "*", "slots": 1}]}),
        ("POST", "apply", {"calendars": [{"calendarName": "c", "team": "beta", "days": ["2026-12-24"]}]}),
        ("POST", "apply?prune=true", {"apps": [app_body(sha256, team="beta")]}),
    ):
        answer = world.ask(path, author, method, json=content)
        assert answer.status_code == 403, (path, answer.text)
    for path, content in (
        ("apps/alpha:demo", app_body(sha256, team="beta")),
        ("jobs/alpha:hello", job_body(team="beta")),
    ):
        assert world.ask(path, author, "PUT", json=content).status_code == 422
        assert world.ask(path, author, "PATCH", json={"team": "beta"}).status_code == 422
    assert world.state() == before


def test_elastic_job_client_reaches_the_team_default_alone(world: World) -> None:
    """A body of Elastic-Job could name a team as a field of its own, or a key of another team."""
    headers = world.token(Person("author", "default"))
    ej = client_of(world.app, url="http://127.0.0.1/api")
    before = world.state()
    ej.post("app", headers=headers, json=app_body(world.names["sha256"], "x", team="beta"))
    ej.put("app", headers=headers, json={"appName": "beta:demo", "cpuCount": 1})
    ej.put("app", headers=headers, json={"appName": "demo", "team": "beta", "cpuCount": 1})
    ej.post("job/register", headers=headers, json=job_body("x", team="beta"))
    ej.put("job/update", headers=headers, json=job_body(team="beta", cpuCount=1))
    for path in ("app/beta:demo", "job/beta:hello/deregister"):
        ej.delete(path, headers=headers)
    ej.request("DELETE", "job/deregister", headers=headers, content='"beta:hello"')
    ej.post("job/trigger", headers=headers, content='"beta:hello"')
    ej.post("app/beta:demo/disable", headers=headers)
    ej.post("job/beta:hello/disable", headers=headers)
    after = world.state()
    for old, new in zip(before[0].__dict__.values(), after[0].__dict__.values(), strict=True):
        if isinstance(old, Mapping):
            assert {k: v for k, v in old.items() if "beta" in k} == {k: v for k, v in new.items() if "beta" in k}


def test_elastic_job_client_signs_in_with_a_token_as_its_password(shared: World) -> None:
    ej = client_of(shared.app, url="http://127.0.0.1/api")
    for name, token in shared.secrets.items():
        answer = ej.post("login", json={"username": "any", "password": token})
        valid = name not in ("expired", "expires now", "revoked", "of a disabled user", "of a removed user")
        assert (answer.status_code, token in answer.text) == ((200, True) if valid else (401, False)), name
    mine = shared.secrets["viewer-default"]
    assert ej.get("app/list", headers={"accessToken": mine}).status_code == 200
    assert ej.post("app/demo/disable", headers={"accessToken": mine}).status_code == 403
    assert ej.get("app/list", headers={"accessToken": shared.secrets["viewer-alpha"]}).status_code == 403


def test_health_tells_everybody_the_state_but_no_details(tmp_path: Path) -> None:
    with closing(_make_world(tmp_path, warnings=lambda: ["the archive in /srv/logs is away"])) as world:
        world.loop.problem = "the store at db.example is away"
        nobody = client_of(world.app).get("health")
        assert (nobody.status_code, nobody.json()["status"], nobody.json()["leading"]) == (503, "failing", True)
        for person in (*PEOPLE, None):
            answer = world.ask("health", person) if person else nobody
            detailed = person is not None and person.team == "*" and person.role in HOLDERS["view-cluster"]
            assert ("db.example" in answer.text, "/srv/logs" in answer.text) == (detailed, detailed), person
        assert "db.example" not in client_of(world.app, "wrong").get("health").text


def test_agents_that_would_take_shards_are_named_only_with_view_cluster(world: World) -> None:
    world.loop.offer("agent-7")
    for person in PEOPLE:
        answer = world.ask("jobs/alpha:hello/fit", person)
        if answer.status_code == 200:
            assert answer.json()["agentCount"] == 1
            named = person.team == "*" and person.role in HOLDERS["view-cluster"]
            assert ("agent-7" in answer.text) == named, person


def test_custom_role_gives_its_verbs_alone(world: World) -> None:
    world.put(Role("starter", ("trigger",)))
    world.put(Team("alpha", (Member("user:s", "starter"),)))
    world.new_token("s", "user:s")
    world.secrets["starter-alpha"] = world.secrets["s"]
    starter = Person("starter", "alpha")
    assert world.ask("jobs/alpha:hello/trigger", starter, "POST").status_code == 202
    for method, path in (("GET", "jobs"), ("GET", "jobs/alpha:hello"), ("POST", "jobs/alpha:hello/disable")):
        assert world.ask(path, starter, method).status_code == 403
    world.put(Role("starter", ("view",)))
    assert world.ask("jobs/alpha:hello/trigger", starter, "POST").status_code == 403


_LISTS = [
    path for (method, path), rule in RULES.items() if (method, rule.of) == ("GET", Of.FILTERED) and "{" not in path
]


@pytest.mark.parametrize("path", [path for path in _LISTS if not path.endswith(("/events", "/changes"))])
def test_list_of_nothing_is_no_forgotten_check(tmp_path: Path, path: str) -> None:
    app = make_api(tmp_path, FakeLoop(), options=ApiOptions(access=Access(token=SERVER_TOKEN)))
    answer = client_of(app, SERVER_TOKEN).get(path.removeprefix("/api/v1/"))
    assert answer.status_code in (200, 503), answer.text
