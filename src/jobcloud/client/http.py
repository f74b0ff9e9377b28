"""A thin client of the REST API. Methods return the API's JSON unchanged (docs/api.md).

The names of apps and jobs are keys: `NAME` in the team `default`, `TEAM:NAME` in another team.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import ssl
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias
from urllib.parse import quote, urlsplit

from jobcloud.errors import ConfigError, JobcloudError, NotFound

if "httpx" in sys.modules:
    import httpx
else:
    # httpx imports its own command line with click and rich, if these are installed. That takes as long as all of its
    # other modules. None stands for a module that is not installed.
    sys.modules["httpx._main"] = None  # type: ignore[assignment]
    import httpx

    del sys.modules["httpx._main"]

if TYPE_CHECKING:
    from jobcloud.ports import TlsFiles

Json: TypeAlias = dict[str, Any]
#: the value of a parameter; a list gives the parameter several times
Filter: TypeAlias = str | int | Sequence[str]

_PAGE = 500
# The time limit of requests that upload a package, or that make the server fetch a package. Packages may be large.
_PACKAGE_S = 600.0
# How long a server may be unreachable while a client follows output or a roll-out.
_RECONNECT_S = 30.0
_POLL_S = 0.5
# The header Warning of the server.
_WARNING = re.compile(r'299 jobcloud "(.*)"')


def _ignore(*_: object) -> None:
    pass


class ApiError(JobcloudError):
    """The server refused a request, or failed.

    `problem` is the RFC 9457 document that the server sent, or a substitute if it sent none.
    """

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.problem = dict(problem)
        super().__init__(str(problem.get("detail") or problem.get("title") or f"status {status}"))

    @property
    def errors(self) -> list[Json]:
        """The errors in the problem document, each `{field, problem, fix}`."""
        found = self.problem.get("errors")
        return [issue for issue in found if isinstance(issue, dict)] if isinstance(found, list) else []


class NotReachable(ApiError):
    """No server answered at this address, or its certificate is not trusted. `fix` tells the user what to do."""

    def __init__(self, url: str, reason: str, fix: str = "") -> None:
        super().__init__(0, {"detail": f"no server answers at {url}: {reason}"})
        self.fix = fix or "is the server running? (`jobcloud dev` starts one; --server names another one)"


class _Bearer(httpx.Auth):
    """Puts a token into each request."""

    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        if token := self._token():
            request.headers["Authorization"] = f"Bearer {_checked_token(token)}"
        yield request


@dataclass(slots=True)
class _Event:
    """One server-sent event."""

    kind: str = ""
    id: str = ""
    data: Json = field(default_factory=dict)


class Client:
    """A client of one server; use it as a context manager.

    The constructor raises ConfigError if the URL, the token or a file of `tls` cannot be used. Every method raises
    ApiError if the server refuses the request, NotReachable if no server answers, and NotFound for a name that cannot
    exist ("" or with a "/").
    """

    def __init__(
        self,
        url: str,
        token: str | Callable[[], str] = "",
        *,
        timeout: float = 30.0,
        transport: httpx.BaseTransport | None = None,
        tls: TlsFiles | None = None,
    ) -> None:
        """`token` may be a function, which is called for each request: a token may end while a client follows."""
        self.url = url.rstrip("/")
        #: the server's warnings so far: it has done what was asked, but something is likely to be wrong
        self.warnings: list[str] = []
        headers = {"Authorization": f"Bearer {_checked_token(token)}"} if token and isinstance(token, str) else {}
        # If the server is on loopback, ignore the proxies in the environment. A proxy cannot reach this machine's
        # loopback, and it would see the token.
        try:
            self._http = httpx.Client(
                base_url=f"{self.url}/api/v1/",
                headers=headers,
                auth=_Bearer(token) if callable(token) else None,
                timeout=timeout,
                transport=transport,
                trust_env=not is_loopback(self.url),
                verify=_trusted(self.url, tls),
            )
        except httpx.InvalidURL as error:
            raise ConfigError(f"{url!r} is not a URL: {error}", field="--server", fix="http://HOST:PORT") from error

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    # ------------------------------------------------------------------------------------------------------- apps

    def apps(self, team: str = "") -> list[Json]:
        return self._items("apps", team=team)

    def app(self, name: str) -> Json:
        return self._json("GET", f"apps/{_part(name)}")

    def put_app(self, config: Json) -> tuple[Json, bool]:
        """Register or replace an app. Returns the app, and whether it is new."""
        return self._put("apps", _key(config, "appName"), config, timeout=_PACKAGE_S)

    def rollout(self, app: str) -> Json:
        """The progress of the app's resident shards towards its current version."""
        return self._json("GET", f"apps/{_part(app)}/rollout")

    def follow_rollout(self, app: str, within_s: float = float("inf")) -> Iterator[Json]:
        """Each new state of an app's roll-out.

        The states end when the roll-out is done or has stopped, or when `within_s` seconds are over. If the server is
        unreachable for at most 30 s, the method then continues.
        """
        before: Json = {}
        broken_at, until = 0.0, time.monotonic() + within_s
        while True:
            try:
                found, broken_at = self.rollout(app), 0.0
            except ApiError as error:
                broken_at = broken_at or time.monotonic()
                if error.status not in (0, 503) or time.monotonic() - broken_at > _RECONNECT_S:
                    raise
                found = before
            if found != before:
                yield found
            if found.get("state") in ("done", "stopped") or time.monotonic() >= until:
                return
            before = found
            time.sleep(_POLL_S)

    def versions(self, app: str) -> list[Json]:
        """The versions of an app that are kept, the newest first."""
        return self._items(f"apps/{_part(app)}/versions")

    def roll_back(self, app: str, version: int) -> Json:
        """Update an app to an earlier version."""
        return self._json("POST", f"apps/{_part(app)}/rollback", params={"version": version}, timeout=_PACKAGE_S)

    def remove_app(self, name: str, *, jobs: bool = False) -> None:
        self._send("DELETE", f"apps/{_part(name)}", params={"jobs": str(jobs).lower()})

    def switch_app(self, name: str, *, enabled: bool) -> Json:
        return self._json("POST", f"apps/{_part(name)}/{_switch(enabled)}")

    def has_package(self, sha256: str) -> bool:
        try:
            self._json("GET", f"packages/{_part(sha256)}")
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True

    def upload(self, package: Path, sha256: str = "", sent: Callable[[int, int], None] = _ignore) -> Json:
        """Upload an archive. If `sha256` is given, the server refuses an archive with another hash.

        `sent` is called with the number of bytes sent so far, and of all bytes. Raises ConfigError if the archive is
        larger than the server allows: a server that refuses a body while it arrives may close the connection before
        the client has read the answer.
        """
        size, limit = package.stat().st_size, int(self._json("GET", "packages").get("maxBytes", 0))
        if limit and size > limit:
            problem = f"has {size:,} bytes; the server takes at most {limit:,}"
            fix = "remove files that the app does not need, or raise the server's setting packages.max_bytes"
            raise ConfigError(problem, field="package", fix=fix)
        with package.open("rb") as file:
            response = self._send(
                "POST",
                "packages",
                params={"sha256": sha256},
                content=_chunks(file, size, sent),
                headers={"Content-Type": "application/octet-stream"},
                timeout=_PACKAGE_S,
            )
        return _object(response)

    def apply(
        self,
        apps: Sequence[Json],
        jobs: Sequence[Json],
        *,
        pools: Sequence[Json] = (),
        calendars: Sequence[Json] = (),
        workflows: Sequence[Json] = (),
        **options: bool,
    ) -> Json:
        """Register or replace apps and jobs, all or none: `{dryRun, items}`. Options: dryRun, prune, create, enabled.

        The field of an error begins with the place of the app or job, such as `jobs.3`.
        """
        params = {name: str(value).lower() for name, value in options.items()}
        body = {"apps": list(apps), "jobs": list(jobs)}
        # Older servers know neither pools nor calendars nor workflows.
        others = {"pools": pools, "calendars": calendars, "workflows": workflows}
        body |= {name: list(given) for name, given in others.items() if given}
        return self._json("POST", "apply", params=params, json=body, timeout=_PACKAGE_S)

    # ------------------------------------------------------------------------------------------------------- jobs

    def jobs(
        self,
        app: str = "",
        team: str = "",
        *,
        q: str = "",
        label: Sequence[str] = (),
        owner: str = "",
        state: str = "",
        sort: str = "",
    ) -> list[Json]:
        """The jobs that match the filters of the API. Empty filters match all jobs."""
        return self._items("jobs", app=app, team=team, q=q, label=tuple(label), owner=owner, state=state, sort=sort)

    def queue(self, limit: int, team: str = "") -> list[Json]:
        """The jobs with waiting shards, the longest wait first."""
        return self._pages("queue", limit, {"team": team}, page=50)

    def job(self, name: str) -> Json:
        return self._json("GET", f"jobs/{_part(name)}")

    def create_app(self, config: Json) -> Json:
        return self._json("POST", "apps", json=config, timeout=_PACKAGE_S)

    def create_job(self, config: Json, *, enabled: bool = True) -> Json:
        return self._json("POST", "jobs", params={} if enabled else {"enabled": "false"}, json=config)

    def update_job(self, name: str, config: Json, revision: str = "") -> Json:
        """Replace a job. If `revision` is given, the server refuses the change of a job with another revision."""
        return self._json("PUT", f"jobs/{_part(name)}", json=config, headers=_if_match(revision))

    def patch_job(self, name: str, changes: Json, revision: str = "") -> Json:
        """Change single fields of a job; null restores a default. `revision`: as for `update_job`."""
        return self._json("PATCH", f"jobs/{_part(name)}", json=changes, headers=_if_match(revision))

    def put_job(self, config: Json) -> tuple[Json, bool]:
        """Register or replace a job. Returns the job, and whether it is new."""
        return self._put("jobs", _key(config, "jobName"), config)

    def remove_job(self, name: str) -> None:
        self._send("DELETE", f"jobs/{_part(name)}")

    def switch_job(self, name: str, *, enabled: bool) -> Json:
        return self._json("POST", f"jobs/{_part(name)}/{_switch(enabled)}")

    def pause(self, *, job: str = "", app: str = "", paused: bool = True) -> Json:
        """Pause or resume a job, an app, or everything. Returns it, or the cluster."""
        what = f"jobs/{_part(job)}" if job else f"apps/{_part(app)}" if app else "cluster"
        return self._json("POST", f"{what}/{'pause' if paused else 'resume'}")

    def backfill(self, job: str, given: Json) -> Json:
        """Make runs for past fire times. `given`: from, to, order, limit, atOnce, dryRun."""
        return self._json("POST", f"jobs/{_part(job)}/backfill", json=given)

    def cancel_backfill(self, job: str) -> None:
        self._send("DELETE", f"jobs/{_part(job)}/backfill")

    def alerts(self, team: str = "") -> Json:
        """The alerts as `items`, and the channels."""
        filters = {"limit": 1_000, **({"team": team} if team else {})}
        found = page = self._json("GET", "alerts", params=filters)
        while page["nextCursor"]:
            page = self._json("GET", "alerts", params={**filters, "cursor": page["nextCursor"]})
            found["items"] += page["items"]
        return found

    def calendars(self, team: str = "") -> list[Json]:
        """The calendars of a team, or of all that the sender sees, without their days."""
        return self._items("calendars", team=team)

    def calendar(self, key: str) -> Json:
        return self._json("GET", f"calendars/{_part(key)}")

    def put_calendar(self, key: str, config: Json, revision: str = "") -> Json:
        """Create or replace a calendar. With a revision, only if it is the present one."""
        return self._json("PUT", f"calendars/{_part(key)}", json=config, headers=_if_match(revision))

    def remove_calendar(self, key: str) -> None:
        self._send("DELETE", f"calendars/{_part(key)}")

    def workflows(self, team: str = "") -> list[Json]:
        """The workflows of a team, or of all that the sender sees."""
        return self._items("workflows", team=team)

    def workflow(self, key: str) -> Json:
        return self._json("GET", f"workflows/{_part(key)}")

    def put_workflow(self, key: str, config: Json, revision: str = "") -> Json:
        """Create or change a workflow. With a revision, only if it is the present one."""
        return self._json("PUT", f"workflows/{_part(key)}", json=config, headers=_if_match(revision))

    def remove_workflow(self, key: str) -> None:
        self._send("DELETE", f"workflows/{_part(key)}")

    def workflow_runs(self, key: str, limit: int, state: Sequence[str] = ()) -> list[Json]:
        """At most `limit` runs of a workflow, the newest first."""
        return self._pages(f"workflows/{_part(key)}/runs", limit, {"state": tuple(state)})

    def workflow_run(self, run_id: str) -> Json:
        """A run of a workflow with its nodes."""
        return self._json("GET", f"workflow-runs/{_part(run_id)}")

    def cancel_workflow_run(self, run_id: str) -> Json:
        return self._json("POST", f"workflow-runs/{_part(run_id)}/cancel")

    def pause_workflow_run(self, run_id: str, action: str) -> Json:
        """`action`: pause or resume."""
        return self._json("POST", f"workflow-runs/{_part(run_id)}/{action}")

    def answer_node(self, run_id: str, node: str, answer: Json) -> Json:
        """Answer a node of a run that waits for an approval or a callback."""
        return self._json("POST", f"workflow-runs/{_part(run_id)}/nodes/{_part(node)}/answer", json=answer)

    def send_event(self, event: Json) -> int:
        """Answer the nodes that wait for an event. Returns their number."""
        return int(self._json("POST", "workflow-events", json=event)["answered"])

    def retry_workflow_run(self, run_id: str) -> Json:
        """Repeat the failed nodes of a run of a workflow."""
        return self._json("POST", f"workflow-runs/{_part(run_id)}/retry")

    def silences(self) -> list[Json]:
        items: list[Json] = self._json("GET", "silences", params={"limit": 1_000})["items"]
        return items

    def add_silence(self, given: Json) -> Json:
        """Silence alerts. `given`: forSeconds, condition, subject, team, owner, comment."""
        return self._json("POST", "silences", json=given)

    def remove_silence(self, silence_id: str) -> None:
        self._send("DELETE", f"silences/{_part(silence_id)}")

    def sessions(self) -> list[Json]:
        """The browsers in which the sender has signed in; for an admin, those of everybody."""
        return self._items("sessions")

    def end_session(self, session_id: str) -> None:
        self._send("DELETE", f"sessions/{_part(session_id)}")

    def end_sessions(self, subject: str = "") -> None:
        """End all sessions of a subject such as `user:ann`, by default of the sender."""
        self._send("DELETE", "sessions", params={"subject": subject})

    def make_link(self, user: str = "") -> Json:
        """A link that signs a browser in once, by default as the sender: `{url, path, subject, expiresAt}`."""
        made = self._json("POST", "login-links", params={"user": user})
        return {"url": f"{self.url}{made['path']}", **made}

    def test_channel(self, channel: str) -> Json:
        """Send a test message to a channel: `{channel, problem}`."""
        return self._json("POST", f"alerts/channels/{_part(channel)}/test")

    def trigger(self, job: str, terms: Json | None = None) -> Json:
        """Make a run. `terms` has what replaces the job's own values in it."""
        body = {"json": terms} if terms else {}
        return self._json("POST", f"jobs/{_part(job)}/trigger", headers=_trace(), **body)

    def deliver(self, job: str, body: bytes, headers: Mapping[str, str]) -> Json:
        """Send a signed delivery to the webhook of a job."""
        return self._json("POST", f"hooks/{_part(job)}", content=body, headers=headers)

    def webhook_url(self, job: str) -> str:
        """The URL at which the webhook of a job takes deliveries, as this client reaches it."""
        return str(self._http.base_url.join(f"hooks/{_part(job)}"))

    def check_job(self, job: str) -> None:
        """Raises ApiError if the job does not exist, be it registered or that of an ad-hoc run."""
        from jobcloud.config import is_ad_hoc

        if is_ad_hoc(job):
            self.explain(job)
        else:
            self.job(job)

    def start_run(self, config: Json) -> Json:
        """Start an ad-hoc run. `config` has the job of the run, and perhaps a key."""
        return self._json("POST", "runs", json=config, headers=_trace())

    def explain(self, job: str) -> Json:
        return self._json("GET", f"jobs/{_part(job)}/explain")

    def fit(self, job: str, shards: int) -> Json:
        """Whether further shards of a job fit now; 0: as many as a run has."""
        return self._json("GET", f"jobs/{_part(job)}/fit", params={"shards": shards})

    # --------------------------------------------------------------------------------------------- users and rights

    def who_am_i(self) -> Json:
        return self._json("GET", "whoami")

    def users(self) -> list[Json]:
        return self._items("users")

    def user(self, name: str) -> Json:
        return self._json("GET", f"users/{_part(name)}")

    def add_user(self, name: str, password: str = "") -> Json:
        """Add a user. Without a password, the user cannot sign in by one."""
        return self._json("POST", "users", json={"name": name, "password": password})

    def switch_user(self, name: str, *, enabled: bool) -> Json:
        return self._json("PATCH", f"users/{_part(name)}", json={"disabled": not enabled})

    def set_password(self, name: str, password: str, current: str = "") -> None:
        """Set a password. `current` is the present one, if it is that of the sender."""
        given = {"password": password, "currentPassword": current}
        self._send("PUT", f"users/{_part(name)}/password", json=given)

    def remove_user(self, name: str) -> None:
        self._send("DELETE", f"users/{_part(name)}")

    def pools(self) -> list[Json]:
        return self._items("pools")

    def pool(self, name: str) -> Json:
        """Raises ApiError with the status 404 if there is none."""
        return self._json("GET", f"pools/{_part(name)}")

    def put_pool(self, name: str, config: Json, revision: str) -> Json:
        """Create or change a pool. `revision`: refuse a change of another one; "": any."""
        return self._json("PUT", f"pools/{_part(name)}", json=config, headers=_if_match(revision))

    def remove_pool(self, name: str) -> None:
        self._send("DELETE", f"pools/{_part(name)}")

    def teams(self) -> list[Json]:
        return self._items("teams")

    def team(self, name: str) -> Json:
        """A team with its members; `*` is the whole installation."""
        return self._json("GET", f"teams/{_part(name)}")

    def put_team(self, name: str, config: Json, revision: str = "") -> Json:
        """Create a team, or replace its weight and quota. With a revision, only if it is the present one."""
        return self._json("PUT", f"teams/{_part(name)}", json=config, headers=_if_match(revision))

    def add_member(self, team: str, subject: str, role: str) -> Json:
        return self._json("POST", f"teams/{_part(team)}/members", json={"subject": subject, "role": role})

    def remove_member(self, team: str, subject: str, role: str = "") -> Json:
        """Take a role, or all roles, in a team away from a subject."""
        return self._json("DELETE", f"teams/{_part(team)}/members", params={"subject": subject, "role": role})

    def remove_team(self, name: str) -> None:
        self._send("DELETE", f"teams/{_part(name)}")

    def roles(self) -> list[Json]:
        return self._items("roles")

    def role(self, name: str) -> Json:
        return self._json("GET", f"roles/{_part(name)}")

    def put_role(self, name: str, verbs: Sequence[str], revision: str = "") -> Json:
        """Create a role, or replace its verbs. With a revision, only if it is the present one."""
        return self._json("PUT", f"roles/{_part(name)}", json={"verbs": list(verbs)}, headers=_if_match(revision))

    def remove_role(self, name: str) -> None:
        self._send("DELETE", f"roles/{_part(name)}")

    def services(self, team: str = "") -> list[Json]:
        """The service accounts of a team, or of all teams that the sender manages."""
        return self._items("services", team=team)

    def remove_service(self, team: str, name: str) -> None:
        self._send("DELETE", f"services/{_part(team)}/{_part(name)}")

    def tokens(self, subject: str = "") -> list[Json]:
        return self._items("tokens", subject=subject)

    def make_token(self, config: Json) -> Json:
        """Make a token. `config`: name, subject, scope, expiresSeconds. The answer has its secret as `token`."""
        return self._json("POST", "tokens", json=config)

    def revoke_token(self, token_id: str) -> None:
        """Revoke a token, or the one of the server's settings (`server`)."""
        self._send("DELETE", f"tokens/{_part(token_id)}")

    # --------------------------------------------------------------------------- tasks, output, runs and the cluster

    def tasks(self, limit: int = 100, **filters: str | int) -> list[Json]:
        """The newest tasks. Filters: job, app, team, item, state, prefix."""
        return self._pages("tasks", limit, filters)

    def task(self, task_id: str) -> Json:
        return self._json("GET", f"tasks/{_part(task_id)}")

    def kill(self, task_id: str) -> Json:
        return self._json("POST", f"tasks/{_part(task_id)}/kill")

    def forget(self, task_id: str, *, force: bool = False) -> Json:
        """Treat a task as lost: the user knows that it no longer runs. `force`: even if Mesos reports it as alive."""
        return self._json("POST", f"tasks/{_part(task_id)}/forget", params={"force": "true"} if force else {})

    def drain(self, agent: str, deadline_s: int = 0, reason: str = "") -> Json:
        """Drain an agent (id or host name). The deadline is in `deadline_s` seconds; 0: the server's default."""
        return self._json("POST", f"agents/{_part(agent)}/drain", params={"deadline": deadline_s, "reason": reason})

    def undrain(self, agent: str) -> Json:
        return self._json("POST", f"agents/{_part(agent)}/undrain")

    def log(self, task_id: str, stream: str = "stdout", **where: int | str) -> Json:
        """A piece of a task's output: `{offset, text, nextOffset, size, found, times}`.

        `where`: offset and limit in bytes, or tail in lines, or since; times.
        """
        return self._json("GET", f"tasks/{_part(task_id)}/logs", params={"stream": stream, **where})

    def follow(self, task_id: str, stream: str = "stdout", **where: int | str) -> Iterator[Json]:
        """Pieces of a task's output as the task writes it, until the task ends: `{offset, text, missed, times}`.

        `where`: offset, tail or since; times. If the server is unreachable for at most 30 s, the method then continues
        with the next byte.
        """
        path = f"tasks/{_part(task_id)}/logs/stream"
        query: dict[str, str | int] = {"stream": stream, **where}
        position, broken_at = "", 0.0
        while True:
            try:
                for event in self._events(path, query, position):
                    position, broken_at = event.id or position, 0.0
                    if event.kind == "output":
                        yield event.data
                    elif event.kind == "error":
                        raise ApiError(int(event.data.get("status", 503)), event.data)
                    else:
                        return
            except NotReachable:
                if not (position or broken_at):
                    raise
            broken_at = broken_at or time.monotonic()
            if time.monotonic() - broken_at > _RECONNECT_S:
                raise NotReachable(self.url, "it closed the output stream before the task ended")
            time.sleep(_POLL_S)

    def runs(self, limit: int = 100, **filters: Filter) -> list[Json]:
        """The newest runs. Filters: job, team, state (or several states), since, match."""
        return self._pages("runs", limit, filters)

    def run(self, run_id: str) -> Json:
        """A run with all its shards."""
        path = f"runs/{_part(run_id)}"
        run = page = self._json("GET", path)
        while page["nextCursor"]:
            page = self._json("GET", path, params={"cursor": page["nextCursor"]})
            run["shards"] += page["shards"]
        return {**run, "nextCursor": ""}

    def run_state(self, run_id: str) -> Json:
        """A run with its first shard only."""
        return self._json("GET", f"runs/{_part(run_id)}", params={"limit": 1})

    def retry(self, run_id: str, item: int | None = None) -> Json:
        """Retry the failed shards of a run, or one shard of it."""
        params = {} if item is None else {"item": item}
        return self._json("POST", f"runs/{_part(run_id)}/retry", params=params)

    def past(self, kind: str, limit: int = 100, **filters: Filter) -> list[Json]:
        """Ended runs, ended attempts, or configurations (`kind`) of the history.

        Filters: team, app, job, since, until; state (or several states) of runs; run and outcome of attempts.
        """
        return self._pages(f"history/{kind}", limit, filters)

    def notes(self, run_id: str) -> list[Json]:
        """The notes of a run, oldest first."""
        return self._items(f"runs/{_part(run_id)}/notes")

    def add_note(self, run_id: str, text: str) -> Json:
        return self._json("POST", f"runs/{_part(run_id)}/notes", json={"text": text})

    def audit(self, limit: int = 100, **filters: str) -> list[Json]:
        """Entries of the audit log, the newest first. Filters: actor, target, team, request, outcome, since, until."""
        return self._pages("audit", limit, filters)

    def audit_pages(self, size: int, **filters: str) -> Iterator[list[Json]]:
        """All entries of the audit log that fit `filters`, as in `audit`, in pages of about `size` entries."""
        return self._each_page("audit", {name: value for name, value in filters.items() if value}, size)

    def past_events(self, task_id: str) -> list[Json]:
        """The states of one attempt, oldest first."""
        return self._items("history/events", task=task_id)

    def statistics(self, limit: int = 100, **filters: str) -> list[Json]:
        """Statistics by job, app or team, or in total. Filters: by, team, app, job, since, until."""
        return self._pages("statistics", limit, filters)

    def series(self, **filters: str) -> Json:
        """Results and samples over time. Filters: by (minute, hour or day), zone, team, app, job, since, until."""
        return self._json("GET", "statistics/series", params={key: value for key, value in filters.items() if value})

    def cancel(self, run_id: str) -> Json:
        """End a run: kill its running shards, and cancel the waiting ones."""
        return self._json("POST", f"runs/{_part(run_id)}/cancel")

    def shard(self, run_id: str, item: int) -> Json:
        return self._json("GET", f"runs/{_part(run_id)}/shards/{item}")

    def attempts(self, run_id: str, item: int) -> list[Json]:
        """The attempts of a shard, newest first."""
        return self._items(f"runs/{_part(run_id)}/shards/{item}/attempts")

    def executors(self, team: str = "") -> list[Json]:
        return self._items("executors", team=team)

    def cluster(self) -> Json:
        return self._json("GET", "cluster")

    def sign_in_options(self) -> Json:
        """The ways to sign in on the command line."""
        return self._json("GET", "sign-in")

    def health(self) -> Json:
        """The answer of `GET /health`. An unhealthy server answers with status 503. This status raises no error."""
        return _object(self._send("GET", "health", accept=(503,)))

    def health_and_date(self) -> tuple[Json, datetime | None]:
        """As `health`, and the server's clock in whole seconds; None if it does not tell it."""
        response = self._send("GET", "health", accept=(503,))
        try:
            date = parsedate_to_datetime(response.headers.get("date", ""))
        except ValueError:
            date = None
        return _object(response), date

    def events(self) -> Iterator[Json]:
        """Notices as they happen, until the server closes the stream."""
        for event in self._events("events", {}):
            yield event.data

    def recent_events(self, count: int, *, follow: bool) -> Iterator[tuple[int, Json]]:
        """The newest `count` notices that the server remembers, then, with `follow`, those that happen, without end.

        Each comes with the number of notices before it that were missed. If the server is unreachable for at most 30 s,
        the method then continues with the next notice.
        """
        last, broken_at = "", 0.0
        query: dict[str, str | int] = {"recent": count, "follow": str(follow).lower()}
        while True:
            try:
                for event in self._events("events", query, last):
                    yield _missed(last, event.id), event.data
                    last, broken_at = event.id, 0.0
            except NotReachable:
                if not (follow and (last or broken_at)):
                    raise
            if not follow:
                return
            broken_at = broken_at or time.monotonic()
            if time.monotonic() - broken_at > _RECONNECT_S:
                raise NotReachable(self.url, "it closed the stream of events")
            time.sleep(_POLL_S)

    def tear_down(self, framework_id: str) -> Json:
        return self._json("POST", "framework/teardown", json={"confirm": framework_id})

    # -------------------------------------------------------------------------------------------------------- wire

    def _put(self, kind: str, key: str, config: Json, **options: Any) -> tuple[Json, bool]:
        """Create an app or a job. If the server reports a conflict, replace it. Returns it, and whether it is new."""
        try:
            return self._json("POST", kind, json=config, **options), True
        except ApiError as error:
            if error.status != 409:
                raise
            refusal = error
        try:
            return self._json("PUT", f"{kind}/{_part(key)}", json=config, **options), False
        except ApiError as error:
            raise (refusal if error.status == 404 else error) from None

    def _items(self, path: str, **filters: str | Sequence[str]) -> list[Json]:
        """All items of a list."""
        return self._pages(path, sys.maxsize, filters)

    def _pages(self, path: str, limit: int, filters: Mapping[str, Filter], page: int = _PAGE) -> list[Json]:
        """At most `limit` items of a list, in pages of at most `page`."""
        params: dict[str, Filter] = {key: value for key, value in filters.items() if value not in ("", [], ())}
        found: list[Json] = []
        for items in self._each_page(path, params, min(limit, page)):
            found += items
            if len(found) >= limit:
                break
        return found[:limit]

    def _each_page(self, path: str, params: dict[str, Filter], limit: int) -> Iterator[list[Json]]:
        cursor = ""
        while True:
            page = self._json("GET", path, params={**params, "limit": limit, "cursor": cursor})
            yield page["items"]
            cursor = page["nextCursor"]
            if not cursor:
                return

    def _events(self, path: str, params: Mapping[str, str | int], last_id: str = "") -> Iterator[_Event]:
        """Server-sent events until the server closes the stream. The data of each event must be in one line."""
        # If there is no event for 15 s, the server sends a comment.
        timeout = httpx.Timeout(10.0, read=60.0)
        headers = {"Last-Event-ID": last_id} if last_id else {}
        event = _Event()
        try:
            with self._http.stream("GET", path, params=params, headers=headers, timeout=timeout) as response:
                if not response.is_success:
                    response.read()
                    raise ApiError(response.status_code, _problem(response))
                for line in response.iter_lines():
                    field, _, text = line.partition(": ")
                    if field == "id":
                        event.id = text
                    elif field == "event":
                        event.kind = text
                    elif field == "data":
                        event.data = json.loads(text)
                    elif not line and event.kind:
                        yield event
                        event = _Event()
        except httpx.TransportError as error:
            raise _unreachable(self.url, error) from error

    def _json(self, method: str, path: str, **options: Any) -> Json:
        return _object(self._send(method, path, **options))

    def _send(self, method: str, path: str, *, accept: tuple[int, ...] = (), **options: Any) -> httpx.Response:
        if "json" in options:
            headers = {**(options.get("headers") or {}), "Content-Type": "application/json"}
            options |= {"content": _encode(options.pop("json")), "headers": headers}
        if method != "GET":
            # From now on the leader has to answer, because a standby may not have seen the change yet.
            self._http.headers["Cache-Control"] = "no-cache"
        try:
            response = self._http.request(method, path, **options)
        except UnicodeEncodeError as error:
            raise ConfigError(f"{error.object!r:.120} is not text in UTF-8", field="", fix="check it") from error
        except (httpx.TransportError, httpx.InvalidURL, UnicodeError) as error:
            raise _unreachable(self.url, error) from error
        if not response.is_success and response.status_code not in accept:
            raise ApiError(response.status_code, _problem(response))
        if warning := _WARNING.fullmatch(response.headers.get("Warning", "")):
            self.warnings.append(re.sub(r"\\(.)", r"\1", warning[1]))
        return response


