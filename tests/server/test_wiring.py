"""The start of a scheduler process, before it leads."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.api_kit import FakeLoop, client_of
from tests.core_world import Desk, make_ad_hoc_job, make_app, make_job
from tests.history_kit import make_attempt
from tests.tls_kit import Authority

from jobcloud.archive.index import Limits as ArchiveLimits
from jobcloud.archive.s3 import S3Options
from jobcloud.archive.service import ArchiveOptions
from jobcloud.client import context
from jobcloud.errors import ConfigError, StoreError, StoreFull, Unavailable
from jobcloud.messages import RunAdHoc
from jobcloud.server import wiring
from jobcloud.server.api import ElasticJobOptions
from jobcloud.server.identity.oidc.metadata import ProviderError
from jobcloud.server.identity.oidc.options import OidcOptions
from jobcloud.server.origin import Origin
from jobcloud.server.packages import PackageStore
from jobcloud.server.secrets.sources import EnvironmentSource
from jobcloud.server.secrets.vault import VaultSource
from jobcloud.server.settings import load
from jobcloud.server.urls import UrlPolicy
from jobcloud.tracing import service

_Usage = namedtuple("_Usage", ["total", "used", "free"])


@pytest.mark.parametrize(("mode", "mended"), [(0o755, 0o750), (0o777, 0o770), (0o701, 0o700)])
def test_data_directory_open_to_others_is_closed_with_a_warning(tmp_path: Path, mode: int, mended: int) -> None:
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(mode)
    with capture_logs() as lines:
        wiring._prepare_data(data)
    assert data.stat().st_mode & 0o777 == mended
    assert [line["log_level"] for line in lines] == ["warning"]
    with capture_logs() as lines:
        wiring._prepare_data(data)
    assert lines == []


def test_scheduler_does_not_start_without_the_extra_of_its_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_MODULES", ("opentelemetry.absent.sdk",))
    wanted = load(flags={"tracing.endpoint": "http://127.0.0.1:1/v1/traces"})
    with pytest.raises(ConfigError, match=r"jobcloud\[server,tracing\]"):
        wiring._tracing(wanted)
    assert wiring._tracing(load()) is None


def test_new_data_directory_is_private(tmp_path: Path) -> None:
    wiring._prepare_data(tmp_path / "a" / "data")
    assert (tmp_path / "a" / "data").stat().st_mode & 0o777 == 0o700


def refuse(path: Path, mode: int) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_readable_data_directory_of_another_user_is_used_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A volume of Kubernetes belongs to root, and its group can write it."""
    tmp_path.chmod(0o775)
    monkeypatch.setattr(Path, "chmod", refuse)
    with capture_logs() as lines:
        wiring._prepare_data(tmp_path)
    assert [line["log_level"] for line in lines] == ["warning"]


def test_writable_data_directory_that_cannot_be_closed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o777)
    monkeypatch.setattr(Path, "chmod", refuse)
    with pytest.raises(ConfigError, match="Operation not permitted") as error:
        wiring._prepare_data(tmp_path)
    assert error.value.field == "data"
    with pytest.raises(ConfigError):
        wiring._prepare_data(Path("/proc/nothing"))


def test_too_little_space_at_the_start_is_told_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: _Usage(10**9, 10**9 - 4_194_304, 4_194_304))
    with pytest.raises(StoreFull, match=r"4,194,304 bytes are free, a start needs 8,388,608"):
        wiring._prepare_data(tmp_path / "data")


def test_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file/data cannot be used: Not a directory"):
        wiring._prepare_data(tmp_path / "file" / "data")


def test_clock_that_is_ahead_of_the_master_is_doubted_before_anything_fires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = wiring._Process(load(flags={"mesos.master": "10.0.0.1:5050"}), tmp_path)
    before = process._clock.now_ms()
    monkeypatch.setattr(wiring, "master_time", lambda wanted: before - 180 * 86_400_000)
    process._compare_clocks()
    assert process._clock.now_ms() < before - 179 * 86_400_000
    assert any("180 d ahead of that of the Mesos master" in warning for warning in process._warnings())


def test_master_that_tells_no_time_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = wiring._Process(load(flags={"mesos.master": "10.0.0.1:5050"}), tmp_path)
    monkeypatch.setattr(wiring, "master_time", lambda wanted: None)
    process._compare_clocks()
    assert process._warnings() == ()


