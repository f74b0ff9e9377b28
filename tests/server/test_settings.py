"""Settings: sources, their precedence, and error messages."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from jobcloud.errors import ConfigError
from jobcloud.server.settings import Http, _environment, keys, load, milliseconds


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("JOBCLOUD_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("s3cret-of-the-api\n")
    path.chmod(0o600)
    return path


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "jobcloud.toml"
    path.write_text(text)
    return path


def problems(error: ConfigError) -> dict[str, str]:
    return {each.field: str(each) for each in (error, *error.others)}


def refused(**flags: object) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        load(flags={name.replace("__", "."): value for name, value in flags.items()})
    return problems(caught.value)


@pytest.mark.parametrize("name", ["", "Prod", "a b", "a@b", "a:b", "1", "a" * 33, "../x"])
def test_hostile_name_of_the_cluster_is_refused_with_a_fix(name: str) -> None:
    assert "lower-case letters, digits or '-'" in refused(cluster__name=name)["cluster.name"]


def test_cluster_has_a_name_from_the_environment_or_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load().cluster.name == "jobcloud"
    monkeypatch.setenv("JOBCLOUD_CLUSTER_NAME", "north-1")
    assert load().cluster.name == "north-1"


def test_default_settings_listen_on_loopback_and_keep_state_in_memory() -> None:
    settings = load()
    assert (settings.http.host, settings.http.port, settings.data) == ("127.0.0.1", 8899, None)
    assert settings.scheduling.offer_hold == timedelta(seconds=5)
    assert settings.scheduling.history == 50
    assert settings.packages.max_bytes == 256 * 1024 * 1024


def test_flags_override_the_environment_which_overrides_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = toml(tmp_path, "[http]\nport = 1\nhost = 'localhost'\n[scheduling]\nhistory = 1\noffer_hold = '1s'")
    monkeypatch.setenv("JOBCLOUD_HTTP_PORT", "2")
    monkeypatch.setenv("JOBCLOUD_SCHEDULING_HISTORY", "2")
    settings = load(file, {"http.port": 3, "scheduling.history": None})
    assert (settings.http.port, settings.scheduling.history, settings.http.host) == (3, 2, "localhost")
    assert settings.scheduling.offer_hold == timedelta(seconds=1)


def test_every_key_can_be_set_by_its_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBCLOUD_DATA", "/var/lib/jobcloud")
    monkeypatch.setenv("JOBCLOUD_PURE_MATCHER", "true")
    monkeypatch.setenv("JOBCLOUD_MESOS_ROLES", "batch, spare")
    monkeypatch.setenv("JOBCLOUD_MESOS_FAILOVER_TIMEOUT", "2w")
    monkeypatch.setenv("JOBCLOUD_PACKAGES_MAX_BYTES", "1GiB")
    monkeypatch.setenv("JOBCLOUD_PACKAGES_SCHEMES", "https")
    monkeypatch.setenv("JOBCLOUD_LOG_FORMAT", "json")
    settings = load()
    assert settings.data == Path("/var/lib/jobcloud")
    assert settings.pure_matcher
    assert settings.mesos.roles == ("batch", "spare")
    assert settings.mesos.failover_timeout == timedelta(weeks=2)
    assert settings.packages.max_bytes == 1 << 30
    assert settings.packages.schemes == ("https",)
    assert settings.log.format == "json"


def test_mesos_roles_of_teams_come_after_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBCLOUD_MESOS_TEAM_ROLES", "web=eng/web, billing=finance,ledger=finance")
    mesos = load().mesos
    assert mesos.role_of_team == {"web": "eng/web", "billing": "finance", "ledger": "finance"}
    assert mesos.subscribed_roles == ("*", "eng/web", "finance")


def test_example_of_mesos_roles_in_the_documentation(tmp_path: Path) -> None:
    document = (Path(__file__).parents[2] / "docs" / "mesos.md").read_text()
    (example,) = re.findall(r"```toml\n(\[mesos\]\n.*?)```", document, re.DOTALL)
    assert load(toml(tmp_path, example)).mesos.subscribed_roles == ("*", "eng/web", "finance")


@pytest.mark.parametrize(
    ("pairs", "problem"),
    [
        ("billing", "is not a team with a Mesos role"),
        ("=finance", "is not a team with a Mesos role"),
        ("Billing Team=finance", "is not a team with a Mesos role"),
        ("billing=", "is not a team with a Mesos role"),
        ("billing=*", "is not a team with a Mesos role"),
        ("billing=-finance", "is not a team with a Mesos role"),
        ("billing=fin ance", "is not a team with a Mesos role"),
        ("billing=eng//ops", "is not a team with a Mesos role"),
        ("billing=finance,billing=web", "names a team twice"),
        ("billing=batch", "role 'batch' is also in mesos.roles"),
    ],
)
def test_wrong_mesos_role_of_a_team_is_refused(monkeypatch: pytest.MonkeyPatch, pairs: str, problem: str) -> None:
    monkeypatch.setenv("JOBCLOUD_MESOS_ROLES", "batch")
    monkeypatch.setenv("JOBCLOUD_MESOS_TEAM_ROLES", pairs)
    with pytest.raises(ConfigError, match=re.escape(problem)) as refused:
        load()
    assert refused.value.field == "mesos.team_roles"


def test_section_with_an_underscore_can_be_set_by_environment_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBCLOUD_HTTP_JOBS_HOSTS", "orders.example.org,*.intra")
    monkeypatch.setenv("JOBCLOUD_HTTP_HOSTS", "scheduler.example.org")
    settings = load()
    assert settings.http_jobs.hosts == ("orders.example.org", "*.intra")
    assert settings.http.hosts == ("scheduler.example.org",)


def test_every_key_has_an_environment_variable() -> None:
    names = {key: "JOBCLOUD_" + key.replace(".", "_").upper() for key, _, _ in keys()}
    assert len(set(names.values())) == len(names)
    for key, name in names.items():
        section, _, inner = key.rpartition(".")
        assert _environment({name: "x"}) == ({section: {inner: "x"}} if section else {inner: "x"})


def test_unknown_variable_of_a_section_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBCLOUD_HTTP_PROT", "80")
    with pytest.raises(ConfigError, match=r"did you mean http\.port\?"):
        load()


def test_variables_of_other_parts_of_jobcloud_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBCLOUD_SEED", "7")
    monkeypatch.setenv("JOBCLOUD_RUN_ID", "x")
    assert load() == load()


def test_settings_cannot_be_changed() -> None:
    settings = load()
    with pytest.raises(ValidationError):
        settings.http.port = 1
    with pytest.raises(ValidationError):
        settings.pure_matcher = True


def test_all_errors_are_reported_together_with_key_and_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBCLOUD_SCHEDULING_HISTORY", "many")
    file = toml(tmp_path, "[http]\nprot = 80\n[scheduling]\noffer_hold = 5\n[log]\nlevel = 'loud'\n[nonsense]\na = 1")
    with pytest.raises(ConfigError) as caught:
        load(file, {"artifacts.port": 70_000})
    found = problems(caught.value)
    assert set(found) == {
        "http.prot",
        "scheduling.offer_hold",
        "scheduling.history",
        "log.level",
        "nonsense",
        "artifacts.port",
    }
    assert "did you mean http.port?" in found["http.prot"]
    assert "500ms, 90s" in found["scheduling.offer_hold"]
    assert "1 to 10000" in found["scheduling.history"]
    assert "a port" in found["artifacts.port"]


@pytest.mark.parametrize(
    ("text", "ms"), [("5s", 5_000), ("500ms", 500), ("10m", 600_000), ("1h30m", 5_400_000), ("1.5s", 1_500)]
)
def test_durations_have_units(text: str, ms: int) -> None:
    assert milliseconds(load(flags={"scheduling.offer_hold": text}).scheduling.offer_hold) == ms


# findings/durations-of-six-parsers.sh: other programs read these in different ways.
AMBIGUOUS = ["90", "1:30", "1:30:00", "1M", "1h30", "1y", "PT1M", "P1M", "30m1h", "1h1h"]


@pytest.mark.parametrize("value", AMBIGUOUS)
def test_duration_that_other_programs_read_otherwise_is_refused(value: str) -> None:
    assert set(refused(scheduling__offer_hold=value)) == {"scheduling.offer_hold"}


@pytest.mark.parametrize(
    "value", ["5", "s", "-5s", "5 s", "5x", "", "0s", "9999d", 5, True, "1e3s", "1.5ms", "9" * 400 + "w"]
)
def test_invalid_durations_are_refused(value: object) -> None:
    assert set(refused(scheduling__offer_hold=value)) == {"scheduling.offer_hold"}


def test_number_out_of_range_is_refused_in_the_units_of_the_setting() -> None:
    assert "is out of range: at least 1ms" in refused(scheduling__offer_hold="0s")["scheduling.offer_hold"]
    assert "is out of range: at most 366d" in refused(scheduling__offer_hold="9999d")["scheduling.offer_hold"]
    assert "is out of range: at most 10m" in refused(packages__fetch_timeout="11m")["packages.fetch_timeout"]
    assert "is out of range: at most 65535" in refused(http__port=70_000)["http.port"]
    for huge in ("999999999999w", "99999999999w99999999999d"):
        assert "is out of range: at most 366d" in refused(mesos__failover_timeout=huge)["mesos.failover_timeout"]


@pytest.mark.parametrize("port", ["0", "65536", "99999"])
def test_port_that_cannot_be_reached_is_refused(port: str, tmp_path: Path) -> None:
    """Port 0 was tried for ever, in silence."""
    for master in (f"m1:{port}", f"m1:5050,[::1]:{port}", f"zk://a:{port},b:2181/mesos", f"zk://a:2181,b:{port}/mesos"):
        assert f"port {port} is out of range" in refused(mesos__master=master)["mesos.master"]
    hosts = f"127.0.0.1:2181,127.0.0.1:{port}"
    assert "1 to 65535" in refused(zookeeper__hosts=hosts, data=tmp_path)["zookeeper.hosts"]


def test_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    file = tmp_path / "jobcloud.toml"
    file.write_bytes(b"\xef\xbb\xbf[http]\r\nport = 1\r\n")
    assert load(file).http.port == 1


def test_token_is_required_off_loopback(token: Path) -> None:
    for host in ("0.0.0.0", "10.0.0.7", "::", "scheduler.example.org"):
        assert "jobcloud scheduler --token-file" in refused(http__host=host)["http.host"]
        assert load(flags={"http.host": host, "http.token_file": token}).http.token == "s3cret-of-the-api"
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        assert load(flags={"http.host": host}).http.token == ""


def test_secret_readable_by_everyone_is_refused_with_the_chmod_command(token: Path) -> None:
    token.chmod(0o644)
    assert f"chmod 600 {token}" in refused(http__token_file=token)["http.token_file"]


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"two\nlines", b"\xff\xfe", b"x" * 5_000])
def test_file_without_a_secret_is_refused(token: Path, content: bytes) -> None:
    token.write_bytes(content)
    assert "contains no secret" in refused(http__token_file=token)["http.token_file"]


def test_missing_secret_file_is_reported(tmp_path: Path) -> None:
    assert "No such file" in refused(http__token_file=tmp_path / "none")["http.token_file"]
    assert "directory" in refused(http__token_file=tmp_path)["http.token_file"]


def test_secrets_appear_neither_in_settings_nor_in_errors(token: Path) -> None:
    token.write_text("two words")
    assert "two words" not in str(refused(http__token_file=token))
    token.write_text("s3cret-of-the-api")
    assert "s3cret" not in repr(load(flags={"http.token_file": token}))


@pytest.mark.parametrize(
    "master", ["m1:5050", "10.0.0.1:5050", "m1:5050,m2:5050", "zk://a:2181,b:2181/mesos", "[::1]:5050"]
)
def test_valid_masters_are_accepted(master: str) -> None:
    assert load(flags={"mesos.master": master}).mesos.master == master


@pytest.mark.parametrize("master", ["m1", "http://m1:5050", "zk://", "m1:5050/", "m1 :5050", "user:pw@m1:5050"])
def test_invalid_masters_are_refused(master: str) -> None:
    assert set(refused(mesos__master=master)) == {"mesos.master"}


def test_password_in_the_address_of_zookeeper_is_refused() -> None:
    assert "mesos.zookeeper_auth_file" in refused(mesos__master="zk://u:p@a:2181/mesos")["mesos.master"]


def test_remote_etcd_requires_credentials_or_a_certificate_or_open_keys(token: Path, tmp_path: Path) -> None:
    token.write_text("me:secret")
    remote = {"etcd.hosts": "etcd1:2379,etcd2:2379", "data": tmp_path}
    found = refused(**{key.replace(".", "__"): value for key, value in remote.items()})
    assert "which code runs on the agents" in found["etcd.auth_file"]
    assert load(flags={**remote, "etcd.auth_file": token}).etcd.auth == "me:secret"
    assert load(flags={**remote, "etcd.open_keys": True}).etcd.auth == ""
    own = {"etcd.tls": True, "etcd.tls_cert_file": token, "etcd.tls_key_file": token}
    assert load(flags=remote | own).etcd.tls
    assert load(flags={**remote, "etcd.hosts": "127.0.0.1:2379,[::1]:2379"}).etcd.hosts
    assert "auth_file" in refused(etcd__hosts="me:secret@etcd1:2379", data=tmp_path)["etcd.hosts"]
    assert "directory" in refused(etcd__hosts="127.0.0.1:2379")["data"]
    assert set(refused(etcd__prefix="a//b")) == {"etcd.prefix"}


def test_two_places_for_the_state_are_refused(tmp_path: Path) -> None:
    both = {"zookeeper__hosts": "127.0.0.1:2181", "etcd__hosts": "127.0.0.1:2379"}
    assert "choose one" in refused(**both, data=tmp_path)["etcd.hosts"]


def test_remote_zookeeper_requires_credentials_or_open_tree(token: Path, tmp_path: Path) -> None:
    token.write_text("me:secret")
    remote = {"zookeeper.hosts": "zk1:2181,zk2:2181", "data": tmp_path}
    assert (
        "open_tree"
        in refused(**{key.replace(".", "__"): value for key, value in remote.items()})["zookeeper.auth_file"]
    )
    assert load(flags={**remote, "zookeeper.auth_file": token}).zookeeper.auth == "me:secret"
    assert load(flags={**remote, "zookeeper.open_tree": True}).zookeeper.auth == ""
    assert load(flags={**remote, "zookeeper.hosts": "127.0.0.1:2181,[::1]:2181"}).zookeeper.hosts
    assert "auth_file" in refused(zookeeper__hosts="me:secret@zk1:2181", data=tmp_path)["zookeeper.hosts"]
    assert "directory" in refused(zookeeper__hosts="127.0.0.1:2181")["data"]
    token.write_text("nobody")
    assert "USER:PASSWORD" in refused(zookeeper__auth_file=token)["zookeeper.auth_file"]


@pytest.mark.parametrize("hosts", ["zk1", "zk1:2181/jobcloud", "zk://zk1:2181", "zk1:2181,,zk2:2181", "zk1: 2181"])
def test_invalid_zookeeper_hosts_are_refused(hosts: str, tmp_path: Path) -> None:
    assert set(refused(zookeeper__hosts=hosts, data=tmp_path)) == {"zookeeper.hosts"}


@pytest.mark.parametrize("namespace", ["", "/", "a//b", "zookeeper", "zookeeper/x", "a b", "../a", "a/"])
def test_invalid_namespaces_are_refused(namespace: str) -> None:
    assert set(refused(zookeeper__namespace=namespace)) == {"zookeeper.namespace"}


def test_package_networks_are_validated() -> None:
    given = load(flags={"packages.networks": "10.0.0.0/8, fd00::/8", "packages.fetch_timeout": "30s"}).packages
    assert (given.networks, given.fetch_timeout.total_seconds()) == (("10.0.0.0/8", "fd00::/8"), 30)
    for wrong in ("10.0.0.1/8", "intra", "10.0.0.0/40"):
        assert "not a network" in refused(packages__networks=wrong)["packages.networks"]
    assert set(refused(packages__fetch_timeout="11m")) == {"packages.fetch_timeout"}


def test_zone_of_elastic_job_is_validated() -> None:
    assert load(flags={"elastic_job.zone": "Asia/Shanghai"}).elastic_job.zone == "Asia/Shanghai"
    for wrong in ("Mars/Olympus", "", "../../etc/passwd"):
        assert "not a known time zone" in refused(elastic_job__zone=wrong)["elastic_job.zone"]
    assert not load().elastic_job.without_token


def test_settings_that_need_each_other_are_checked_together(token: Path) -> None:
    assert "set both" in refused(mesos__principal="p")["mesos.principal"]
    assert "set both" in refused(mesos__secret_file=token)["mesos.principal"]
    assert load(flags={"mesos.principal": "p", "mesos.secret_file": token}).mesos.secret == "s3cret-of-the-api"
    assert "set mesos.tls to true" in refused(mesos__tls_ca_file=token)["mesos.tls"]
    assert "tls_key_file" in refused(mesos__tls=True, mesos__tls_cert_file=token)["mesos.tls_cert_file"]
    assert "agents reach" in refused(artifacts__host="0.0.0.0")["artifacts.advertise"]
    assert load(flags={"artifacts.host": "0.0.0.0", "artifacts.advertise": "s1"}).artifacts.advertise == "s1"


def test_missing_or_invalid_toml_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml cannot be read"):
        load(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=r"jobcloud\.toml is not valid TOML"):
        load(toml(tmp_path, "[http\n"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"binary\.toml is not valid TOML"):
        load(tmp_path / "binary.toml")
    with pytest.raises(ConfigError, match=r"jobcloud\.toml is nested too deeply"):
        load(toml(tmp_path, f"data = {'[' * 5_000}"))


def test_section_that_is_not_a_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(toml(tmp_path, "http = 5"))
    assert set(problems(caught.value)) == {"http"}


@given(st.dictionaries(st.sampled_from([key for key, _, _ in keys()]), st.text(max_size=8) | st.integers() | st.none()))
def test_arbitrary_flags_raise_only_config_errors(flags: dict[str, object]) -> None:
    found: set[str] = set()
    try:
        load(flags=flags)
    except ConfigError as error:
        found = set(problems(error))
    assert found <= {key for key, _, _ in keys()}


def test_every_setting_has_a_description() -> None:
    assert [key for key, description, _ in keys() if not description] == []


def test_documentation_lists_exactly_the_settings() -> None:
    document = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()
    listed = re.findall(r"^\| `([a-z_.]+)` \|", document, re.MULTILINE)
    assert listed == [key for key, _, _ in keys()]


@pytest.mark.parametrize(
    ("host", "hosts", "names", "advertised", "local"),
    [
        ("127.0.0.1", (), ("127.0.0.1",), "127.0.0.1", "127.0.0.1"),
        ("10.0.0.7", ("ops.test",), ("10.0.0.7", "ops.test"), "10.0.0.7", "10.0.0.7"),
        ("0.0.0.0", ("ops.test", "b.test"), ("ops.test", "b.test"), "ops.test", "127.0.0.1"),
        ("::", (), (), "::1", "::1"),
        ("ops.test", (), ("ops.test",), "ops.test", "ops.test"),
    ],
)
def test_address_of_all_interfaces_is_no_name_for_clients(
    tmp_path: Path, host: str, hosts: tuple[str, ...], names: tuple[str, ...], advertised: str, local: str
) -> None:
    (token := tmp_path / "token").write_text("x" * 24)
    token.chmod(0o600)
    http = Http(host=host, hosts=hosts, token_file=token)
    assert (http.names, http.advertised, http.local) == (names, advertised, local)


@pytest.mark.parametrize("url", ["http://s1:8899", "https://S1.example.org", "http://[fd00::1]:8899"])
def test_name_in_the_advertised_url_is_a_name_of_the_server(url: str) -> None:
    http = Http(advertise=url)
    assert http.names[0] == "127.0.0.1"
    assert http.names[1] in url.lower()


@pytest.mark.parametrize(
    "url", ["s1:8899", "http://", "http://s1/api", "ftp://s1", "http://me:secret@s1", "http://s1:x", "http://s1 "]
)
def test_advertised_url_that_is_not_a_server_is_refused(url: str) -> None:
    assert "is not the URL of a server" in refused(http__advertise=url)["http.advertise"]


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("oracle://me@db/x", "is not the URL of a database"),
        ("postgresql://db", "is not the URL of a database"),
        ("postgresql://me:secret@db/x", "contains a password"),
        ("mariadb://me@db/x?password=secret", "contains a password"),
    ],
)
def test_invalid_url_of_the_history_is_refused(url: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as error:
        load(flags={"history.url": url})
    assert error.value.field == "history.url"
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("endpoint", ["host:4318", "ftp://host", "http://me@host/", "http://host/?a=b", "http://"])
def test_invalid_receiver_of_traces_is_refused(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="http") as error:
        load(flags={"tracing.endpoint": endpoint})
    assert error.value.field == "tracing.endpoint"


def test_headers_of_traces_come_from_a_file(token: Path) -> None:
    token.write_text("Authorization=Bearer%20abc,X-Scope=t1\n")
    found = load(flags={"tracing.endpoint": "https://host/v1/traces", "tracing.headers_file": token}).tracing
    assert found.headers() == {"Authorization": "Bearer abc", "X-Scope": "t1"}
    for wrong in ("Authorization", "a b=c", "X=%0a"):
        token.write_text(wrong)
        with pytest.raises(ConfigError):
            load(flags={"tracing.headers_file": token})


@pytest.mark.parametrize("ratio", ["-0.1", "1.1", "nan", "x"])
def test_fraction_of_traced_runs_is_between_0_and_1(ratio: str) -> None:
    with pytest.raises(ConfigError):
        load(flags={"tracing.ratio": ratio})


def test_schedulers_that_share_their_state_need_a_shared_history(tmp_path: Path) -> None:
    flags = {"data": tmp_path, "etcd.hosts": "127.0.0.1:2379", "history.url": f"sqlite:///{tmp_path}/history.db"}
    with pytest.raises(ConfigError, match="cannot share") as error:
        load(flags=flags)
    assert error.value.field == "history.url"
    assert "off" in error.value.fix
    for url in ("off", "postgresql://me@db/history", ""):
        assert load(flags=flags | {"history.url": url}).shared


def test_password_of_the_history_comes_from_a_file(token: Path) -> None:
    assert load(flags={"history.url": "mariadb://me@db/x", "history.password_file": token}).history.password
    with pytest.raises(ConfigError, match="has no effect alone"):
        load(flags={"history.password_file": token})


# ---------------------------------------------------------------------------------------------------- the archive


@pytest.mark.parametrize(
    ("url", "bucket"),
    [
        ("", None),
        ("/srv/logs", None),
        ("s3://logs", ("logs", "")),
        ("s3://logs/", ("logs", "")),
        ("s3://my.logs-1/a/b_c", ("my.logs-1", "a/b_c")),
        ("s3://logs/jobcloud/", ("logs", "jobcloud")),
    ],
)
def test_archive_is_a_directory_or_a_bucket(url: str, bucket: tuple[str, str] | None) -> None:
    assert load(flags={"archive.url": url}).archive.bucket == bucket


@pytest.mark.parametrize(
    ("flags", "field"),
    [
        ({"url": "logs"}, "url"),
        ({"url": "~/logs"}, "url"),
        ({"url": "/srv/../etc"}, "url"),
        ({"url": "/srv/\0"}, "url"),
        ({"url": "s3://"}, "url"),
        ({"url": "s3://LOGS"}, "url"),
        ({"url": "s3://me:secret@logs/x"}, "url"),
        ({"url": "s3://logs/a/../b"}, "url"),
        ({"url": "s3://logs//a"}, "url"),
        ({"url": "s3://logs/a?x=1"}, "url"),
        ({"url": "http://logs"}, "url"),
        ({"url": "s3://logs", "endpoint": "minio:9000"}, "endpoint"),
        ({"url": "s3://logs", "endpoint": "http://me:secret@minio:9000"}, "endpoint"),
        ({"url": "s3://logs", "access_key": "AK"}, "secret_file"),
        ({"url": "/srv/logs", "endpoint": "http://minio:9000"}, "endpoint"),
        ({"region": "here"}, "region"),
        ({"stream_bytes": "1KiB"}, "stream_bytes"),
        ({"threads": "0"}, "threads"),
        ({"keep": "1s"}, "keep"),
        ({"keep_logs": "0"}, "keep_logs"),
        ({"attempts": "none"}, "attempts"),
    ],
)
def test_wrong_setting_of_the_archive_is_named(flags: dict[str, str], field: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(flags={f"archive.{name}": value for name, value in flags.items()})
    assert error.value.field == f"archive.{field}"
    assert error.value.fix
    assert "secret@" not in str(error.value)


def test_secret_of_the_archive_is_in_a_file(tmp_path: Path) -> None:
    (file := tmp_path / "secret").write_text("wJalrXUtnFEMI/K7MDENG\n")
    file.chmod(0o600)
    flags = {"archive.url": "s3://logs", "archive.access_key": "AK", "archive.secret_file": str(file)}
    archive = load(flags=flags).archive
    assert archive.secret == "wJalrXUtnFEMI/K7MDENG"
    assert "wJalrX" not in repr(archive)


def test_secrets_have_one_source(tmp_path: Path, token: Path) -> None:
    assert not load().secrets.used
    assert load(flags={"secrets.directory": tmp_path}).secrets.used
    both = refused(secrets__directory=tmp_path, secrets__environment_prefix="APP_")
    assert "choose one source" in both["secrets.environment_prefix"]
    alone = refused(secrets__vault_url="https://vault.test:8200")
    assert "set both or neither" in alone["secrets.vault_token_file"]
    assert "secrets.vault_token_file" in refused(secrets__vault_token_file=token)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("vault_url", "http://vault.test:8200", "without TLS"),
        ("vault_url", "https://vault.test:8200/v1", "is not the URL of a server"),
        ("vault_mount", "", "is not a path"),
        ("vault_prefix", "../x", "is not a path"),
        ("vault_namespace", "a\r\nX: y", "is not the name of a namespace"),
        ("environment_prefix", "app_", "is not the beginning of variables"),
        ("environment_prefix", "JOBCLOUD_SECRET_", "is not the beginning of variables"),
        ("urls", "http://scheduler.test:8898", "has no TLS"),
        ("urls", "https://a.test,ftp://b.test", "has no TLS or is no URL"),
        ("urls", ",".join(["https://a.test"] * 21), "names 21 schedulers"),
        ("lifetime", "4s", "at least 5s"),
    ],
)
def test_setting_of_secrets_that_would_not_work_is_refused(key: str, value: str, problem: str) -> None:
    assert problem in refused(**{f"secrets__{key}": value})[f"secrets.{key}"]


def test_schedulers_that_share_a_state_need_a_common_key_for_secrets(tmp_path: Path) -> None:
    (key := tmp_path / "key").write_text("x" * 31)
    key.chmod(0o600)
    shared = {
        "zookeeper.hosts": "127.0.0.1:2181",
        "data": tmp_path,
        "secrets.directory": tmp_path,
        "history.url": "off",
    }
    with pytest.raises(ConfigError) as caught:
        load(flags=shared)
    assert "any scheduler may lead" in problems(caught.value)["secrets.key_file"]
    assert "too short" in refused(secrets__key_file=key)["secrets.key_file"]
    key.write_text("x" * 32)
    assert load(flags={**shared, "secrets.key_file": key}).secrets.key_file == key


@pytest.fixture
def pem(tmp_path: Path) -> dict[str, Path]:
    """A certificate and a private key, of which only the form matters here."""
    paths = {"cert": tmp_path / "server.pem", "key": tmp_path / "server.key"}
    for path in paths.values():
        path.write_text("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")
    paths["key"].chmod(0o600)
    return paths


def test_certificate_and_key_belong_together(pem: dict[str, Path]) -> None:
    for section in ("http", "artifacts"):
        both = {f"{section}.tls_cert_file": pem["cert"], f"{section}.tls_key_file": pem["key"]}
        load(flags=both)
        for key in both:
            assert "has no effect alone" in refused(**{key.replace(".", "__"): both[key]})[key]


@pytest.mark.parametrize("section", ["http", "artifacts", "mesos", "zookeeper", "etcd"])
def test_key_that_every_user_can_read_is_refused(pem: dict[str, Path], section: str) -> None:
    pem["key"].chmod(0o644)
    flags = {f"{section}__tls_cert_file": pem["cert"], f"{section}__tls_key_file": pem["key"]}
    assert "chmod 600" in refused(**flags)[f"{section}.tls_key_file"]


def test_client_certificates_need_tls_and_an_authority(pem: dict[str, Path], token: Path) -> None:
    assert "http.client_ca_file" in refused(http__client_certificates="optional")["http.client_certificates"]
    assert "has no effect" in refused(http__client_ca_file=pem["cert"])["http.client_ca_file"]
    flags = {
        "http.host": "10.0.0.7",
        "http.tls_cert_file": pem["cert"],
        "http.tls_key_file": pem["key"],
        "http.client_ca_file": pem["cert"],
        "http.client_certificates": "required",
    }
    assert load(flags=flags).http.token == "", "certificates prove who calls, so no token is needed"


def test_tokens_in_clear_text_are_noticed_until_they_are_accepted(pem: dict[str, Path], token: Path) -> None:
    there: dict[str, object] = {"http.host": "10.0.0.7", "http.token_file": token}
    with_tls: dict[str, object] = {"http.tls_cert_file": pem["cert"], "http.tls_key_file": pem["key"]}
    assert load(flags=there).http.clear_text
    assert not load(flags={**there, **with_tls}).http.clear_text
    assert not load(flags={**there, "http.tls": "by-proxy"}).http.clear_text
    assert not load(flags={**there, "http.tls": "off"}).http.clear_text
    assert not load().http.clear_text
    assert "http.tls_cert_file is set" in refused(**{"http.tls": "off", **with_tls})["http.tls"]
    assert "https://" in refused(**{"http.advertise": "http://sched-1:8899", **with_tls})["http.advertise"]


def test_url_for_browsers_fits_the_tls_of_the_api(pem: dict[str, Path]) -> None:
    """Otherwise the cookie of the sign-in would be Secure, and that of the session would not."""
    with_tls = {"http__tls_cert_file": pem["cert"], "http__tls_key_file": pem["key"]}
    assert "by-proxy" in refused(identity__url="https://jobs.test")["identity.url"]
    assert "https" in refused(identity__url="http://jobs.test", **with_tls)["identity.url"]
    assert load(flags={"identity.url": "https://jobs.test", "http.tls": "by-proxy"}).http.secure
    assert not load(flags={"identity.url": "http://127.0.0.1:8899"}).http.secure


def test_authorities_for_agents_are_small_and_in_pem(pem: dict[str, Path], tmp_path: Path) -> None:
    large, other = tmp_path / "large.pem", tmp_path / "other.pem"
    large.write_text("-----BEGIN CERTIFICATE-----\n" * 1_000)
    other.write_bytes(b"\x30\x82")
    pair = {"artifacts__tls_cert_file": pem["cert"], "artifacts__tls_key_file": pem["key"]}
    assert "16384 bytes" in refused(**pair, artifacts__tls_ca_file=large)["artifacts.tls_ca_file"]
    assert "no certificate" in refused(**pair, artifacts__tls_ca_file=other)["artifacts.tls_ca_file"]
    assert "artifacts.tls_cert_file" in refused(artifacts__tls_ca_file=pem["cert"])["artifacts.tls_ca_file"]
    by_proxy = {"artifacts.tls_ca_file": pem["cert"], "secrets.urls": "https://proxy.test"}
    assert "BEGIN CERTIFICATE" in load(flags=by_proxy).artifacts.authorities


def identity(**given: str) -> dict[str, object]:
    return {f"identity.{name}": value for name, value in given.items()}


ISSUER = "https://id.example.org/realms/main"


def test_identity_provider_needs_an_issuer_and_a_client_or_an_audience() -> None:
    found = load(flags=identity(oidc_issuer=ISSUER, oidc_client_id="console")).identity
    assert (found.oidc_client_secret, found.oidc_name_claim, found.oidc_groups_claim) == ("", "sub", "groups")
    assert load(flags=identity(oidc_issuer=ISSUER, oidc_audience="urn:jobcloud")).identity.oidc_client_id == ""
    assert load(flags=identity(oidc_issuer="http://127.0.0.1:9000", oidc_client_id="console")).identity.oidc_issuer


@pytest.mark.parametrize(
    ("given", "key", "text"),
    [
        ({"oidc_client_id": "console"}, "oidc_client_id", "set identity.oidc_issuer too"),
        ({"oidc_issuer": ISSUER}, "oidc_client_id", "is required, or identity.oidc_audience"),
        ({"oidc_issuer": "http://id.example.org", "oidc_client_id": "c"}, "oidc_issuer", "not an https URL"),
        ({"oidc_issuer": "id.example.org", "oidc_client_id": "c"}, "oidc_issuer", "not an https URL"),
        ({"oidc_issuer": "https://me:secret@id.example.org", "oidc_client_id": "c"}, "oidc_issuer", "not an https URL"),
        ({"oidc_issuer": f"{ISSUER}?x=1", "oidc_client_id": "c"}, "oidc_issuer", "not an https URL"),
        ({"oidc_issuer": f"{ISSUER}#x", "oidc_client_id": "c"}, "oidc_issuer", "not an https URL"),
        ({"oidc_issuer": "https://id.example.org:x", "oidc_client_id": "c"}, "oidc_issuer", "not an https URL"),
        ({"oidc_issuer": ISSUER, "oidc_client_id": "c", "oidc_scopes": "profile"}, "oidc_scopes", "lacks openid"),
        ({"oidc_issuer": ISSUER, "oidc_client_id": "c", "oidc_cli_client_id": "d"}, "oidc_audience", "is required"),
        ({"oidc_issuer": ISSUER, "oidc_client_id": "c", "oidc_audience": "c"}, "oidc_audience", "id of a client"),
        ({"oidc_issuer": ISSUER, "oidc_client_id": "c", "oidc_session": "1m"}, "oidc_session", "out of range"),
        ({"oidc_issuer": ISSUER, "oidc_client_id": "c", "oidc_ca_file": "/nowhere"}, "oidc_ca_file", "cannot be read"),
        ({"url": "https://jobs.example.org/console"}, "url", "not the URL of a server"),
    ],
)
def test_setting_of_the_identity_provider_that_cannot_work_is_refused_with_a_fix(
    given: dict[str, str], key: str, text: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(flags=identity(**given))
    assert text in problems(caught.value)[f"identity.{key}"]


def test_secret_of_the_client_is_in_a_private_file(token: Path) -> None:
    given = identity(oidc_issuer=ISSUER, oidc_client_id="c", oidc_client_secret_file=str(token))
    assert load(flags=given).identity.oidc_client_secret == "s3cret-of-the-api"
    token.chmod(0o644)
    with pytest.raises(ConfigError, match="every user of this machine"):
        load(flags=given)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("audit.path", "here", "is not an absolute path"),
        ("audit.heads_file", "heads", "is not an absolute path"),
        ("audit.syslog", "http://logs:1", "is not the URL of a syslog server"),
        ("audit.syslog", "tcp://logs:70000", "port 70000 is out of range"),
        ("audit.syslog_ca_file", "/etc/hostname", "has no effect alone"),
        ("audit.reads", "read-logs,nonsense", "Input should be"),
    ],
)
def test_invalid_settings_of_the_audit_log_are_refused(key: str, value: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as error:
        load(flags={key: value})
    assert error.value.field.startswith(key)
