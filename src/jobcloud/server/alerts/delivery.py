"""One attempt to bring a message to a channel. It blocks for at most SECONDS, whatever the other side does.

A host is resolved once, and each of its addresses is checked as for HTTP jobs (see http_job.py): a name must not lead
to an address that means this machine. No redirect is followed, and no proxy is used. No problem contains a URL.
"""

from __future__ import annotations

import contextlib
import http.client
import smtplib
import socket
import ssl
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

import jobcloud
from jobcloud.executor import http_job
from jobcloud.model import AlertMessage, cut
from jobcloud.server.alerts import forms
from jobcloud.server.alerts.channels import Channel
from jobcloud.server.alerts.forms import Answer, Request
from jobcloud.server.deadline import Deadline

SECONDS = 20.0
_ANSWER_BYTES = 64 << 10
_AGENT = {"User-Agent": f"jobcloud/{jobcloud.__version__}", "Accept-Encoding": "identity", "Connection": "close"}
_MAX_RETRY_AFTER_S = 3_600


class Result(NamedTuple):
    """`problem` is "" if the channel has taken the message. `retry_ms`: the wait that it asks for (Retry-After)."""

    problem: str = ""
    retry_ms: int = 0


def deliver(
    channel: Channel, message_id: str, message: AlertMessage, cluster: str, now_ms: int, seconds: float = SECONDS
) -> Result:
    """Bring a message to a channel. Raises nothing."""
    deadline = Deadline(seconds)
    try:
        with deadline:
            if channel.kind == "email":
                return _mail(channel, message_id, message, cluster, deadline)
            answer = exchange(forms.request(channel, message_id, message, cluster, now_ms), deadline)
            return Result(forms.problem(channel, answer), answer.retry_after_s * 1_000)
    except (OSError, http.client.HTTPException, smtplib.SMTPException, http_job.Refused, ValueError) as error:
        if deadline.over:
            return Result(f"it has not answered within {seconds:g} s")
        # The texts of these errors come from the network and from the resolver. They contain no URL.
        return Result(cut(f"{type(error).__name__}: {error}", 300))


def exchange(request: Request, deadline: Deadline, method: str = "POST") -> Answer:
    """Raises OSError, HTTPException, Refused or ValueError."""
    parts = urlsplit(request.url)
    with contextlib.ExitStack() as stack:
        connection = http_job.connect(parts, deadline.left(SECONDS), watch=deadline.watch)
        stack.callback(connection.close)
        connection.sock.settimeout(deadline.left(SECONDS))
        connection.request(
            method, http_job.target(parts), body=request.body or None, headers={**_AGENT, **request.headers}
        )
        answer = connection.getresponse()
        stack.callback(answer.close)
        body = answer.read(_ANSWER_BYTES)
        deadline.check()
        wait = answer.getheader("Retry-After", "")
        seconds = min(int(wait), _MAX_RETRY_AFTER_S) if wait.isascii() and wait.isdigit() and len(wait) < 10 else 0
        return Answer(answer.status, body, seconds)


def _mail(channel: Channel, message_id: str, message: AlertMessage, cluster: str, deadline: Deadline) -> Result:
    """Send a mail. It counts as taken if the server takes it for at least one recipient."""
    context = ssl.create_default_context()
    port = channel.port or {"starttls": 587, "tls": 465, "off": 25}[channel.tls]
    with _Smtp(channel.host, port, deadline, context if channel.tls == "tls" else None) as server:
        if channel.tls == "starttls":
            server.starttls(context=context)
            if server.sock is not None:
                deadline.watch(server.sock)
        if channel.user:
            server.login(channel.user, channel.password.get_secret_value())
        server.send_message(forms.mail(channel, message_id, message, cluster))
    return Result()


class _Smtp(smtplib.SMTP):
    """A client whose socket the deadline watches from the start."""

    def __init__(self, host: str, port: int, deadline: Deadline, context: ssl.SSLContext | None) -> None:
        self._deadline, self._context = deadline, context
        super().__init__(host, port, timeout=deadline.left(SECONDS))

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        found = socket.create_connection((host, port), timeout)
        try:
            if self._context is not None:
                found = self._context.wrap_socket(found, server_hostname=host, do_handshake_on_connect=False)
            self._deadline.watch(found)
            if isinstance(found, ssl.SSLSocket):
                found.do_handshake()
        except BaseException:
            found.close()
            raise
        return found


Deliver = Callable[[Channel, str, AlertMessage, str, int], Result]
