"""The console tells each sentence that has a code: skipped firings, alerts, warnings, refusals."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from playwright.sync_api import Browser, expect
from tests.alert_kit import make_channel
from tests.api_kit import ARTIFACTS
from tests.browser_kit import needs_browser
from tests.console_kit import Stage, kept, ready, staged, watched
from tools.sentence_tables import PATH, described, made_by_the_product, updated

import jobcloud.server.console
from jobcloud.messages import AgentLost, ReportProblem
from jobcloud.model import EVERY_TEAM, Condition, changed
from jobcloud.scheduler import Policy, Scheduler, Stored
from jobcloud.sentences import Told, Words
from jobcloud.server.wiring import CLEAR_TEXT

_CORE = Path(jobcloud.server.console.__file__).parent / "files" / "core"
_CATALOGUE = _CORE / "sentences.js"
_REFUSALS = _CORE / "refusals.js"
# Parts of sentences that the console makes of several parameters.
_COMPOSED = {"run_ended": {"what": {"item", "step"}, "message": {"message", "cause"}}}
# Texts of the console's own, which are parts of sentences.
_PARTS = {"state", "comma", "item", "step_before", "step_after", "no_message", "not_yet_well", "of", "others"}


def texts_of(block: str) -> dict[str, str]:
    """Key → text, of a part of a module."""
    return dict(re.findall(r"^ +(\w+): \"((?:[^\"\\]|\\.)*)\"", block.replace('", ', '",\n    '), re.MULTILINE))


def catalogue() -> dict[str, dict[str, str]]:
    """Language → key → text, of the sentences that are no refusals."""
    blocks = re.findall(r"^  (en|zh): \{\n(.*?)^  \},", _CATALOGUE.read_text(), re.DOTALL | re.MULTILINE)
    return {name: texts_of(block) for name, block in blocks}


def told_refusals() -> dict[str, str]:
    """Code → text in Chinese, of the sentences of refusals. English texts are those of the server."""
    return texts_of(_REFUSALS.read_text().split("TEXTS = {zh: {\n", 1)[1].split("\n}};", 1)[0])


MADE = made_by_the_product()
REFUSALS = MADE.keys() - described(PATH.read_text()).keys()


def test_sentences_of_all_kinds_are_found() -> None:
    assert {"misfire", "skipped", "run_ended", "clock_jumped", "audit_size", "time_zones"} <= MADE.keys() - REFUSALS
    assert {code for code in MADE if not MADE[code]} >= {"misfire", "clear_text"}
    assert {"no_job", "leave_out", "shown_by"} <= REFUSALS


@pytest.mark.parametrize("code", sorted(MADE.keys() - REFUSALS))
def test_sentence_has_a_text_with_its_parameters_in_each_language(code: str) -> None:
    texts = catalogue()
    assert texts.keys() == {"en", "zh"}
    for language, found in texts.items():
        used = set(re.findall(r"\{(\w+)\}", found[code]))
        for name, parts in _COMPOSED.get(code, {}).items():
            used = used - {name} | parts if name in used else used
        assert used == MADE[code], f"{code} in {language}"
        assert language == "en" or re.search(r"[\u4e00-\u9fff]", found[code]), code


@pytest.mark.parametrize("code", sorted(REFUSALS))
def test_refusal_has_a_chinese_text_with_its_parameters(code: str) -> None:
    text = told_refusals()[code]
    assert set(re.findall(r"\{(\w+)\}", text)) == MADE[code]
    assert re.search(r"[\u4e00-\u9fff]", text)


def test_catalogues_have_no_further_texts() -> None:
    for found in catalogue().values():
        assert found.keys() == (MADE.keys() - REFUSALS) | _PARTS | {"skipped_one", "others_one"}
    assert told_refusals().keys() == REFUSALS


def test_document_of_the_api_names_all_sentences_and_parameters() -> None:
    page = PATH.read_text()
    assert updated(page) == page, "run `make docs`"
    for code, names in described(page).items():
        assert names == MADE[code], code


# ------------------------------------------------------------------------------------------------- in a browser

WARNINGS = [
    Told("the clock of this machine is 1 h 5 min behind that of db <b>1</b>", "clock_behind", seconds=3_900,
         whose="db <b>1</b>"),
    CLEAR_TEXT,
    Told("a warning of a newer version", "unheard_of", number=1),
]  # fmt: skip


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A server with a channel for alerts, warnings, and a job that skips firings and has a failed run."""
    with kept(tmp_path) as reader, staged(tmp_path, warnings=lambda: WARNINGS, history=reader) as found:
        policy = replace(Policy(ARTIFACTS), alert_channels=(make_channel("ops").filter,))
        found.loop.scheduler = Scheduler(policy, Stored(), epoch=1, at=found.loop.now)
        found.loop.subscribe()
        found.member("ann", "admin", EVERY_TEAM)
        found.add_app()
        found.add_job("hello", cron="0/10 * * * * ?", misfire=False, retryCount=0, shardingTotalCount=2)
        found.loop.tick(10_000)
        found.loop.tick(10_000)
        found.loop.offer("agent-1")
        first, second = found.loop.tick()
        found.loop.update(first, "TASK_FINISHED")
        found.loop.update(second, "TASK_FAILED", "no price for ACME {run}")
        found.loop.feed(AgentLost(found.loop.now, "agent-1"))
        yield found


