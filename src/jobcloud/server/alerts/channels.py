"""The channels for alerts, from a TOML file that other users cannot read: URLs of robots and passwords are secrets.

No error and no answer of the API contains a value of this file, except the names of channels.
"""

from __future__ import annotations

import re
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic import model_validator as check
from pydantic_core import PydanticCustomError

from jobcloud.config import is_label
from jobcloud.errors import ConfigError
from jobcloud.model import Condition
from jobcloud.scheduler.state import AlertChannel
from jobcloud.server import settings
from jobcloud.server.urls import UrlPolicy

FIELD = "alerts.channels_file"
MAX_CHANNELS = 20
_MAX_BYTES = 256 << 10
_MAX_RECIPIENTS = 50
_DESCRIBED = "docs/alerts.md describes the file"
_ADDRESS = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,190}")

Texts = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=200)], ...], Field(max_length=100)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True)


class Channel(_Part):
    """A channel. All kinds but `email` have a URL. The secret signs the messages of `webhook`, `dingtalk`, `feishu`."""

    kind: Literal["webhook", "slack", "dingtalk", "wecom", "feishu", "email"]
    name: str = ""
    url: SecretStr = SecretStr("")
    secret: SecretStr = SecretStr("")
    conditions: Annotated[frozenset[Condition], Field(max_length=len(Condition))] = frozenset()
    teams: Texts = ()
    owners: Texts = ()
    host: str = Field(default="", max_length=255)
    port: int = Field(default=0, ge=0, le=65_535)
    tls: Literal["starttls", "tls", "off"] = "starttls"
    user: str = Field(default="", max_length=255)
    password: SecretStr = SecretStr("")
    sender: str = Field(default="", max_length=255)
    to: Annotated[tuple[str, ...], Field(max_length=_MAX_RECIPIENTS)] = ()

    @property
    def filter(self) -> AlertChannel:
        """The channel as the core knows it."""
        return AlertChannel(self.name, self.conditions, frozenset(self.teams), self.owners)

    @check(mode="after")
    def _complete(self) -> Channel:
        if self.kind == "email":
            _need(bool(self.host), "host", "is missing", "the name of the SMTP server")
            _need(bool(self.to), "to", "is missing", "a list of addresses")
            for field, address in (("sender", self.sender), *(("to", one) for one in self.to)):
                _need(bool(_ADDRESS.fullmatch(address)), field, "is not a mail address", "such as ops@example.org")
            secret_in_clear = self.tls == "off" and bool(self.user) and not settings.is_loopback(self.host)
            _need(not secret_in_clear, "tls", "would send the password in clear text", '"starttls" or "tls"')
            _need(
                bool(self.user) == bool(self.password.get_secret_value()),
                "user",
                "has no effect alone",
                "set user and password",
            )
            _need(not self.url.get_secret_value(), "url", "has no meaning for this kind", "leave it out")
        else:
            check_url(self.url.get_secret_value(), "url")
            _need(not (self.host or self.to or self.user), "host", "has no meaning for this kind", "leave it out")
        return self


class Heartbeat(_Part):
    """A URL that the leader calls in an interval while it is well. The service behind it reports silence."""

    url: SecretStr
    every: settings.Positive = timedelta(minutes=1)

    @check(mode="after")
    def _complete(self) -> Heartbeat:
        check_url(self.url.get_secret_value(), "url")
        _need(self.every >= timedelta(seconds=1), "every", "is out of range", "at least 1s")
        return self


class Channels(_Part):
    """The content of the file."""

    channels: dict[str, Channel] = Field(default_factory=dict, max_length=MAX_CHANNELS)
    heartbeat: Heartbeat | None = None


def check_url(url: str, field: str) -> None:
    """Raises ValueError, which names no part of the URL."""
    try:
        host = urlsplit(url).hostname or ""
        UrlPolicy((host,)).check(url, field, "https://HOST/PATH", "https://HOST/PATH")
    except (ConfigError, ValueError):
        raise ValueError(f"{field}: is not a URL; use https://HOST/PATH without user, password or fragment") from None


def load(path: Path) -> Channels:
    """The channels in a file. Raises ConfigError that names the field and shows no value."""
    try:
        content = settings.read_private(path, _MAX_BYTES + 1)
    except PydanticCustomError as error:
        raise ConfigError(str(error), field=FIELD, fix=(error.context or {}).get("fix", "")) from None
    if len(content) > _MAX_BYTES:
        raise ConfigError(f"{path} is too long", field=FIELD, fix=f"at most {_MAX_BYTES >> 10} KiB")
    try:
        found = Channels.model_validate(tomllib.loads(content.decode("utf-8-sig")))
    except ValidationError as error:
        raise _problem(path, error) from None
    except ValueError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}", field=FIELD, fix="see https://toml.io") from None
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply", field=FIELD, fix=_DESCRIBED) from None
    for name in found.channels:
        if not is_label(name):
            raise ConfigError(
                f"{name[:40]!r} cannot be the name of a channel", field=FIELD, fix="such as [channels.ops]"
            )
    named = {name: channel.model_copy(update={"name": name}) for name, channel in found.channels.items()}
    return Channels.model_construct(channels=named, heartbeat=found.heartbeat)


def _need(holds: bool, field: str, problem: str, fix: str) -> None:
    if not holds:
        raise ValueError(f"{field}: {problem}; use {fix}")


def _problem(path: Path, error: ValidationError) -> ConfigError:
    details: Any = error.errors(include_input=False, include_url=False, include_context=False)[0]
    where = ".".join(str(part)[:40] for part in details["loc"])
    text = str(details["msg"]).removeprefix("Value error, ")
    return ConfigError(f"{path}: {where}: {text}", field=FIELD, fix=_DESCRIBED)