def _trusted(url: str, tls: TlsFiles | None) -> ssl.SSLContext | bool:
    """The context for connections to a server; True for the defaults of httpx. Raises ConfigError."""
    if url.startswith("http://") and is_loopback(url):
        # There is no TLS and no proxy. This context has no CA certificates: to load those of the defaults takes long.
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if tls is None or not url.startswith("https://") or not (tls.ca_file or tls.cert_file):
        return True
    try:
        context = ssl.create_default_context(cafile=tls.ca_file or None)
    except OSError as error:
        problem = f"{tls.ca_file} cannot be used: {error.strerror or error}"
        raise ConfigError(problem, field="--ca-file", fix="a PEM file with the CA of the server") from error
    if tls.cert_file:
        try:
            # Without a password, OpenSSL would ask for it on the terminal.
            context.load_cert_chain(tls.cert_file, tls.key_file or None, password="")
        except OSError as error:
            problem = f"{tls.cert_file} cannot be used: {error.strerror or error}"
            fix = "PEM files with a certificate and its key, without a password"
            raise ConfigError(problem, field="--cert-file", fix=fix) from error
    return context


# X509_V_ERR_… of OpenSSL (x509_vfy.h) → what to do.
_CERTIFICATE_FIXES = {
    **dict.fromkeys((18, 19, 20, 21), "name its CA with --ca-file or JOBCLOUD_CA_FILE"),
    **dict.fromkeys((9, 10), "replace the files of the server's settings tls_cert_file and tls_key_file"),
    **dict.fromkeys((62, 64), "use a name in the certificate: --server https://NAME:PORT"),
}


