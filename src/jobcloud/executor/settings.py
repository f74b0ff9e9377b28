"""The settings that the agent passes to an executor in the environment.

Source: Mesos documentation, "Executor HTTP API", section "Environment variables".
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Mapping, Optional

_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "secs": 1, "mins": 60, "hrs": 3600, "days": 86400, "weeks": 604800}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ns|us|ms|secs|mins|hrs|days|weeks)")


class SettingsError(Exception):
    """The environment is not that of a Mesos executor. The text names the variable."""


@dataclass(frozen=True)
class Settings:
    """Times are in seconds.

    `domain_socket`: the path of a socket to use instead of the TCP port; None if there is none.
    """

    framework_id: str
    executor_id: str
    host: str
    port: int
    sandbox: str
    tls: bool
    domain_socket: Optional[str]
    token: Optional[str] = field(repr=False)
    checkpoint: bool = False
    recovery_timeout_s: float = 900.0
    backoff_max_s: float = 2.0
    shutdown_grace_s: float = 5.0


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Raises SettingsError, which names the variable."""
    host, port = _endpoint(_required(environment, "MESOS_AGENT_ENDPOINT"))
    return Settings(
        framework_id=_required(environment, "MESOS_FRAMEWORK_ID"),
        executor_id=_required(environment, "MESOS_EXECUTOR_ID"),
        host=host,
        port=port,
        sandbox=os.path.realpath(environment.get("MESOS_SANDBOX") or environment.get("MESOS_DIRECTORY") or "."),
        tls=_flag(environment, "MESOS_SSL_ENABLED") or _flag(environment, "LIBPROCESS_SSL_ENABLED"),
        domain_socket=environment.get("MESOS_DOMAIN_SOCKET") or None,
        token=environment.get("MESOS_EXECUTOR_AUTHENTICATION_TOKEN") or None,
        checkpoint=_flag(environment, "MESOS_CHECKPOINT"),
        recovery_timeout_s=_duration(environment, "MESOS_RECOVERY_TIMEOUT", 900.0),
        backoff_max_s=_duration(environment, "MESOS_SUBSCRIPTION_BACKOFF_MAX", 2.0),
        shutdown_grace_s=_duration(environment, "MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD", 5.0),
    )


def _required(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name)
    if not value:
        raise SettingsError(f"{name} is not set: a Mesos agent starts this program as the command of an ExecutorInfo")
    return value


def _endpoint(text: str) -> "tuple[str, int]":
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise SettingsError(f"MESOS_AGENT_ENDPOINT is {text!r}, must be host:port")
    return host.strip("[]"), int(port)


def _flag(environment: Mapping[str, str], name: str) -> bool:
    """Whether the value means true. The agent always sets MESOS_CHECKPOINT, to "1" or to "0"."""
    return environment.get(name, "").strip().lower() in ("1", "true", "yes", "on")


def _duration(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name, "")
    if not text:
        return default
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise SettingsError(f"{name} is {text!r}, must be a Mesos duration such as 5secs")
    return float(match.group(1)) * _SECONDS[match.group(2)]