def test_only_registered_jobs_of_the_default_team_are_counted_for_the_history(tmp_path: Path) -> None:
    process = wiring._Process(load(flags={"mesos.master": "10.0.0.1:5050"}), tmp_path)
    assert process._registered() is None
    desk = Desk(make_app(), make_job("a"), make_app(team="billing"), make_job("b", team="billing"))
    desk.do(RunAdHoc(desk.at, make_ad_hoc_job("once")))
    process._scheduler = desk.scheduler
    assert process._registered() == 1


def test_settings_of_elastic_job_reach_its_api(tmp_path: Path) -> None:
    flags = {"elastic_job.zone": "Asia/Shanghai", "elastic_job.without_token": True, "mesos.master": "master:5050"}
    process = wiring._Process(load(flags=flags), tmp_path)
    packages = PackageStore(tmp_path / "packages")
    app: Any = process._api(FakeLoop(), packages, Origin(packages, UrlPolicy()), lambda: None)  # type: ignore[arg-type]
    assert app.app.state.services.options.elastic_job == ElasticJobOptions(enabled=True, zone="Asia/Shanghai")
    client = client_of(app, url="http://127.0.0.1")
    assert client.get("/api/app/list").status_code == 200
    assert client.get("/api/v1/apps").status_code == 401


MASTER = {"mesos.master": "10.0.0.1:5050"}


@pytest.mark.parametrize(
    ("flags", "kept"),
    [
        ({"data": "d"}, True),
        ({"data": "d", "history.url": "off"}, False),
        ({}, False),
        ({"history.url": "postgresql://me@db/history"}, True),
        ({"data": "d", "etcd.hosts": "127.0.0.1:2379"}, False),
        ({"data": "d", "etcd.hosts": "127.0.0.1:2379", "history.url": "mariadb://me@db/history"}, True),
    ],
)
def test_history_is_kept_by_default_if_one_scheduler_has_the_state(
    tmp_path: Path, flags: dict[str, str], kept: bool
) -> None:
    wanted = load(flags=MASTER | flags | ({"data": tmp_path} if "data" in flags else {}))
    with capture_logs() as lines:
        history = wiring._history(wanted, tmp_path, lambda: 0, lambda: None, lambda: None)
    assert (history is not None) == kept
    warned = any("no history is kept" in line["event"] and "history.url" in line["event"] for line in lines)
    assert warned == ("etcd.hosts" in flags and not kept)


def test_settings_of_the_identity_provider_reach_the_api(tmp_path: Path) -> None:
    secret, issuer = tmp_path / "secret", "http://127.0.0.1:9"
    secret.write_text("s3cret")
    secret.chmod(0o600)
    flags = {
        "oidc_issuer": issuer, "oidc_client_id": "console", "oidc_client_secret_file": secret, "oidc_audience": "api",
        "oidc_scopes": "openid,a", "oidc_cli_scopes": "openid,b", "oidc_cli_client_id": "cli", "oidc_ca_file": secret,
        "oidc_name_claim": "oid", "oidc_groups_claim": "roles", "oidc_session": "1h", "url": "https://jobs.example.org",
    }  # fmt: skip
    given = MASTER | {"http.tls": "by-proxy"} | {f"identity.{key}": text for key, text in flags.items()}
    process = wiring._Process(load(flags=given), tmp_path)
    assert process._oidc is not None
    assert process._oidc.options == OidcOptions(
        issuer, "console", "s3cret", "api", ("openid", "a"), "roles", "oid", "cli", ("openid", "b"), secret,
        "https://jobs.example.org", 3_600.0,
    )  # fmt: skip
    packages = PackageStore(tmp_path / "packages")
    app: Any = process._api(FakeLoop(), packages, Origin(packages, UrlPolicy()), lambda: None)  # type: ignore[arg-type]
    found = client_of(app).get("sign-in").json()["oidc"]
    assert found == {"issuer": issuer, "clientId": "cli", "scopes": ["openid", "b"], "audience": "api"}
    page = client_of(app, url="https://jobs.example.org").get("/login")
    assert "Sign in with 127.0.0.1" in page.text, "identity.url is a name of the server"
    assert app.app.state.services.sessions.secure


