"""The forms of messages: an AlertMessage becomes a request to a channel, and the answer a result. Pure functions.

Sources: the specification Standard Webhooks 1.0 for `webhook`; the pages of Slack (incoming webhooks), DingTalk (custom
robots), WeCom (group robots) and Feishu (custom bots). The last three answer with status 200 even if they refuse a
message. The code in the body counts.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any
from urllib.parse import urlencode

from jobcloud.config import team_of
from jobcloud.model import OF_TEAMS, Alert, AlertMessage, cut
from jobcloud.server.alerts.channels import Channel
from jobcloud.webhooks.signatures import standard_key

# The maximum number of bytes of a text. WeCom refuses longer texts, and Slack advises against them. DingTalk and Feishu
# limit the whole request to 20,000 bytes, and JSON may need two bytes for a byte of text.
_TEXT_BYTES = {"slack": 4_000, "dingtalk": 9_000, "wecom": 2_048, "feishu": 9_000}
_ANSWER_BYTES = 200
_JSON = {"Content-Type": "application/json; charset=utf-8"}


@dataclass(frozen=True, slots=True)
class Request:
    """A POST. The URL and the headers contain secrets."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes = b""
    retry_after_s: int = 0


def request(channel: Channel, message_id: str, message: AlertMessage, cluster: str, now_ms: int) -> Request:
    """The request that brings a message to a channel with a URL."""
    return _FORMS[channel.kind](channel, message_id, message, cluster, now_ms)


def problem(channel: Channel, answer: Answer) -> str:
    """Why a channel has not taken a message; "" if it has."""
    shown = cut(answer.body.decode(errors="replace"), _ANSWER_BYTES)
    if not 200 <= answer.status < 300:
        return f"it answered {answer.status}: {shown}"
    if channel.kind not in ("dingtalk", "wecom", "feishu"):
        return ""
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        found = None
    names = ("code", "StatusCode") if channel.kind == "feishu" else ("errcode",)
    codes = [found[name] for name in names if name in found] if isinstance(found, dict) else []
    return "" if codes and codes[0] == 0 else f"it answered {answer.status} with an error: {shown}"


def mail(channel: Channel, message_id: str, message: AlertMessage, cluster: str) -> EmailMessage:
    found = EmailMessage()
    found["From"], found["To"] = channel.sender, ", ".join(channel.to)
    found["Subject"] = title(message, cluster)
    found["Date"] = format_datetime(datetime.fromtimestamp(message.made_ms / 1000, UTC))
    found["Message-ID"] = f"<{message_id}.{cluster}@jobcloud.invalid>"
    found["Auto-Submitted"] = "auto-generated"
    found.set_content("\n\n".join(_lines(message)) + "\n")
    return found


def title(message: AlertMessage, cluster: str) -> str:
    ended = sum(bool(alert.closed_ms) for alert in message.alerts)
    parts = [(len(message.alerts) - ended, "alert"), (ended, "recovery"), (message.more, "more")]
    words = {"alert": "alerts", "recovery": "recoveries"}
    texts = [f"{number} {word if number == 1 else words.get(word, word)}" for number, word in parts if number]
    return f"{cluster}: {', '.join(texts)}"


def _lines(message: AlertMessage) -> list[str]:
    more = [f"and {message.more} further alerts: `jobcloud alerts` lists them"] if message.more else []
    return [_line(alert) for alert in message.alerts] + more


def _line(alert: Alert) -> str:
    owner = f" (owner {alert.owner})" if alert.owner else ""
    times = f", {alert.count} times" if alert.count > 1 else ""
    state = f"ENDED {_utc(alert.closed_ms)}, since" if alert.closed_ms else "OPEN since"
    return f"[{alert.condition}] {alert.subject}{owner}: {alert.text}\n{state} {_utc(alert.opened_ms)}{times}"


def _utc(instant: int) -> str:
    return f"{datetime.fromtimestamp(instant / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _text(message: AlertMessage, cluster: str, limit: int, escape: Callable[[str], str]) -> str:
    """The message as a text of at most `limit` bytes: whole alerts, and the number of those that have no room."""
    lines = [escape(line) for line in _lines(message)]
    head, room = escape(title(message, cluster)), limit - 60
    found = [head]
    used = len(head.encode())
    for number, line in enumerate(lines):
        size = len(line.encode()) + 2
        if used + size > room and number:
            found.append(f"… {len(lines) - number} more have no room here")
            break
        found.append(cut(line, room - used))
        used += size
    return "\n\n".join(found)


