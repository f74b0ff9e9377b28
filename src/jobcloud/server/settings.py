"""Settings: one frozen object from a TOML file, the environment and flags.

The environment overrides the file, and flags override both. The key `http.port` is `port` under `[http]` in the file,
and JOBCLOUD_HTTP_PORT in the environment. Durations and sizes have a unit ("5s", "1h30m", "256MiB"). The items of lists
in the environment are separated by commas. Secrets come from files that other users cannot read. docs/settings.md lists
every key.
"""

from __future__ import annotations

import contextlib
import difflib
import ipaddress
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ByteSize, ConfigDict, Field, ValidationError
from pydantic import model_validator as check
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from jobcloud.access.verbs import Verb
from jobcloud.config import DEFAULT_CLUSTER, LABEL_RULE, is_label
from jobcloud.cron import CronError, find_zone
from jobcloud.durations import UNITS_MS, parse_ms
from jobcloud.errors import ConfigError

# A role of Mesos other than "*". Mesos may refuse more.
_ROLE = re.compile(r"(?![*.-])[!-.0-~]{1,100}(/(?![*.-])[!-.0-~]{1,100}){0,10}")
_MASTER = re.compile(r"(zk://[^\s/]+(/[^\s]*)?|[^\s/,@]+:\d{1,5}(,[^\s/,@]+:\d{1,5})*)")
_SERVERS = re.compile(r"[^\s/,@]+:\d{1,5}(,[^\s/,@]+:\d{1,5})*")
_URL = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9a-fA-F:]+\])(:\d{1,5})?")
_PORT = re.compile(r":(\d{1,9})(?=,|$)")
_NAMESPACE = re.compile(r"[A-Za-z0-9_-]{1,100}(/[A-Za-z0-9_-]{1,100}){0,9}")
_MAX_SECRET = 4_096
_LEAST_KEY = 32
_MOST_URLS, _LONGEST_URL = 20, 260
# Each executor's description has a copy of the CAs.
_MAX_AUTHORITIES = 16 << 10
_LONGEST = timedelta(days=366)
# The parsed file, passed by `load` to the sources of Settings.
_file_content: ContextVar[dict[str, Any]] = ContextVar("_file_content", default={})  # noqa: B039 - never changed


def _wrong(problem: str, fix: str, *, key: str = "") -> PydanticCustomError:
    """An error with a fix. `key` is the wrong field of the section, if the validator checks several fields."""
    return PydanticCustomError("setting", "{problem}", {"problem": problem, "fix": fix, "key": key})


