"""Settings: one frozen object out of a TOML file, the environment and flags, each overruling the one before.

The key `http.port` stands in the file under `[http]` as `port`, in the environment as JOBCLOUD_HTTP_PORT. Durations
are written with their unit ("5s", "1h30m"), sizes too ("256MiB"), lists in the environment with commas. Secrets come
from files that others cannot read, never from the settings themselves. docs/settings.md lists every key.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ByteSize, ConfigDict, Field, ValidationError
from pydantic import model_validator as check
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from jobcloud.errors import ConfigError

_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_DURATION = re.compile(r"(?:\d{1,12}(?:\.\d{1,9})?(?:ms|[smhdw]))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])")
_MASTER = re.compile(r"(zk://[^\s/]+(/[^\s]*)?|[^\s/,@]+:\d{1,5}(,[^\s/,@]+:\d{1,5})*)")
_SERVERS = re.compile(r"[^\s/,@]+:\d{1,5}(,[^\s/,@]+:\d{1,5})*")
_NAMESPACE = re.compile(r"[A-Za-z0-9_-]{1,100}(/[A-Za-z0-9_-]{1,100}){0,9}")
_MAX_SECRET = 4_096
# What `load` has read, for the sources of the Settings it makes.
_file_content: ContextVar[dict[str, Any]] = ContextVar("_file_content", default={})  # noqa: B039 - never changed


def _wrong(problem: str, fix: str, *, key: str = "") -> PydanticCustomError:
    """An error that says what to do; `key` names a field within the section where it is not the one at hand."""
    return PydanticCustomError("setting", "{problem}", {"problem": problem, "fix": fix, "key": key})


def _duration(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str) or not _DURATION.fullmatch(value):
        raise _wrong(f"{str(value)[:40]!r} is no duration", 'a number with a unit, such as "500ms", "5s" or "1h30m"')
    return timedelta(milliseconds=sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(value)))


def _words(value: object) -> object:
    return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value


def _networks(networks: tuple[str, ...]) -> tuple[str, ...]:
    for network in networks:
        try:
            ipaddress.ip_network(network)
        except ValueError:
            raise _wrong(f"{network[:80]!r} is no network", 'an address and a length, such as "10.0.0.0/8"') from None
    return networks


def _secret_file(path: Path) -> Path:
    read_secret(path)
    return path


def _readable_file(path: Path) -> Path:
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise _wrong(f"{path} cannot be read: {error.strerror}", "the path of a file this process may read") from None


def read_secret(path: Path) -> str:
    """The one line of a secret's file. Raises PydanticCustomError where others may read it, or it holds no secret."""
    try:
        with path.open("rb") as file:
            status = stat.S_IMODE(path.stat().st_mode)
            content = file.read(_MAX_SECRET + 1)
    except OSError as error:
        raise _wrong(f"{path} cannot be read: {error.strerror}", "the path of a file that holds the secret") from None
    if status & 0o007:
        raise _wrong(f"{path} is open to every user of this machine", f"run: chmod 600 {path}")
    secret = content.strip()
    if not secret or len(content) > _MAX_SECRET or not re.fullmatch(rb"[!-~]+", secret):
        raise _wrong(f"{path} holds no secret", "put it there as one line of ASCII without spaces")
    return secret.decode()


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Positive = Annotated[Duration, Field(ge=timedelta(milliseconds=1), le=timedelta(days=366))]
Port = Annotated[int, Field(ge=0, le=65_535)]
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
SecretFile = Annotated[Path, AfterValidator(_secret_file)]
ReadableFile = Annotated[Path, AfterValidator(_readable_file)]


def milliseconds(duration: timedelta) -> int:
    return duration // timedelta(milliseconds=1)


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine alone; a name other than localhost could be anything."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Mesos(_Section):
    """How to reach Mesos, and who we are there."""

    master: str = Field(default="", description="HOST:PORT, several with commas between them, or zk://HOST:PORT/PATH")
    principal: str = Field(default="", description="the name to authenticate with")
    secret_file: SecretFile | None = Field(default=None, description="a file that holds the principal's secret")
    roles: Words = Field(default=("*",), min_length=1, description='the roles to ask offers for, e.g. "batch,spare"')
    user: str = Field(
        default="", description="the user that executors run as on the agents; empty: the scheduler's own"
    )
    failover_timeout: Positive = Field(
        default=timedelta(weeks=1), description="how long Mesos keeps the tasks while no scheduler is there, e.g. 1w"
    )
    tls: bool = Field(default=False, description="true to speak TLS to the master")
    tls_ca_file: ReadableFile | None = Field(default=None, description="a PEM file with the authorities to trust")
    tls_cert_file: ReadableFile | None = Field(default=None, description="a PEM file with our own certificate")
    tls_key_file: ReadableFile | None = Field(default=None, description="a PEM file with its key")
    zookeeper_auth_file: SecretFile | None = Field(
        default=None, description="a file that holds user:password for ZooKeeper"
    )

    @check(mode="after")
    def _fits_together(self) -> Mesos:
        if self.master and not _MASTER.fullmatch(self.master):
            raise _wrong(
                f"{self.master[:80]!r} names no master",
                "HOST:PORT or zk://HOST:PORT/PATH; passwords go into files",
                key="master",
            )
        if "@" in self.master:
            raise _wrong("holds a password", "move it to the file of mesos.zookeeper_auth_file", key="master")
        if bool(self.principal) != bool(self.secret_file):
            raise _wrong("is of no use alone", "set both mesos.principal and mesos.secret_file", key="principal")
        if (self.tls_ca_file or self.tls_cert_file or self.tls_key_file) and not self.tls:
            raise _wrong("is off though its files are set", "set mesos.tls to true", key="tls")
        if bool(self.tls_cert_file) != bool(self.tls_key_file):
            raise _wrong(
                "is of no use alone", "set both mesos.tls_cert_file and mesos.tls_key_file", key="tls_cert_file"
            )
        return self

    @property
    def secret(self) -> str:
        return read_secret(self.secret_file) if self.secret_file else ""

    @property
    def zookeeper_auth(self) -> str:
        return read_secret(self.zookeeper_auth_file) if self.zookeeper_auth_file else ""


