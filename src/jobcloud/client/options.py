"""What the command line hands to the server's side. None stands for "not given": settings decide then."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SchedulerOptions:
    """`jobcloud scheduler`. `mesos` is `host:port` of a master, or `zk://host:port,…/path`."""

    mesos: str | None = None
    data: Path | None = None
    config: Path | None = None
    host: str | None = None
    port: int | None = None
    role: str | None = None
    principal: str | None = None
    secret_file: Path | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None


@dataclass(frozen=True, slots=True)
class DevOptions:
    """`jobcloud dev`. Without `data` the state is kept in memory."""

    demo: bool = False
    agents: int = 2
    data: Path | None = None
    port: int = 8899