def _duration(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    try:
        return timedelta(milliseconds=parse_ms(str(value), "", bare=False))
    except ConfigError as error:
        raise _wrong(error.problem, error.fix) from None
    except OverflowError:
        raise _wrong(f"is out of range: at most {_text(_LONGEST)}", "") from None


def _between(low: timedelta, high: timedelta) -> AfterValidator:
    """A check that a duration is in a range."""

    def check_range(value: timedelta) -> timedelta:
        if not low <= value <= high:
            raise _wrong(f"is out of range: at {f'least {_text(low)}' if value < low else f'most {_text(high)}'}", "")
        return value

    return AfterValidator(check_range)


def _text(duration: timedelta) -> str:
    """A duration as users write it."""
    whole = milliseconds(duration)
    unit = next(unit for unit in ("d", "h", "m", "s", "ms") if whole % UNITS_MS[unit] == 0)
    return f"{whole // UNITS_MS[unit]}{unit}"


def _check_ports(addresses: str, key: str) -> None:
    """Raises PydanticCustomError if one of the addresses `HOST:PORT,HOST:PORT` has a port out of range."""
    for port in _PORT.findall(addresses.removeprefix("zk://").partition("/")[0]):
        if not 0 < int(port) <= 65_535:
            raise _wrong(f"port {port} is out of range", "a port from 1 to 65535", key=key)


def _words(value: object) -> object:
    return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value


def _networks(networks: tuple[str, ...]) -> tuple[str, ...]:
    for network in networks:
        try:
            ipaddress.ip_network(network)
        except ValueError:
            raise _wrong(
                f"{network[:80]!r} is not a network", 'an address and a length, such as "10.0.0.0/8"'
            ) from None
    return networks


def _secret_file(path: Path) -> Path:
    read_secret(path)
    return path


def _readable_file(path: Path) -> Path:
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise _wrong(
            f"{path} cannot be read: {error.strerror}", "the path of a file that this process can read"
        ) from None


def read_private(path: Path, limit: int) -> bytes:
    """The first `limit` bytes of a file. Raises PydanticCustomError if other users can read it, or if nobody can.

    A pipe or a device is refused at once: to read it could block.
    """
    fix = "the path of a file that contains the secret"
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise _wrong(f"{path} is not a regular file", fix)
            content = file.read(limit)
    except OSError as error:
        raise _wrong(f"{path} cannot be read: {error.strerror}", fix) from None
    if stat.S_IMODE(mode) & 0o007:
        raise _wrong(f"{path} can be read by every user of this machine", f"run: chmod 600 {path}")
    return content


def _private_file(path: Path) -> Path:
    read_private(path, 1)
    return path


def read_secret(path: Path) -> str:
    """The secret in a file of one line.

    Raises PydanticCustomError if the file cannot be read, can be read by other users, or contains no secret.
    """
    content = read_private(path, _MAX_SECRET + 1)
    secret = content.strip()
    if not secret or len(content) > _MAX_SECRET or not re.fullmatch(rb"[!-~]+", secret):
        raise _wrong(f"{path} contains no secret", "write the secret there as one line of ASCII without spaces")
    return secret.decode()


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Positive = Annotated[Duration, _between(timedelta(milliseconds=1), _LONGEST)]
Port = Annotated[int, Field(ge=0, le=65_535)]
Connections = Annotated[int, Field(ge=10, le=100_000)]
Patience = Annotated[Duration, Field(ge=timedelta(seconds=1), le=timedelta(minutes=10))]
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
SecretFile = Annotated[Path, AfterValidator(_secret_file)]
ReadableFile = Annotated[Path, AfterValidator(_readable_file)]
PrivateFile = Annotated[Path, AfterValidator(_private_file)]


def milliseconds(duration: timedelta) -> int:
    return duration // timedelta(milliseconds=1)


def is_every_address(host: str) -> bool:
    """Whether `host` stands for all addresses of the machine, such as 0.0.0.0. Then it is no name for clients."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_unspecified
    return False


def is_loopback(host: str) -> bool:
    """Whether `host` is reachable from this machine only. A name other than localhost counts as another machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def is_safe_url(url: str) -> bool:
    """Whether a URL is https, or http on loopback, without a user or a fragment, and of at most 2,000 characters."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        return False
    if not host or "@" in parts.netloc or parts.fragment or not re.fullmatch(r"[!-~]{1,2000}", url):
        return False
    if any(mark in url for mark in '"<>\\'):
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Mesos(_Section):
    """How to reach Mesos, and this framework's identity there."""

    master: str = Field(default="", description="HOST:PORT, several separated by commas, or zk://HOST:PORT/PATH")
    principal: str = Field(default="", description="the principal to authenticate as")
    secret_file: SecretFile | None = Field(default=None, description="a file that contains the principal's secret")
    roles: Words = Field(
        default=("*",), min_length=1, description='the roles to receive offers for, e.g. "batch,spare"'
    )
    team_roles: Words = Field(
        default=(),
        max_length=1_000,
        description='roles of teams, e.g. "billing=finance,web=web": a team gets the offers of its role and no others',
    )
    user: str = Field(
        default="", description="the user that executors run as on the agents; empty: the user of the scheduler"
    )
    failover_timeout: Positive = Field(
        default=timedelta(weeks=1), description="how long Mesos keeps tasks running without a scheduler, e.g. 1w"
    )
    tls: bool = Field(default=False, description="true to use TLS to the master")
    tls_ca_file: ReadableFile | None = Field(default=None, description="a PEM file with the CAs to trust")
    tls_cert_file: ReadableFile | None = Field(default=None, description="a PEM file with our own certificate")
    tls_key_file: PrivateFile | None = Field(default=None, description="a PEM file with the key of our certificate")
    zookeeper_auth_file: SecretFile | None = Field(
        default=None, description="a file that contains user:password for ZooKeeper"
    )

    @check(mode="after")
    def _fits_together(self) -> Mesos:
        if self.master and not _MASTER.fullmatch(self.master):
            raise _wrong(
                f"{self.master[:80]!r} is not the address of a master",
                "HOST:PORT or zk://HOST:PORT/PATH; passwords belong in files",
                key="master",
            )
        _check_ports(self.master, "master")
        if "@" in self.master:
            raise _wrong("contains a password", "move it to the file of mesos.zookeeper_auth_file", key="master")
        if bool(self.principal) != bool(self.secret_file):
            raise _wrong("has no effect alone", "set both mesos.principal and mesos.secret_file", key="principal")
        if (self.tls_ca_file or self.tls_cert_file or self.tls_key_file) and not self.tls:
            raise _wrong("is off, but its files are set", "set mesos.tls to true", key="tls")
        if bool(self.tls_cert_file) != bool(self.tls_key_file):
            raise _wrong(
                "has no effect alone", "set both mesos.tls_cert_file and mesos.tls_key_file", key="tls_cert_file"
            )
        return self

    @check(mode="after")
    def _roles_are_of_teams_or_of_all(self) -> Mesos:
        for pair in self.team_roles:
            team, equals, role = pair.partition("=")
            if not equals or not is_label(team) or not _ROLE.fullmatch(role):
                fix = "TEAM=ROLE, such as billing=finance"
                raise _wrong(f"{pair[:80]!r} is not a team with a Mesos role", fix, key="team_roles")
            if role in self.roles:
                raise _wrong(
                    f"role {role[:80]!r} is also in mesos.roles, whose offers are for all teams without a role",
                    "another role, or remove it from mesos.roles",
                    key="team_roles",
                )
        if len(self.role_of_team) < len(self.team_roles):
            raise _wrong("names a team twice", "one role for each team", key="team_roles")
        return self

    @property
    def role_of_team(self) -> dict[str, str]:
        """Team → its role, for the teams that have one."""
        return {team: role for team, _, role in (pair.partition("=") for pair in self.team_roles)}

    @property
    def subscribed_roles(self) -> tuple[str, ...]:
        """The roles of the framework: those for all teams, then those of teams."""
        return (*self.roles, *sorted(set(self.role_of_team.values())))

    @property
    def secret(self) -> str:
        return read_secret(self.secret_file) if self.secret_file else ""

    @property
    def zookeeper_auth(self) -> str:
        return read_secret(self.zookeeper_auth_file) if self.zookeeper_auth_file else ""


class ZooKeeper(_Section):
    """State and leader election in ZooKeeper, for a group of schedulers of which one leads."""

    hosts: str = Field(default="", description="HOST:PORT, several separated by commas; empty: no ZooKeeper")
    namespace: str = Field(default="jobcloud", description="the node that contains all state, e.g. jobcloud")
    auth_file: SecretFile | None = Field(default=None, description="a file that contains user:password (digest)")
    open_tree: bool = Field(default=False, description="true to allow state that every client of ZooKeeper can change")
    session_timeout: Annotated[Duration, _between(timedelta(seconds=1), timedelta(minutes=1))] = Field(
        default=timedelta(seconds=10), description="how long to wait for a silent leader, 1s to 1m"
    )
    tls: bool = Field(default=False, description="true to use TLS to ZooKeeper")
    tls_ca_file: ReadableFile | None = Field(default=None, description="a PEM file with the CAs to trust")
    tls_cert_file: ReadableFile | None = Field(default=None, description="a PEM file with our own certificate")
    tls_key_file: PrivateFile | None = Field(default=None, description="a PEM file with the key of our certificate")

    @check(mode="after")
    def _usable(self) -> ZooKeeper:
        if "@" in self.hosts:
            raise _wrong("contains a password", "move it to the file of zookeeper.auth_file", key="hosts")
        if self.hosts and not _SERVERS.fullmatch(self.hosts):
            raise _wrong(f"{self.hosts[:80]!r} is not a list of servers", "HOST:PORT,HOST:PORT", key="hosts")
        _check_ports(self.hosts, "hosts")
        if not _NAMESPACE.fullmatch(self.namespace) or self.namespace.split("/")[0] == "zookeeper":
            raise _wrong(
                f"{self.namespace[:80]!r} is not a valid namespace",
                "names of letters, digits, - and _, separated by /",
                key="namespace",
            )
        if self.auth_file and not re.fullmatch(r"[^:]+:.+", read_secret(self.auth_file)):
            raise _wrong("contains no user:password", "one line, USER:PASSWORD", key="auth_file")
        return self

    @check(mode="after")
    def _guarded(self) -> ZooKeeper:
        local = all(is_loopback(host.rpartition(":")[0]) for host in self.hosts.split(","))
        if self.hosts and not local and not self.auth_file and not self.open_tree:
            raise _wrong(
                "is required: anyone who can change the state decides which code runs on the agents",
                "name a file that contains user:password, or set zookeeper.open_tree to true",
                key="auth_file",
            )
        if (self.tls_ca_file or self.tls_cert_file or self.tls_key_file) and not self.tls:
            raise _wrong("is off, but its files are set", "set zookeeper.tls to true", key="tls")
        if bool(self.tls_cert_file) != bool(self.tls_key_file):
            raise _wrong(
                "has no effect alone",
                "set both zookeeper.tls_cert_file and zookeeper.tls_key_file",
                key="tls_cert_file",
            )
        return self

    @property
    def auth(self) -> str:
        return read_secret(self.auth_file) if self.auth_file else ""


class Etcd(_Section):
    """State and leader election in etcd, for a group of schedulers of which one leads."""

    hosts: str = Field(default="", description="HOST:PORT, several separated by commas; empty: no etcd")
    prefix: str = Field(default="jobcloud", description="the beginning of all keys, without the slashes around it")
    auth_file: SecretFile | None = Field(default=None, description="a file that contains user:password")
    open_keys: bool = Field(default=False, description="true to allow state that every client of etcd can change")
    session_timeout: Annotated[Duration, _between(timedelta(seconds=1), timedelta(minutes=1))] = Field(
        default=timedelta(seconds=10), description="how long to wait for a silent leader, 1s to 1m"
    )
    tls: bool = Field(default=False, description="true to use TLS to etcd")
    tls_ca_file: ReadableFile | None = Field(default=None, description="a PEM file with the CAs to trust")
    tls_cert_file: ReadableFile | None = Field(default=None, description="a PEM file with our own certificate")
    tls_key_file: PrivateFile | None = Field(default=None, description="a PEM file with the key of our certificate")

    @check(mode="after")
    def _usable(self) -> Etcd:
        if "@" in self.hosts:
            raise _wrong("contains a password", "move it to the file of etcd.auth_file", key="hosts")
        if self.hosts and not _SERVERS.fullmatch(self.hosts):
            raise _wrong(f"{self.hosts[:80]!r} is not a list of servers", "HOST:PORT,HOST:PORT", key="hosts")
        _check_ports(self.hosts, "hosts")
        if not _NAMESPACE.fullmatch(self.prefix):
            problem = f"{self.prefix[:80]!r} is not a valid prefix"
            raise _wrong(problem, "names of letters, digits, - and _, separated by /", key="prefix")
        if self.auth_file and not re.fullmatch(r"[^:]+:.+", read_secret(self.auth_file)):
            raise _wrong("contains no user:password", "one line, USER:PASSWORD", key="auth_file")
        return self

    @check(mode="after")
    def _guarded(self) -> Etcd:
        local = all(is_loopback(host.rpartition(":")[0]) for host in self.hosts.split(","))
        if self.hosts and not local and not self.auth_file and not self.tls_cert_file and not self.open_keys:
            raise _wrong(
                "is required: anyone who can change the state decides which code runs on the agents",
                "name a file that contains user:password, set etcd.tls_cert_file, or set etcd.open_keys to true",
                key="auth_file",
            )
        if (self.tls_ca_file or self.tls_cert_file or self.tls_key_file) and not self.tls:
            raise _wrong("is off, but its files are set", "set etcd.tls to true", key="tls")
        if bool(self.tls_cert_file) != bool(self.tls_key_file):
            raise _wrong(
                "has no effect alone",
                "set both etcd.tls_cert_file and etcd.tls_key_file",
                key="tls_cert_file",
            )
        return self

    @property
    def auth(self) -> str:
        return read_secret(self.auth_file) if self.auth_file else ""


def _cluster_name(name: str) -> str:
    if not is_label(name):
        raise _wrong(f"{name[:80]!r} is not a valid name of a cluster", LABEL_RULE)
    return name


class Cluster(_Section):
    """This cluster, among others of the same users."""

    name: Annotated[str, AfterValidator(_cluster_name)] = Field(
        default=DEFAULT_CLUSTER, description="the end of the ids of new runs; give each cluster a name of its own"
    )


def _check_pair(section: Http | ArtifactServer, name: str) -> None:
    """Raises PydanticCustomError if a certificate has no key, or the other way round."""
    if bool(section.tls_cert_file) != bool(section.tls_key_file):
        fix = f"set both {name}.tls_cert_file and {name}.tls_key_file"
        raise _wrong("has no effect alone", fix, key="tls_cert_file" if section.tls_cert_file else "tls_key_file")


class Http(_Section):
    """The REST API."""

    host: str = Field(default="127.0.0.1", min_length=1, description="the address to listen on")
    port: Port = Field(default=8899, description="a port, 0 for any free one")
    token_file: SecretFile | None = Field(default=None, description="a file that contains the token callers must send")
    hosts: Words = Field(
        default=(),
        description="names by which clients call the API, in addition to http.host, http.advertise and loopback names",
    )
    advertise: str = Field(
        default="",
        description="the URL at which other schedulers reach this API while it leads, such as http://sched-1:8899; "
        "empty: http.host or the first of http.hosts, and http.port",
    )
    origins: Words = Field(
        default=(), description="origins of web pages that may send changes, e.g. https://ops.example.org"
    )
    tls: Literal["auto", "by-proxy", "off"] = Field(
        default="auto",
        description='"auto": TLS if http.tls_cert_file is set; "by-proxy" if a proxy in front of the API ends TLS; '
        '"off" to accept that tokens travel in clear text',
    )
    tls_cert_file: ReadableFile | None = Field(
        default=None, description="a PEM file with the certificate of the API and its intermediate CAs"
    )
    tls_key_file: PrivateFile | None = Field(default=None, description="a PEM file with the key of this certificate")
    tls_ca_file: ReadableFile | None = Field(
        default=None,
        description="a PEM file with the CAs of the APIs of all schedulers, for standbys and for clients on "
        "this machine; empty: the CAs of the system",
    )
    hsts: Annotated[Duration, _between(timedelta(0), timedelta(days=730))] = Field(
        default=timedelta(days=365),
        description="how long browsers use only https for every port of this host, 0s to 730d; 0s: no such header",
    )
    client_certificates: Literal["off", "optional", "required"] = Field(
        default="off", description="whether clients may, or must, send a certificate of http.client_ca_file"
    )
    client_ca_file: ReadableFile | None = Field(
        default=None, description="a PEM file with the CAs of clients' certificates"
    )
    client_crl_file: ReadableFile | None = Field(
        default=None, description="a PEM file with the certificates that these CAs have revoked"
    )
    client_certificate_name: Literal["cn", "email", "dns", "uri"] = Field(
        default="cn", description="the part of a client's certificate that names the client: cn, email, dns or uri"
    )
    connections: Connections = Field(default=1_000, description="maximum number of connections, 10 to 100000")
    connections_per_address: Connections = Field(
        default=400,
        description="maximum number of connections from one IPv4 address or IPv6 /64 network; a proxy is one address",
    )
    head_timeout: Patience = Field(
        default=timedelta(seconds=10), description="how long the head of a request may take, 1s to 10m"
    )
    stall_timeout: Patience = Field(
        default=timedelta(seconds=30), description="how long a client may take no data of an answer, 1s to 10m"
    )

    @property
    def names(self) -> tuple[str, ...]:
        """The names by which clients may call the API, in addition to loopback names."""
        advertised = filter(None, [urlsplit(self.advertise).hostname])
        return (*(() if is_every_address(self.host) else (self.host,)), *self.hosts, *advertised)

    @property
    def advertised(self) -> str:
        """The name by which other machines find this scheduler."""
        return next(iter(self.names), self.local)

    @property
    def local(self) -> str:
        """The name by which clients on this machine find this scheduler."""
        if not is_every_address(self.host):
            return self.host
        return "::1" if ":" in self.host else "127.0.0.1"

    @check(mode="after")
    def _reachable(self) -> Http:
        if self.advertise and not _URL.fullmatch(self.advertise):
            problem = f"{self.advertise[:80]!r} is not the URL of a server"
            raise _wrong(problem, "http://NAME:PORT or https://NAME:PORT, without a path", key="advertise")
        if self.tls_cert_file and self.advertise.startswith("http://"):
            raise _wrong("is http, but the API has TLS", "https://NAME:PORT", key="advertise")
        return self

    @check(mode="after")
    def _tls(self) -> Http:
        _check_pair(self, "http")
        if self.tls != "auto" and self.tls_cert_file:
            raise _wrong(f'is "{self.tls}", but http.tls_cert_file is set', "remove one of the two", key="tls")
        if self.client_certificates != "off" and not (self.tls_cert_file and self.client_ca_file):
            raise _wrong(
                "needs TLS and CAs", "set http.tls_cert_file and http.client_ca_file", key="client_certificates"
            )
        for name in ("client_ca_file", "client_crl_file"):
            if getattr(self, name) and self.client_certificates == "off":
                raise _wrong("has no effect", "set http.client_certificates to optional or required", key=name)
        return self

    @check(mode="after")
    def _guarded(self) -> Http:
        if not self.token_file and self.client_certificates == "off" and not is_loopback(self.host):
            raise _wrong(
                f"{self.host!r} can be reached from other machines, but callers need not prove who they are",
                "make a token, and name its file. Or listen on 127.0.0.1.\n"
                "  (umask 077; openssl rand -hex 32 > api.token)\n"
                "  jobcloud scheduler --token-file api.token …",
                key="host",
            )
        return self

    @property
    def secure(self) -> bool:
        """Whether browsers reach this server over TLS only."""
        return self.tls_cert_file is not None or self.tls == "by-proxy"

    @property
    def clear_text(self) -> bool:
        """Whether tokens travel in clear text to other machines, and nobody has accepted that."""
        return self.tls == "auto" and not self.tls_cert_file and not is_loopback(self.host)

    @property
    def token(self) -> str:
        return read_secret(self.token_file) if self.token_file else ""


def _authorities(path: Path) -> Path:
    _readable_file(path)
    content = path.read_bytes()[: _MAX_AUTHORITIES + 1]
    if len(content) > _MAX_AUTHORITIES:
        fix = "only the CA of artifacts.tls_cert_file: each executor's description has a copy"
        raise _wrong(f"{path} is larger than {_MAX_AUTHORITIES} bytes", fix)
    if b"-----BEGIN CERTIFICATE-----" not in content or not content.isascii():
        raise _wrong(f"{path} contains no certificate", "a PEM file with the CA of artifacts.tls_cert_file")
    return path


class ArtifactServer(_Section):
    """The server from which agents fetch packages and the executor by content hash, and executors their secrets."""

    host: str = Field(default="127.0.0.1", min_length=1, description="the address to listen on")
    port: Port = Field(default=8898, description="a port, 0 for any free one")
    advertise: str = Field(
        default="", description="the name under which agents reach this machine; empty: artifacts.host"
    )
    connections: Connections = Field(default=1_000, description="maximum number of connections, 10 to 100000")
    connections_per_address: Connections = Field(
        default=200, description="maximum number of connections from one IPv4 address or IPv6 /64 network"
    )
    tls_cert_file: ReadableFile | None = Field(
        default=None, description="a PEM file with a certificate for artifacts.advertise; it may be that of the API"
    )
    tls_key_file: PrivateFile | None = Field(default=None, description="a PEM file with the key of this certificate")
    tls_ca_file: Annotated[Path, AfterValidator(_authorities)] | None = Field(
        default=None,
        description="a PEM file with the CA of this certificate, and of those at secrets.urls, which is sent to "
        "agents; empty: agents trust the CAs of their system",
    )

    @property
    def authorities(self) -> str:
        """The CAs that agents trust, in PEM; "": those of their system."""
        return self.tls_ca_file.read_text("ascii") if self.tls_ca_file else ""

    @check(mode="after")
    def _tls(self) -> ArtifactServer:
        _check_pair(self, "artifacts")
        return self

    @check(mode="after")
    def _reachable(self) -> ArtifactServer:
        if not self.advertise and is_every_address(self.host):
            raise _wrong(
                "is required if artifacts.host stands for all addresses",
                "set artifacts.advertise to the name under which agents reach this machine",
                key="advertise",
            )
        return self


class Scheduling(_Section):
    """Timing and limits of the scheduler."""

    offer_hold: Positive = Field(default=timedelta(seconds=5), description="how long unused offers are held, e.g. 5s")
    decline_refuse: Positive = Field(
        default=timedelta(seconds=5), description="how long declined resources are not offered again, e.g. 5s"
    )
    misfire_threshold: Positive = Field(
        default=timedelta(seconds=5), description="how late a firing may be without counting as missed, e.g. 5s"
    )
    reconcile_interval: Positive = Field(
        default=timedelta(minutes=15), description="how often all tasks are reconciled with Mesos, e.g. 15m"
    )
    history: int = Field(
        default=50, ge=1, le=10_000, description="ended runs kept per job and per workflow, 1 to 10000"
    )
    coalesce: Annotated[Duration, _between(timedelta(0), timedelta(seconds=1))] = Field(
        default=timedelta(milliseconds=3),
        description="how long events gather before one write, 0ms to 1s; under load up to seven times as long",
    )


_PREFIX = re.compile(r"(?!JOBCLOUD_)[A-Z][A-Z0-9_]{0,98}_")
_VAULT_PATH = re.compile(r"[A-Za-z0-9_-]{1,100}(/[A-Za-z0-9_-]{1,100}){0,9}")


def secure(url: str) -> bool:
    """Whether an http(s) URL uses TLS, or stays on this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or is_loopback(parts.hostname or "")


class Secrets(_Section):
    """The source of the secrets of jobs: at most one of a directory, the environment, and a server with Vault's API."""

    directory: Path | None = Field(
        default=None, description="a directory with a file TEAM/NAME for each secret, closed to other users"
    )
    environment_prefix: str = Field(
        default="", description="the beginning of the variables that hold secrets: with APP_, APP_TEAM__NAME"
    )
    vault_url: str = Field(
        default="", description="the URL of a server with Vault's HTTP API, such as https://vault.intra:8200"
    )
    vault_mount: str = Field(default="secret", description="where its engine KV version 2 is mounted")
    vault_prefix: str = Field(default="jobcloud", description="the path before TEAM/NAME in that engine; may be empty")
    vault_field: str = Field(default="value", min_length=1, max_length=100, description="the field with the value")
    vault_namespace: str = Field(default="", description="the namespace of the engine; empty: none")
    vault_token_file: SecretFile | None = Field(
        default=None, description="a file with the token for it; read for each request, so it may be renewed"
    )
    vault_ca_file: ReadableFile | None = Field(default=None, description="a PEM file with the CAs to trust")
    vault_timeout: Annotated[Duration, _between(timedelta(milliseconds=100), timedelta(minutes=1))] = Field(
        default=timedelta(seconds=10), description="how long the read of one secret may take, 100ms to 1m"
    )
    key_file: SecretFile | None = Field(
        default=None,
        description="a file with a random key of at least 32 characters, the same for all schedulers of the cluster; "
        "empty: one in the data directory",
    )
    urls: Words = Field(
        default=(),
        description="URLs of the artifact servers of all schedulers, or of their proxies, for executors that fetch "
        "secrets; empty: that of this scheduler",
    )
    lifetime: Annotated[Duration, _between(timedelta(seconds=5), timedelta(hours=1))] = Field(
        default=timedelta(minutes=1), description="how long after its launch a task may fetch its secrets, 5s to 1h"
    )
    check_address: bool = Field(
        default=True,
        description="false to hand secrets to any address: needed if agents reach schedulers through NAT or a proxy",
    )

    @check(mode="after")
    def _usable(self) -> Secrets:
        sources = ("directory", "environment_prefix", "vault_url")
        named = [name for name in sources if getattr(self, name)]
        if len(named) > 1:
            raise _wrong(f"is set, and secrets.{named[0]} too", "choose one source of secrets", key=named[1])
        if self.environment_prefix and not _PREFIX.fullmatch(self.environment_prefix):
            problem = f"{self.environment_prefix[:80]!r} is not the beginning of variables"
            raise _wrong(problem, "capitals, digits and _, with _ at its end, such as APP_", key="environment_prefix")
        if self.vault_url and not _URL.fullmatch(self.vault_url):
            raise _wrong("is not the URL of a server", "https://NAME:PORT, without a path", key="vault_url")
        if not secure(self.vault_url or "https://"):
            raise _wrong("would send secrets without TLS", "use https", key="vault_url")
        for name in ("vault_mount", "vault_prefix"):
            path = getattr(self, name)
            if not _VAULT_PATH.fullmatch(path) and (path or name == "vault_mount"):
                raise _wrong(f"{path[:80]!r} is not a path", "names of letters, digits, - and _ between /", key=name)
        if not self.vault_namespace.isprintable() or not self.vault_namespace.isascii():
            raise _wrong("is not the name of a namespace", "such as team/ops", key="vault_namespace")
        if bool(self.vault_url) != bool(self.vault_token_file):
            raise _wrong("belongs to secrets.vault_url", "set both or neither", key="vault_token_file")
        if self.key_file and len(read_secret(self.key_file)) < _LEAST_KEY:
            raise _wrong("contains a key that is too short", "such as of `openssl rand -hex 32`", key="key_file")
        if len(self.urls) > _MOST_URLS:
            raise _wrong(f"names {len(self.urls)} schedulers", f"at most {_MOST_URLS}", key="urls")
        for url in self.urls:
            if not _URL.fullmatch(url) or len(url) > _LONGEST_URL or not secure(url):
                raise _wrong(f"{url[:80]!r} has no TLS or is no URL", "https://NAME:PORT of each scheduler", key="urls")
        return self

    @property
    def used(self) -> bool:
        return bool(self.directory or self.environment_prefix or self.vault_url)


class Packages(_Section):
    """Limits of app packages, and the servers from which packages may be fetched."""

    max_bytes: ByteSize = Field(
        default=ByteSize(256 << 20), ge=1_024, le=1 << 40, description="the largest package, e.g. 256MiB"
    )
    versions: int = Field(
        default=10, ge=1, le=100, description="configurations kept per app for `app rollback`, the present one included"
    )
    versions_bytes: ByteSize = Field(
        default=ByteSize(4 << 30), ge=0, le=1 << 50, description="space for packages of earlier versions, e.g. 4GiB"
    )
    hosts: Words = Field(default=(), description='servers that appURL may name, e.g. "files.example.org,*.intra"')
    schemes: Annotated[tuple[Literal["http", "https"], ...], BeforeValidator(_words)] = Field(
        default=("https", "http"), description='"https", "http" or both'
    )
    networks: Annotated[Words, AfterValidator(_networks)] = Field(
        default=(), description='networks that servers may be in, in addition to public addresses, e.g. "10.0.0.0/8"'
    )
    fetch_timeout: Annotated[Duration, _between(timedelta(seconds=1), timedelta(minutes=10))] = Field(
        default=timedelta(minutes=2), description="how long the fetch of one package may take, 1s to 10m"
    )


class HttpJobs(_Section):
    """The servers that HTTP jobs may call. None by default."""

    hosts: Words = Field(default=(), description='servers that httpUri may name, e.g. "orders.example.org,*.intra"')
    schemes: Annotated[tuple[Literal["http", "https"], ...], BeforeValidator(_words)] = Field(
        default=("https", "http"), description='"https", "http" or both'
    )


def _zone(name: str) -> str:
    try:
        find_zone(name)
    except CronError:
        raise _wrong(
            f"{name[:80]!r} is not a known time zone", "a name such as Europe/Berlin or Asia/Shanghai"
        ) from None
    return name


class ElasticJob(_Section):
    """The API of Elastic-Job-Cloud, for its clients."""

    enabled: bool = Field(default=True, description="false to leave out the routes of Elastic-Job-Cloud")
    zone: Annotated[str, AfterValidator(_zone)] = Field(
        default="UTC", description="the time zone of its clients' cron expressions and times, e.g. Asia/Shanghai"
    )
    without_token: bool = Field(
        default=False,
        description="true to admit its clients on this machine without a token: then every user of this machine can "
        "run code on the agents",
    )


_OTLP_URL = re.compile(r"https?://[^\s/@?#]+(/[^\s?#]*)?")
_HEADER_NAME = re.compile(r"[A-Za-z0-9-]{1,100}")
_HISTORY_URL = re.compile(r"off|(?:postgresql|mariadb)://[^\s/]*/[^\s/?]+(?:\?[^\s]*)?|sqlite:///[^\s?]+")


class History(_Section):
    """The history of runs and attempts, in a SQL database."""

    url: str = Field(
        default="",
        description="postgresql://USER@HOST/NAME or mariadb://USER@HOST/NAME; empty: SQLite in the data directory, if "
        'the state is there too; "off": no history',
    )
    password_file: SecretFile | None = Field(default=None, description="a file that contains the password of the user")
    keep: Annotated[Duration, _between(timedelta(hours=1), timedelta(days=3660))] = Field(
        default=timedelta(days=90), description="how long attempts and runs are kept, 1h to 3660d"
    )
    keep_attempts: int = Field(
        default=10_000_000, ge=0, le=1_000_000_000, description="attempts kept in total; 0: no limit"
    )
    keep_attempts_per_job: int = Field(
        default=0, ge=0, le=1_000_000_000, description="attempts kept of each job; 0: no limit"
    )
    keep_bytes: ByteSize = Field(
        default=ByteSize(0), ge=0, le=1 << 50, description="size of the tables, e.g. 10GiB; 0: no limit"
    )
    spool_bytes: ByteSize = Field(
        default=ByteSize(64 << 20),
        ge=1 << 20,
        le=1 << 40,
        description="disk space for events while the database is away, e.g. 64MiB",
    )
    queue: int = Field(
        default=100_000, ge=1_000, le=10_000_000, description="events that wait in memory, 1000 to 10000000"
    )
    keep_audit: Annotated[Duration, _between(timedelta(hours=1), timedelta(days=3660))] = Field(
        default=timedelta(days=400), description="how long entries of the audit log are kept, 1h to 3660d"
    )

    @check(mode="after")
    def _usable(self) -> History:
        if self.url and not _HISTORY_URL.fullmatch(self.url):
            raise _wrong(
                "is not the URL of a database",
                'postgresql://USER@HOST/NAME, mariadb://USER@HOST/NAME or "off"',
                key="url",
            )
        if re.match(r"[a-z]+://[^/@]*:[^/@]*@", self.url) or "password=" in self.url:
            raise _wrong("contains a password", "move it to the file of history.password_file", key="url")
        if self.password_file and "@" not in self.url:
            raise _wrong("has no effect alone", "set history.url with a user", key="password_file")
        return self

    @property
    def password(self) -> str:
        return read_secret(self.password_file) if self.password_file else ""


_S3_URL = re.compile(
    r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(\w[\w.-]{0,99}(?:/\w[\w.-]{0,99}){0,9}))?/?", re.ASCII
)
_ENDPOINT = re.compile(r"https?://[^\s/@?#]+/?")