def _unreachable(url: str, error: Exception) -> NotReachable:
    """The error for a request that got no answer, with a fix if TLS is the reason."""
    text, fix = str(error) or type(error).__name__, ""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        text = f"its certificate is not trusted: {cause.verify_message}"
        fix = _CERTIFICATE_FIXES.get(cause.verify_code, "check the certificate of the server")
    elif cause is not None and cause.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        text, fix = "it does not use TLS", "use http:// in place of https://"
    elif cause is not None and "ALERT" in (cause.reason or ""):
        text = f"it refused the connection: {(cause.reason or '').replace('_', ' ').lower()}"
        fix = "if it asks for a certificate of yours, name it with --cert-file or JOBCLOUD_CERT_FILE"
    return NotReachable(url, text, fix)


def _if_match(revision: str) -> dict[str, str]:
    return {"If-Match": f'"{revision}"'} if revision else {}


def _missed(before: str, after: str) -> int:
    """The number of notices between two ids of one server."""
    (boot, _, number), (now, _, newer) = before.partition("-"), after.partition("-")
    return int(newer) - int(number) - 1 if boot == now else 0


def _chunks(file: BinaryIO, size: int, sent: Callable[[int, int], None]) -> Iterator[bytes]:
    done = 0
    while chunk := file.read(1 << 16):
        yield chunk
        done += len(chunk)
        sent(done, size)