def _sign(key: bytes, text: bytes) -> str:
    return base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()


def _encoded(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _webhook(channel: Channel, message_id: str, message: AlertMessage, cluster: str, now_ms: int) -> Request:
    """The signed text is `ID.TIMESTAMP.BODY`. A secret that begins with `whsec_` is base64."""
    alerts = [_json(alert) for alert in message.alerts]
    data = {"cluster": cluster, "alerts": alerts, "more": message.more}
    body = _encoded({"type": "jobcloud.alerts", "timestamp": _iso(message.made_ms), "data": data})
    headers = {**_JSON, "webhook-id": message_id, "webhook-timestamp": str(now_ms // 1000)}
    if secret := channel.secret.get_secret_value():
        text = f"{message_id}.{now_ms // 1000}.".encode() + body
        headers["webhook-signature"] = f"v1,{_sign(standard_key(secret), text)}"
    return Request(channel.url.get_secret_value(), headers, body)


def _json(alert: Alert) -> dict[str, Any]:
    return {
        "condition": alert.condition,
        "subject": alert.subject,
        "team": team_of(alert.subject) if alert.condition in OF_TEAMS else "",
        "owner": alert.owner,
        "state": "closed" if alert.closed_ms else "open",
        "openedAt": _iso(alert.opened_ms),
        "closedAt": _iso(alert.closed_ms) if alert.closed_ms else None,
        "count": alert.count,
        "runId": alert.run,
        "text": alert.text,
    }


def _iso(instant: int) -> str:
    moment = datetime.fromtimestamp(instant // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{instant % 1000:03d}Z"


def _slack(channel: Channel, _id: str, message: AlertMessage, cluster: str, _now_ms: int) -> Request:
    text = _text(message, cluster, _TEXT_BYTES["slack"], _escape_slack)
    return Request(channel.url.get_secret_value(), _JSON, _encoded({"text": text}))


def _escape_slack(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _escape_tags(text: str) -> str:
    """A text without the tags by which WeCom and Feishu mention people."""
    return text.replace("<", "< ")


def _dingtalk(channel: Channel, _id: str, message: AlertMessage, cluster: str, now_ms: int) -> Request:
    """The signature is in the query. It covers the time in milliseconds and the secret."""
    url = channel.url.get_secret_value()
    if secret := channel.secret.get_secret_value():
        sign = _sign(secret.encode(), f"{now_ms}\n{secret}".encode())
        url += ("&" if "?" in url else "?") + urlencode({"timestamp": now_ms, "sign": sign})
    text = _text(message, cluster, _TEXT_BYTES["dingtalk"], str)
    return Request(url, _JSON, _encoded({"msgtype": "text", "text": {"content": text}}))


def _wecom(channel: Channel, _id: str, message: AlertMessage, cluster: str, _now_ms: int) -> Request:
    text = _text(message, cluster, _TEXT_BYTES["wecom"], _escape_tags)
    return Request(channel.url.get_secret_value(), _JSON, _encoded({"msgtype": "text", "text": {"content": text}}))


def _feishu(channel: Channel, _id: str, message: AlertMessage, cluster: str, now_ms: int) -> Request:
    """The signature is in the body: of an empty text, with the time in seconds and the secret as the key."""
    text = _text(message, cluster, _TEXT_BYTES["feishu"], _escape_tags)
    body: dict[str, Any] = {"msg_type": "text", "content": {"text": text}}
    if secret := channel.secret.get_secret_value():
        body |= {"timestamp": str(now_ms // 1000), "sign": _sign(f"{now_ms // 1000}\n{secret}".encode(), b"")}
    return Request(channel.url.get_secret_value(), _JSON, _encoded(body))


_FORMS: Mapping[str, Callable[[Channel, str, AlertMessage, str, int], Request]] = {
    "webhook": _webhook,
    "slack": _slack,
    "dingtalk": _dingtalk,
    "wecom": _wecom,
    "feishu": _feishu,
}
FORMS: Sequence[str] = tuple(_FORMS)