class Archive(_Section):
    """The archive of the logs of ended attempts."""

    url: str = Field(
        default="",
        description='an absolute path of a directory, or "s3://BUCKET/PREFIX"; empty: logs are not archived',
    )
    endpoint: str = Field(
        default="", description="the URL of an S3-compatible server, e.g. https://minio.intra:9000; empty: Amazon"
    )
    region: str = Field(default="", max_length=100, description="the region of the bucket, e.g. eu-central-1")
    access_key: str = Field(
        default="",
        max_length=200,
        description="the id of an access key; empty: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the role of this "
        "machine",
    )
    secret_file: SecretFile | None = Field(
        default=None, description="a file that contains the secret of archive.access_key"
    )
    attempts: Literal["all", "failed"] = Field(
        default="all", description='"failed" to archive only attempts that did not succeed'
    )
    stream_bytes: ByteSize = Field(
        default=ByteSize(2 << 20),
        ge=4 << 10,
        le=20 << 20,
        description="bytes kept of each stream, 4KiB to 20MiB; of a longer one, its beginning and its end",
    )
    bytes_per_second: ByteSize = Field(
        default=ByteSize(10 << 20), ge=1 << 10, le=1 << 40, description="bytes read from agents each second, e.g. 10MiB"
    )
    threads: int = Field(default=2, ge=1, le=16, description="logs copied at a time, 1 to 16")
    queue: int = Field(
        default=10_000, ge=100, le=1_000_000, description="logs that wait to be archived, 100 to 1000000"
    )
    keep: Annotated[Duration, _between(timedelta(hours=1), timedelta(days=3660))] = Field(
        default=timedelta(days=30), description="how long logs are kept, 1h to 3660d"
    )
    keep_logs: int = Field(default=100_000, ge=1, le=1_000_000, description="logs kept in total, 1 to 1000000")
    keep_logs_per_job: int = Field(default=0, ge=0, le=1_000_000, description="logs kept of each job; 0: no limit")
    keep_bytes: ByteSize = Field(
        default=ByteSize(10 << 30), ge=0, le=1 << 50, description="size of all logs, e.g. 10GiB; 0: no limit"
    )

    @check(mode="after")
    def _usable(self) -> Archive:
        if self.url and not self.url.startswith("/") and not _S3_URL.fullmatch(self.url):
            raise _wrong("names no store", 'an absolute path, or "s3://BUCKET/PREFIX"', key="url")
        if self.url.startswith("/") and (".." in Path(self.url).parts or "\0" in self.url):
            raise _wrong("is not a plain absolute path", "leave out the parts `..`", key="url")
        if self.endpoint and not _ENDPOINT.fullmatch(self.endpoint):
            raise _wrong(
                "is not the URL of a server", "such as https://minio.intra:9000, without a user", key="endpoint"
            )
        if bool(self.access_key) != bool(self.secret_file):
            raise _wrong("belongs to archive.access_key", "set both or neither", key="secret_file")
        for name in ("endpoint", "region", "access_key"):
            if getattr(self, name) and not self.bucket:
                raise _wrong("is for an S3-compatible store", 'set archive.url to "s3://BUCKET/PREFIX"', key=name)
        return self

    @property
    def bucket(self) -> tuple[str, str] | None:
        """The bucket and the prefix; None if the archive is a directory."""
        found = _S3_URL.fullmatch(self.url)
        return (found[1], found[2] or "") if found else None

    @property
    def secret(self) -> str:
        return read_secret(self.secret_file) if self.secret_file else ""


