"""Conversion of Elastic-Job-Cloud's apps and jobs. tests/client/test_import_ej.py has more cases of 2.1.5."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from jobcloud.config import parse_items
from jobcloud.elastic_job.conversion import (
    KEEP_ZONE,
    elastic_job_items,
    java_code,
    translate_app,
    translate_job,
    translate_job_of_3,
    with_numbers,
)
from jobcloud.errors import ConfigError


def of_3(known: dict[str, Any] | None = None, **given: Any) -> tuple[dict[str, Any], str]:
    changes: list[str] = []
    return translate_job_of_3({"jobName": "my-job"} | given, "UTC", changes, known or {}), "; ".join(changes)


def test_text_in_place_of_a_number_is_a_number() -> None:
    given = {"cpuCount": "0.5", "memoryMB": "64", "shardingTotalCount": "3", "cron": "5", "failover": "true"}
    assert with_numbers(given) == {
        "cpuCount": Decimal("0.5"),
        "memoryMB": Decimal(64),
        "shardingTotalCount": 3,
        "cron": "5",
        "failover": "true",
    }
    assert with_numbers({"shardingTotalCount": Decimal("3.0")}) == {"shardingTotalCount": 3}


@pytest.mark.parametrize("text", ["", " 1", "1e5", "٣", "0x1", "1" * 40, "NaN"])
def test_other_text_stays(text: str) -> None:
    assert with_numbers({"shardingTotalCount": text}) == {"shardingTotalCount": text}


def test_exact_numbers_stay_exact_when_they_are_rounded_up() -> None:
    changes: list[str] = []
    config = translate_app({"appName": "a", "cpuCount": Decimal("0.12345"), "memoryMB": Decimal("64.0")}, changes)
    assert config == {"appName": "a", "cpuCount": Decimal("0.124"), "memoryMB": 64}
    assert changes == ["cpuCount: 0.12345 is rounded up to 0.124"]
    assert translate_app({"cpuCount": 0.12345}, changes) == {"cpuCount": 0.124}


TABLE = Path(__file__).parents[1] / "data" / "sharding_parameters.tsv"


def from_hex(text: str) -> str:
    return "".join(chr(int(text[index : index + 4], 16)) for index in range(0, len(text), 4))


def test_item_parameters_are_read_as_elastic_job_reads_them() -> None:
    accepted = 0
    for line in TABLE.read_text("ascii").splitlines():
        text, _, answer = line.partition("\t")
        given = from_hex(text)
        if answer == "REFUSED":
            with pytest.raises(ConfigError, match="is not an item=value pair"):
                elastic_job_items(given)
            continue
        accepted += 1
        items = {int(item): from_hex(value) for item, _, value in (one.partition(":") for one in answer.split())}
        assert elastic_job_items(given) == items, given
        config = {"shardingTotalCount": 3, "shardingItemParameters": given}
        changes: list[str] = []
        taken = translate_job(config, "UTC", changes)["shardingItemParameters"]
        used = {item: value for item, value in items.items() if 0 <= item < 3}
        assert parse_items(taken, 3) == used, given
        assert bool(changes) is (taken != given), given
    assert accepted > 150


@pytest.mark.parametrize(
    ("text", "taken", "said"),
    [
        ("0=a,1=b", "0=a,1=b", ""),
        ("0=a, 1 = b ", "0=a, 1 = b ", ""),
        ("0=a,2=c,-1=d", "0=a", "there are 2 shards, so Elastic-Job ignores the items -1, 2"),
        ("0=a,0=b", "0=b", "'0=a,0=b' becomes '0=b', the value that Elastic-Job uses"),
        ("0=a,,", "0=a", "'0=a,,' becomes '0=a'"),
        ("0=a=", "0=a", "'0=a=' becomes '0=a'"),
        (",", "", "',' becomes ''"),
        ("5=x", "", "'5=x' becomes ''"),
        ("0=\u00a0", '{"0":"\u00a0"}', "becomes"),
        ('{"0": "a"}', '{"0": "a"}', ""),
    ],
)
def test_item_parameters_that_only_elastic_job_accepts_become_the_value_that_it_uses(
    text: str, taken: str, said: str
) -> None:
    changes: list[str] = []
    config = translate_job({"shardingTotalCount": 2, "shardingItemParameters": text}, "UTC", changes)
    assert config["shardingItemParameters"] == taken
    assert said in "; ".join(changes)
    assert bool(said) is bool(changes)


def test_list_of_days_with_a_workday_is_named_because_elastic_job_fires_on_fewer_days() -> None:
    changes: list[str] = []
    translate_job({"cron": "0 0 0 1W,15W * ?"}, "UTC", changes)
    translate_job({"cron": "0 0 0 1,15 * ?"}, "UTC", changes)
    assert len(changes) == 1
    assert "only the workday nearest to the first" in changes[0]


def test_zone_is_left_to_the_job_if_it_has_one() -> None:
    assert translate_job({}, "Asia/Shanghai", []) == {"timeZone": "Asia/Shanghai"}
    assert translate_job({}, KEEP_ZONE, []) == {}


def test_properties_decide_the_type_of_a_job_of_version_3() -> None:
    script, _ = of_3(props={"script.command.line": "bin/run.sh"})
    assert (script["jobType"], script["scriptCommandLine"]) == ("SCRIPT", "bin/run.sh")
    http, said = of_3(props={"http.uri": "http://a.test/", "http.connect.timeout.milliseconds": "10", "x": "y"})
    assert (http["jobType"], http["httpUri"], http["httpConnectTimeoutMilliseconds"]) == ("HTTP", "http://a.test/", 10)
    assert "jobClass" not in http
    assert said == "props.x: is left out"
    flow, said = of_3(props={"streaming.process": "true"})
    assert (flow["jobType"], flow["streamingProcess"], flow["jobClass"]) == ("DATAFLOW", True, "my_job")
    assert said == "jobClass: the name of the job stands for it, because the request names no class"


def test_known_type_and_class_of_a_job_of_version_3_stay() -> None:
    known = {"jobType": "SIMPLE", "jobClass": "shop:Report", "beanName": None, "cron": "x"}
    assert of_3(known) == ({"jobName": "my-job", "jobType": "SIMPLE", "jobClass": "shop:Report"} | HANDLER, "")


HANDLER = {"jobProperties": {"job_exception_handler": "LOG"}}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"monitorExecution": True, "overwrite": False}, "monitorExecution: Elastic-Job-Cloud does not use it either"),
        ({"jobExecutorServiceHandlerType": "SINGLE_THREAD"}, "a thread of its own"),
        ({"jobErrorHandlerType": "EMAIL"}, "LOG, THROW and IGNORE"),
        ({"label": "x"}, "label: is unknown"),
        ({"monitorExecution": False, "jobExecutorServiceHandlerType": "CPU", "jobErrorHandlerType": None}, ""),
    ],
)
def test_fields_of_version_3_without_an_effect_are_named(given: dict[str, Any], says: str) -> None:
    config, said = of_3({"jobType": "SIMPLE", "jobClass": "a:B"}, **given)
    assert says in said if says else not said
    assert not given.keys() & config.keys()


def test_properties_that_are_no_object_are_refused() -> None:
    with pytest.raises(ConfigError, match="must be an object"):
        of_3(props="http.uri=x")


@pytest.mark.parametrize(
    ("config", "java"),
    [
        ({"jobClass": "com.example.Job"}, True),
        ({"jobClass": "com.example:Job"}, False),
        ({"jobClass": "Job"}, False),
        ({"jobClass": "com.example.Job", "jobType": "SCRIPT"}, False),
        ({"jobClass": 5}, False),
        ({"jobClass": "Job", "applicationContext": "classpath:beans.xml"}, True),
        ({"jobClass": "Job", "applicationContext": "com.example.Shop"}, False),
        ({}, False),
    ],
)
def test_java_class_is_recognised(config: dict[str, Any], java: bool) -> None:
    assert (java_code(config) is not None) is java
