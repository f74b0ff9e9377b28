"""Signed webhooks: what fires a job, what is refused, and what a stranger learns."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs
from tests.api_kit import (
    ARTIFACTS,
    START,
    FakeLoop,
    app_body,
    client_of,
    issues,
    job_body,
    make_api,
    package_bytes,
    serving,
)
from tests.audit_kit import FakeDisk, auditing
from tests.server.api.test_standby import Group

from jobcloud.adapters.sqlite import SqliteStore
from jobcloud.config import WebhookScheme
from jobcloud.executor.package import inspect
from jobcloud.messages import Acknowledge, Call, Event, Subscribed
from jobcloud.model import Pause
from jobcloud.scheduler import Policy, Scheduler
from jobcloud.server.api import Access, ApiOptions, create_api, hooks
from jobcloud.server.clock import wall_ms
from jobcloud.server.identity.webhook_limits import PER_JOB, REFUSED_PER_ADDRESS, WebhookLimits
from jobcloud.server.loop import Loop
from jobcloud.server.packages import PackageStore
from jobcloud.server.secrets.sources import SourceFailed
from jobcloud.server.tls import CERTIFICATE
from jobcloud.webhooks.signatures import TOLERANCE_S, signed

TOKEN = "t0ken"
KEY, OLD_KEY = b"a key of a webhook, at least 16 bytes", b"the key of the webhook before that"
NOW_S = START // 1000
STANDARD, GITHUB, STRIPE = WebhookScheme


class Keys:
    """The secrets of the team `default`. `asked` has all questions."""

    def __init__(self) -> None:
        self.values = {"hook-key": KEY + b"\n", "old-key": OLD_KEY, "short": b"123456789012345"}
        self.asked: list[tuple[str, Sequence[str]]] = []
        self.failure: Exception | None = None

    def __call__(self, team: str, names: Sequence[str]) -> tuple[list[bytes], list[str]]:
        self.asked.append((team, names))
        if self.failure:
            raise self.failure
        return [self.values[name] for name in names if name in self.values], []


class Hooked:
    """An API whose job `hello` has a webhook."""

    def __init__(self, folder: Path, loop: FakeLoop, **more: Any) -> None:
        self.loop, self.keys = loop, Keys()
        options = ApiOptions(access=Access(TOKEN))
        self.app = make_api(
            folder, loop, options=options, missing_secrets=lambda names: [], webhook_keys=self.keys,
            clock=lambda: loop.now, core=lambda: loop.scheduler, **more,
        )  # fmt: skip
        self.api = client_of(self.app, TOKEN)
        self.stranger = client_of(self.app)
        sha256 = self.api.post("packages", content=package_bytes()).json()["sha256"]
        assert self.api.post("apps", json=app_body(sha256)).status_code == 201
        self.register()
        # Jobs without a webhook.
        assert self.api.post("jobs", json=job_body("plain", cron="0 0 0 1 1 ? 2099")).status_code == 201

    def register(self, **changes: Any) -> None:
        config = job_body(cron="0 0 0 1 1 ? 2099", webhookSecrets=["hook-key"]) | changes
        answer = self.api.put("jobs/hello", json=config)
        if answer.status_code == 404:
            answer = self.api.post("jobs", json=config)
        assert answer.is_success, answer.text

    def send(
        self, body: bytes = b"{}", scheme: WebhookScheme = STANDARD, *, job: str = "hello", key: bytes = KEY,
        delivery: str = "d-1", at_s: int | None = None, **headers: str,
    ) -> httpx.Response:  # fmt: skip
        at_s = self.loop.now // 1000 if at_s is None else at_s
        given = signed(scheme, key, body, delivery=delivery, at_s=at_s) | headers
        return self.stranger.post(f"hooks/{job}", content=body, headers=given)

    def runs(self, job: str = "hello") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api.get("runs", params={"job": job}).json()["items"]
        return found


@pytest.fixture
def hooked(loop: FakeLoop, tmp_path: Path) -> Hooked:
    return Hooked(tmp_path, loop)


def test_signed_delivery_fires_the_job(hooked: Hooked) -> None:
    answer = hooked.send(b"not JSON \xff")
    assert answer.status_code == 202, answer.text
    (run,) = hooked.runs()
    assert answer.json() == {"runId": run["id"], "existed": False}
    assert run["cause"] == "trigger"
    assert run["terms"]["key"] == "webhook d-1"
    assert run["terms"]["jobParameter"] is None


@pytest.mark.parametrize("scheme", WebhookScheme)
def test_repeated_delivery_starts_nothing(hooked: Hooked, scheme: WebhookScheme) -> None:
    hooked.register(webhookScheme=scheme)
    body = b'{"id": "evt_1"}'
    first = hooked.send(body, scheme)
    assert first.status_code == 202, first.text
    hooked.loop.now += 60_000
    again = hooked.send(body, scheme)
    assert (again.status_code, again.json()) == (200, {"runId": first.json()["runId"], "existed": True})
    assert len(hooked.runs()) == 1
    other = b'{"id": "evt_2"}'
    assert hooked.send(other, scheme, delivery="d-2").status_code == 202
    assert len(hooked.runs()) == 2


def test_repeated_delivery_starts_nothing_after_a_change_of_the_job_and_after_its_end(hooked: Hooked) -> None:
    hooked.register(webhookParameters=["a=/a"])
    run = hooked.send(b'{"a": 1}').json()["runId"]
    assert hooked.api.post(f"runs/{run}/cancel").status_code == 202
    hooked.register()
    hooked.api.post("jobs/hello/disable")
    assert hooked.send(b'{"a": 1}').json() == {"runId": run, "existed": True}


def test_key_of_a_trigger_by_the_api_is_another_one(hooked: Hooked) -> None:
    assert hooked.api.post("jobs/hello/trigger", json={"key": "d-1"}).status_code == 202
    assert hooked.send().status_code == 202


def test_long_id_is_kept_as_a_hash(hooked: Hooked) -> None:
    assert hooked.send(delivery="x" * 200).status_code == 202
    assert hooked.send(delivery="x" * 200).status_code == 200
    assert hooked.send(delivery="x" * 199 + "y").status_code == 202
    assert all(len(run["terms"]["key"]) == 72 for run in hooked.runs())


def test_old_and_new_key_count_while_the_sender_changes_it(hooked: Hooked) -> None:
    assert hooked.send(key=OLD_KEY).status_code == 403
    hooked.register(webhookSecrets=["hook-key", "old-key"])
    assert hooked.send(key=OLD_KEY).status_code == 202
    assert hooked.send(key=KEY, delivery="d-2").status_code == 202
    hooked.register(webhookSecrets=["hook-key"])
    assert hooked.send(key=OLD_KEY, delivery="d-3").status_code == 403


# ---- what a stranger learns -----------------------------------------------------------------------------------------


def test_stranger_gets_one_answer_for_each_name(hooked: Hooked, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the answer nor the work tells whether a job exists, and whether it has a webhook."""
    tried: list[int] = []

    def holds(claim: object, keys: list[bytes], body: bytes) -> bool:
        tried.append(len(keys))
        return False

    monkeypatch.setattr(hooks, "holds", holds)
    sent = [hooked.send(job=job) for job in ("hello", "plain", "none", "shop:hello", "hello~1-2")]
    assert {(answer.status_code, answer.text) for answer in sent} == {(403, sent[0].text)}
    headers = [{**answer.headers, "jobcloud-request-id": ""} for answer in sent]
    assert all(each == headers[0] for each in headers)
    assert issues(sent[0], "forbidden") == {}
    assert len(hooked.keys.asked) == len(sent)
    assert tried == [2] * len(sent)
    assert not hooked.runs()