_SYSLOG_URL = re.compile(r"(?:udp|tcp|tls)://(?:[A-Za-z0-9._-]+|\[[0-9a-fA-F:]+\])(?::\d{1,5})?")


class AuditLog(_Section):
    """The audit log: who did what."""

    path: str = Field(
        default="",
        description='the folder of the log, an absolute path; empty: `audit` in the data directory; "off": no log',
    )
    required: bool = Field(
        default=True,
        description="false to carry out changes that cannot be recorded, and to delete the oldest entries at the limit",
    )
    reads: Annotated[tuple[Verb, ...], BeforeValidator(_words)] = Field(
        default=(Verb.READ_LOGS, Verb.READ_AUDIT, Verb.MANAGE_ACCESS, Verb.MANAGE_TEAM),
        description='the verbs whose reads are recorded, e.g. "read-logs,read-audit"',
    )
    file_bytes: ByteSize = Field(
        default=ByteSize(64 << 20), ge=64 << 10, le=1 << 40, description="size of one file, 64KiB or more"
    )
    keep: Annotated[Duration, _between(timedelta(hours=1), timedelta(days=3660))] = Field(
        default=timedelta(days=400), description="how long entries are kept, 1h to 3660d"
    )
    keep_bytes: ByteSize = Field(
        default=ByteSize(10 << 30), ge=1 << 20, le=1 << 50, description="size of all files, e.g. 10GiB"
    )
    heads_file: str = Field(
        default="",
        description="a file in another place that gets the head of the chain after each write; empty: none",
    )
    syslog: str = Field(
        default="",
        description="a syslog server that gets the head: udp, tcp or tls, e.g. tls://HOST:6514; empty: none",
    )
    syslog_ca_file: ReadableFile | None = Field(default=None, description="a PEM file with the CAs to trust for tls://")

    @check(mode="after")
    def _usable(self) -> AuditLog:
        for key, path in (("path", self.path), ("heads_file", self.heads_file)):
            if path and path != "off" and (not path.startswith("/") or "\0" in path):
                raise _wrong("is not an absolute path", "such as /var/log/jobcloud/audit", key=key)
        if self.syslog and not _SYSLOG_URL.fullmatch(self.syslog):
            raise _wrong("is not the URL of a syslog server", "such as tls://logs.example.org:6514", key="syslog")
        _check_ports(self.syslog.rpartition("/")[2], "syslog")
        if self.syslog_ca_file and not self.syslog.startswith("tls:"):
            raise _wrong("has no effect alone", "set audit.syslog to tls://HOST:PORT", key="syslog_ca_file")
        return self


