"""The forms of messages: texts, limits, signatures and answers."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.alert_kit import make_channel

from jobcloud.model import Alert, AlertMessage, Condition
from jobcloud.server.alerts import forms
from jobcloud.server.alerts.forms import Answer
from jobcloud.webhooks.signatures import standard_key

NOW = 1_767_225_600_000
DEAD = Alert(
    Condition.RUN_DEAD, "billing:report", NOW, "run r1: 5000 DEAD; shard 0: broke", NOW, run="r1", owner="alice"
)
OVER = Alert(Condition.AGENT_LOST, "a1", NOW, "agent host-a1 is lost", NOW + 1_000, NOW + 60_000, 2)
MESSAGE = AlertMessage("ops", NOW, (DEAD, OVER), 3)
SECRET = "SECa1b2"


def body(kind: str, message: AlertMessage = MESSAGE, **fields: Any) -> Any:
    return json.loads(forms.request(make_channel(kind=kind, **fields), "ops-1-7", message, "prod", NOW).body)


def text(kind: str, message: AlertMessage = MESSAGE) -> str:
    found = body(kind, message)
    return str(found["text"] if kind == "slack" else found["content" if kind == "feishu" else "text"].popitem()[1])


@pytest.mark.parametrize("kind", ["slack", "dingtalk", "wecom", "feishu"])
def test_text_names_each_alert_its_state_and_its_owner(kind: str) -> None:
    lines = text(kind).split("\n\n")
    assert lines[0] == "prod: 1 alert, 1 recovery, 3 more"
    assert lines[1] == (
        "[run_dead] billing:report (owner alice): run r1: 5000 DEAD; shard 0: broke\nOPEN since 2026-01-01 00:00:00 UTC"
    )
    assert lines[2] == (
        "[agent_lost] a1: agent host-a1 is lost\nENDED 2026-01-01 00:01:00 UTC, since 2026-01-01 00:00:00 UTC, 2 times"
    )
    assert lines[3] == "and 3 further alerts: `jobcloud alerts` lists them"


@pytest.mark.parametrize(
    ("kind", "limit"), [("slack", 4_000), ("dingtalk", 9_000), ("wecom", 2_048), ("feishu", 9_000)]
)
@pytest.mark.parametrize("character", ["x", "\N{CJK UNIFIED IDEOGRAPH-4E2D}", "<", "&", '"'])
def test_text_of_the_largest_message_fits_the_vendor(kind: str, limit: int, character: str) -> None:
    size = len(character.encode())
    largest = Alert(
        Condition.ROLLOUT_STOPPED, "s" * 133, NOW, character * (700 // size), NOW, NOW, 2**62, "r", "o" * 100
    )
    found = text(kind, AlertMessage("ops", NOW, (largest,) * 30, 2**62))
    assert len(found.encode()) <= limit
    assert "have no room here" in found
    assert len(json.dumps(body(kind), ensure_ascii=False).encode()) < 20_000
    if character == "<" and kind != "dingtalk":
        assert "<<" not in found


def test_first_alert_is_cut_if_it_has_no_room_by_itself() -> None:
    long = Alert(Condition.LATE, "s", NOW, "&" * 700, NOW)
    assert len(text("slack", AlertMessage("ops", NOW, (long,))).encode()) < 4_000


def test_text_mentions_nobody() -> None:
    rude = AlertMessage("ops", NOW, (Alert(Condition.RUN_DEAD, "j", NOW, '<!channel> <@all> <at user_id="all">', NOW),))
    assert "&lt;!channel&gt;" in text("slack", rude)
    assert "<@" not in text("wecom", rude)
    assert "<at" not in text("feishu", rude)
    assert "at" not in body("dingtalk", rude)


def test_dingtalk_signs_in_the_query() -> None:
    url = "https://oapi.dingtalk.com/robot/send?access_token=t"
    found = forms.request(make_channel(kind="dingtalk", url=url, secret=SECRET), "i", MESSAGE, "prod", NOW)
    query = parse_qs(urlsplit(found.url).query)
    expected = hmac.new(SECRET.encode(), f"{NOW}\n{SECRET}".encode(), hashlib.sha256).digest()
    assert query == {
        "access_token": ["t"],
        "timestamp": [str(NOW)],
        "sign": [base64.b64encode(expected).decode()],
    }
    assert body("dingtalk")["msgtype"] == "text"


def test_feishu_signs_in_the_body() -> None:
    found = body("feishu", secret=SECRET)
    expected = hmac.new(f"{NOW // 1000}\n{SECRET}".encode(), b"", hashlib.sha256).digest()
    assert found["timestamp"] == str(NOW // 1000)
    assert found["sign"] == base64.b64encode(expected).decode()
    assert found["msg_type"] == "text"
    assert "sign" not in body("feishu")


def test_webhook_has_a_stable_id_and_every_field() -> None:
    found = forms.request(make_channel(secret="plain"), "ops-1-7", MESSAGE, "prod", NOW)
    again = forms.request(make_channel(secret="plain"), "ops-1-7", MESSAGE, "prod", NOW + 60_000)
    assert found.headers["webhook-id"] == again.headers["webhook-id"] == "ops-1-7"
    assert found.body == again.body
    data = json.loads(found.body)["data"]
    assert data["more"] == 3
    assert data["alerts"][0] == {
        "condition": "run_dead", "subject": "billing:report", "team": "billing", "owner": "alice", "state": "open",
        "openedAt": "2026-01-01T00:00:00.000Z", "closedAt": None, "count": 1, "runId": "r1",
        "text": "run r1: 5000 DEAD; shard 0: broke",
    }  # fmt: skip
    assert (data["alerts"][1]["team"], data["alerts"][1]["state"]) == ("", "closed")
    assert "webhook-signature" not in forms.request(make_channel(), "i", MESSAGE, "prod", NOW).headers


@pytest.mark.parametrize("secret", ["whsec_!", "whsec", "x"])
def test_secret_that_is_not_base64_is_taken_as_it_is(secret: str) -> None:
    assert standard_key(secret) == secret.encode()


def test_mail_has_the_id_of_the_message_and_no_foreign_header() -> None:
    channel = make_channel(kind="email", host="mail", sender="a@example.org", to=["b@example.org", "c@example.org"])
    alert = Alert(Condition.LATE, "j", NOW, "text\nBcc: evil@example.org", NOW)
    found = forms.mail(channel, "ops-1-7", AlertMessage("ops", NOW, (alert,)), "prod")
    assert found["Message-ID"] == "<ops-1-7.prod@jobcloud.invalid>"
    assert found["Subject"] == "prod: 1 alert"
    assert found["Auto-Submitted"] == "auto-generated"
    assert (found["To"], found["Bcc"]) == ("b@example.org, c@example.org", None)
    assert "evil" in found.get_content()


@pytest.mark.parametrize(
    ("kind", "status", "answer", "taken"),
    [
        ("webhook", 204, b"", True),
        ("webhook", 302, b"", False),
        ("webhook", 500, b"", False),
        ("slack", 200, b"ok", True),
        ("slack", 404, b"no_team", False),
        ("dingtalk", 200, b'{"errcode":0,"errmsg":"ok"}', True),
        ("dingtalk", 200, b'{"errcode":310000,"errmsg":"sign not match"}', False),
        ("wecom", 200, b'{"errcode":0,"errmsg":"ok"}', True),
        ("wecom", 200, b'{"errcode":93000,"errmsg":"invalid webhook url"}', False),
        ("feishu", 200, b'{"code":0,"msg":"success"}', True),
        ("feishu", 200, b'{"StatusCode":0,"StatusMessage":"success"}', True),
        ("feishu", 200, b'{"code":19021,"msg":"sign match fail"}', False),
        ("feishu", 200, b'{"errcode":0}', False),
        ("wecom", 200, b"<html>", False),
        ("wecom", 200, b"[0]", False),
        ("wecom", 200, b"[" * 60_000, False),
        ("dingtalk", 200, b"\xff", False),
    ],
)
def test_answer_tells_whether_the_message_was_taken(kind: str, status: int, answer: bytes, taken: bool) -> None:
    problem = forms.problem(make_channel(kind=kind), Answer(status, answer))
    assert (problem == "") is taken
    assert len(problem) < 300