def test_job_without_keys_accepts_no_key(hooked: Hooked) -> None:
    for key in (b"", b"\0" * 32, KEY):
        assert hooked.send(job="plain", key=key).status_code == 403
    hooked.keys.values = {"hook-key": b""}
    assert hooked.send(key=b"").status_code == 403
    hooked.keys.values = {}
    assert hooked.send(key=b"").status_code == 403


def test_short_key_is_no_key(hooked: Hooked) -> None:
    hooked.register(webhookSecrets=["short"])
    assert hooked.send(key=hooked.keys.values["short"]).status_code == 403


def test_scheme_of_another_sender_is_refused(hooked: Hooked) -> None:
    assert hooked.send(b'{"id": "evt_1"}', STRIPE).status_code == 403
    assert hooked.send(b"{}", GITHUB).status_code == 403
    hooked.register(webhookScheme="github")
    assert hooked.send(b"{}", STANDARD).status_code == 403


def test_changed_body_or_missing_header_is_refused(hooked: Hooked) -> None:
    headers = signed(STANDARD, KEY, b"{}", delivery="d", at_s=NOW_S)
    assert hooked.stranger.post("hooks/hello", content=b"{ }", headers=headers).status_code == 403
    assert hooked.stranger.post("hooks/hello", content=b"{}").status_code == 403
    for name in headers:
        fewer = {other: value for other, value in headers.items() if other != name}
        assert hooked.stranger.post("hooks/hello", content=b"{}", headers=fewer).status_code == 403