class Alerts(_Section):
    """Alerts to people."""

    channels_file: PrivateFile | None = Field(
        default=None, description="a TOML file with the channels for alerts; without it, there are no alerts"
    )
    wait: Annotated[Duration, _between(timedelta(0), timedelta(hours=1))] = Field(
        default=timedelta(seconds=5), description="how long the first alert of a message waits for others, 0s to 1h"
    )
    interval: Annotated[Duration, _between(timedelta(seconds=3), timedelta(days=1))] = Field(
        default=timedelta(minutes=1), description="the minimum time between two messages to one channel, 3s to 1d"
    )


class Tokens(_Section):
    """The tokens that users and service accounts make."""

    max_lifetime: Annotated[Duration, _between(timedelta(hours=1), timedelta(days=3660))] = Field(
        default=timedelta(days=366), description="the longest lifetime of a token, 1h to 3660d"
    )


class Log(_Section):
    format: Literal["text", "json"] = Field(default="text", description='"text" for people, "json" for machines')
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="debug, info, warning or error"
    )
    lines_per_minute: int = Field(
        default=600,
        ge=10,
        le=1_000_000,
        description="lines of one kind each minute, 10 to 1000000; further lines are counted, not written",
    )


class Metrics(_Section):
    """The metrics at `GET /metrics`."""

    token_file: SecretFile | None = Field(
        default=None, description="a file that contains a token with which callers may read only the metrics"
    )
    jobs: int = Field(
        default=1_000, ge=0, le=100_000, description="jobs with metrics of their own; all others are counted together"
    )

    @property
    def token(self) -> str:
        return read_secret(self.token_file) if self.token_file else ""