class ZooKeeper(_Section):
    """Where schedulers that stand by for each other keep their state, and elect who leads."""

    hosts: str = Field(default="", description="HOST:PORT, several with commas between them; empty: no ZooKeeper")
    namespace: str = Field(default="jobcloud", description="the node that everything lies below, e.g. jobcloud")
    auth_file: SecretFile | None = Field(default=None, description="a file that holds user:password (digest)")
    open_tree: bool = Field(
        default=False, description="true to keep the state where everyone who reaches ZooKeeper may change it"
    )
    session_timeout: Annotated[Duration, Field(ge=timedelta(seconds=1), le=timedelta(minutes=1))] = Field(
        default=timedelta(seconds=10), description="how long a silent leader is waited for, 1s to 1m"
    )
    tls: bool = Field(default=False, description="true to speak TLS to ZooKeeper")
    tls_ca_file: ReadableFile | None = Field(default=None, description="a PEM file with the authorities to trust")
    tls_cert_file: ReadableFile | None = Field(default=None, description="a PEM file with our own certificate")
    tls_key_file: ReadableFile | None = Field(default=None, description="a PEM file with its key")

    @check(mode="after")
    def _usable(self) -> ZooKeeper:
        if "@" in self.hosts:
            raise _wrong("holds a password", "move it to the file of zookeeper.auth_file", key="hosts")
        if self.hosts and not _SERVERS.fullmatch(self.hosts):
            raise _wrong(f"{self.hosts[:80]!r} names no servers", "HOST:PORT,HOST:PORT", key="hosts")
        if not _NAMESPACE.fullmatch(self.namespace) or self.namespace.split("/")[0] == "zookeeper":
            raise _wrong(
                f"{self.namespace[:80]!r} is no place for the state",
                "names of letters, digits, - and _, with / between them",
                key="namespace",
            )
        if self.auth_file and not re.fullmatch(r"[^:]+:.+", read_secret(self.auth_file)):
            raise _wrong("holds no user:password", "one line, USER:PASSWORD", key="auth_file")
        return self

    @check(mode="after")
    def _guarded(self) -> ZooKeeper:
        local = all(is_loopback(host.rpartition(":")[0]) for host in self.hosts.split(","))
        if self.hosts and not local and not self.auth_file and not self.open_tree:
            raise _wrong(
                "is needed: whoever can write to the state decides what runs on the agents",
                "name a file that holds user:password, or set zookeeper.open_tree to true",
                key="auth_file",
            )
        if (self.tls_ca_file or self.tls_cert_file or self.tls_key_file) and not self.tls:
            raise _wrong("is off though its files are set", "set zookeeper.tls to true", key="tls")
        if bool(self.tls_cert_file) != bool(self.tls_key_file):
            raise _wrong(
                "is of no use alone", "set both zookeeper.tls_cert_file and zookeeper.tls_key_file", key="tls_cert_file"
            )
        return self

    @property
    def auth(self) -> str:
        return read_secret(self.auth_file) if self.auth_file else ""


class Http(_Section):
    """The REST API and console."""

    host: str = Field(default="127.0.0.1", min_length=1, description="the address to listen on")
    port: Port = Field(default=8899, description="a port, 0 for any free one")
    token_file: SecretFile | None = Field(default=None, description="a file that holds the token callers must show")
    hosts: Words = Field(default=(), description="host names the API goes by besides those of loopback")
    origins: Words = Field(default=(), description="origins of web pages that may write, e.g. https://ops.example.org")

    @check(mode="after")
    def _guarded(self) -> Http:
        if not self.token_file and not is_loopback(self.host):
            raise _wrong(
                f"{self.host!r} can be reached from other machines, and no token is asked for",
                "set http.token_file, or listen on 127.0.0.1",
                key="host",
            )
        return self

    @property
    def token(self) -> str:
        return read_secret(self.token_file) if self.token_file else ""