def _encode(config: Json) -> bytes:
    """Raises ConfigError for values without JSON form, such as the dates and NaN of TOML."""
    try:
        return json.dumps(config, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        problem = f"contains a value that JSON cannot represent: {error}"
        raise ConfigError(problem, field="configuration", fix="use strings, numbers and booleans") from error


def _object(response: httpx.Response) -> Json:
    try:
        found = response.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ApiError(response.status_code, {"detail": "the answer is not from a jobcloud server"})
    return found


def _problem(response: httpx.Response) -> Json:
    if response.headers.get("content-type", "").startswith("application/problem+json"):
        return _object(response)
    return {"detail": f"status {response.status_code} {response.reason_phrase}, not from a jobcloud server"}


def _key(config: Json, name_field: str) -> str:
    """The key of the app or the job that a configuration describes."""
    from jobcloud.config import DEFAULT_TEAM, key_of

    return key_of(str(config.get("team") or DEFAULT_TEAM), str(config.get(name_field, "")))


def _part(name: str) -> str:
    """A name as a segment of a path. The names `.` and `..` are escaped. Raises NotFound for "" and names with "/"."""
    if not name or "/" in name:
        raise NotFound(f"there is no {name!r}", fix="a name is not empty and contains no '/'")
    try:
        return {".": "%2E", "..": "%2E%2E"}.get(name) or quote(name, safe="@:")
    except UnicodeEncodeError:
        raise NotFound(f"there is no {name!r}", fix="a name is text in UTF-8") from None


def _trace() -> dict[str, str]:
    """The header with the span of the caller, which tools of OpenTelemetry put into the environment."""
    text = os.environ.get("TRACEPARENT", "")
    return {"traceparent": text} if text.isascii() and text.isprintable() and text else {}


def _checked_token(token: str) -> str:
    """Raises ConfigError if a header cannot contain the token. The error does not repeat the token."""
    if not (token.isascii() and token.isprintable()):
        problem = "contains characters that a token cannot have"
        raise ConfigError(problem, field="--token", fix="copy it again from the server's token file")
    return token


def _switch(enabled: bool) -> str:
    return "enable" if enabled else "disable"


def is_loopback(url: str) -> bool:
    """Whether a URL names this machine by a loopback address or as localhost."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
