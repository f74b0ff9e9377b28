"""The console tells problems and fixes of refusals in Chinese by their codes, and others in English."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from httpx import Client
from tests.api_kit import job_body

import jobcloud.server.console

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js: apt-get install nodejs")
_PROBLEMS = Path(jobcloud.server.console.__file__).parent / "files" / "core" / "problems.js"
_SCRIPT = """
const [module, chosen, documents] = JSON.parse(process.argv[1]);
const set = (name, value) => Object.defineProperty(globalThis, name, {value});
set("localStorage", {getItem: () => chosen});
set("navigator", {languages: ["en"]});
set("document", {documentElement: {}});
const {faultText, refusalText} = await import(module);
console.log(JSON.stringify(documents.map(one => [
  refusalText({...one, slug: one.type.split(":").pop(), message: one.detail}), ...one.errors.map(faultText),
])));
"""


def shown(language: str, *documents: dict[str, Any]) -> list[list[str]]:
    """The texts of each problem document in the console: the refusal, and each of its faults."""
    given = json.dumps([_PROBLEMS.as_uri(), language, documents])
    argv = ["node", "--input-type=module", "--eval", _SCRIPT, given]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    found: list[list[str]] = json.loads(done.stdout)
    return found


def test_problem_and_fix_are_told_in_chinese(api: Client, demo: str) -> None:
    document = api.get("jobs/absent").json()
    assert document["errors"][0]["fixCode"] == "shown_by"
    assert document["errors"][0]["fixParameters"] == {"command": "jobcloud job list"}
    assert shown("zh", document) == [["资源不存在", "没有作业 absent：`jobcloud job list` 可列出"]]
    assert shown("en", document) == [
        [document["detail"], "there is no job absent: `jobcloud job list` shows all jobs"]
    ]  # fmt: skip


def test_text_without_a_known_code_is_told_in_english(api: Client, demo: str) -> None:
    document = api.post("jobs", json=job_body(absent=1)).json()
    (fault,) = document["errors"]
    fault["fixCode"] = "of_a_newer_version"
    assert shown("zh", document) == [["请求中有无效字段", f"不是已知字段：{fault['fix']}"]]
    del fault["code"]
    assert shown("zh", document)[0][1] == f"is not a known field：{fault['fix']}"


FAULTS: dict[str, tuple[Any, str]] = {
    "shardingTotalCount": (2.5, "类型应为 整数，而不是 数字：请参阅字段 shardingTotalCount 的说明"),
    "jobName": ("a b", "“a b”无效：1 至 100 个字母、数字、'_'、'-' 或 '.'；以字母、数字或 '_' 开头"),
    "priority": (5_000, "5000 超出范围：-1000 至 1000"),
    "cpuCount": (0.0001, "小数超过三位"),
    "memoryMB": ("much", "类型不应为 字符串"),
    "description": ("x" * 70_000, "超过 65,536 个字符，或含有 NUL：请缩短"),
    "labels": ("Team", "“Team”无效：name=value；值最多 100 个字母、数字、'_'、'.'、'@'、'+' 或 '-'"),
    "misfire": ("no", "类型应为 布尔值，而不是 字符串：请参阅字段 misfire 的说明"),
    "placeholders": (["cron"], "“cron”无效：可用：jobParameter, shardingItemParameters, scriptCommandLine"),
    "secrets": (
        ["x"],
        "第 1 项无效：KEY=secret:NAME 或 KEY=secret-file:NAME；NAME 为 1 至 32 个小写字母、数字或 '-'，以字母开头",
    ),
}


def test_faults_of_the_fields_of_a_job_are_told_in_chinese(api: Client, demo: str) -> None:
    body = job_body() | {name: value for name, (value, _) in FAULTS.items()}
    document = api.post("jobs", json=body).json()
    (texts,) = shown("zh", document)
    found = {fault["field"]: text for fault, text in zip(document["errors"], texts[1:], strict=True)}
    assert found == {name: text for name, (_, text) in FAULTS.items()}


CRONS = {
    "0 0 25 * * ?": "cron 字段“时”的 25 不可用：应为 0 至 23 的数字",
    "0 0 1 ? FOO *": "cron 字段“月”的 FOO 不可用：应为 1 至 12 的数字，或名称，例如 JAN",
    "0 0/90 1 * * ?": "cron 字段“分”的 0/90 不可用：步长为 1 至 59 的数字，例如 */2",
    "0 0 8 * * *": "cron 字段“日”的 * … * 不可用：日和星期中必须恰有一个为 ?",
    "0 8 * *": "cron 表达式 0 8 * * 有 4 个字段；应为 6 或 7 个：秒 分 时 日 月 星期 [年]，例如 0 0/5 * * * ?",
}


@pytest.mark.parametrize("cron", CRONS)
def test_error_of_a_cron_expression_is_told_in_chinese(api: Client, demo: str, cron: str) -> None:
    document = api.post("jobs", json=job_body(cron=cron)).json()
    assert shown("zh", document)[0][1:] == [CRONS[cron]]
    assert shown("en", document)[0][1:] == [document["errors"][0]["problem"]]


def test_unknown_time_zone_is_told_in_chinese(api: Client, demo: str) -> None:
    document = api.post("jobs", json=job_body(timeZone="Mars")).json()
    assert "未知时区 Mars；请使用 tz 数据库中的名称，例如 UTC 或 Europe/Berlin" in shown("zh", document)[0]


TIMES = {
    "startTime": ("soon", "soon 不是 1970 至 2099 年间的时间；请写 2026-12-24T18:00"),
    "blackouts": (["26:00-27:00"], "26:00 不是一天中的时刻；请写 00:00 至 24:00"),
    "triggers": (["@every 1ms"], "“1ms”无效：1s 至 366d 的整数秒，例如 @every 90m"),
    "expectedBy": ("noon", "noon 不是一天中的时刻；请写 06:00，或星期和时刻，例如 MON-FRI 06:00"),
    "shardingItemRange": ("1-9", "1-9 没有两端；请写 FIRST..LAST，例如 1..1000"),
}


@pytest.mark.parametrize("name", TIMES)
def test_fault_of_times_and_ranges_is_told_in_chinese(api: Client, demo: str, name: str) -> None:
    value, text = TIMES[name]
    document = api.post("jobs", json=job_body() | {name: value}).json()
    assert shown("zh", document)[0][1:] == [text]