class ArtifactServer(_Section):
    """Where agents fetch packages and the executor: read-only, by the hash of the content."""

    host: str = Field(default="127.0.0.1", min_length=1, description="the address to listen on")
    port: Port = Field(default=8898, description="a port, 0 for any free one")
    advertise: str = Field(default="", description="the name by which agents reach this machine; empty: artifacts.host")

    @check(mode="after")
    def _reachable(self) -> ArtifactServer:
        if not self.advertise and self.host in ("0.0.0.0", "::", "[::]"):  # noqa: S104 - compared, not bound
            raise _wrong(
                "is needed where artifacts.host is every address",
                "set artifacts.advertise to the name by which agents reach this machine",
                key="advertise",
            )
        return self


class Scheduling(_Section):
    """The numbers that steer the scheduler."""

    offer_hold: Positive = Field(default=timedelta(seconds=5), description="how long offers are held unused, e.g. 5s")
    decline_refuse: Positive = Field(
        default=timedelta(seconds=5), description="how long a declined offer stays away, e.g. 5s"
    )
    misfire_threshold: Positive = Field(default=timedelta(seconds=5), description="how late is still on time, e.g. 5s")
    reconcile_interval: Positive = Field(
        default=timedelta(minutes=15), description="how often all tasks are compared, e.g. 15m"
    )
    history: int = Field(default=50, ge=1, le=10_000, description="ended firings kept per job, 1 to 10000")
    coalesce: Annotated[Duration, Field(ge=timedelta(0), le=timedelta(seconds=1))] = Field(
        default=timedelta(milliseconds=3),
        description="how long events may gather before one write, 0ms to 1s; seven times as long under load",
    )


class Packages(_Section):
    """What app packages may be, and where this server may fetch them besides what is uploaded."""

    max_bytes: ByteSize = Field(
        default=ByteSize(256 << 20), ge=1_024, le=1 << 40, description="the largest upload, e.g. 256MiB"
    )
    hosts: Words = Field(default=(), description='servers that appURL may name, e.g. "files.example.org,*.intra"')
    schemes: Annotated[tuple[Literal["http", "https"], ...], BeforeValidator(_words)] = Field(
        default=("https", "http"), description='"https", "http" or both'
    )
    networks: Annotated[Words, AfterValidator(_networks)] = Field(
        default=(), description='networks that their names may lead to besides public ones, e.g. "10.0.0.0/8"'
    )
    fetch_timeout: Annotated[Duration, Field(ge=timedelta(seconds=1), le=timedelta(minutes=10))] = Field(
        default=timedelta(minutes=2), description="how long fetching one package may take, 1s to 10m"
    )


class HttpJobs(_Section):
    """What HTTP jobs may call. Nothing, unless it is listed."""

    hosts: Words = Field(default=(), description='servers that httpUri may name, e.g. "orders.example.org,*.intra"')
    schemes: Annotated[tuple[Literal["http", "https"], ...], BeforeValidator(_words)] = Field(
        default=("https", "http"), description='"https", "http" or both'
    )


class Log(_Section):
    format: Literal["text", "json"] = Field(default="text", description='"text" for people, "json" for machines')
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="debug, info, warning or error"
    )


class Settings(BaseSettings):
    """Everything the scheduler can be told. `load` makes it."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix="JOBCLOUD_",
        env_nested_delimiter="_",
        env_nested_max_split=1,
        enable_decoding=False,
    )

    data: Path | None = Field(default=None, description="the directory that keeps the state; empty: in memory")
    pure_matcher: bool = Field(default=False, description="true to place with the plain Python matcher")
    mesos: Mesos = Mesos()
    zookeeper: ZooKeeper = ZooKeeper()
    http: Http = Http()
    artifacts: ArtifactServer = ArtifactServer()
    scheduling: Scheduling = Scheduling()
    packages: Packages = Packages()
    http_jobs: HttpJobs = HttpJobs()
    log: Log = Log()

    @check(mode="after")
    def _lasting(self) -> Settings:
        if self.zookeeper.hosts and self.data is None:
            raise _wrong(
                "is needed with zookeeper.hosts: the state outlives this process, so its packages must",
                "a directory that every scheduler shares, or at least keeps",
                key="data",
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=_file_content.get())


def load(file: Path | None = None, flags: Mapping[str, object] | None = None) -> Settings:
    """The settings of `file` (TOML), overruled by the environment, overruled by `flags`.

    `flags` are by key ("http.port"); None stands for a flag not given. Raises ConfigError for the first thing wrong,
    the others within.
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


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}", field="config", fix="check the path") from None
    except ValueError as error:
        raise ConfigError(f"{file} is no TOML: {error}", field="config", fix="see https://toml.io") from None


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
        return ConfigError("is no setting", field=key, fix=f"did you mean {close[0]}?" if close else "remove it")
    described = {name: description for name, description, _ in keys()}.get(key, "")
    fix = str(context.get("fix") or described)
    return ConfigError(details["msg"], field=key, fix=fix)