class Identity(_Section):
    """How people and machines prove who they are: sessions of browsers, and an identity provider (OpenID Connect)."""

    session_idle: Annotated[Duration, _between(timedelta(minutes=5), timedelta(days=30))] = Field(
        default=timedelta(hours=12), description="how long a browser stays signed in while nobody uses it, 5m to 30d"
    )
    session_absolute: Annotated[Duration, _between(timedelta(minutes=5), timedelta(days=366))] = Field(
        default=timedelta(days=7), description="how long a browser stays signed in at most, 5m to 366d"
    )
    password_sign_in: bool = Field(default=True, description="false to let nobody sign in by a password")
    oidc_issuer: str = Field(
        default="", description="URL of the identity provider, exactly as its metadata names it; empty: no provider"
    )
    oidc_client_id: str = Field(default="", description="the id of this server as a client of the provider")
    oidc_client_secret_file: SecretFile | None = Field(
        default=None, description="a file that contains the client's secret; without it, the client is public"
    )
    oidc_scopes: Words = Field(
        default=("openid", "profile"),
        min_length=1,
        description='the scopes that the sign-in of a browser asks for, e.g. "openid,profile,groups"',
    )
    oidc_name_claim: str = Field(
        default="sub",
        min_length=1,
        max_length=100,
        description="the claim that names a person: NAME of user:oidc:NAME; the provider must never let people choose "
        "it or give it to somebody else",
    )
    oidc_groups_claim: str = Field(
        default="groups", max_length=100, description="the claim that lists the groups of a person; empty: no groups"
    )
    oidc_audience: str = Field(
        default="",
        description="the audience of access tokens that the API accepts, e.g. urn:jobcloud; empty: it accepts none",
    )
    oidc_cli_client_id: str = Field(
        default="",
        description="the id of the command line, a public client of the provider; empty: no jobcloud login",
    )
    oidc_cli_scopes: Words = Field(
        default=("openid", "profile", "offline_access"),
        min_length=1,
        description="the scopes that jobcloud login asks for; offline_access is that of refresh tokens",
    )
    oidc_ca_file: ReadableFile | None = Field(
        default=None, description="a PEM file with the CAs to trust for the provider"
    )
    oidc_session: Annotated[Duration, _between(timedelta(minutes=5), timedelta(days=30))] = Field(
        default=timedelta(hours=12), description="how long a browser stays signed in by the provider, 5m to 30d"
    )
    url: str = Field(
        default="",
        description="the URL at which browsers find this server, e.g. https://jobs.example.org; empty: that of each "
        "request",
    )

    @property
    def provider(self) -> str:
        """The name of the identity provider for people who sign in by a browser; "" if there is none."""
        return urlsplit(self.oidc_issuer).hostname or "" if self.oidc_client_id else ""

    @check(mode="after")
    def _usable(self) -> Identity:
        if self.url and not _URL.fullmatch(self.url):
            problem = f"{self.url[:80]!r} is not the URL of a server"
            raise _wrong(problem, "https://NAME or https://NAME:PORT, without a path", key="url")
        if not self.oidc_issuer:
            for key in ("oidc_client_id", "oidc_client_secret_file", "oidc_audience", "oidc_cli_client_id"):
                if getattr(self, key):
                    raise _wrong("has no effect alone", "set identity.oidc_issuer too", key=key)
            return self
        if not is_safe_url(self.oidc_issuer) or urlsplit(self.oidc_issuer).query:
            problem = f"{self.oidc_issuer[:80]!r} is not an https URL"
            raise _wrong(problem, "https://HOST/PATH; http only on loopback", key="oidc_issuer")
        if "openid" not in self.oidc_scopes:
            raise _wrong("lacks openid", 'such as "openid,profile"', key="oidc_scopes")
        if not self.oidc_client_id and not self.oidc_audience:
            raise _wrong(
                "is required, or identity.oidc_audience",
                "the id for browsers, the audience for the command line and machines",
                key="oidc_client_id",
            )
        if self.oidc_client_secret_file and not self.oidc_client_id:
            raise _wrong("has no effect alone", "set identity.oidc_client_id too", key="oidc_client_secret_file")
        if self.oidc_cli_client_id and not self.oidc_audience:
            raise _wrong(
                "is required with identity.oidc_cli_client_id",
                "the audience of the access tokens of the command line",
                key="oidc_audience",
            )
        if self.oidc_audience and self.oidc_audience in (self.oidc_client_id, self.oidc_cli_client_id):
            raise _wrong(
                "is the id of a client: an ID token would count as an access token",
                "give the API an audience of its own, e.g. urn:jobcloud",
                key="oidc_audience",
            )
        return self

    @property
    def oidc_client_secret(self) -> str:
        return read_secret(self.oidc_client_secret_file) if self.oidc_client_secret_file else ""