def test_token_and_cookie_are_no_signature(hooked: Hooked) -> None:
    assert hooked.api.post("hooks/hello", content=b"{}").status_code == 403
    assert hooked.send(Authorization="Bearer wrong").status_code == 202


def test_header_that_is_not_ascii_is_refused(hooked: Hooked) -> None:
    headers: list[tuple[bytes, bytes]] = [
        (b"webhook-id", "d-\xe9".encode("latin-1")), (b"webhook-timestamp", "\u0661".encode()),
        (b"webhook-signature", b"v1,\xff\xfe"),
    ]  # fmt: skip
    assert hooked.stranger.post("hooks/hello", content=b"{}", headers=headers).status_code == 403


@pytest.mark.parametrize("off_s", [TOLERANCE_S, TOLERANCE_S + 1, -TOLERANCE_S, -TOLERANCE_S - 1, NOW_S])
@pytest.mark.parametrize("scheme", [STANDARD, STRIPE])
def test_time_stamp_must_be_near_the_clock(hooked: Hooked, scheme: WebhookScheme, off_s: int) -> None:
    hooked.register(webhookScheme=scheme)
    answer = hooked.send(b'{"id": "evt_1"}', scheme, at_s=NOW_S - off_s)
    assert answer.status_code == (202 if abs(off_s) == TOLERANCE_S else 403), answer.text
    if answer.status_code == 403:
        assert "time stamp" in answer.json()["detail"]
        assert not hooked.runs()


def test_replay_of_a_captured_delivery_starts_nothing(hooked: Hooked) -> None:
    hooked.send()
    captured = signed(STANDARD, KEY, b"{}", delivery="d-1", at_s=NOW_S)
    hooked.loop.now += TOLERANCE_S * 1000
    assert hooked.stranger.post("hooks/hello", content=b"{}", headers=captured).status_code == 200
    hooked.loop.now += 1_000
    assert hooked.stranger.post("hooks/hello", content=b"{}", headers=captured).status_code == 403
    changed = captured | {"webhook-id": "d-9"}
    assert hooked.stranger.post("hooks/hello", content=b"{}", headers=changed).status_code == 403
    assert len(hooked.runs()) == 1


# ---- bodies and parameters ------------------------------------------------------------------------------------------


def test_parts_of_the_body_become_the_parameter(hooked: Hooked) -> None:
    hooked.register(
        webhookScheme="github",
        webhookParameters=["branch=/ref", "first=/commits/0/id", "odd=/a~1b/m~0n", "none=/commits/1/id", "nil=/nil"],
    )
    body = {"ref": "refs/heads/main", "commits": [{"id": "c0ffee"}], "a/b": {"m~n": [1, 2.5]}, "nil": None}
    assert hooked.send(json.dumps(body).encode(), GITHUB).status_code == 202
    assert json.loads(hooked.runs()[0]["terms"]["jobParameter"]) == {
        "branch": "refs/heads/main", "first": "c0ffee", "odd": [1, 2.5],
    }  # fmt: skip


