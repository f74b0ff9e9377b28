"""The console has Chinese words for English texts of the server: fields, kinds of refusals, ways to sign in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect
from tests.browser_kit import chromium, needs_browser
from tests.console_kit import ready, staged, watched

import jobcloud.server.console
from jobcloud.config import App, Job
from jobcloud.fields import names
from jobcloud.server.api.problems import SLUGS

_FILES = Path(jobcloud.server.console.__file__).parent / "files"


def keys(block: str) -> set[str]:
    """The keys of an object in JavaScript whose values are texts."""
    return {one.strip('"') for one in re.findall(r"([\w-]+|\"[\w-]+\"): \"(?:[^\"\\]|\\.)+\"", block)}


def block_of(path: str, begin: str, end: str) -> str:
    return (_FILES / path).read_text().split(begin, 1)[1].split(end, 1)[0]


@pytest.mark.parametrize(
    ("record", "named", "meant"),
    [(App, "pages/app/kind.js", "pages/app/kind.js"), (Job, "pages/job/names.js", "pages/job/names.js")],
)
def test_each_field_of_a_configuration_has_a_name_and_a_meaning(record: type, named: str, meant: str) -> None:
    fields = {name.replace(".", "_") for name in names(record)}
    for language in ("en", "zh"):
        block = block_of(named, "NAMES = texts({", "});").split(f"\n  {language}: {{", 1)[1].split("\n  },", 1)[0]
        assert keys(block) >= fields, language
    assert keys(block_of(meant, "MEANINGS = {zh: {", "}};")) >= fields


def test_each_kind_of_refusal_has_a_title() -> None:
    assert keys(block_of("core/problems.js", "TITLES = {zh: {", "}};")) == SLUGS.keys()


@needs_browser
def test_refusals_and_ways_to_sign_in_are_told_in_chinese(tmp_path: Path) -> None:
    with (
        staged(tmp_path) as stage,
        chromium() as browser,
        stage.context(browser, locale="zh-CN") as context,
        watched(context, expected=["404"]) as page,
    ):
        page.goto(f"{stage.url}/jobs/absent")
        refusal = page.get_by_role("alert")
        expect(refusal.locator("p")).to_have_text("资源不存在")
        expect(refusal.get_by_role("listitem")).to_contain_text("jobName 没有作业 absent")
        page.goto(f"{stage.url}/tokens")
        ready(page)
        expect(page.get_by_role("main")).to_contain_text("token:server 生成的链接")


@needs_browser
def test_faults_of_a_form_and_missing_rights_are_told_in_chinese(tmp_path: Path) -> None:
    with staged(tmp_path) as stage, chromium() as browser:
        stage.add_app()
        stage.add_job("hello", cron="0 0 0 1 1 ? 2090")
        with (
            stage.context(browser, locale="zh-CN") as context,
            watched(context, expected=["409", "422", "503"]) as page,
        ):
            page.goto(f"{stage.url}/jobs/hello?tab=edit")
            page.get_by_label(re.compile(r"\bshardingTotalCount\b")).fill("many")
            page.get_by_label(re.compile(r"\bmemoryMB\b")).fill("-1")
            page.get_by_role("button", name="检查并查看变更").click()
            expect(page.get_by_text("类型应为 整数，而不是 字符串")).to_be_visible()
            expect(page.get_by_text("-1 超出范围")).to_be_visible()
            page.goto(f"{stage.url}/jobs/hello")
            page.get_by_role("button", name="触发").click()
            stage.call("POST", "jobs/hello/disable")
            page.get_by_role("dialog").get_by_role("button", name="启动运行").click()
            refusal = page.get_by_role("dialog").get_by_role("alert")
            expect(refusal).to_contain_text("作业 hello 或其应用已禁用")
            expect(refusal).not_to_contain_text("its app is disabled")
        stage.member("bob", "viewer", "billing")
        with stage.context(browser, "bob", locale="zh-CN") as context, watched(context, expected=["403"]) as page:
            page.goto(f"{stage.url}/users")
            alert = page.get_by_role("alert").first
            expect(alert).to_contain_text("user:bob 在本系统中没有含 manage-access 权限的角色。")
