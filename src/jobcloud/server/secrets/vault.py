"""Secrets in a server with Vault's HTTP API: the engine "KV version 2".

Source: HashiCorp, Vault HTTP API, "KV secrets engine - version 2", section "Read secret version", and "HTTP API",
sections "Authentication", "Namespaces" and "HTTP status codes".
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from pydantic_core import PydanticCustomError

from jobcloud.executor import http_job
from jobcloud.server.deadline import Deadline
from jobcloud.server.secrets.sources import MAX_BYTES, Missing, SourceFailed, checked
from jobcloud.server.settings import read_secret

_TRIES = 3
_FIRST_PAUSE_S = 0.2
# A value in JSON may take six bytes for each of its own; the rest of the answer is small.
_MAX_ANSWER = 6 * MAX_BYTES + (64 << 10)
# The server may answer later: too many requests, not yet consistent, sealed or failing.
_PASSING = frozenset({412, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class VaultOptions:
    """A secret is the field `field` of the entry `prefix/TEAM/NAME` in the engine at `mount`.

    `token_file` is read for each request, because agents of Vault renew it. `ca_file` is "" for the CAs of the
    system. All requests for one secret together take at most `timeout_s`.
    """

    url: str
    token_file: Path
    mount: str = "secret"
    prefix: str = "jobcloud"
    field: str = "value"
    namespace: str = ""
    ca_file: str = ""
    timeout_s: float = 10.0


class VaultSource:
    def __init__(self, options: VaultOptions, pause: Callable[[float], object] = time.sleep) -> None:
        self._options, self._pause = options, pause
        path = "/".join(part for part in (options.prefix, "{team}", "{name}") if part)
        self._path = f"/v1/{options.mount}/data/{path}"

    def read(self, team: str, name: str) -> bytes:
        deadline, problem = Deadline(self._options.timeout_s), ""
        with deadline:
            for number in range(_TRIES):
                try:
                    if number:
                        self._pause(deadline.left(_FIRST_PAUSE_S * 2**number))
                    status, body = self._get(team, name, deadline)
                except (OSError, http.client.HTTPException) as error:
                    if deadline.over:
                        raise SourceFailed(f"Vault: it does not answer within {deadline.seconds:g} s") from None
                    problem = f"it cannot be reached: {type(error).__name__}: {str(error)[:200]}"
                else:
                    if status not in _PASSING:
                        return self._value(name, status, body)
                    problem = f"it answers with status {status}"
        raise SourceFailed(f"Vault: {problem}")

    def _get(self, team: str, name: str, deadline: Deadline) -> tuple[int, bytes]:
        """Raises OSError, HTTPException or SourceFailed."""
        options = self._options
        try:
            token = read_secret(options.token_file)
        except PydanticCustomError as error:
            raise SourceFailed(f"Vault: the token: {error.message()}") from None
        parts = urlsplit(options.url)
        trust = ssl.create_default_context(cafile=options.ca_file or None) if parts.scheme == "https" else None
        headers = {"X-Vault-Token": token, "X-Vault-Request": "true", "Accept": "application/json"}
        if options.namespace:
            headers["X-Vault-Namespace"] = options.namespace
        limit_s = deadline.left(options.timeout_s)
        connection = http_job.connect(parts, limit_s, lambda host, address: None, deadline.watch, trust)
        try:
            connection.sock.settimeout(deadline.left(options.timeout_s))
            connection.request("GET", self._path.format(team=quote(team), name=quote(name)), headers=headers)
            answer = connection.getresponse()
            body = answer.read(_MAX_ANSWER + 1)
            deadline.check()
            return answer.status, body
        finally:
            connection.close()

    def _value(self, name: str, status: int, body: bytes) -> bytes:
        if status == 404:  # also the status of a deleted version
            raise Missing
        if status != 200:
            hint = {403: ": the token may not read it", 307: ": set secrets.vault_url to the active server"}
            raise SourceFailed(f"Vault: it answers with status {status} for {name}{hint.get(status, '')}")
        if len(body) > _MAX_ANSWER:
            raise SourceFailed(f"Vault: {name} is too large")
        try:
            value = json.loads(body)["data"]["data"][self._options.field]
        except (ValueError, LookupError, TypeError, RecursionError):
            # Without the original error, whose text may contain a part of the answer.
            raise SourceFailed(f"Vault: {name} has no field {self._options.field!r}") from None
        if not isinstance(value, str):
            raise SourceFailed(f"Vault: the field {self._options.field!r} of {name} is no text")
        try:
            return checked(name, value.encode())
        except UnicodeEncodeError:
            raise SourceFailed(f"Vault: {name} is not Unicode") from None