@needs_browser
def test_skipped_firings_alerts_and_warnings_are_told_in_chinese(stage: Stage, browser: Browser) -> None:
    with stage.context(browser, locale="zh-CN") as context, watched(context) as page:
        page.goto(f"{stage.url}/jobs/hello")
        expect(page.get_by_role("main")).to_contain_text("前一次触发尚未结束，且 misfire 为 false")
        page.goto(f"{stage.url}/alerts")
        told = page.get_by_role("table").first
        run = next(iter(stage.loop.scheduler.firings))
        expect(told).to_contain_text("的触发被跳过：前一次触发尚未结束，且 misfire 为 false")
        expect(told).to_contain_text(f"运行 {run}：1 个成功，1 个失败；分片 1：no price for ACME {{run}}")
        expect(told).to_contain_text("节点 agent-1.test 失联或已离开；上面有 0 个任务")
        page.goto(f"{stage.url}/")
        warnings = page.locator(".warning li")
        expect(warnings).to_have_count(3)
        expect(warnings.nth(0)).to_have_text("本机时钟比 db <b>1</b> 的慢 1 h 5 min")
        expect(warnings.nth(1)).to_contain_text("令牌以明文传输")
        expect(warnings.nth(2)).to_have_text("a warning of a newer version")


@needs_browser
def test_records_of_an_older_version_show_their_stored_texts(stage: Stage, browser: Browser) -> None:
    core = stage.loop.scheduler
    core.alerts.update({key: changed(alert, words=None) for key, alert in core.alerts.items()})
    core.job_states.update({key: changed(one, skipped_words=msgspec.UNSET) for key, one in core.job_states.items()})
    with stage.context(browser, locale="zh-CN") as context, watched(context) as page:
        page.goto(f"{stage.url}/jobs/hello")
        expect(page.get_by_role("main")).to_contain_text("the firing before it has not ended, and misfire is false")
        page.goto(f"{stage.url}/alerts")
        told = page.get_by_role("table").first
        expect(told).to_contain_text("agent agent-1.test is unreachable or gone; 0 tasks were on it")


_SENTENCES = """([path, given]) => import(path).then(found => given.map(one =>
    found.sentence(one.text, one.code, one.parameters)))"""


def given(text: str, words: Words | None) -> dict[str, Any]:
    assert words is not None
    return {"text": text, "code": words.code, "parameters": words.parameters}


@needs_browser
def test_english_sentences_are_those_of_the_api(stage: Stage, browser: Browser) -> None:
    clocks = Told("; ".join(WARNINGS[:2]), "clock_behind", **WARNINGS[0].words.parameters, others=1)
    stage.loop.feed(ReportProblem(stage.loop.now, Condition.CLOCK, clocks))
    alerts = stage.loop.scheduler.alerts.values()
    found = [given(alert.text, alert.words) for alert in alerts] + [given(text, text.words) for text in WARNINGS[:2]]
    assert {one["code"] for one in found} == {"clock_behind", "clear_text", "agent_lost", "run_ended", "skipped"}
    beyond = {"text": "", "code": "agent_lost", "parameters": {"of": "a1", "agent": "h1", "tasks": 2}}
    told: dict[str, list[str]] = {}
    for language in ("en-GB", "zh-CN"):
        with stage.context(browser, locale=language, timezone_id="UTC") as context, watched(context) as page:
            page.goto(f"{stage.url}/queue")
            ready(page)
            folder = (page.locator("script[type=module]").get_attribute("src") or "").removesuffix("/main.js")
            told[language] = page.evaluate(_SENTENCES, [f"{folder}/core/sentences.js", [*found, beyond]])
    for one, english, chinese in zip(found, told["en-GB"], told["zh-CN"], strict=False):
        assert re.search(r"[\u4e00-\u9fff]", chinese), chinese
        if one["code"] == "clock_behind" and "others" in one["parameters"]:
            assert english == f"{WARNINGS[0]}; one other problem of the clock"
            assert chinese.endswith("；另有 1 个时钟问题")
        elif one["code"] == "run_ended":
            assert english == one["text"].replace("FINISHED", "finished").replace("FAILED", "failed")
        else:
            assert english == one["text"].replace(" UTC", "")
    assert told["en-GB"][-1] == "a1: agent h1 is unreachable or gone; 2 tasks were on it"
    assert told["zh-CN"][-1] == "a1：节点 h1 失联或已离开；上面有 2 个任务"