@pytest.mark.parametrize("step", ["00", "-", "1", "x", "999999999", "²"])
def test_step_that_leads_nowhere_is_left_out(hooked: Hooked, step: str) -> None:
    hooked.register(webhookParameters=[f"a=/list/{step}", "b=/list/0"])
    assert hooked.send(b'{"list": ["x"]}').status_code == 202
    assert json.loads(hooked.runs()[0]["terms"]["jobParameter"]) == {"b": "x"}


def test_parameters_are_checked_by_the_schema_of_the_job(hooked: Hooked) -> None:
    schema = {
        "type": "object", "required": ["branch"], "additionalProperties": False,
        "properties": {
            "branch": {"type": "string", "enum": ["refs/heads/main"]}, "n": {"type": "integer", "default": 3},
        },
    }  # fmt: skip
    own = '{"branch": "refs/heads/main"}'
    hooked.register(parameterSchema=json.dumps(schema), jobParameter=own, webhookParameters=["branch=/ref"])
    assert list(issues(hooked.send(b'{"ref": "refs/heads/other"}'))) == ["jobParameter.branch"]
    assert list(issues(hooked.send(b'{"zen": "x"}'))) == ["jobParameter.branch"]
    assert not hooked.runs()
    assert hooked.send(b'{"ref": "refs/heads/main"}').status_code == 202
    assert json.loads(hooked.runs()[0]["terms"]["jobParameter"]) == {"branch": "refs/heads/main", "n": 3}


def test_parameters_are_bounded(hooked: Hooked) -> None:
    hooked.register(webhookParameters=["a=/a"])
    assert "jobParameter" in issues(hooked.send(json.dumps({"a": "x" * 17_000}).encode()))
    assert hooked.send(json.dumps({"a": "x" * 16_000}).encode()).status_code == 202


@pytest.mark.parametrize(
    "body", [b"", b"payload=%7B%7D", b"\xff", b'{"a":1,"a":2}', b"[" * 200, b'{"a": NaN}', b"9" * 5_000]
)
def test_body_that_is_no_json_is_refused_if_parameters_are_taken_from_it(hooked: Hooked, body: bytes) -> None:
    hooked.register(webhookParameters=["a=/a"])
    issues(hooked.send(body), "malformed-json")
    hooked.register()
    assert hooked.send(body).status_code == 202


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"id": 1}', b'{"id": ""}', b'{"id": "a b"}', b'{"id": "\xc3\xa9"}'])
def test_event_of_stripe_needs_an_id(hooked: Hooked, body: bytes) -> None:
    hooked.register(webhookScheme="stripe")
    assert list(issues(hooked.send(body, STRIPE))) == ["id"]


def test_ping_of_github_starts_nothing(hooked: Hooked) -> None:
    hooked.register(webhookScheme="github")
    for key, status in ((KEY, 204), (OLD_KEY, 403)):
        headers = signed(GITHUB, key, b"{}", delivery="d-1", at_s=NOW_S) | {"X-GitHub-Event": "ping"}
        assert hooked.stranger.post("hooks/hello", content=b"{}", headers=headers).status_code == status
    assert not hooked.runs()


def test_body_of_more_than_one_mebibyte_is_refused_before_it_is_read(hooked: Hooked) -> None:
    issues(hooked.send(b"x" * ((1 << 20) + 1)), "too-large")
    assert not hooked.keys.asked
    assert hooked.send(b"x" * (1 << 20)).status_code == 202


# ---- states of the job and of the server ----------------------------------------------------------------------------


def test_disabled_job_and_full_queue_are_told(hooked: Hooked) -> None:
    hooked.api.post("jobs/hello/disable")
    refused = hooked.send()
    issues(refused, "conflict")
    assert "disabled" in refused.json()["detail"]
    hooked.api.post("jobs/hello/enable")
    most = hooked.loop.scheduler.policy.max_waiting
    for number in range(most):
        assert hooked.api.post("jobs/hello/trigger", json={"key": f"k{number}"}).status_code == 202
    assert "have not ended" in hooked.send().json()["detail"]


def test_run_of_a_paused_job_waits(hooked: Hooked) -> None:
    hooked.api.post("jobs/hello/pause")
    assert any(isinstance(pause, Pause) for pause in hooked.loop.scheduler.pauses.values())
    assert hooked.send().status_code == 202


