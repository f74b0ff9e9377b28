"""Build a scheduler process: settings → adapters → scheduler → loop → listeners.

Only this module knows all these parts. `state_commands` builds the commands that need no scheduler.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import os
import re
import secrets
import shutil
import signal
import socket
import ssl
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog
from starlette.types import ASGIApp

from jobcloud import __version__, zones
from jobcloud.access.directory import EMPTY, Directory
from jobcloud.adapters.folders import make_private
from jobcloud.adapters.memory import MemoryStore
from jobcloud.adapters.mesos.driver import MesosDriver, MesosSettings, master_time
from jobcloud.adapters.sandbox import Output, OutputReader
from jobcloud.adapters.sqlite import SqliteStore
from jobcloud.archive.index import Limits as ArchiveLimits
from jobcloud.archive.s3 import S3Options
from jobcloud.archive.service import Archive, ArchiveOptions
from jobcloud.audit.folder import DiskFolder
from jobcloud.audit.heads import Exporter, HeadFile, Syslog
from jobcloud.audit.log import Limits as AuditLimits
from jobcloud.audit.service import Audit
from jobcloud.audit.service import Options as AuditOptions
from jobcloud.client import context
from jobcloud.config import SEPARATOR, is_ad_hoc
from jobcloud.errors import ConfigError, NotFound, Refused, StoreError, StoreFull, Unavailable
from jobcloud.executor import bundle
from jobcloud.match import CompiledMatcher, PlainMatcher
from jobcloud.messages import UseSecrets
from jobcloud.model import Task
from jobcloud.ports import LastingStore, Leadership, Sink, Store, TlsFiles
from jobcloud.scheduler import Policy, Scheduler, revisions
from jobcloud.scheduler.launch import Artifacts
from jobcloud.scheduler.state import MakeMatcher
from jobcloud.sentences import Told
from jobcloud.server import epochs, logs
from jobcloud.server.api import (
    Access,
    ApiOptions,
    ElasticJobOptions,
    LogChunk,
    LogRequest,
    Notices,
    SignIn,
    create_api,
    create_artifacts,
)
from jobcloud.server.api import metrics as metrics_api
from jobcloud.server.api.convert import config_json
from jobcloud.server.api.headers import Https
from jobcloud.server.api.replica import Replica, ReplicatedLoop
from jobcloud.server.api.secrets import PATH as SECRETS_PATH
from jobcloud.server.api.secrets import SecretsApi
from jobcloud.server.api.standby import Standby
from jobcloud.server.batch import Restore
from jobcloud.server.clock import Clock
from jobcloud.server.epochs import LastingEpochs
from jobcloud.server.identity.oidc.options import OidcOptions
from jobcloud.server.identity.sessions import SessionOptions
from jobcloud.server.listener import Limits, Listener, listen, raise_descriptor_limit
from jobcloud.server.loop import Loop, Pace
from jobcloud.server.metrics.measured import CountedApi, MeasuredDriver, MeasuredScheduler, MeasuredStore
from jobcloud.server.metrics.tally import Tally
from jobcloud.server.origin import Origin, Refill
from jobcloud.server.outputs import AgentOutputs
from jobcloud.server.packages import PackageStore
from jobcloud.server.records import Restored
from jobcloud.server.secrets.recording import recorder
from jobcloud.server.secrets.service import SecretOptions, Secrets
from jobcloud.server.secrets.sources import DirectorySource, EnvironmentSource, Source
from jobcloud.server.secrets.tokens import KEY_BYTES
from jobcloud.server.secrets.vault import VaultOptions, VaultSource
from jobcloud.server.settings import (
    ArtifactServer,
    Etcd,
    Http,
    Mesos,
    Settings,
    ZooKeeper,
    milliseconds,
    read_secret,
    secure,
)
from jobcloud.server.settings import Secrets as SecretSettings
from jobcloud.server.tls import ServerFiles, ServerTls, peer_context
from jobcloud.server.urls import UrlPolicy
from jobcloud.tracing.service import SpanCounts, Tracing, TracingOptions

if TYPE_CHECKING:
    from jobcloud.adapters.etcd.client import EtcdSettings
    from jobcloud.adapters.zookeeper.session import ZooKeeperSettings
    from jobcloud.history.samples import Sample
    from jobcloud.history.service import History
    from jobcloud.server.alerts.service import AlertService
    from jobcloud.server.api.metrics import Scrape
    from jobcloud.server.identity.oidc.provider import Provider
    from jobcloud.server.metrics.exposition import Metrics

log = structlog.get_logger(__name__)

STATE_FILE = "jobcloud.db"
SECRETS_KEY_FILE = "secrets.key"
_STOP_S = 8.0
# How long the thread of the history waits for a sample. Meanwhile events wait.
_SAMPLE_S = 2.0
# The executor's zip, an empty state with its log and the file of the epoch take 4.2 MB. The first jobs need more.
NEEDED_BYTES = 8 << 20
# How long a thread that computes may keep the interpreter's lock while another one waits. With Python's 5 ms, calls of
# the API delay the scheduler's thread by seconds (docs/design.md).
_SWITCH_S = 0.0005
CLEAR_TEXT = Told(
    "tokens travel in clear text, because the API has no TLS: set http.tls_cert_file and http.tls_key_file, or "
    'http.tls to "by-proxy" if a proxy ends TLS',
    "clear_text",
)


def run_scheduler(wanted: Settings) -> int:
    """Run until SIGINT or SIGTERM; tasks keep running. Returns the exit code: 1 if the scheduler stepped down.

    Raises ConfigError for invalid settings, StoreError if the state cannot be used.
    """
    if not wanted.mesos.master:
        raise ConfigError("is not set", field="mesos.master", fix="--mesos HOST:PORT or zk://HOST:PORT/PATH")
    logs.configure(wanted.log.format, wanted.log.level, wanted.log.lines_per_minute)
    stop = _on_signals()
    with contextlib.ExitStack() as stack:
        # Packages are files even if the state is in memory.
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="jobcloud.")) if wanted.data is None else ""
        return _Process(wanted, wanted.data or Path(folder)).run(stop)


def _on_signals() -> threading.Event:
    """An event set by the first SIGINT or SIGTERM. Further signals do not interrupt the shutdown."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop


class _Process:
    """The parts of one scheduler process. They end in the reverse order of their start."""

    def __init__(self, wanted: Settings, data: Path) -> None:
        self._settings = wanted
        self._data = data
        self._token = wanted.http.token or secrets.token_urlsafe(24)
        limits = wanted.packages
        self._package_urls = UrlPolicy(limits.hosts, limits.schemes, limits.networks)
        self._notices = Notices()
        self._outputs = OutputReader()
        self._clock = Clock()
        self._tally = Tally(wanted.metrics.jobs)
        self._scheduler: Scheduler | None = None
        http = wanted.http
        files = (http_files(wanted), artifacts_files(wanted))
        self._http_tls, self._artifacts_tls = (ServerTls(one, self._clock.now_ms) if one else None for one in files)
        self._peers = peer_context(http.tls_ca_file, "http.tls_ca_file")
        self._listeners_with_tls = tuple(filter(None, (self._http_tls, self._artifacts_tls)))
        self._history = _history(wanted, data, self._clock.now_ms, self._registered, self._sample)
        self._loop_of_core: Loop[Scheduler] | None = None
        self._archive = self._made_archive()
        self._alerts = _alerts(wanted, self._clock)
        self._tracing = _tracing(wanted)
        self._secrets: Secrets | None = None
        self._oidc = _oidc(wanted)
        self._audit: Audit | None = None

    def run(self, stop: threading.Event) -> int:
        sys.setswitchinterval(_SWITCH_S)
        descriptors = raise_descriptor_limit()
        log.info(
            "starting", version=__version__, data=str(self._data), descriptors=descriptors, time_zones=zones.version()
        )
        if warning := zones.warning():
            log.warning(warning)
        _prepare_data(self._data)
        with contextlib.ExitStack() as stack:
            http = self._settings.http

            def announce(bound: socket.socket) -> None:
                """Name the address and the token to clients of the same user, before any of them can connect."""
                stack.enter_context(self._context(self._url_here(bound)))

            api_socket = stack.enter_context(listen(http.host, http.port, "http.port", announce))
            artifacts = self._settings.artifacts
            artifact_socket = stack.enter_context(listen(artifacts.host, artifacts.port, "artifacts.port"))
            zip_sha256, zip_path = _executor_zip(self._data)
            sizes = self._settings.packages
            packages = PackageStore(
                self._data / "packages", max_bytes=sizes.max_bytes, earlier_bytes=sizes.versions_bytes
            )
            origin = Origin(packages, self._package_urls, timeout_s=sizes.fetch_timeout.total_seconds())
            base_url = _url(artifacts.advertise or artifacts.host, artifact_socket, tls=self._artifacts_tls is not None)
            fetch = bundle.fetch(artifacts.authorities) if self._artifacts_tls and artifacts.tls_ca_file else ""
            command = bundle.command(zip_sha256)
            policy = _policy(self._settings, Artifacts(base_url, zip_sha256, zip_path.name, command, fetch))
            policy = replace(
                policy,
                traced=any(part is not None for part in (self._history, self._archive, self._tracing)),
                trace_ratio=self._settings.tracing.ratio if self._tracing is not None else None,
            )
            if self._alerts is not None:
                policy = replace(policy, alert_channels=tuple(each.filter for each in self._alerts.channels))
            api_url = http.advertise or _url(http.advertised, api_socket, tls=self._http_tls is not None)
            if (options := oidc_options(self._settings)) is not None:
                # The log tells early if people cannot sign in. The start does not wait for the provider.
                threading.Thread(target=_try_provider, args=(options,), daemon=True).start()
            if self._history is not None:
                self._history.start()
                # The history ends after the loop, because it takes the last traces of the loop.
                stack.callback(self._history.stop)
            self._audit = _audit(self._settings, self._data, api_url, self._clock.now_ms, self._history)
            if self._audit is not None:
                stack.callback(self._audit.stop)
            self._secrets = self._made_secrets(base_url)
            if self._archive is not None:
                stack.callback(self._archive.stop)
            if self._tracing is not None:
                self._tracing.start()
                stack.callback(self._tracing.stop)
            store, leadership = self._state(api_url)
            loop = self._loop(policy, store, leadership)
            stack.callback(loop.stop, _STOP_S)
            if self._alerts is not None:
                self._alerts.start(loop)
                stack.callback(self._alerts.stop)
            refill = Refill(origin, lambda: loop.ask(lambda scheduler: list(scheduler.apps.values())))
            # The threads of the artifact server read files and compute little, so there may be many.
            limits = replace(_limits(self._settings, artifacts, descriptors), threads=40)
            secrets_api = SecretsApi(self._secrets) if self._secrets is not None else None
            artifact_app = create_artifacts(packages, (zip_sha256, zip_path), refill, secrets_api)
            listener = Listener(artifact_app, artifact_socket, limits, self._artifacts_tls)
            stack.callback(listener.stop)

            def teardown() -> None:
                """Remove the framework, then end the process: the next start registers a new framework."""
                loop.teardown()
                stop.set()

            limits = _limits(self._settings, self._settings.http, descriptors)
            open_store = functools.partial(shared_store, self._settings)
            replica = Replica(open_store, self._restore_copy(policy), now_ms=self._clock.now_ms)
            stack.callback(replica.close)
            peers = self._http_tls.peer_context if self._http_tls is not None else lambda: self._peers
            standby = _standby(loop, leadership, replica, peers)
            https = Https(http.tls == "by-proxy", http.hsts // timedelta(seconds=1))
            app = self._api(loop, packages, origin, teardown, standby)
            api = Listener(app, api_socket, limits, self._http_tls, https)
            stack.callback(api.stop)
            stack.callback(self._notices.close)
            if leadership is not None:
                loop.stand_by("not elected yet")
                log.info("listening", url=api_url)

                def stand_by(problem: str) -> None:
                    self._tally.leader_changes += 1
                    loop.stand_by(problem)

                if not leadership.wait(stop, stand_by):
                    return 0
                # `loop.stop` is added again, so that the loop stops before the listeners do: the next leader has to
                # wait until this loop has stopped.
                stack.callback(loop.stop, _STOP_S)
            self._compare_clocks()
            loop.start()
            replica.close()
            log.info("listening", url=self._url_here(api_socket))
            self._tally.leader_changes += 1
            return self._wait(loop, leadership, stop)

    def _state(self, address: str) -> tuple[Store, Leadership | None]:
        if self._settings.data is None:
            return MemoryStore(), None
        if self._settings.zookeeper.hosts:
            return self._in_zookeeper(self._settings.zookeeper, address)
        if self._settings.etcd.hosts:
            return self._in_etcd(self._settings.etcd, address)
        return self._lasting(SqliteStore(self._data / STATE_FILE), STATE_FILE), None

    def _in_zookeeper(self, wanted: ZooKeeper, address: str) -> tuple[Store, Leadership]:
        from jobcloud.adapters.zookeeper.election import ZooKeeperElection
        from jobcloud.adapters.zookeeper.session import ZooKeeperSession
        from jobcloud.adapters.zookeeper.store import ZooKeeperStore

        session = ZooKeeperSession(zookeeper_settings(wanted))
        election = ZooKeeperElection(session, address)
        store = ZooKeeperStore(
            session,
            name=address,
            candidate=lambda: election.node,
            heard=lambda theirs_ms: self._clock.compare(theirs_ms, "ZooKeeper"),
        )
        return self._lasting(store, zookeeper_state(wanted)), election

    def _in_etcd(self, wanted: Etcd, address: str) -> tuple[Store, Leadership]:
        from jobcloud.adapters.etcd.client import EtcdClient
        from jobcloud.adapters.etcd.election import EtcdElection
        from jobcloud.adapters.etcd.store import EtcdStore

        client = EtcdClient(etcd_settings(wanted))
        election = EtcdElection(client, address)
        store = EtcdStore(
            client,
            name=address,
            candidacy=lambda: election.candidacy,
            heard=lambda theirs_ms: self._clock.compare(theirs_ms, "etcd"),
            resign=election.resign,
        )
        return self._lasting(store, etcd_state(wanted)), election

    def _restore_copy(self, policy: Policy) -> Restore[Scheduler]:
        policy = replace(policy, traced=False)
        return lambda stored, epoch, at: Scheduler(policy, stored, epoch, at, self._matcher)

    @property
    def _matcher(self) -> MakeMatcher:
        return PlainMatcher if self._settings.pure_matcher else CompiledMatcher

    def _lasting(self, store: LastingStore, state: str) -> Store:
        return LastingEpochs(store, self._data / epochs.FILE_NAME, state=state, now_ms=self._clock.now_ms)

    def _loop(self, policy: Policy, store: Store, leadership: Leadership | None) -> Loop[Scheduler]:
        access = self._secrets.access if self._secrets is not None else None
        mesos = replace(_mesos(self._settings), heard=self._heard_master, access=access)

        def restore(stored: Restored, epoch: int, at: int) -> Scheduler:
            self._scheduler = MeasuredScheduler(self._tally, policy, stored, epoch, at, self._matcher)
            if self._history is not None:
                apps = {job.key: job.app_key for job in self._scheduler.jobs.values()}
                self._history.fill(self._scheduler.firings.values(), apps)
                registered = [job for job in self._scheduler.jobs.values() if not job.ad_hoc]
                self._history.compare([*self._scheduler.apps.values(), *registered], at)
            if self._archive is not None:
                self._archive.fill(self._scheduler.firings.values(), self._scheduler.attempts)
            return self._scheduler

        sinks: list[Sink] = [self._notices, logs.LogSink(self._notices.last_id), self._tally]
        if self._history is not None:
            sinks.append(self._history)
        if self._archive is not None:
            sinks.append(self._archive)
        if self._alerts is not None:
            sinks.append(self._alerts)
        if self._tracing is not None:
            sinks.append(self._tracing)
        loop: Loop[Scheduler] = Loop(
            MeasuredStore(store, self._tally),
            lambda: MeasuredDriver(MesosDriver(mesos, loop.abort, self._clock.now_ms), self._tally),
            sinks,
            restore,
            now_ms=self._clock.now_ms,
            pace=Pace(coalesce_ms=milliseconds(self._settings.scheduling.coalesce)),
            leadership=leadership,
        )
        self._loop_of_core = loop
        return loop

    def _made_archive(self) -> Archive | None:
        """The archive that the settings ask for. None if there is none."""
        options = archive_options(self._settings)
        return None if options is None else Archive(options, lambda: AgentOutputs(self._where), self._clock.now_ms)

    def _made_secrets(self, base_url: str) -> Secrets | None:
        """The secrets of jobs, if the settings name a source. Raises ConfigError if they would travel without TLS."""
        wanted = self._settings.secrets
        source = secret_source(wanted)
        if source is None:
            return None
        urls = wanted.urls or (base_url,)
        if not all(map(secure, urls)):
            problem = f"has a source of secrets, but executors would fetch them from {base_url} without TLS"
            fix = "serve artifacts over TLS, set secrets.urls to https URLs of a proxy, or listen on 127.0.0.1"
            raise ConfigError(problem, field="secrets", fix=fix)
        options = SecretOptions(
            _secrets_key(wanted, self._settings.data),
            self._settings.cluster.name,
            tuple(f"{url}{SECRETS_PATH}" for url in urls),
            self._settings.artifacts.authorities,
            milliseconds(wanted.lifetime),
            wanted.check_address,
        )
        parts = (source, options, self._task, self._use_secrets, self._clock.now_ms)
        return Secrets(*parts, recorder(self._audit)) if self._audit is not None else Secrets(*parts)

    def _task(self, task_id: str) -> Task | None:
        """A task of the leader's state. Raises JobcloudError or TimeoutError."""
        if self._loop_of_core is None:
            raise Unavailable("the scheduler has not started yet")
        return self._loop_of_core.ask(lambda core: core.tasks.get(task_id))

    def _use_secrets(self, task_id: str, agent_id: str) -> None:
        """Raises JobcloudError or TimeoutError."""
        if self._loop_of_core is None:
            raise Unavailable("the scheduler has not started yet")
        self._loop_of_core.command(lambda at: UseSecrets(at, task_id, agent_id))

    def _where(self) -> tuple[str, dict[str, str]]:
        """The id of the framework, and the address of each agent. Raises JobcloudError or TimeoutError."""
        if self._loop_of_core is None:
            raise Unavailable("the scheduler has not started yet")
        return self._loop_of_core.ask(
            lambda core: (core.framework_id, {agent.id: agent.address for agent in core.agents()})
        )

    def _heard_master(self, theirs_ms: int) -> None:
        self._clock.compare(theirs_ms, "the Mesos master")

    def _compare_clocks(self) -> None:
        """Compare the clock with that of a master before any fire time is handled."""
        if (theirs_ms := master_time(_mesos(self._settings))) is not None:
            self._heard_master(theirs_ms)

    def _api(
        self,
        loop: Loop[Scheduler],
        packages: PackageStore,
        origin: Origin,
        teardown: Callable[[], None],
        standby: Standby | None = None,
    ) -> ASGIApp:
        identity = self._settings.identity
        http, calls, elastic_job = self._settings.http, self._settings.http_jobs, self._settings.elastic_job
        options = ApiOptions(
            host=http.host,
            machine=socket.gethostname(),
            access=Access(
                self._token,
                (*http.names, *filter(None, [urlsplit(identity.url).hostname])),
                http.origins,
                max_upload_bytes=packages.max_bytes,
                elastic_job_without_token=elastic_job.without_token,
                metrics_token=self._settings.metrics.token,
            ),
            urls=self._package_urls,
            job_urls=UrlPolicy(calls.hosts, calls.schemes),
            elastic_job=ElasticJobOptions(elastic_job.enabled, elastic_job.zone),
            sessions=SessionOptions(
                milliseconds(identity.session_idle),
                milliseconds(identity.session_absolute),
                secure=http.secure,
            ),
            sign_in=SignIn(identity.password_sign_in, identity.provider),
            client_name=http.client_certificate_name if http.client_certificates != "off" else None,
        )
        read_log = functools.partial(_read_log, self._outputs)
        reader, traces, statistics = None, None, None
        if self._history is not None:
            from jobcloud.history.elastic_job_search import ElasticJobSearch
            from jobcloud.history.elastic_job_statistics import ElasticJobStatistics

            reader = self._history.reader
            traces, statistics = ElasticJobSearch(reader), ElasticJobStatistics(reader, self._clock.now_ms)
        api = create_api(
            loop if standby is None else ReplicatedLoop(loop),
            packages,
            options,
            notices=self._notices,
            origin=origin,
            read_log=read_log,
            teardown=teardown,
            clock=self._clock.now_ms,
            warnings=self._warnings,
            more_routes=[metrics_api.router(self._scrape(loop, packages))],
            history=reader,
            notes=self._history.notes if self._history is not None else None,
            traces=traces,
            statistics=statistics,
            standby=standby,
            archive=self._archive,
            alert_channels=self._alerts,
            directory=self._directory,
            missing_secrets=self._secrets.missing if self._secrets is not None else None,
            webhook_keys=self._secrets.webhook_keys if self._secrets is not None else None,
            oidc=self._oidc,
            audit=self._audit,
            core=lambda: self._scheduler,
        )
        return CountedApi(api, self._tally)

    def _scrape(self, loop: Loop[Scheduler], packages: PackageStore) -> Scrape:
        """Answers scrapes. The library of Prometheus is imported by the first one."""

        @functools.cache
        def metrics() -> Metrics:
            from jobcloud.server.metrics.exposition import Metrics, Sources

            spans = self._tracing.counts if self._tracing is not None else SpanCounts
            sources = Sources(
                loop, self._clock, packages.usage, self._warnings, lambda: self._notices.missed, self._archive, spans,
                self._listeners_with_tls,
            )  # fmt: skip
            return Metrics(self._tally, sources)

        return lambda accept: metrics().scrape(accept)

    def _directory(self) -> Directory:
        """The users and their rights. Read on any thread."""
        return self._scheduler.directory if self._scheduler is not None else EMPTY

    def _warnings(self) -> tuple[Told, ...]:
        """The present problems that do not stop the scheduler. Read on any thread."""
        scheduler = self._scheduler
        return (
            *self._clock.warnings(),
            *((CLEAR_TEXT,) if self._settings.http.clear_text else ()),
            *(warning for tls in self._listeners_with_tls for warning in tls.warnings()),
            *(scheduler.warnings if scheduler is not None else ()),
            *(self._history.warnings() if self._history is not None else ()),
            *(self._archive.warnings() if self._archive is not None else ()),
            *(self._tracing.warnings() if self._tracing is not None else ()),
            *(self._oidc.warnings() if self._oidc is not None else ()),
            *(self._audit.warnings() if self._audit is not None else ()),
        )

    def _registered(self) -> int | None:
        """The number of registered jobs of the team `default`. Called on the thread of the history."""
        scheduler = self._scheduler
        if scheduler is None:
            return None
        return sum(SEPARATOR not in key and not is_ad_hoc(key) for key in list(scheduler.jobs))

    def _sample(self) -> Sample | None:
        """The present numbers for the history, while this scheduler leads. Called on the thread of the history."""
        from jobcloud.server.samples import sample_of

        loop = self._loop_of_core
        return sample_of(functools.partial(loop.ask, timeout=_SAMPLE_S)) if loop is not None else None

    def _url_here(self, bound: socket.socket) -> str:
        """The URL for clients on this machine. With TLS, it has a name that should be in the certificate."""
        http = self._settings.http
        if self._http_tls is None:
            return _url(http.local, bound, tls=False)
        return http.advertise or _url(http.advertised, bound, tls=True)

    @contextlib.contextmanager
    def _context(self, url: str) -> Iterator[None]:
        """Write the address and the token to a file for clients of the same user. Remove the file at the end."""
        try:
            authorities = self._settings.http.tls_ca_file if self._http_tls is not None else None
            ca_file = str(authorities.absolute()) if authorities is not None else ""
            path = context.write(context.Context(url, self._token, os.getpid(), ca_file))
        except OSError as error:
            problem = f"the file for clients cannot be written: {error.strerror or error}"
            fix = "set XDG_RUNTIME_DIR to a directory of this user with free space"
            raise ConfigError(problem, field=str(context.directory()), fix=fix) from error
        try:
            yield
        finally:
            context.remove(path, os.getpid())

    def _wait(self, loop: Loop[Scheduler], leadership: Leadership | None, stop: threading.Event) -> int:
        while not stop.wait(0.2):
            lost = leadership.lost if leadership is not None else ""
            if loop.wait(0) or lost:
                print(f"jobcloud: stepped down: {loop.failure or lost}", file=sys.stderr)
                _end_soon()
                return 1
        return 0


def http_files(wanted: Settings) -> ServerFiles | None:
    """The certificates of the API. None without TLS."""
    http = wanted.http
    if http.tls_cert_file is None or http.tls_key_file is None:
        return None
    return ServerFiles(
        "http", http.tls_cert_file, http.tls_key_file, http.client_ca_file, http.client_crl_file,
        http.client_certificates, http.tls_ca_file,
    )  # fmt: skip


def artifacts_files(wanted: Settings) -> ServerFiles | None:
    """The certificates of the artifact server. None without TLS."""
    own = wanted.artifacts
    if own.tls_cert_file is None or own.tls_key_file is None:
        return None
    return ServerFiles("artifacts", own.tls_cert_file, own.tls_key_file)


def _standby(
    loop: Loop[Scheduler], leadership: Leadership | None, replica: Replica, peers: Callable[[], ssl.SSLContext]
) -> Standby | None:
    """Answers requests until this scheduler leads; None if it is the only scheduler."""
    if leadership is None:
        return None
    return Standby(lambda: loop.standing_by, lambda: leadership.leader, replica, peers)


def _end_soon() -> None:
    """Make the process exit even if threads hang: it has stepped down, and must not stay alive."""
    timer = threading.Timer(2 * _STOP_S, os._exit, (1,))
    timer.daemon = True
    timer.start()


def _url(host: str, listening: socket.socket, *, tls: bool) -> str:
    name = f"[{host.strip('[]')}]" if ":" in host else host
    return f"http{'s' if tls else ''}://{name}:{listening.getsockname()[1]}"


def _limits(wanted: Settings, listener: Http | ArtifactServer, descriptors: int) -> Limits:
    # There are two listeners, and a connection to the artifact server may need a second descriptor, for a file. So each
    # listener may have a third of all descriptors as connections.
    connections, per_address = min(listener.connections, descriptors // 3), listener.connections_per_address
    if connections < listener.connections:
        per_address = min(per_address, connections * 2 // 5)
        log.warning("fewer connections than configured: raise LimitNOFILE or ulimit -n", connections=connections)
    return Limits(
        connections=connections,
        per_address=per_address,
        head_seconds=wanted.http.head_timeout.total_seconds(),
        stall_seconds=wanted.http.stall_timeout.total_seconds(),
        descriptors=descriptors,
    )


def _prepare_data(data: Path) -> None:
    """Create the directory, and take the rights of other users from an existing one.

    Raises ConfigError if it cannot be used, StoreFull if its disk has too little room for a start.
    """
    try:
        make_private(data, "data directory")
        free = shutil.disk_usage(data).free
    except OSError as error:
        problem = f"{data} cannot be used: {error.strerror or error}"
        fix = "a directory that belongs to the user of this process and is closed to others"
        raise ConfigError(problem, field="data", fix=fix) from error
    if free < NEEDED_BYTES:
        raise StoreFull(
            f"too little space on the disk of {data}: {free:,} bytes are free, a start needs {NEEDED_BYTES:,}. Free "
            "some space, or choose another data directory"
        )


def _executor_zip(data: Path) -> tuple[str, Path]:
    """Build the executor's zip from the running code and write it below `data`. Returns its hash and path."""
    content = bundle.build()
    path = data / bundle.FILE_NAME
    try:
        path.with_suffix(".new").write_bytes(content)
        path.with_suffix(".new").replace(path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
    return hashlib.sha256(content).hexdigest(), path


def _policy(wanted: Settings, artifacts: Artifacts) -> Policy:
    numbers = wanted.scheduling
    return Policy(
        artifacts,
        cluster=wanted.cluster.name,
        offer_hold_ms=milliseconds(numbers.offer_hold),
        decline_refuse_ms=milliseconds(numbers.decline_refuse),
        misfire_threshold_ms=milliseconds(numbers.misfire_threshold),
        reconcile_interval_ms=milliseconds(numbers.reconcile_interval),
        alert_wait_ms=milliseconds(wanted.alerts.wait),
        alert_interval_ms=milliseconds(wanted.alerts.interval),
        history=numbers.history,
        app_versions=wanted.packages.versions,
        max_token_ms=milliseconds(wanted.tokens.max_lifetime),
        roles=wanted.mesos.roles,
        team_roles=wanted.mesos.role_of_team,
    )


def _alerts(wanted: Settings, clock: Clock) -> AlertService | None:
    """The channels that the settings name. Raises ConfigError. None if there are none."""
    if wanted.alerts.channels_file is None:
        return None
    from jobcloud.server.alerts.channels import load as load_channels
    from jobcloud.server.alerts.service import AlertService

    channels = load_channels(wanted.alerts.channels_file)
    return AlertService(channels, wanted.cluster.name, clock.now_ms, clock_warnings=clock.warnings)


def _history(
    wanted: Settings,
    data: Path,
    now_ms: Callable[[], int],
    registered: Callable[[], int | None],
    sample: Callable[[], Sample | None],
) -> History | None:
    """The history that the settings ask for. None if there is none."""
    history = wanted.history
    if history.url == "off" or (not history.url and wanted.data is None):
        return None
    if not history.url and wanted.shared:
        log.warning("no history is kept: several schedulers cannot share SQLite; set history.url, or set it to off")
        return None
    from jobcloud.history.retention import Limits as HistoryLimits
    from jobcloud.history.rows import Describe
    from jobcloud.history.service import History, HistoryOptions

    limits = HistoryLimits(
        milliseconds(history.keep),
        history.keep_attempts,
        history.keep_attempts_per_job,
        history.keep_bytes,
        milliseconds(history.keep_audit),
    )
    options = HistoryOptions(history.url, history.password, limits, history.spool_bytes, history.queue)
    describe = Describe(revisions.of_record, config_json)
    return History(options, data, now_ms, registered, describe, sample)


def archive_options(wanted: Settings) -> ArchiveOptions | None:
    """The options of the archive that the settings ask for. None if there is none."""
    archive = wanted.archive
    if not archive.url:
        return None
    place: Path | S3Options = Path(archive.url)
    if archive.bucket is not None:
        place = S3Options(*archive.bucket, archive.endpoint, archive.region, archive.access_key, archive.secret)
    return ArchiveOptions(
        place,
        wanted.cluster.name,
        archive.attempts,
        archive.stream_bytes,
        archive.bytes_per_second,
        archive.threads,
        archive.queue,
        ArchiveLimits(milliseconds(archive.keep), archive.keep_logs, archive.keep_logs_per_job, archive.keep_bytes),
    )


def secret_source(wanted: SecretSettings) -> Source | None:
    """The source of secrets that the settings name. None if there is none."""
    if wanted.directory is not None:
        return DirectorySource(wanted.directory)
    if wanted.environment_prefix:
        return EnvironmentSource(wanted.environment_prefix)
    if wanted.vault_token_file is None:
        return None
    options = VaultOptions(
        wanted.vault_url,
        wanted.vault_token_file,
        wanted.vault_mount,
        wanted.vault_prefix,
        wanted.vault_field,
        wanted.vault_namespace,
        str(wanted.vault_ca_file or ""),
        wanted.vault_timeout.total_seconds(),
    )
    return VaultSource(options)


def _secrets_key(wanted: SecretSettings, data: Path | None) -> bytes:
    """The key that seals the tokens of tasks. Without a setting, it is made once and kept in the data directory."""
    if wanted.key_file is not None:
        return read_secret(wanted.key_file).encode()
    if data is None:
        return secrets.token_bytes(KEY_BYTES)
    path = data / SECRETS_KEY_FILE
    try:
        if not path.exists():
            new = path.with_suffix(".new")
            new.unlink(missing_ok=True)
            new.touch(0o600)
            new.write_bytes(secrets.token_bytes(KEY_BYTES))
            new.replace(path)
        key = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path} cannot be used: {error.strerror or error}") from error
    if len(key) != KEY_BYTES:
        raise StoreError(f"{path} is damaged: remove it. Tasks that have just been launched then get no secrets")
    return key


def _audit(
    wanted: Settings, data: Path, api_url: str, now_ms: Callable[[], int], history: History | None
) -> Audit | None:
    """The audit log that the settings ask for. Raises ConfigError, StoreError. None if there is none."""
    own = wanted.audit
    if own.path == "off" or (not own.path and wanted.data is None):
        return None
    folder = Path(own.path) if own.path else data / "audit"
    if wanted.shared and not own.path:
        # Schedulers may share their data directory, but each has a log of its own.
        folder /= re.sub(r"[^A-Za-z0-9.]+", "-", urlsplit(api_url).netloc).strip("-.")
    limits = AuditLimits(own.file_bytes, milliseconds(own.keep), own.keep_bytes, delete=not own.required)
    exporters = [Exporter(HeadFile(Path(own.heads_file)), now_ms)] if own.heads_file else []
    if own.syslog:
        exporters.append(Exporter(Syslog(own.syslog, own.syslog_ca_file), now_ms))
    return Audit(
        DiskFolder(folder),
        AuditOptions(limits, own.required, frozenset(own.reads)),
        now_ms=now_ms,
        exporters=exporters,
        sinks=() if history is None else [history.record],
    )


def _tracing(wanted: Settings) -> Tracing | None:
    """The sender of traces that the settings ask for. None if there is none. Raises ConfigError without the extra."""
    own = wanted.tracing
    if not own.endpoint:
        return None
    options = TracingOptions(own.endpoint, wanted.cluster.name, own.ratio, own.shards, own.queue, own.headers())
    return Tracing(options)


def _oidc(wanted: Settings) -> Provider | None:
    """The identity provider of the settings. None if there is none."""
    options = oidc_options(wanted)
    if options is None:
        return None
    from jobcloud.server.identity.oidc.provider import Provider

    return Provider(options)


def oidc_options(wanted: Settings) -> OidcOptions | None:
    """The options of the identity provider that the settings name. None if there is none."""
    own = wanted.identity
    if not own.oidc_issuer:
        return None
    return OidcOptions(
        own.oidc_issuer,
        client_id=own.oidc_client_id,
        secret=own.oidc_client_secret,
        audience=own.oidc_audience,
        scopes=own.oidc_scopes,
        groups_claim=own.oidc_groups_claim,
        name_claim=own.oidc_name_claim,
        cli_client=own.oidc_cli_client_id,
        cli_scopes=own.oidc_cli_scopes,
        ca_file=own.oidc_ca_file,
        url=own.url,
        session_s=own.oidc_session.total_seconds(),
    )


def _try_provider(options: OidcOptions) -> None:
    """Ask the identity provider once, for the log."""
    from jobcloud.server.identity.oidc.metadata import ProviderError
    from jobcloud.server.identity.oidc.provider import Provider

    try:
        found = asyncio.run(Provider(options).describe())
    except ProviderError as error:
        log.warning("nobody can sign in at the identity provider", issuer=options.issuer, problem=str(error))
    else:
        log.info("the identity provider answers", issuer=options.issuer, found=found)


def zookeeper_state(wanted: ZooKeeper) -> str:
    """The name of a state in ZooKeeper. It does not name the servers of the ensemble, because they come and go."""
    return f"zookeeper {wanted.namespace}"


def etcd_state(wanted: Etcd) -> str:
    """The name of a state in etcd. It does not name the members of the cluster, because they come and go."""
    return f"etcd {wanted.prefix}"


def shared_store(wanted: Settings) -> LastingStore:
    """The state in ZooKeeper or etcd, over a connection of its own, for a reader that is no candidate."""
    if wanted.zookeeper.hosts:
        from jobcloud.adapters.zookeeper.session import ZooKeeperSession
        from jobcloud.adapters.zookeeper.store import ZooKeeperStore

        return ZooKeeperStore(ZooKeeperSession(zookeeper_settings(wanted.zookeeper)))
    from jobcloud.adapters.etcd.client import EtcdClient
    from jobcloud.adapters.etcd.store import EtcdStore

    return EtcdStore(EtcdClient(etcd_settings(wanted.etcd)))


def etcd_settings(wanted: Etcd) -> EtcdSettings:
    from jobcloud.adapters.etcd.client import EtcdSettings

    return EtcdSettings(
        wanted.hosts,
        wanted.prefix,
        auth=wanted.auth,
        session_timeout_s=wanted.session_timeout.total_seconds(),
        open_keys=wanted.open_keys,
        tls=_tls(wanted),
    )


def zookeeper_settings(wanted: ZooKeeper) -> ZooKeeperSettings:
    from jobcloud.adapters.zookeeper.session import ZooKeeperSettings

    return ZooKeeperSettings(
        wanted.hosts,
        wanted.namespace,
        auth=wanted.auth,
        session_timeout_s=wanted.session_timeout.total_seconds(),
        open_tree=wanted.open_tree,
        tls=_tls(wanted),
    )


def _tls(wanted: ZooKeeper | Etcd | Mesos) -> TlsFiles | None:
    files = (wanted.tls_ca_file, wanted.tls_cert_file, wanted.tls_key_file)
    return TlsFiles(*(str(path or "") for path in files)) if wanted.tls else None


def _mesos(wanted: Settings) -> MesosSettings:
    mesos = wanted.mesos
    return MesosSettings(
        mesos.master,
        user=mesos.user,
        roles=mesos.subscribed_roles,
        principal=mesos.principal,
        secret=mesos.secret,
        failover_timeout_s=mesos.failover_timeout.total_seconds(),
        tls=_tls(mesos),
        zookeeper_auth=mesos.zookeeper_auth,
    )


async def _read_log(outputs: OutputReader, wanted: LogRequest) -> LogChunk:
    """Read a task's output from its agent, trying one executor after another."""
    if not wanted.address:
        raise Unavailable(
            "the address of the task's agent is unknown", fix="try again after the agent has sent an offer"
        )
    missing: Refused = NotFound("the output does not exist", field="taskId")
    for executor_id in wanted.executors:
        try:
            output = Output(wanted.framework_id, executor_id, wanted.task_id, wanted.stream, earlier=wanted.ended)
            return LogChunk(*await outputs.read(wanted.address, output, wanted.offset, wanted.limit))
        except NotFound as error:
            missing = error
    raise missing
