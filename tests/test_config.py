"""Apps and jobs: invalid values are refused, and the error names the field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core_world import make_app, make_job

from jobcloud.config import (
    DIMENSIONS,
    MAX_ENVIRONMENT_BYTES,
    MAX_FILES_BYTES,
    RESOURCE_FIELDS,
    Concurrency,
    Isolation,
    JobKind,
    JobType,
    Package,
    Resources,
    parse_environment,
    parse_files,
    parse_shard_parameters,
    stored_files,
)
from jobcloud.cron import Dialect
from jobcloud.errors import ConfigError

BAD_NAMES = [
    "", "a/b", "a b", "a@-@b", ".hidden", "-flag", "ä", "a" * 101, "a\n", "a\0", "../x", "a%2f", "a:b", "default:a",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
def test_name_that_would_break_an_id_or_a_path_is_refused(name: str) -> None:
    for make, field in ((make_app, "appName"), (make_job, "jobName")):
        with pytest.raises(ConfigError) as found:
            make(name)
        assert found.value.field == field
        assert found.value.fix
    with pytest.raises(ConfigError, match="appName"):
        make_job(app=name)


@pytest.mark.parametrize("team", ["", "Billing", "1st", "a:b", "a/b", "a@-@b", "a\n", "a" * 33])
def test_hostile_team_is_refused(team: str) -> None:
    for make in (make_app, make_job):
        with pytest.raises(ConfigError, match="not a valid name of a team") as found:
            make(team=team)
        assert (found.value.field, bool(found.value.fix)) == ("team", True)


def test_keys_of_a_job_and_its_app_have_the_same_team() -> None:
    assert (make_job().key, make_job().app_key, make_app().key) == ("report", "shop", "shop")
    job = make_job(team="billing")
    assert (job.key, job.app_key, make_app(team="billing").key) == ("billing:report", "billing:shop", "billing:shop")


@pytest.mark.parametrize("name", ["a", "0", "_x", "a.b-c_d", "A" * 100])
def test_ordinary_name_is_accepted(name: str) -> None:
    assert (make_app(name).name, make_job(name).name) == (name, name)


BAD_JOBS: list[tuple[str, dict[str, Any]]] = [
    ("shardingTotalCount", {"shard_count": 0}),
    ("shardingTotalCount", {"shard_count": 10_001}),
    ("priority", {"priority": 1001}),
    ("cpuCount", {"resources": Resources(0, 128_000)}),
    ("cpuCount", {"resources": Resources(-1, 128_000)}),
    ("memoryMB", {"resources": Resources(1000, 999)}),
    ("memoryMB", {"resources": Resources(1000, 2**62)}),
    ("diskMB", {"resources": Resources(1000, 128_000, -1)}),
    ("gpuCount", {"resources": Resources(1000, 128_000, gpus=500)}),
    ("portCount", {"resources": Resources(1000, 128_000, ports=1001)}),
    ("catchUpLimit", {"catch_up_limit": 0}),
    ("misfireLimit", {"misfire_limit": 101}),
    ("concurrencyLimit", {"concurrency_limit": 0}),
    ("concurrency", {"kind": JobKind.DAEMON, "concurrency": Concurrency.REPLACE}),
    ("retryCount", {"retry_count": -1}),
    ("retryCount", {"retry_count": 1001}),
    ("retryDelaySeconds", {"retry_delay_ms": 99}),
    ("retryMaxDelaySeconds", {"retry_delay_ms": 5_000, "retry_most_ms": 4_999}),
    ("retryMaxDelaySeconds", {"retry_most_ms": 7 * 86_400_000 + 1}),
    ("retryJitter", {"retry_jitter": 1001}),
    ("retryJitter", {"retry_jitter": -1}),
    ("failoverAttempts", {"failover_attempts": -1}),
    ("replaceAfterSeconds", {"replace_after_ms": -1}),
    ("failoverDelaySeconds", {"failover_delay_ms": 0}),
    ("failoverMaxDelaySeconds", {"failover_most_ms": 999}),
    ("cron", {"cron": ""}),
    ("cron", {"cron": "* * * * *"}),
    ("cron", {"cron": "0 0 0 * * *"}),
    ("cron", {"cron": "0 0 0 ? * ?"}),
    ("cron", {"cron": "0 * * * * ?", "zone": "Mars/Olympus"}),
    ("cron", {"cron": "0 * * * * ?", "dialect": Dialect.UNIX}),
    ("jobClass", {"job_class": ""}),
    ("jobClass", {"job_class": "os.system('x')"}),
    ("jobClass", {"job_class": "a..b"}),
    ("scriptCommandLine", {"type": JobType.SCRIPT, "script": "  "}),
    ("scriptCommandLine", {"type": JobType.SCRIPT, "script": "x\0y"}),
    ("applicationContext", {"bean": "b"}),
    ("applicationContext", {"context": "a b"}),
    ("jobParameter", {"parameter": "x" * 65_537}),
    ("timeoutSeconds", {"timeout_ms": -1}),
    ("killGraceSeconds", {"kill_grace_ms": -1}),
    ("killGraceSeconds", {"kill_grace_ms": 3_600_001}),
    ("httpUri", {"type": JobType.HTTP}),
    ("httpUri", {"type": JobType.HTTP, "http_uri": "ftp://x/"}),
    ("httpUri", {"type": JobType.HTTP, "http_uri": "http://x/ y"}),
    ("httpData", {"type": JobType.HTTP, "http_uri": "http://x/", "http_data": "x" * 65_537}),
    ("httpContentType", {"type": JobType.HTTP, "http_uri": "http://x/", "http_content_type": "a/b\r\nX: y"}),
    ("httpReadTimeoutMilliseconds", {"type": JobType.HTTP, "http_uri": "http://x/", "http_read_timeout_ms": 0}),
    ("memoryLimitMB", {"memory_limit_mb": -1, "isolation": Isolation.PROCESS}),
    ("memoryLimitMB", {"memory_limit_mb": 64}),
    ("cpuLimitSeconds", {"cpu_limit_s": 1}),
    ("openFilesLimit", {"open_files_limit": 1 << 21, "isolation": Isolation.PROCESS}),
    ("description", {"description": "\0"}),
    ("shardingItemParameters", {"shard_parameters": "0"}),
    ("shardingItemParameters", {"shard_parameters": "0=a,0=b", "shard_count": 2}),
    ("shardingItemParameters", {"shard_parameters": "1=a"}),
    ("shardingItemParameters", {"shard_parameters": "-1=a"}),
    ("shardingItemParameters", {"shard_parameters": "9999999999999999999999=a"}),
    ("shardingItemParameters", {"shard_parameters": "٣=a", "shard_count": 9}),
]


@pytest.mark.parametrize(("field", "change"), BAD_JOBS)
def test_error_names_the_invalid_field_of_a_job(field: str, change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as found:
        make_job(**change)
    assert found.value.field == field


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("eventTraceSamplingCount", {"sampling": -1}),
        ("idleTimeoutSeconds", {"idle_timeout_ms": 999}),
        ("memoryMB", {"resources": Resources(1000, -5)}),
        ("bootstrapScript", {"bootstrap_script": "start.sh 'it"}),
        ("bootstrapScript", {"bootstrap_script": "x\0"}),
        ("maxParallel", {"max_parallel": -1}),
    ],
)
def test_error_names_the_invalid_field_of_an_app(field: str, change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as found:
        make_app(**change)
    assert found.value.field == field


@pytest.mark.parametrize("text", ["", "g" * 64, "A" * 64, "a" * 63, "a" * 65, "a" * 63 + "\n"])
def test_package_without_a_full_hash_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="packageSha256"):
        Package("http://x", text)


def test_shard_parameters_are_assigned_to_their_items() -> None:
    assert parse_shard_parameters(" 2 = c , 0=a b", 4) == ("a b", "", "c", "")
    assert parse_shard_parameters(" ", 2) == ("", "")


@given(st.text(max_size=60), st.integers(1, 50))
def test_any_text_gives_shard_parameters_or_an_error_that_names_the_field(text: str, count: int) -> None:
    try:
        found = parse_shard_parameters(text, count)
    except ConfigError as error:
        refused = error.field
    else:
        refused = "" if len(found) == count else "its length"
    assert refused in ("", "shardingItemParameters")


def test_resources_are_added_by_dimension() -> None:
    assert Resources(1, 2, 3, 4, 5).plus(Resources(10, 20, 30, 40, 50)) == Resources(11, 22, 33, 44, 55)
    assert len(DIMENSIONS) == len(RESOURCE_FIELDS)


REFUSED_VARIABLES = [
    ("A", "entry 1 is not NAME=value"), ("=a", "entry 1 is not NAME=value"), ("1A=a", "entry 1 is not NAME=value"),
    ("A-B=a", "entry 1 is not NAME=value"), (" A=a", "entry 1 is not NAME=value"), ("A\n=a", "entry 1 is not NAME"),
    ("JOBCLOUD_RUN_ID=1", "JOBCLOUD_RUN_ID cannot be set"), ("MESOS_SANDBOX=/", "MESOS_SANDBOX cannot be set"),
    ("LIBPROCESS_IP=1", "LIBPROCESS_IP cannot be set"), ("LD_PRELOAD=x.so", "LD_PRELOAD cannot be set"),
    ("LD_LIBRARY_PATHS=/", "LD_LIBRARY_PATHS cannot be set"), ("GLIBC_TUNABLES=a", "GLIBC_TUNABLES cannot be set"),
    ("PYTHONHOME=/", "PYTHONHOME cannot be set"), ("TRACEPARENT=0", "TRACEPARENT cannot be set"),
    ("GCONV_PATH=/", "GCONV_PATH cannot be set"), ("A=a\nb", "the value of A has a control"),
    ("A=a\0", "the value of A has a control"), ("A=a ", "the value of A has a control"),
    ("A=" + "\u0000" * 9, "the value of A"), ("A=" + "a" * 16_384, "bytes in JSON"),
]  # fmt: skip


@pytest.mark.parametrize(("entry", "why"), REFUSED_VARIABLES)
def test_variable_that_would_be_lost_or_break_the_worker_is_refused(entry: str, why: str) -> None:
    for make in (make_app, make_job):
        with pytest.raises(ConfigError, match=why) as found:
            make(environment=(entry,))
        assert (found.value.field, bool(found.value.fix)) == ("environment", True)
        assert "x.so" not in str(found.value), "a value may be a secret by mistake"


def test_ordinary_variables_are_accepted_up_to_the_limits() -> None:
    odd = ("LD_LIBRARY_PATH=/opt/lib", "PATH=/bin", "_=", "A= a=b", "PYTHONPATH=x", "LDX=1", "U=é😀", "MESOS=1")
    assert parse_environment(make_app(environment=odd).environment)["A"] == " a=b"
    assert len(make_app(environment=tuple(f"V{number}=" for number in range(100))).environment) == 100
    with pytest.raises(ConfigError, match="has 101 variables"):
        make_app(environment=tuple(f"V{number}=" for number in range(101)))
    with pytest.raises(ConfigError, match="A is given twice"):
        make_app(environment=("A=1", "A=2"))
    whole = MAX_ENVIRONMENT_BYTES - len('["A="]')
    make_app(environment=("A=" + "a" * whole,))
    with pytest.raises(ConfigError, match="16,385 bytes"):
        make_app(environment=("A=" + "a" * (whole + 1),))


def test_variables_of_a_job_need_a_process_of_the_shard() -> None:
    given: dict[str, Any] = {"environment": ("REGION=eu",)}
    with pytest.raises(ConfigError, match="all shards of the worker") as found:
        make_job(**given)
    assert (found.value.field, 'isolation "process"' in found.value.fix) == ("environment", True)
    make_job(isolation=Isolation.PROCESS, **given)
    make_job(type=JobType.SCRIPT, script="a", job_class="", **given)
    with pytest.raises(ConfigError, match="an HTTP job runs no code"):
        make_job(type=JobType.HTTP, job_class="", http_uri="http://127.0.0.1/", **given)
    with pytest.raises(ConfigError, match="REGION is also the key of a secret"):
        make_job(isolation=Isolation.PROCESS, secrets=("REGION=secret:region",), **given)


def many(count: int) -> str:
    return json.dumps({f"f{number}": "" for number in range(count)})


REFUSED_FILES = [
    ('{"/etc/passwd":""}', "no path"), ('{"../x":""}', "no path"), ('{"a/../x":""}', "no path"),
    ('{"..":""}', "no path"),
    ('{".":""}', "no path"), ('{"a/./b":""}', "no path"), ('{"":""}', "no path"), ('{"a//b":""}', "no path"),
    ('{"a/":""}', "no path"), (r'{"a\\b":""}', "no path"), (r'{"a\u0000":""}', "no path"), (r'{"a\n":""}', "no path"),
    ('{"-rf":""}', "no path"), ('{"a b":""}', "no path"), ('{"é":""}', "no path"),
    ('{"' + "a" * 201 + '":""}', "no path"),
    ('{"a":"","a/b":""}', "a is a file and also the folder"), ('{"a/b/c":"","a/b":""}', "a/b is a file and also"),
    (r'{"a":"x\u0000"}', "a has a NUL"), (r'{"a":"\ud800"}', "a has a NUL or a half"), ('{"a":1}', "not an object"),
    ('["a"]', "not an object"), ("{", "not an object"), ("[" * 100_000, "not an object"), (many(17), "has 17 files"),
    ('{"a":"' + "x" * 32_768 + '"}', "bytes in JSON"), ('{"a":"' + "é" * 6_000 + '"}', "bytes in JSON"),
]  # fmt: skip


@pytest.mark.parametrize(("files", "why"), REFUSED_FILES, ids=range(len(REFUSED_FILES)))
def test_file_that_could_leave_its_folder_or_is_too_large_is_refused(files: str, why: str) -> None:
    for make in (make_app, make_job):
        with pytest.raises(ConfigError, match=why) as found:
            make(files=files)
        assert (found.value.field, bool(found.value.fix)) == ("files", True)
        assert "xxxx" not in str(found.value), "a text may be a secret by mistake"


def test_ordinary_files_are_accepted_up_to_the_limits() -> None:
    paths = (".pgpass", "..a", "a/.b", "a...", "A@b+c=d_e-f.g", "x/" * 99 + "yz")
    given = dict.fromkeys(paths, "é\t\r\n")
    assert parse_files(make_app(files=stored_files(given)).files) == given
    assert stored_files(dict(reversed(given.items()))) == stored_files(given)
    assert parse_files(make_job(files=many(16)).files).keys() == {f"f{number}" for number in range(16)}
    whole = MAX_FILES_BYTES - len('{"a": ""}')
    make_job(files=stored_files({"a": "a" * whole}))
    with pytest.raises(ConfigError, match="32,769 bytes"):
        make_job(files=stored_files({"a": "a" * (whole + 1)}))
    with pytest.raises(ConfigError, match="an HTTP job runs no code"):
        make_job(type=JobType.HTTP, job_class="", http_uri="http://127.0.0.1/", files='{"a":"b"}')
