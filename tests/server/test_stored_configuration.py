"""Stored apps and jobs of earlier builds: their form never changes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jobcloud.config import EVERY_AGENT, App, CatchUp, Job, Resources
from jobcloud.cron import Dialect, Gap
from jobcloud.messages import Kind, Record
from jobcloud.server.records import decode, encode

# Written by build d78466f, with every field at another value than its default in one of the records.
APP = (
    '{"v":1,"r":{"name":"shop","package":{"url":"http://files/shop.tar.gz",'
    '"sha256":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","file":"package.tar.gz"},'
    '"bootstrap_script":"bin/worker","resources":[500,64000,0,0,1000],"cache":false,"sampling":10,'
    '"idle_timeout_ms":90000,"description":"Shop","max_parallel":4,"executors":-1}}'
)
REPORT = (
    '{"v":1,"r":{"name":"report","app":"shop","kind":"TRANSIENT","type":"HTTP","cron":"*/5 * * * *","shard_count":3,'
    '"resources":[100,32000,1000,0,2000],"job_class":"","zone":"Europe/Berlin","dialect":"unix","gap":"skip",'
    '"fold":"both","shard_parameters":"0=a","parameter":"p","failover":true,"misfire":true,"catch_up":"all",'
    '"streaming":true,"script":"","bean":"b","context":"m:c","priority":-3,"description":"d","isolation":"process",'
    '"timeout_ms":60500,"kill_grace_ms":1500,"memory_limit_mb":64,"cpu_limit_s":10,"open_files_limit":100,'
    '"http_uri":"https://shop.example.org/x","http_method":"POST","http_data":"{}","http_content_type":"text/plain",'
    '"http_connect_timeout_ms":100,"http_read_timeout_ms":200,"listeners":[],"firing_listener":"m:L",'
    '"before_timeout_ms":1000,"after_timeout_ms":2000,"error_handler":"webhook",'
    '"error_webhook":"https://shop.example.org/hook","catch_up_limit":5,"misfire_limit":7,"concurrency":"allow",'
    '"concurrency_limit":2,"retry_count":3,"retry_delay_ms":1000,"retry_most_ms":2000,"retry_jitter":500,'
    '"failover_attempts":4,"failover_delay_ms":200,"failover_most_ms":300,"partition":"replace",'
    '"replace_after_ms":1500,"update_strategy":"rolling","max_unavailable":1,"independent_shards":false}}'
)
ALWAYS = (
    '{"v":1,"r":{"name":"always","app":"shop","kind":"DAEMON","type":"SIMPLE","cron":"0 0 0 * * ?","shard_count":3,'
    '"resources":[100,32000,0,0,0],"job_class":"m:J","zone":"UTC","dialect":"quartz","gap":"run_after","fold":"auto",'
    '"shard_parameters":"","parameter":"","failover":false,"misfire":false,"catch_up":"skip","streaming":false,'
    '"script":"bin/x","bean":"","context":"","priority":0,"description":"","isolation":"shared","timeout_ms":0,'
    '"kill_grace_ms":5000,"memory_limit_mb":0,"cpu_limit_s":0,"open_files_limit":0,"http_uri":"","http_method":"GET",'
    '"http_data":"","http_content_type":"application/json","http_connect_timeout_ms":3000,'
    '"http_read_timeout_ms":5000,"listeners":["audit","m:L"],"firing_listener":"","before_timeout_ms":0,'
    '"after_timeout_ms":0,"error_handler":"log","error_webhook":"","catch_up_limit":10,"misfire_limit":100,'
    '"concurrency":"forbid","concurrency_limit":10,"retry_count":0,"retry_delay_ms":10000,"retry_most_ms":3600000,'
    '"retry_jitter":100,"failover_attempts":10,"failover_delay_ms":1000,"failover_most_ms":60000,"partition":"wait",'
    '"replace_after_ms":0,"update_strategy":"recreate","max_unavailable":2,"independent_shards":true}}'
)
# The fields that later builds have added, and their defaults.
NEWER: dict[str, Any] = {
    "team": "default", "labels": "", "late_after_ms": 0, "no_success_ms": 0, "ad_hoc": "", "secrets": [],
    "thread_pool": "", "constraints": [], "preferences": [], "avoid_after": 3, "triggers": [], "start_time": "",
    "end_time": "", "blackouts": [], "skip_on": [], "only_on": [], "on_excluded_day": "skip", "jitter_ms": 0,
    "start_deadline_ms": 0, "pools": [], "environment": [], "placeholders": [], "parameter_schema": "",
    "webhook_secrets": [], "webhook_scheme": "standard", "webhook_parameters": [],
    "expected_by": "", "item_range": "", "gang_start": False, "files": "",
}  # fmt: skip
RECORDS = [(Kind.APP, "shop", APP), (Kind.JOB, "report", REPORT), (Kind.JOB, "always", ALWAYS)]


@pytest.mark.parametrize(("kind", "key", "text"), RECORDS)
def test_stored_record_is_written_again_with_the_same_names_and_values(kind: Kind, key: str, text: str) -> None:
    written, given = json.loads(encode(kind, decode(kind, key, text.encode()))), json.loads(text)
    # Older builds ignore the fields that they do not know.
    for field, default in NEWER.items():
        assert written["r"].pop(field, default) == default
    assert written == given


def test_stored_app_is_read() -> None:
    app = decoded(Kind.APP, "shop", APP)
    assert isinstance(app, App)
    assert (app.package.file, app.executors, app.resources) == (
        "package.tar.gz",
        EVERY_AGENT,
        Resources(500, 64_000, 0, 0, 1000),
    )


def test_stored_job_is_read() -> None:
    job = decoded(Kind.JOB, "report", REPORT)
    assert isinstance(job, Job)
    assert (job.dialect, job.gap, job.catch_up) == (Dialect.UNIX, Gap.SKIP, CatchUp.ALL)
    assert (job.timeout_ms, job.retry_most_ms, job.failover_most_ms) == (60_500, 2_000, 300)


def decoded(kind: Kind, key: str, text: str) -> Record:
    return decode(kind, key, text.encode())