def test_source_of_secrets_that_is_away_is_told(hooked: Hooked) -> None:
    hooked.keys.failure = SourceFailed("vault.internal refuses the token")
    with capture_logs() as lines:
        for job in ["hello", "none"] * 20:
            answer = hooked.send(job=job)
            assert answer.json()["type"].endswith("unavailable")
            assert "vault" not in answer.text
    assert 0 < len(lines) <= 20
    assert "vault.internal" in lines[0]["problem"]


def test_flood_of_one_address_is_cut_off_and_known_senders_are_not(hooked: Hooked) -> None:
    for _ in range(REFUSED_PER_ADDRESS.tries):
        assert hooked.send(key=OLD_KEY).status_code == 403
    asked = len(hooked.keys.asked)
    answer = hooked.send(key=OLD_KEY)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
    assert hooked.send().status_code == 429, "nothing is checked any longer"
    assert len(hooked.keys.asked) == asked
    services = hooked.app.state.services
    services.webhook_limits.verified("127.0.0.1", "other")
    assert hooked.send().status_code == 202
    assert hooked.send(key=OLD_KEY).status_code == 429


def test_flood_of_valid_deliveries_of_a_job_is_limited(hooked: Hooked, monkeypatch: pytest.MonkeyPatch) -> None:
    # A clock that stands still: the limit admits one more delivery each second.
    services = replace(hooked.app.state.services, webhook_limits=WebhookLimits(lambda: 0.0))
    monkeypatch.setattr(hooked.app.state, "services", services)
    statuses = [hooked.send(delivery="d-1").status_code for _ in range(PER_JOB.tries + 1)]
    assert statuses == [202] + [200] * (PER_JOB.tries - 1) + [429]


def test_refusals_leave_few_lines_without_secrets_in_the_log(
    hooked: Hooked, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(60):
        hooked.send(job=f"job-{number}", key=OLD_KEY)
    printed = caplog.text + "".join(capsys.readouterr())
    assert 0 < printed.count("webhook refused") <= 20
    assert KEY.decode() not in printed


def test_log_tells_why_a_delivery_was_refused(hooked: Hooked) -> None:
    with capture_logs() as lines:
        for job in ("none", "plain", "hello"):
            hooked.stranger.post(f"hooks/{job}", content=b"{}")
        hooked.send(key=OLD_KEY)
        hooked.send(at_s=NOW_S - 1_000)
    whys = ("no such job", "has no webhook", "headers of the scheme standard", "no key of the webhook", "1000 s old")
    for line, why in zip(lines, whys, strict=True):
        assert why in line["problem"]


def test_webhook_is_the_actor_in_the_audit_log(loop: FakeLoop, tmp_path: Path) -> None:
    disk = FakeDisk()
    with auditing(disk) as audit:
        hooked = Hooked(tmp_path, loop, audit=audit)
        hooked.send()
        hooked.send(b"{}", key=OLD_KEY)
        assert audit.flush()
        mine = [entry for entry in disk.entries() if entry.get("route") == "/api/v1/hooks/{job}"]
    intent, outcome, refused = mine
    for entry in (intent, outcome):
        assert (entry["subject"], entry["via"]) == ("webhook:hello", "signature (standard)")
        assert (entry["verb"], entry["team"], entry["target"]) == ("trigger", "default", "hello")
    assert outcome["status"] == 202
    assert [change["command"] for change in outcome["changes"]] == ["Trigger"]
    assert (refused.get("subject", ""), refused["outcome"], refused["status"]) == ("", "refused", 403)
    assert KEY.decode() not in json.dumps(mine)


def test_page_of_another_site_and_a_foreign_host_are_refused_as_everywhere(hooked: Hooked) -> None:
    issues(hooked.send(Origin="https://evil.example"), "forbidden-origin")
    issues(hooked.send(Host="evil.example"), "misdirected")


def test_job_shows_the_name_of_its_secret_only(hooked: Hooked) -> None:
    shown = hooked.api.get("jobs/hello")
    assert shown.json()["config"]["webhookSecrets"] == ["hook-key"]
    assert KEY.decode() not in shown.text


def test_unknown_parameter_of_the_url_is_refused(hooked: Hooked) -> None:
    assert "token" in issues(hooked.stranger.post("hooks/hello?token=x", content=b"{}"))


# ---- the fields of the job ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"webhookSecrets": ["Not a name"]}, "webhookSecrets"),
        ({"webhookSecrets": ["a", "a"]}, "webhookSecrets"),
        ({"webhookSecrets": ["a", "b", "c"]}, "webhookSecrets"),
        ({"webhookSecrets": ["a"], "jobExecutionType": "DAEMON"}, "webhookSecrets"),
        ({"webhookParameters": ["a=/a"]}, "webhookParameters"),
        ({"webhookScheme": "github"}, "webhookScheme"),
        ({"webhookSecrets": ["a"], "webhookScheme": "gitlab"}, "webhookScheme"),
        ({"webhookSecrets": ["a"], "webhookParameters": ["a"]}, "webhookParameters"),
        ({"webhookSecrets": ["a"], "webhookParameters": ["a=b"]}, "webhookParameters"),
        ({"webhookSecrets": ["a"], "webhookParameters": ["a=/~2"]}, "webhookParameters"),
        ({"webhookSecrets": ["a"], "webhookParameters": ["=/a"]}, "webhookParameters"),
        ({"webhookSecrets": ["a"], "webhookParameters": ["a=/" + "x" * 200]}, "webhookParameters"),
        ({"webhookSecrets": ["a"], "webhookParameters": ["a=/a", "a=/b"]}, "webhookParameters"),
        ({"webhookSecrets": ["a"], "webhookParameters": [f"a{n}=/a" for n in range(21)]}, "webhookParameters"),
    ],
)
def test_fields_that_make_no_sense_are_refused(hooked: Hooked, changes: dict[str, Any], field: str) -> None:
    answer = hooked.api.post("jobs", json=job_body("new") | changes)
    assert any(name.startswith(field) for name in issues(answer)), answer.text