def test_identity_provider_that_is_away_is_in_the_log_and_in_the_warnings(tmp_path: Path) -> None:
    flags = MASTER | {"identity.oidc_issuer": "http://127.0.0.1:9", "identity.oidc_client_id": "console"}
    process = wiring._Process(load(flags=flags), tmp_path)
    assert process._oidc is not None
    with capture_logs() as lines:
        wiring._try_provider(process._oidc.options)
    assert ["cannot be reached" in line["problem"] for line in lines] == [True]
    with pytest.raises(ProviderError):
        asyncio.run(process._oidc.metadata())
    (warning,) = process._warnings()
    assert warning.startswith("the identity provider http://127.0.0.1:9: ")


def test_problem_of_the_history_is_a_warning(tmp_path: Path) -> None:
    process = wiring._Process(load(flags=MASTER | {"data": tmp_path}), tmp_path)
    assert process._history is not None
    process._history._writer._fail(OSError("no route to host"))
    process._history._writer._dropped = 3
    away, lost = process._warnings()
    assert "no route to host" in away
    assert "3 events" in lost


def test_api_of_elastic_job_asks_the_history(tmp_path: Path) -> None:
    process = wiring._Process(load(flags=MASTER | {"data": tmp_path}), tmp_path)
    assert process._history is not None
    process._history.start()
    process._scheduler = FakeLoop().scheduler
    process._scheduler.jobs.update({"report": None, "billing:close": None})  # type: ignore[dict-item]
    process._history.fill([], {})
    hour_ago = process._clock.now_ms() - 3_600_000
    process._history.publish(make_attempt(at=hour_ago, started_ms=hour_ago - 1))
    assert process._history.flush()
    packages = PackageStore(tmp_path / "packages")
    app: Any = process._api(FakeLoop(), packages, Origin(packages, UrlPolicy()), lambda: None)  # type: ignore[arg-type]
    client = client_of(app, process._token, url="http://127.0.0.1/api")
    assert client.get("job/events/executions").json()["total"] == 1
    assert client.get("job/statistics/tasks/results/online").json()["successCount"] == 1
    kept, present = client.get("job/statistics/jobs/register").json()
    # The other loop, which the API asks, has no jobs.
    assert (kept["registeredCount"], present["registeredCount"]) == (1, 0)
    process._history.stop()


def test_archive_is_made_from_the_settings(tmp_path: Path) -> None:
    assert wiring._Process(load(flags=MASTER), tmp_path)._archive is None
    (secret := tmp_path / "secret").write_text("secret")
    secret.chmod(0o600)
    flags = {
        "archive.url": "s3://logs/all", "archive.endpoint": "http://minio:9000", "archive.access_key": "AK",
        "archive.secret_file": secret, "archive.attempts": "failed", "archive.keep": "1h", "archive.keep_logs": 7,
        "archive.keep_logs_per_job": 3, "archive.keep_bytes": "1MiB", "archive.stream_bytes": "1MiB",
        "archive.queue": 100, "archive.threads": 3, "archive.bytes_per_second": "2MiB", "cluster.name": "prod",
    }  # fmt: skip
    options = wiring.archive_options(load(flags=MASTER | flags))
    assert options == ArchiveOptions(
        S3Options("logs", "all", "http://minio:9000", "", "AK", "secret"), "prod", "failed", 1 << 20, 2 << 20, 3, 100,
        ArchiveLimits(3_600_000, 7, 3, 1 << 20),
    )  # fmt: skip
    process = wiring._Process(load(flags=MASTER | {"archive.url": str(tmp_path / "logs")}), tmp_path)
    assert process._archive is not None
    process._archive._fail(OSError("no route to host"))
    (warning,) = process._warnings()
    assert "the archive of logs is away" in warning
    with pytest.raises(Unavailable):
        process._where()


def test_file_for_clients_is_there_before_the_scheduler_leads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A standby has the file too, and no server that failed to start leaves one."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    found: list[context.Context] = []

    def fail(data: Path) -> None:
        found.append(context.find())
        raise StoreFull("the disk is full")

    monkeypatch.setattr(wiring, "_executor_zip", fail)
    flags = {"data": str(tmp_path / "data"), "mesos.master": "127.0.0.1:1", "http.port": 0, "artifacts.port": 0}
    wanted = load(flags=flags)
    with pytest.raises(StoreFull):
        wiring._Process(wanted, tmp_path / "data").run(threading.Event())
    assert [(one.pid, bool(one.token)) for one in found] == [(os.getpid(), True)]
    assert context.find() == context.Context(context.DEFAULT_URL)


