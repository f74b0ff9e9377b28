"""Attempts to send: by HTTP and by SMTP, to servers that work, refuse, hang or lie."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult
from tests.alert_kit import PATIENCE_S, Receiver, answer, make_channel

from jobcloud.model import Alert, AlertMessage, Condition
from jobcloud.server.alerts.channels import Channel
from jobcloud.server.alerts.delivery import Result, deliver

MESSAGE = AlertMessage("ops", 1_767_225_600_000, (Alert(Condition.RUN_DEAD, "report", 1_767_225_600_000, "broke"),))


def send(channel: Channel, seconds: float = PATIENCE_S) -> Result:
    return deliver(channel, "ops-1-7", MESSAGE, "prod", 1_767_225_600_000, seconds)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.close()


@pytest.mark.parametrize("kind", ["webhook", "slack"])
def test_message_is_posted(receiver: Receiver, kind: str) -> None:
    assert send(make_channel(kind=kind, url=receiver.url)) == Result()
    assert receiver.take().headers["content-type"].startswith("application/json")


def test_refusal_tells_how_long_to_wait(receiver: Receiver) -> None:
    receiver.answers = [answer(429, b"slow down", {"Retry-After": "30"}), answer(503, b"", {"Retry-After": "9" * 30})]
    assert send(make_channel(url=receiver.url)) == Result("it answered 429: slow down", 30_000)
    assert send(make_channel(url=receiver.url)).retry_ms == 0


def test_redirect_is_not_followed(receiver: Receiver) -> None:
    receiver.answers = [answer(302, b"", {"Location": "http://169.254.169.254/"})]
    assert send(make_channel(url=receiver.url)).problem == "it answered 302: "
    receiver.take()
    assert receiver.got.empty()


def test_code_in_the_body_counts(receiver: Receiver) -> None:
    receiver.answers = [answer(200, b'{"errcode":310000,"errmsg":"sign not match"}'), answer(200, b'{"errcode":0}')]
    assert "sign not match" in send(make_channel(kind="dingtalk", url=receiver.url)).problem
    assert send(make_channel(kind="dingtalk", url=receiver.url)) == Result()


def test_server_that_answers_byte_by_byte_is_left_after_the_time_limit(receiver: Receiver) -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while not receiver.released.wait(0.02):
                handler.wfile.write(b"x")
                handler.wfile.flush()
        except OSError:
            pass

    receiver.answers = [drip]
    assert send(make_channel(kind="wecom", url=receiver.url), 0.3).problem == "it has not answered within 0.3 s"


def test_name_that_leads_to_this_machine_is_refused(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    port = receiver.url.rpartition(":")[2].partition("/")[0]
    monkeypatch.setattr("socket.getaddrinfo", lambda *args, **more: [(2, 1, 6, "", ("127.0.0.1", int(port)))])
    found = send(make_channel(url=f"http://hooks.example.org:{port}/secret-path"))
    assert "not the same machine everywhere" in found.problem
    assert "secret-path" not in found.problem
    assert receiver.got.empty()


def test_problem_contains_no_part_of_the_url() -> None:
    found = send(make_channel(url="http://127.0.0.1:1/secret-path?key=secret"))
    assert "Refused" in found.problem
    assert "secret" not in found.problem


class Mailbox:
    """Keeps the mails. `refuse` is the answer to each of them, if it is not empty."""

    def __init__(self) -> None:
        self.got: list[tuple[list[str], Message]] = []
        self.refuse = ""

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.refuse or not session.authenticated:
            return self.refuse or "530 5.7.0 log in first"
        self.got.append((list(envelope.rcpt_tos), message_from_bytes(envelope.content)))
        return "250 OK"


class LoginController(Controller):
    """Wants the password "secret" of ops."""

    def factory(self) -> SMTP:
        def check(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
            right = (data.login, data.password) == (b"ops", b"secret")
            return AuthResult(success=right, handled=False)

        return SMTP(self.handler, authenticator=check, auth_require_tls=False)


@pytest.fixture
def mailbox() -> Iterator[tuple[Mailbox, int]]:
    box = Mailbox()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    controller = LoginController(box, hostname="127.0.0.1", port=port)
    controller.start()
    yield box, port
    controller.stop()


def mail_channel(port: int, **fields: Any) -> Channel:
    given: dict[str, Any] = {"host": "127.0.0.1", "port": port, "tls": "off", "user": "ops", "password": "secret"}
    to = ["alice@example.org", "bob@example.org"]
    return make_channel(kind="email", sender="jobcloud@example.org", to=to, **(given | fields))


def test_mail_is_sent_once_to_all_recipients(mailbox: tuple[Mailbox, int]) -> None:
    box, port = mailbox
    assert send(mail_channel(port)) == Result()
    ((recipients, mail),) = box.got
    assert recipients == ["alice@example.org", "bob@example.org"]
    assert mail["Message-ID"] == "<ops-1-7.prod@jobcloud.invalid>"
    assert "[run_dead] report: broke" in str(mail.get_payload())


@pytest.mark.parametrize("refusal", ["450 4.2.1 try later", "554 5.7.1 spam"])
def test_mail_that_the_server_refuses_is_a_problem(mailbox: tuple[Mailbox, int], refusal: str) -> None:
    box, port = mailbox
    box.refuse = refusal
    assert refusal.split(" ", 2)[2] in send(mail_channel(port)).problem
    assert not box.got


def test_wrong_password_is_a_problem_and_not_shown(mailbox: tuple[Mailbox, int]) -> None:
    _, port = mailbox
    found = send(mail_channel(port, password="wrong-password"))
    assert "SMTPAuthenticationError" in found.problem
    assert "wrong-password" not in found.problem


def test_mail_server_without_tls_gets_no_mail_if_tls_is_wanted(mailbox: tuple[Mailbox, int]) -> None:
    box, port = mailbox
    assert "STARTTLS" in send(mail_channel(port, tls="starttls")).problem
    assert send(mail_channel(port, tls="tls")).problem
    assert not box.got


def test_mail_server_that_says_nothing_is_left_after_the_time_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = send(mail_channel(silent.getsockname()[1]), 0.3)
    assert found.problem == "it has not answered within 0.3 s"