def test_key_in_place_of_a_name_is_not_repeated_in_the_error(hooked: Hooked) -> None:
    answer = hooked.api.post("jobs", json=job_body("new", webhookSecrets=["whsec_SECRET+VALUE"]))
    assert "SECRET+VALUE" not in answer.text


def test_unknown_secret_is_refused_at_registration(loop: FakeLoop, tmp_path: Path, sha256: str) -> None:
    api = client_of(make_api(tmp_path, loop, missing_secrets=list))
    assert api.post("apps", json=app_body(sha256)).status_code == 201
    assert "hook-key" in issues(api.post("jobs", json=job_body(webhookSecrets=["hook-key"])))["webhookSecrets"]


def test_job_without_a_source_of_secrets_is_refused(api: httpx.Client, demo: str) -> None:
    assert "no source" in issues(api.post("jobs", json=job_body(webhookSecrets=["hook-key"])))["webhookSecrets"]


def test_job_can_fire_by_its_webhook_only(hooked: Hooked) -> None:
    hooked.register(cron="", triggers=["@at 2000-01-01T00:00"])
    assert hooked.api.get("jobs/hello").json()["nextFiring"] is None
    assert hooked.send().status_code == 202


def test_two_deliveries_at_once_make_one_run(hooked: Hooked) -> None:
    headers = signed(STANDARD, KEY, b"{}", delivery="d-1", at_s=NOW_S)

    async def both() -> list[int]:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(hooked.app), base_url="http://127.0.0.1/api/v1"
        ) as client:
            sent = (client.post("hooks/hello", content=b"{}", headers=headers) for _ in range(4))
            return sorted(answer.status_code for answer in await asyncio.gather(*sent))

    assert asyncio.run(both())[-1] == 202
    assert len(hooked.runs()) == 1


# ---- through real listeners -----------------------------------------------------------------------------------------