def test_scheduler_with_secrets_does_not_start_if_executors_would_fetch_them_without_tls(tmp_path: Path) -> None:
    wanted = {"mesos.master": "10.0.0.1:5050", "secrets.directory": tmp_path}
    process = wiring._Process(load(flags=wanted), tmp_path)
    with pytest.raises(ConfigError, match=r"from http://10\.0\.0\.7:8898 without TLS") as error:
        process._made_secrets("http://10.0.0.7:8898")
    assert error.value.field == "secrets"
    for url in ("https://10.0.0.7:8898", "http://127.0.0.1:8898", "http://[::1]:8898"):
        assert process._made_secrets(url) is not None
    proxy = load(flags={**wanted, "secrets.urls": "https://a.test,https://b.test:8898"})
    made = wiring._Process(proxy, tmp_path)._made_secrets("http://10.0.0.7:8898")
    assert made is not None
    assert made._options.urls == ("https://a.test/secrets", "https://b.test:8898/secrets")
    assert made._options.ca == ""
    authority = Authority(tmp_path)
    files = authority.issue("10.0.0.7")
    pair = {"artifacts.tls_cert_file": files.cert, "artifacts.tls_key_file": files.key}
    secured = load(flags={**wanted, **pair, "artifacts.tls_ca_file": authority.file})
    made = wiring._Process(secured, tmp_path)._made_secrets("https://10.0.0.7:8898")
    assert made is not None
    assert (made._options.urls, made._options.ca) == (("https://10.0.0.7:8898/secrets",), authority.file.read_text())
    assert wiring._Process(load(flags={"mesos.master": "10.0.0.1:5050"}), tmp_path)._made_secrets("http://x") is None


def test_key_of_a_single_scheduler_is_made_once_and_private(tmp_path: Path) -> None:
    wanted = load().secrets
    key = wiring._secrets_key(wanted, tmp_path)
    assert wiring._secrets_key(wanted, tmp_path) == key
    assert (tmp_path / "secrets.key").stat().st_mode & 0o777 == 0o600
    assert len(key) == 32
    assert wiring._secrets_key(wanted, None) != wiring._secrets_key(wanted, None)
    (tmp_path / "secrets.key").write_bytes(b"short")
    with pytest.raises(StoreError, match="is damaged"):
        wiring._secrets_key(wanted, tmp_path)


def test_settings_choose_the_source_of_secrets(tmp_path: Path) -> None:
    (token := tmp_path / "token").write_text("t")
    token.chmod(0o600)
    vault = {"secrets.vault_url": "https://v.test", "secrets.vault_token_file": token, "secrets.vault_timeout": "3s"}
    found = wiring.secret_source(load(flags=vault).secrets)
    assert isinstance(found, VaultSource)
    assert (found._options.url, found._options.timeout_s, found._options.mount) == ("https://v.test", 3.0, "secret")
    prefix = load(flags={"secrets.environment_prefix": "APP_"}).secrets
    assert isinstance(wiring.secret_source(prefix), EnvironmentSource)
    assert wiring.secret_source(load().secrets) is None


def test_audit_log_is_kept_with_a_lasting_state(tmp_path: Path) -> None:
    def folders(**flags: Any) -> set[str]:
        audit = wiring._audit(load(flags=flags), tmp_path, "http://sched-1.test:8899", lambda: 0, None)
        if audit is not None:
            audit.stop()
        return {str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob("audit-*.jsonl")}

    assert folders() == set()
    assert folders(data=tmp_path, **{"audit.path": "off"}) == set()
    assert folders(data=tmp_path) == {"audit"}
    assert folders(data=tmp_path, **{"etcd.hosts": "127.0.0.1:2379"}) == {"audit", "audit/sched-1.test-8899"}
    assert "own" in folders(**{"audit.path": str(tmp_path / "own")})


def test_second_scheduler_with_the_same_audit_log_is_refused(tmp_path: Path) -> None:
    wanted = load(flags={"audit.path": str(tmp_path / "log")})
    first = wiring._audit(wanted, tmp_path, "http://a:1", lambda: 0, None)
    assert first is not None
    with pytest.raises(ConfigError, match="another process writes the audit log"):
        wiring._audit(wanted, tmp_path, "http://a:1", lambda: 0, None)
    first.stop()
