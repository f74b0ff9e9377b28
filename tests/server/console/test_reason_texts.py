"""The console has a sentence for each reason of the scheduler, in each language."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect
from tests.browser_kit import chromium, needs_browser
from tests.console_kit import busy, staged, watched

import jobcloud.scheduler
import jobcloud.server.console
from jobcloud.scheduler.pools import Shortage
from jobcloud.scheduler.quotas import Lack
from jobcloud.scheduler.reason import CASES

_SCHEDULER = Path(jobcloud.scheduler.__file__).parent
_CATALOGUE = Path(jobcloud.server.console.__file__).parent / "files" / "core" / "reasons.js"
_API = Path(__file__).parents[3] / "docs" / "api.md"
# Parts of sentences that the console makes of several parameters.
_COMPOSED = {"failure", "waiting", "failed", "what", "why"}
# The cases of a reason that are not named where it is made.
_ELSEWHERE = {
    "quota": {Lack("t", "cpus", 5, 10, asked, more).case for asked, more in ((6, 0), (11, 0), (6, 3))},
    "pool": {
        Shortage("db", used, limit, needed).case
        for used, limit, needed in ((2, 2, 1), (2, 3, 2), (1, 3, 1), (1, 3, 4), (1, 0, 1), (0, None, 1))
    },
}


def catalogue() -> dict[str, dict[str, str]]:
    """Language → key → text."""
    text = _CATALOGUE.read_text()
    blocks = re.findall(r"^  (en|zh): \{\n(.*?)^  \},", text, re.DOTALL | re.MULTILINE)
    return {name: dict(re.findall(r"(\w+): \"((?:[^\"\\]|\\.)*)\"", block)) for name, block in blocks}


def made_in_the_scheduler() -> dict[str, set[str]]:
    """Code → its cases, from the calls that make reasons."""
    found: dict[str, set[str]] = {}
    for path in _SCHEDULER.glob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id != "Reason":
                continue
            first = call.args[0]
            assert isinstance(first, ast.Constant), f"{path.name}:{call.lineno}: the code must be a literal"
            code = str(first.value)
            given = next((one.value for one in call.keywords if one.arg == "case"), ast.Constant(""))
            values = {str(one.value) for one in ast.walk(given) if isinstance(one, ast.Constant)}
            found.setdefault(code, set()).update(CASES[code] if isinstance(given, ast.Name) else values)
    for code, more in _ELSEWHERE.items():
        found[code] |= more
    return found


def test_all_reasons_of_the_scheduler_are_declared() -> None:
    assert made_in_the_scheduler() == {code: set(cases) for code, cases in CASES.items()}


@pytest.mark.parametrize("code", CASES)
def test_reason_has_a_sentence_in_each_language(code: str) -> None:
    texts = catalogue()
    assert texts.keys() == {"en", "zh"}
    for case, parameters in CASES[code].items():
        key = f"{code}_{case}" if case else code
        used = {language: set(re.findall(r"\{(\w+)\}", found[key])) for language, found in texts.items()}
        assert used["en"] == used["zh"], key
        assert used["en"] <= {*parameters, *_COMPOSED}, key


def test_document_of_the_api_names_all_reasons_and_parameters() -> None:
    section = _API.read_text().split("## Reasons\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|$", section, re.MULTILINE)
    told = {(code, case.strip("`–")): tuple(re.findall(r"`(\w+)`", names)) for code, case, names in rows}
    wanted = {(code, case): names for code, cases in CASES.items() for case, names in cases.items()}
    assert {place: told[place] for place in told if place[0] in CASES} == wanted


# Sentences with words or instants that the console tells in its own way.
_OWN_WORDS = {"paused", "last_run", "clock", "back_off"}
_SENTENCES = """([path, reasons]) => import(path).then(found => reasons.map(found.reasonText))"""


@needs_browser
def test_english_sentences_are_those_of_the_api_and_chinese_ones_have_their_values(tmp_path: Path) -> None:
    with staged(tmp_path) as stage, chromium() as browser:
        busy(stage)
        stage.call("POST", "jobs/hello/disable")
        stage.add_job("broken", retryCount=0, cron="0 0 0 1 1 ? 2099", shardingTotalCount=2)
        stage.call("POST", "jobs/broken/trigger")
        stage.loop.offer("agent-3")
        for task in stage.loop.tick(1_000):
            stage.loop.update(task, "TASK_FAILED", "no price")
        names = [job["jobName"] for job in stage.call("GET", "jobs")["items"]]
        found: list[Any] = [one for name in names for one in stage.call("GET", f"jobs/{name}/explain")["reasons"]]
        found += stage.call("GET", "jobs/wide/fit")["reasons"]
        assert {"short", "never", "job_disabled", "paused", "last_run", "not_due"} <= {one["code"] for one in found}
        told: dict[str, list[str]] = {}
        for language in ("en-GB", "zh-CN"):
            with stage.context(browser, locale=language) as context, watched(context) as page:
                page.goto(f"{stage.url}/queue")
                expect(page.get_by_role("row").nth(1)).to_be_visible()
                folder = (page.locator("script[type=module]").get_attribute("src") or "").removesuffix("/main.js")
                told[language] = page.evaluate(_SENTENCES, [f"{folder}/core/reasons.js", found])
    for reason, english, chinese in zip(found, told["en-GB"], told["zh-CN"], strict=True):
        if reason["code"] not in _OWN_WORDS:
            assert english.replace(",", "").lower() == reason["text"].replace(",", "").lower()
        assert re.search(r"[\u4e00-\u9fff]", chinese), chinese
        assert "{" not in english + chinese
        for name in ("asked", "available", "run", "app", "item"):
            value = reason["parameters"].get(name)
            assert value is None or str(value) in chinese.replace(",", ""), (name, chinese)