DOC = (Path(__file__).parents[3] / "docs" / "webhooks.md").read_text()


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("openssl")), reason="curl and openssl send")
def test_sender_of_the_documentation_fires_a_job(hooked: Hooked, tmp_path: Path) -> None:
    (script,) = re.findall(r"```sh\n(body=.*?)```", DOC, re.DOTALL)
    config = job_body("deploy", cron="0 0 0 1 1 ? 2099", webhookSecrets=["hook-key"], webhookParameters=["b=/ref"])
    assert hooked.api.post("jobs", json=config).status_code == 201
    (tmp_path / "key").write_bytes(KEY + b"\n")
    hooked.loop.now = wall_ms()  # the script asks the clock of this machine
    with serving(hooked.app) as url:
        environ = os.environ | {"JOBCLOUD_SERVER": url, "KEY_FILE": str(tmp_path / "key")}
        done = subprocess.run(["bash", "-euc", script], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = hooked.runs("deploy")
    assert json.loads(done.stdout) == {"runId": run["id"], "existed": False}
    assert json.loads(run["terms"]["jobParameter"]) == {"b": "refs/heads/main"}


def test_standby_passes_a_delivery_on_unchanged(tmp_path: Path) -> None:
    group = Group(tmp_path)
    more = {"missing_secrets": lambda names: [], "webhook_keys": Keys()}
    with serving(group.leader(**more)) as leader, serving(group.standby()) as standby:
        group.address = leader
        with httpx.Client(base_url=f"{leader}/api/v1", headers={"Authorization": "Bearer t0ken-of-both"}) as api:
            sha256 = api.post("packages", content=package_bytes()).json()["sha256"]
            assert api.post("apps", json=app_body(sha256)).status_code == 201
            config = job_body(cron="0 0 0 1 1 ? 2099", webhookSecrets=["hook-key"], webhookScheme="github")
            assert api.post("jobs", json=config).status_code == 201
        body = b" {\r\n \xff"
        headers = signed(GITHUB, KEY, body, delivery="d-1", at_s=NOW_S)
        urls = [f"{each}/api/v1/hooks/hello" for each in (standby, leader, standby)]
        sent = [httpx.post(url, content=body, headers=headers) for url in urls]
        refused = httpx.post(urls[0], content=body + b" ", headers=headers)
        # The certificate of a sender proves nothing to the leader. The signature does.
        passing = group.standby()

        async def with_certificate(scope: Scope, receive: Receive, send: Send) -> None:
            await passing({**scope, CERTIFICATE: b"of the sender"}, receive, send)

        certified = client_of(with_certificate).post("hooks/hello", content=body, headers=headers)
    assert [answer.status_code for answer in (*sent, refused, certified)] == [202, 200, 200, 403, 200]
    assert len(group.leading.scheduler.firings) == 1


class Mesos:
    """A driver without agents."""

    def start(self, deliver: Callable[[Event], None], framework_id: str) -> None:
        deliver(Subscribed(wall_ms(), framework_id or "framework-1"))

    def send(self, call: Call | Acknowledge) -> None:
        pass

    def stop(self) -> None:
        pass

    def teardown(self) -> None:
        pass


def test_repeated_delivery_starts_nothing_after_a_change_of_the_leader(tmp_path: Path) -> None:
    sent = []
    for term in range(2):
        loop: Loop[Scheduler] = Loop(
            SqliteStore(tmp_path / "state.db"), Mesos, (), lambda *given: Scheduler(Policy(ARTIFACTS), *given)
        )
        loop.start()
        packages = PackageStore(tmp_path / "packages", check=inspect)
        options = ApiOptions(access=Access(TOKEN))
        app = create_api(loop, packages, options, missing_secrets=lambda names: [], webhook_keys=Keys())
        with serving(app) as url:
            if not term:
                with httpx.Client(base_url=f"{url}/api/v1", headers={"Authorization": f"Bearer {TOKEN}"}) as api:
                    sha256 = api.post("packages", content=package_bytes()).json()["sha256"]
                    assert api.post("apps", json=app_body(sha256)).status_code == 201
                    config = job_body(cron="0 0 0 1 1 ? 2099", webhookSecrets=["hook-key"])
                    assert api.post("jobs", json=config).status_code == 201
            headers = signed(STANDARD, KEY, b"{}", delivery="d-1", at_s=wall_ms() // 1000)
            sent.append(httpx.post(f"{url}/api/v1/hooks/hello", content=b"{}", headers=headers))
        loop.stop()
    assert [answer.status_code for answer in sent] == [202, 200], sent[1].text
    assert sent[0].json()["runId"] == sent[1].json()["runId"]