class Tracing(_Section):
    """OpenTelemetry traces of runs. They need the extra `tracing`."""

    endpoint: str = Field(
        default="", description="URL of a receiver of OTLP over HTTP, e.g. http://HOST:4318/v1/traces; empty: no traces"
    )
    headers_file: SecretFile | None = Field(
        default=None,
        description="a file with one line NAME=VALUE,… of headers that each request has, e.g. "
        "Authorization=Bearer%20TOKEN",
    )
    ratio: float = Field(
        default=1.0, ge=0, le=1, allow_inf_nan=False, description="the fraction of runs that have a trace, 0 to 1"
    )
    shards: int = Field(
        default=100, ge=0, le=1_000, description="shards of a run that have spans of their own, 0 to 1000"
    )
    queue: int = Field(
        default=10_000,
        ge=100,
        le=1_000_000,
        description="ended attempts and runs that wait in memory, 100 to 1000000; a run also counts once for 10 shards",
    )

    @check(mode="after")
    def _usable(self) -> Tracing:
        if self.endpoint and not _OTLP_URL.fullmatch(self.endpoint):
            raise _wrong("is not an http(s) URL without a user", "such as http://HOST:4318/v1/traces", key="endpoint")
        if self.headers_file:
            self.headers()
        return self

    def headers(self) -> dict[str, str]:
        """The headers in the form of OTEL_EXPORTER_OTLP_HEADERS. Raises PydanticCustomError."""
        found: dict[str, str] = {}
        for pair in read_secret(self.headers_file).split(",") if self.headers_file else ():
            name, sign, value = pair.partition("=")
            text = unquote(value)
            if not sign or not _HEADER_NAME.fullmatch(name) or not text.isprintable() or not text.isascii():
                raise _wrong("does not hold NAME=VALUE,…", "such as Authorization=Bearer%20TOKEN", key="headers_file")
            found[name] = text
        return found


