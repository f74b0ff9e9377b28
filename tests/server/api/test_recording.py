"""Each change, each refusal and each wanted read has entries in the audit log."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.responses import Response
from tests.api_kit import FakeLoop, app_body, client_of, job_body, make_api, package_bytes, serving
from tests.audit_kit import FakeDisk, auditing

from jobcloud.audit.limits import REFUSED_EACH, UNKNOWN
from jobcloud.audit.log import Limits
from jobcloud.audit.service import Audit, Options
from jobcloud.errors import Refused, Unavailable
from jobcloud.messages import PutAccess
from jobcloud.model import EVERY_TEAM, Member, Team, User
from jobcloud.server.api import Access, ApiOptions
from jobcloud.server.api.authorization import RULES, Of, Rule
from jobcloud.server.api.elastic_job.access import LOGIN_PATH
from jobcloud.server.api.standby import Standby
from jobcloud.server.identity.passwords import hash_password
from jobcloud.server.routes import routes_of

TOKEN = "the-token-of-the-server"
READS = frozenset({"GET", "HEAD", "OPTIONS"})


class Recorded:
    """An API with an audit log on a disk in memory."""

    def __init__(self, folder: Path, stack: ExitStack, options: Options | None = None, token: str = TOKEN) -> None:
        self.disk = FakeDisk()
        self.audit: Audit = stack.enter_context(auditing(self.disk, options))
        self.loop = FakeLoop()
        self.loop.subscribe()
        self.app = make_api(
            folder, self.loop, options=ApiOptions(access=Access(token)), audit=self.audit,
            core=lambda: self.loop.scheduler, teardown=lambda: None, clock=lambda: self.loop.now,
        )  # fmt: skip
        self.api = client_of(self.app, token)

    def entries(self, kind: str = "") -> list[dict[str, Any]]:
        assert self.audit.flush()
        return [entry for entry in self.disk.entries() if not kind or entry["kind"] == kind]

    def ends(self) -> list[dict[str, Any]]:
        """Changes as they have ended."""
        return self.entries("outcome")

    def register(self) -> str:
        sha256: str = self.api.post(
            "packages", content=package_bytes(), headers={"Content-Type": "application/zip"}
        ).json()["sha256"]
        assert self.api.post("apps", json=app_body(sha256)).status_code == 201
        assert self.api.post("jobs", json=job_body()).status_code == 201
        return sha256


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


@pytest.fixture
def recorded(tmp_path: Path, stack: ExitStack) -> Recorded:
    return Recorded(tmp_path, stack)


def test_change_has_an_intent_and_an_outcome_with_the_configuration(recorded: Recorded) -> None:
    recorded.register()
    answer = recorded.api.put("jobs/hello", json=job_body(cron="0 0 3 * * ?", description="x"))
    assert answer.status_code == 200
    intent, outcome = recorded.entries()[-2:]
    same = {
        "request": answer.headers["jobcloud-request-id"], "subject": "token:server", "client": "127.0.0.1",
        "method": "PUT", "route": "/api/v1/jobs/{job}", "verb": "configure", "team": "default", "target": "hello",
    }  # fmt: skip
    assert same.items() <= intent.items()
    assert same.items() <= outcome.items()
    assert (intent["kind"], intent["outcome"], outcome["kind"]) == ("intent", "allowed", "outcome")
    assert (outcome["of"], outcome["outcome"], outcome["status"]) == (intent["seq"], "succeeded", 200)
    assert outcome["changes"] == [
        {
            "command": "PutJob",
            "key": "hello",
            "before": {"cron": "0/5 * * * * ?", "description": ""},
            "after": {"cron": "0 0 3 * * ?", "description": "x"},
        }
    ]


def test_new_and_removed_records_are_whole(recorded: Recorded) -> None:
    recorded.register()
    (created,) = recorded.ends()[-1]["changes"]
    assert "before" not in created
    assert created["after"]["jobClass"] == "hello:Hello"
    assert recorded.ends()[-1]["target"] == "hello"
    assert recorded.api.delete("apps/demo?jobs=true").status_code == 204
    end = recorded.ends()[-1]
    assert end["query"] == "jobs=true"
    assert [(each["key"], "after" in each, each["before"]["appName"]) for each in end["changes"]] == [
        ("demo", False, "demo"),
        ("hello", False, "demo"),
    ]


def test_states_before_and_after_an_operation(recorded: Recorded) -> None:
    recorded.register()
    api = recorded.api
    for path in ("jobs/hello/pause", "jobs/hello/disable", "apps/demo/disable", "cluster/pause", "cluster/resume"):
        assert api.post(path).status_code == 200, path
    found = [
        (each.get("key", ""), each["before"], each["after"]) for end in recorded.ends()[-5:] for each in end["changes"]
    ]
    assert found == [
        ("hello", {"paused": False}, {"paused": True}),
        ("hello", {"enabled": True}, {"enabled": False}),
        ("demo", {"enabled": True}, {"enabled": False}),
        ("", {"paused": False}, {"paused": True}),
        ("", {"paused": True}, {"paused": False}),
    ]


def test_failed_change_tells_why_and_changes_nothing(recorded: Recorded) -> None:
    recorded.register()
    assert recorded.api.post("jobs", json=job_body()).status_code == 409
    end = recorded.ends()[-1]
    assert (end["outcome"], end["status"]) == ("failed", 409)
    assert end["reason"].startswith("conflict: ")
    assert "changes" not in end


def test_change_without_an_answer_of_the_loop_is_uncertain(recorded: Recorded) -> None:
    recorded.register()
    recorded.loop.failure = Unavailable("no answer within 10 s; the request may still be carried out")
    assert recorded.api.post("jobs/hello/disable").status_code == 503
    end = recorded.ends()[-1]
    assert end["outcome"] == "failed"
    assert end["changes"][0]["uncertain"] is True
    recorded.loop.failure = Refused("no")
    assert recorded.api.post("jobs/hello/disable").status_code == 422
    assert "changes" not in recorded.ends()[-1]


def test_secrets_of_accounts_are_left_out(recorded: Recorded) -> None:
    from jobcloud.server.api.recording import RecordedLoop

    loop = RecordedLoop(recorded.loop, recorded.audit, lambda: recorded.loop.scheduler)
    loop.command(lambda at: PutAccess(at, User("ann", at, "$argon2id$secret"), create=True))
    loop.command(lambda at: PutAccess(at, Team(EVERY_TEAM, (Member("user:ann", "viewer"),))))
    first, second = recorded.ends()
    assert first["changes"][0]["key"] == "user ann"
    assert first["changes"][0]["after"]["has_password"] is True
    assert second["changes"][0]["after"]["members"] == [{"subject": "user:ann", "role": "viewer"}]
    assert b"argon2" not in recorded.disk.files[1]


# -------------------------------------------------------------------------------------------------- no route is left


def _requests(recorded: Recorded) -> Iterator[tuple[str, str, Rule]]:
    """(method, path, rule) of each route, with names in place of parameters."""
    for route in routes_of(recorded.app.routes):
        path = re.sub(r"\{switch:switch\}", "disable", route.path)
        path = re.sub(r"\{pausing:pausing\}", "pause", path)
        yield route.method, re.sub(r"\{\w+(:\w+)?\}", "1", path), RULES[route.method, route.path]


def test_every_route_that_changes_something_has_entries(recorded: Recorded) -> None:
    changes = 0
    for method, path, rule in _requests(recorded):
        if method in READS or rule.of in (Of.NONE, Of.SIGNED):  # test_hooks.py has the entries of webhooks
            continue
        changes += 1
        before = len(recorded.entries())
        answer = recorded.api.request(method, f"http://127.0.0.1{path}", json={})
        intent, outcome = recorded.entries()[before:]
        assert (intent["kind"], outcome["kind"]) == ("intent", "outcome"), (method, path)
        assert outcome["status"] == answer.status_code
        assert intent["request"] == outcome["request"] == answer.headers["jobcloud-request-id"]
        assert intent["verb"] == rule.verb
    assert changes > 30


def test_every_route_has_an_entry_for_a_refusal(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobcloud.audit.limits.UNKNOWN", 10_000)
    monkeypatch.setattr("jobcloud.audit.limits.REFUSED_EACH", 10_000)
    anonymous = client_of(recorded.app)
    for method, path, rule in _requests(recorded):
        # The pages lead a browser without a session to the sign-in, which is no refusal.
        if rule.of is Of.NONE or path == LOGIN_PATH or not path.startswith(("/api/", "/metrics")):
            continue
        before = len(recorded.entries())
        answer = anonymous.request(method, f"http://127.0.0.1{path}", headers={"accesstoken": "x"})
        (entry,) = recorded.entries()[before:]
        assert answer.status_code == entry["status"] == (403 if rule.of is Of.SIGNED else 401)
        assert (entry["outcome"], entry["method"]) == ("refused", method)
        assert entry["reason"].startswith("forbidden: " if rule.of is Of.SIGNED else "unauthenticated: ")
        assert "subject" not in entry


def test_sender_without_the_right_is_named(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded.register()
    monkeypatch.setattr("jobcloud.server.api.identities._ADMIN", ((EVERY_TEAM, "viewer"),))
    assert recorded.api.delete("jobs/hello").status_code == 403
    entry = recorded.entries()[-1]
    assert (entry["kind"], entry["outcome"], entry["subject"]) == ("request", "refused", "token:server")
    assert (entry["route"], entry["target"]) == ("/api/v1/jobs/{job}", "hello")


def test_request_with_another_host_name_is_refused_and_recorded(recorded: Recorded) -> None:
    assert recorded.api.get("jobs", headers={"Host": "evil.test"}).status_code == 421
    assert recorded.entries()[-1]["status"] == 421


# --------------------------------------------------------------------------------------------------------- reads


def test_reads_of_the_wanted_verbs_are_recorded_once_a_minute(recorded: Recorded) -> None:
    recorded.register()
    before = len(recorded.entries())
    for _ in range(3):
        assert recorded.api.get("jobs").status_code == 200
        recorded.api.get("tasks/x/logs")
    (entry,) = recorded.entries()[before:]
    assert (entry["verb"], entry["target"], entry["outcome"], entry["status"]) == ("read-logs", "x", "failed", 404)


def test_reads_can_be_chosen(tmp_path: Path, stack: ExitStack) -> None:
    recorded = Recorded(tmp_path, stack, Options(reads=frozenset({"view"})))
    recorded.api.get("tasks/x/logs")
    assert recorded.api.get("jobs").status_code == 200
    assert [entry["route"] for entry in recorded.entries("request")] == ["/api/v1/jobs"]


# -------------------------------------------------------------------------------------------------------- floods


def test_flood_of_refused_requests_is_counted(recorded: Recorded) -> None:
    anonymous = client_of(recorded.app)
    for _ in range(REFUSED_EACH + 30):
        anonymous.get("jobs")
    assert len(recorded.entries("request")) == REFUSED_EACH
    recorded.audit.stop()
    (counted,) = recorded.entries("counted")
    assert counted["details"] == {"refused": {"total": 30, "senders": {"127.0.0.1": 30}}}
    assert REFUSED_EACH < UNKNOWN


def test_known_sender_that_is_refused_too_often_must_wait(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded.register()
    monkeypatch.setattr("jobcloud.server.api.identities._ADMIN", ((EVERY_TEAM, "viewer"),))
    for _ in range(REFUSED_EACH):
        assert recorded.api.delete("jobs/hello").status_code == 403
    monkeypatch.setattr("jobcloud.server.api.identities._ADMIN", ((EVERY_TEAM, "admin"),))
    answer = recorded.api.delete("jobs/hello")
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "60"
    assert recorded.api.get("jobs/hello").status_code == 200


# ------------------------------------------------------------------------------------------------------ disk full


def test_full_disk_refuses_changes_and_nothing_else(recorded: Recorded) -> None:
    recorded.register()
    assert recorded.audit.flush()
    recorded.disk.room = 0
    answer = recorded.api.delete("jobs/hello")
    assert answer.status_code == 507
    assert "cannot be recorded: the audit log cannot be written: No space left" in answer.json()["detail"]
    assert recorded.api.get("jobs/hello").status_code == 200
    assert recorded.api.get("tasks/x/logs").status_code == 404
    assert recorded.audit.flush()
    assert "changes are refused" in recorded.audit.warnings()[0]
    recorded.disk.room = 1 << 40
    assert recorded.api.delete("jobs/hello").status_code == 204
    (counted,) = recorded.entries("counted")
    assert counted["details"]["lost"] == 1
    assert recorded.audit.warnings() == ("the audit log lacks 1 entries: they could not be written",)


def test_records_may_be_optional(tmp_path: Path, stack: ExitStack) -> None:
    recorded = Recorded(tmp_path, stack, Options(required=False))
    recorded.register()
    assert recorded.audit.flush()
    recorded.disk.room = 0
    assert recorded.api.delete("jobs/hello").status_code == 204
    assert recorded.audit.flush()
    recorded.disk.room = 1 << 40
    assert recorded.api.delete("apps/demo").status_code == 204
    assert recorded.entries("counted")[0]["details"]["lost"] == 2


def test_full_log_refuses_changes_until_there_is_room(tmp_path: Path, stack: ExitStack) -> None:
    recorded = Recorded(tmp_path, stack, Options(Limits(keep_bytes=10_000)))
    recorded.register()
    answer = recorded.api.post("jobs/hello/disable")
    while answer.status_code == 200:
        answer = recorded.api.post("jobs/hello/disable")
        assert recorded.audit.flush()
    assert answer.status_code == 507
    assert "the audit log is full" in answer.json()["detail"]
    assert recorded.api.get("jobs/hello").status_code == 200
    assert "changes are refused" in recorded.audit.warnings()[0]


# ----------------------------------------------------------------------------------------------------- request id


def test_request_id_is_in_the_answer_and_in_the_lines_of_the_log(tmp_path: Path) -> None:
    from structlog.contextvars import get_contextvars

    loop = FakeLoop()
    seen: list[dict[str, Any]] = []
    loop.ask = lambda fn, timeout=5: seen.append(get_contextvars()) or fn(loop.scheduler)  # type: ignore[method-assign,func-returns-value]
    answer = client_of(make_api(tmp_path, loop)).get("jobs", headers={"jobcloud-request-id": "0123456789abcdef"})
    assert re.fullmatch("[0-9a-f]{16}", answer.headers["jobcloud-request-id"])
    assert answer.headers["jobcloud-request-id"] != "0123456789abcdef"
    assert seen[0] == {"request": answer.headers["jobcloud-request-id"]}
    assert get_contextvars() == {}


# ------------------------------------------------------------------------------------------------------- a standby


def test_standby_and_leader_record_a_request_with_the_same_id(tmp_path: Path, stack: ExitStack) -> None:
    disks = FakeDisk(), FakeDisk()
    of_leader, of_standby = (stack.enter_context(auditing(disk)) for disk in disks)
    leading, address = FakeLoop(), ""
    options = ApiOptions(access=Access(TOKEN))
    leader = make_api(tmp_path / "a", leading, options=options, audit=of_leader, core=lambda: leading.scheduler)
    replica: Any = SimpleNamespace(monotonic=lambda: 0.0)
    standby = make_api(
        tmp_path / "b", options=options, audit=of_standby, standby=Standby(lambda: True, lambda: address, replica)
    )
    address = stack.enter_context(serving(leader))
    url = stack.enter_context(serving(standby))
    headers = {"Authorization": f"Bearer {TOKEN}", "X-Forwarded-For": "203.0.113.9", "Jobcloud-Request-Id": "0" * 16}
    with httpx.Client(base_url=f"{url}/api/v1", headers=headers) as client:
        answer = client.delete("jobs/none")
        assert answer.status_code == 404
        assert client.get("tasks/x/logs").status_code == 404
        assert client.get("cluster").status_code == 200
        assert client.delete("jobs/none", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert of_leader.flush()
    assert of_standby.flush()
    request = answer.headers["jobcloud-request-id"]
    intent, outcome, log_read, refusal = disks[0].entries()[1:]
    assert request == intent["request"] == outcome["request"] != "0" * 16
    assert intent["forwarded"] is True
    assert "claimed" not in intent
    own = disks[1].entries()[1:]
    assert [(entry["method"], entry["status"], entry["request"]) for entry in own] == [
        ("DELETE", 404, request),
        ("GET", 404, log_read["request"]),
        ("DELETE", 401, refusal["request"]),
    ]
    assert own[0]["route"] == "/api/v1/jobs/{job}"
    assert all(entry["details"]["passed_on"] for entry in own)
    assert {entry["client"] for entry in own} == {"203.0.113.9"}, "uvicorn believes a proxy on this machine"


def test_standby_does_not_record_the_code_of_a_sign_in(tmp_path: Path, stack: ExitStack) -> None:
    disk = FakeDisk()
    audit = stack.enter_context(auditing(disk))
    leader = stack.enter_context(serving(Response(status_code=403)))
    replica: Any = SimpleNamespace(monotonic=lambda: 0.0)
    standby = make_api(
        tmp_path, options=ApiOptions(access=Access(TOKEN)), audit=audit,
        standby=Standby(lambda: True, lambda: leader, replica),
    )  # fmt: skip
    url = stack.enter_context(serving(standby))
    assert httpx.get(f"{url}/login/oidc/callback?code=the-code&state=x").status_code == 403
    assert audit.flush()
    entry = disk.entries()[-1]
    assert (entry["route"], entry["details"]) == ("/login/oidc/callback", {"passed_on": True})
    assert "the-code" not in str(disk.files)


# ------------------------------------------------------------------------------------------------------- sign-ins


PASSWORD = "a long enough password"


def _submit(client: httpx.Client, path: str, **fields: str) -> int:
    return client.post(path, data=fields, headers={"Origin": "http://127.0.0.1"}).status_code


def _page_of(recorded: Recorded) -> httpx.Client:
    return client_of(recorded.app, url="http://127.0.0.1")


def test_sign_in_by_password_and_sign_out_name_the_user(recorded: Recorded) -> None:
    recorded.loop.feed(PutAccess(recorded.loop.now, User("ann", 1, hash_password(PASSWORD)), create=True))
    ann = _page_of(recorded)
    assert _submit(ann, "/login", user="ann", password=PASSWORD) == 303
    intent, outcome = recorded.entries()[-2:]
    assert (intent["kind"], outcome["kind"], outcome["of"]) == ("intent", "outcome", intent["seq"])
    for entry in (intent, outcome):
        assert (entry["route"], entry["details"], "subject" in entry) == ("/login", {"tried": "user:ann"}, False)
    (change,) = outcome["changes"]
    assert (change["command"], change["after"]["subject"]) == ("PutAccess", "user:ann")
    assert "hash" not in change["after"]

    token = re.search(r'name="token" value="([0-9a-f]{64})"', ann.get("/account").text)
    assert token is not None
    assert _submit(ann, "/logout/everywhere", token=token[1]) == 303
    end = recorded.ends()[-1]
    assert (end["subject"], end["via"]) == ("user:ann", f"session {change['key'].removeprefix('session ')}")
    assert [each["command"] for each in end["changes"]] == ["EndSessions"]


def test_failed_sign_in_names_the_user_only_if_there_is_one(recorded: Recorded) -> None:
    recorded.loop.feed(PutAccess(recorded.loop.now, User("ann", 1, hash_password(PASSWORD)), create=True))
    assert _submit(_page_of(recorded), "/login", user="ann", password="wrong") == 401
    entry = recorded.entries()[-1]
    assert (entry["kind"], entry["outcome"], entry["status"]) == ("request", "refused", 401)
    assert (entry["details"], entry["reason"]) == ({"tried": "user:ann"}, "wrong password")
    assert _submit(_page_of(recorded), "/login", user=PASSWORD, password="") == 401
    entry = recorded.entries()[-1]
    assert ("details" in entry, entry["reason"]) == (False, "no user has this name")
    assert PASSWORD not in str(recorded.disk.files)


def test_sign_in_by_a_link_names_whom_it_signs_in(recorded: Recorded) -> None:
    code = recorded.api.post("login-links").json()["path"].partition("#")[2]
    assert _submit(_page_of(recorded), "/login/link", code=code) == 303
    end = recorded.ends()[-1]
    assert (end["route"], end["details"]) == ("/login/link", {"tried": "token:server"})
    assert end["changes"][0]["after"]["by"] == "link of token:server"
    assert _submit(_page_of(recorded), "/login/link", code=code) == 401
    entry = recorded.entries()[-1]
    assert (entry["outcome"], entry["reason"]) == ("refused", "the link is wrong or used, or has ended")
    assert code not in str(recorded.disk.files)


def test_change_with_the_cookie_of_a_session_names_its_owner(recorded: Recorded) -> None:
    code = recorded.api.post("login-links").json()["path"].partition("#")[2]
    page = _page_of(recorded)
    assert _submit(page, "/login/link", code=code) == 303
    own = {"Origin": "http://127.0.0.1", "Jobcloud-Request": "1"}
    assert page.delete("/api/v1/jobs/none", headers=own).status_code == 404
    assert recorded.ends()[-1]["subject"] == "token:server"
    before = len(recorded.entries())
    assert page.delete("/api/v1/jobs/none", headers={"Origin": "http://127.0.0.1"}).status_code == 403
    (refused,) = recorded.entries()[before:]
    assert (refused["outcome"], refused["reason"][:16]) == ("refused", "forbidden-origin")
