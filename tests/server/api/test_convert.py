"""Apps and jobs as JSON and back."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tests.core_world import make_job

from jobcloud.config import (
    EVERY_AGENT,
    App,
    CatchUp,
    Concurrency,
    ExcludedDay,
    HttpMethod,
    Isolation,
    Job,
    JobKind,
    JobType,
    Package,
    PartitionPolicy,
    Resources,
    UpdateStrategy,
    WebhookScheme,
)
from jobcloud.cron import Dialect, Fold, Gap
from jobcloud.errors import ConfigError
from jobcloud.fields import fields_of
from jobcloud.server.api.body import parse
from jobcloud.server.api.convert import app_config, check, job_config, read_app, read_job
from jobcloud.server.api.schema import Config
from jobcloud.server.urls import UrlPolicy

ANY_HOST = UrlPolicy(hosts=("*",))
APP = App(
    "shop",
    Package("https://files.example.org/shop.zip", "a" * 64),
    bootstrap_script="bin/worker",
    resources=Resources(500, 64_000, 1_000, 1_000, 2_000),
    cache=False,
    sampling=10,
    idle_timeout_ms=90_500,
    max_parallel=4,
    executors=EVERY_AGENT,
    description="Shop",
)
REPORT = Job(
    "report",
    "shop",
    JobKind.TRANSIENT,
    JobType.HTTP,
    "*/5 * * * *",
    3,
    Resources(100, 32_000, 1_000, 1_000, 2_000),
    http_uri="https://shop.example.org/report",
    http_method=HttpMethod.POST,
    http_data="{}",
    http_content_type="text/plain",
    http_connect_timeout_ms=100,
    http_read_timeout_ms=200,
    zone="Europe/Berlin",
    dialect=Dialect.UNIX,
    triggers=("@every 90m", "@at 2026-12-24T18:00"),
    start_time="2026-12-01T06:00",
    end_time="2027-12-01T06:00:30",
    blackouts=("SAT,SUN", "2026-12-24/2027-01-01"),
    skip_on=("holidays",),
    only_on=("open", "extra"),
    on_excluded_day=ExcludedDay.PREVIOUS,
    jitter_ms=1_500,
    start_deadline_ms=60_000,
    gap=Gap.SKIP,
    fold=Fold.BOTH,
    catch_up=CatchUp.ALL,
    catch_up_limit=5,
    concurrency=Concurrency.ALLOW,
    concurrency_limit=2,
    misfire=True,
    misfire_limit=7,
    failover=True,
    failover_attempts=4,
    failover_delay_ms=200,
    failover_most_ms=300,
    partition=PartitionPolicy.REPLACE,
    replace_after_ms=1_500,
    retry_count=3,
    retry_delay_ms=1_000,
    retry_most_ms=2_000,
    retry_jitter=500,
    shard_parameters="0=a",
    parameter="p {fire_time:%Y}",
    placeholders=("jobParameter", "shardingItemParameters"),
    priority=-3,
    timeout_ms=60_500,
    kill_grace_ms=1_500,
    firing_listener="m:L",
    before_timeout_ms=1_000,
    after_timeout_ms=2_000,
    error_handler="webhook",
    error_webhook="https://shop.example.org/hook",
    description="d",
    labels="owner=alice",
    late_after_ms=1_500,
    no_success_ms=2_000,
    expected_by="MON-FRI 06:00",
    constraints=("zone == a", "host !~ db-*"),
    preferences=("5: zone == a",),
    pools=("orders-db", "2 of *:licences"),
    webhook_secrets=("hook-key", "old-key"),
    webhook_scheme=WebhookScheme.GITHUB,
    webhook_parameters=("branch=/ref", "first=/commits/0/a~1b"),
    avoid_after=5,
    gang_start=True,
)
ALWAYS = Job(
    "always",
    "shop",
    JobKind.DAEMON,
    JobType.DATAFLOW,
    "0 0 0 * * ?",
    3,
    Resources(100, 32_000),
    "m:J",
    team="billing",
    streaming=True,
    isolation=Isolation.PROCESS,
    memory_limit_mb=64,
    cpu_limit_s=10,
    open_files_limit=100,
    bean="b",
    context="m:c",
    listeners=("audit", "m:L"),
    thread_pool="com.example.Threads$One",
    update_strategy=UpdateStrategy.RECREATE,
    max_unavailable=2,
    independent_shards=True,
)
SCRIPT = make_job(
    parameter_schema='{"type": "object"}', item_range="1..9",
    type=JobType.SCRIPT, job_class="", script="bin/report.sh", secrets=("KEY=secret:api-key",),
    environment=("REGION=eu",), files='{"conf/a":"x = \\u00e9\\n"}')  # fmt: skip


def as_json(config: Config) -> bytes:
    return config.model_dump_json(by_alias=True).encode()


@pytest.mark.parametrize(
    "app",
    [
        APP,
        replace(APP, executors=3),
        replace(APP, team="billing"),
        replace(APP, constraints=("zone == a",)),
        replace(APP, environment=("REGION=eu", "OPTIONS=-Da=b"), files='{"conf/a":"b","conf/b":""}'),
    ],
)
def test_app_is_the_same_after_it_was_shown_and_sent_back(app: App) -> None:
    assert read_app(parse(as_json(app_config(app))), ANY_HOST) == app


@pytest.mark.parametrize("job", [REPORT, ALWAYS, SCRIPT, make_job()], ids=lambda job: job.name)
def test_job_is_the_same_after_it_was_shown_and_sent_back(job: Job) -> None:
    assert read_job(parse(as_json(job_config(job))), ANY_HOST) == job


def test_every_field_of_a_job_has_been_sent_back_with_another_value_than_its_default() -> None:
    jobs = (REPORT, ALWAYS, SCRIPT)
    for field in fields_of(Job):
        if not field.owner:
            assert any(getattr(job, field.name) != field.default for job in jobs), field.name


def test_seconds_in_json_are_milliseconds_in_python() -> None:
    shown = json.loads(as_json(job_config(REPORT)))
    assert (shown["timeoutSeconds"], shown["failoverDelaySeconds"], shown["retryJitter"]) == (60.5, 0.2, 0.5)
    assert shown["httpReadTimeoutMilliseconds"] == 200


def test_null_objects_and_texts_are_defaults() -> None:
    shown = json.loads(as_json(job_config(make_job())))
    assert (shown["beanName"], shown["applicationContext"], shown["distributedListener"]) == (None, None, None)
    assert shown["jobProperties"] == {
        "executor_service_handler": "default",
        "job_exception_handler": "default",
        "job_exception_webhook": "",
    }


def test_check_reports_all_problems_without_the_settings_of_a_server() -> None:
    check("job", as_json(job_config(REPORT)))
    with pytest.raises(ConfigError) as found:
        check("job", b'{"jobName": "a b", "cron": "x"}')
    problems = {fault.field for fault in (found.value, *found.value.others)}
    assert {"jobName", "cron", "appName", "jobType"} <= problems