class Settings(BaseSettings):
    """All settings of the scheduler. Created by `load`."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    data: Path | None = Field(default=None, description="the directory for the state; empty: state in memory")
    pure_matcher: bool = Field(default=False, description="true to use the matcher in plain Python")
    mesos: Mesos = Mesos()
    zookeeper: ZooKeeper = ZooKeeper()
    etcd: Etcd = Etcd()
    cluster: Cluster = Cluster()
    http: Http = Http()
    identity: Identity = Identity()
    artifacts: ArtifactServer = ArtifactServer()
    scheduling: Scheduling = Scheduling()
    secrets: Secrets = Secrets()
    packages: Packages = Packages()
    http_jobs: HttpJobs = HttpJobs()
    elastic_job: ElasticJob = ElasticJob()
    metrics: Metrics = Metrics()
    history: History = History()
    archive: Archive = Archive()
    audit: AuditLog = AuditLog()
    alerts: Alerts = Alerts()
    tokens: Tokens = Tokens()
    tracing: Tracing = Tracing()
    log: Log = Log()

    @check(mode="after")
    def _lasting(self) -> Settings:
        for name, hosts in (("zookeeper", self.zookeeper.hosts), ("etcd", self.etcd.hosts)):
            if hosts and self.data is None:
                raise _wrong(
                    f"is required with {name}.hosts: the state outlives this process, and so must the packages",
                    "a directory on permanent storage, best shared by all schedulers",
                    key="data",
                )
        if self.zookeeper.hosts and self.etcd.hosts:
            raise _wrong("is set, and zookeeper.hosts too", "choose one of the two for the state", key="etcd.hosts")
        if self.secrets.used and self.shared and not self.secrets.key_file:
            raise _wrong(
                "is required: any scheduler may lead when an executor fetches the secrets of a task",
                "a file with the output of `openssl rand -hex 32`, the same for all schedulers",
                key="secrets.key_file",
            )
        if self.identity.url and self.identity.url.startswith("https:") != self.http.secure:
            fix = 'set http.tls_cert_file, or http.tls to "by-proxy" if a proxy ends TLS'
            fix = "an https URL" if self.http.secure else f"{fix}: otherwise the cookies of sessions are not Secure"
            raise _wrong("does not fit the TLS of the API", fix, key="identity.url")
        if self.artifacts.tls_ca_file and not self.artifacts.tls_cert_file and not self.secrets.urls:
            raise _wrong("has no effect alone", "set artifacts.tls_cert_file", key="artifacts.tls_ca_file")
        if self.shared and self.history.url.startswith("sqlite:"):
            raise _wrong(
                "is SQLite, which several schedulers cannot share",
                "set history.url to a PostgreSQL or MariaDB database, or to off",
                key="history.url",
            )
        return self

    @property
    def shared(self) -> bool:
        """Whether several schedulers share the state."""
        return bool(self.zookeeper.hosts or self.etcd.hosts)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        environment, file = _environment(os.environ), _file_content.get()
        return (init_settings, *(InitSettingsSource(settings_cls, init_kwargs=found) for found in (environment, file)))


def load(file: Path | None = None, flags: Mapping[str, object] | None = None) -> Settings:
    """Settings from `file` (TOML), the environment, and `flags`. Later ones override earlier ones.

    `flags` maps keys ("http.port") to values; None means not given. Raises ConfigError for the first problem, with
    further ones in `others`.
    """
    token = _file_content.set(_read(file) if file else {})
    try:
        return Settings(**_nested(flags or {}))
    except ValidationError as error:
        problems = [_problem(details) for details in error.errors()]
        first = problems[0]
        raise ConfigError(first.problem, field=first.field, fix=first.fix, others=tuple(problems[1:])) from None
    finally:
        _file_content.reset(token)


def keys() -> Iterator[tuple[str, str, object]]:
    """(key, description, default) of every setting."""
    for name, info in Settings.model_fields.items():
        if isinstance(info.default, _Section):
            for inner, details in type(info.default).model_fields.items():
                yield f"{name}.{inner}", details.description or "", details.default
        else:
            yield name, info.description or "", info.default


def _environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """The settings in the environment. Other variables that begin with JOBCLOUD_ belong to other programs."""
    sections = [name for name, info in Settings.model_fields.items() if isinstance(info.default, _Section)]
    # `http_jobs` comes before `http`.
    sections.sort(key=len, reverse=True)
    found: dict[str, Any] = {}
    for variable, value in environ.items():
        prefix, _, name = variable.lower().partition("_")
        if prefix != "jobcloud":
            continue
        section = next((section for section in sections if name.startswith(f"{section}_")), "")
        if section:
            found.setdefault(section, {})[name.removeprefix(f"{section}_")] = value
        elif name in Settings.model_fields:
            found[name] = value
    return found


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}", field="config", fix="check the path") from None
    except ValueError as error:
        raise ConfigError(f"{file} is not valid TOML: {error}", field="config", fix="see https://toml.io") from None
    except RecursionError:
        raise ConfigError(f"{file} is nested too deeply", field="config", fix="docs/settings.md") from None


def _nested(flags: Mapping[str, object]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flags.items():
        if value is not None:
            section, _, name = key.rpartition(".")
            (nested.setdefault(section, {}) if section else nested)[name] = value
    return nested


def _problem(details: ErrorDetails) -> ConfigError:
    context = details.get("ctx", {})
    where = [str(part) for part in details["loc"][:2]]
    key = ".".join([*where[:1], context["key"]] if context.get("key") else where)
    if details["type"] == "extra_forbidden":
        known = [name for name, _, _ in keys()]
        close = difflib.get_close_matches(key, known, n=1)
        return ConfigError("is not a setting", field=key, fix=f"did you mean {close[0]}?" if close else "remove it")
    described = {name: description for name, description, _ in keys()}.get(key, "")
    fix = str(context.get("fix") or described)
    for bound, words in (("ge", "at least"), ("le", "at most")):
        if bound in context:
            return ConfigError(f"is out of range: {words} {context[bound]}", field=key, fix=fix)
    return ConfigError(details["msg"], field=key, fix=fix)
