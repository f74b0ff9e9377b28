"""The frame of the console: its files, its policy, the way in, navigation, languages."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from glob import glob
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect
from tests.browser_kit import PATIENCE_MS, needs_browser
from tests.console_kit import Stage, staged, watched

import jobcloud.server.console
from jobcloud.server.console.paths import PAGES

FILES = Path(jobcloud.server.console.__file__).parent / "files"
OWN = [path for path in sorted(FILES.rglob("*.js")) if path.parent.name != "vendor"]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as found:
        yield found


def test_server_and_browser_know_the_same_pages() -> None:
    text = (FILES / "core" / "pages.js").read_text()
    names = re.findall(r"^  (\w+): \(\) => import\(\"\.\./pages/(\w+)\.js\"\)", text, re.MULTILINE)
    assert sorted(name for name, _ in names) == sorted([*PAGES, "overview"])
    assert all((FILES / "pages" / f"{file}.js").is_file() for _, file in names)


def test_package_has_all_files() -> None:
    """The wheel has the files that the patterns of the package select."""
    root = Path(__file__).parents[3]
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    folder = root / "src" / "jobcloud" / "server" / "console"
    chosen = {
        name for pattern in settings["jobcloud.server.console"]
        for name in glob(pattern, root_dir=folder, recursive=True)
    }  # fmt: skip
    files = {path.relative_to(folder).as_posix() for path in (folder / "files").rglob("*") if path.is_file()}
    assert "files/pages/job/form.js" in files
    assert files <= chosen, "setuptools leaves files out"


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.stem)
def test_no_module_makes_html_or_code_of_a_text(path: Path) -> None:
    text = path.read_text()
    for word in ("innerHTML", "outerHTML", "dangerouslySetInnerHTML", "insertAdjacentHTML", "eval(", "Function(",
                 "document.write", "srcdoc"):  # fmt: skip
        assert word not in text, f"{path.name} uses {word}"
    hosts = set(re.findall(r"https?://[\w.-]+", text))
    assert not hosts, f"{path.name} names {hosts}"


def test_document_and_files_need_no_identity_and_have_a_strict_policy(stage: Stage) -> None:
    answer = httpx.get(f"{stage.url}/jobs/x", timeout=PATIENCE_MS / 1_000)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http:" not in policy
    assert answer.headers["cache-control"] == "no-cache"
    assert "<script>" not in answer.text
    assert " style=" not in answer.text
    files = re.findall(r'(?:src|href)="(/console/[^"]+)"', answer.text)
    assert len(files) > 10
    for path in files:
        found = httpx.get(f"{stage.url}{path}", timeout=PATIENCE_MS / 1_000)
        assert found.status_code == 200, path
        assert "immutable" in found.headers["cache-control"]
        assert found.headers["content-security-policy"] == policy, "a worker has the policy of its file"


@pytest.mark.parametrize("path", ["core/x.js", "../routes.py", "..%2froutes.py", "%00", "vendor", ""])
def test_other_files_are_not_served(stage: Stage, path: str) -> None:
    with httpx.Client(base_url=stage.url, timeout=PATIENCE_MS / 1_000) as client:
        folder = re.search(r"/console/\w+", client.get("/").text)
        assert folder is not None
        assert client.get(f"{folder[0]}/{path}").status_code == 404
        assert client.get(f"/console/{'0' * 16}/main.js").status_code == 404, "of another version"


@needs_browser
def test_person_without_a_session_signs_in_and_comes_back_to_the_page(stage: Stage, browser: Browser) -> None:
    with browser.new_context() as context, watched(context, expected=["401"]) as page:
        page.goto(f"{stage.url}/jobs?team=default")
        page.wait_for_url("**/login")
        name, _, value = stage.cookie("ann").partition("=")
        context.add_cookies([{"name": name, "value": value, "url": stage.url}])
        page.goto(f"{stage.url}/")
        page.wait_for_url("**/jobs?team=default")
        expect(page.get_by_role("heading", name="Jobs")).to_be_visible()


@needs_browser
def test_pages_follow_the_address_and_the_language(stage: Stage, browser: Browser) -> None:
    with stage.context(browser, locale="zh-CN") as context, watched(context) as page:
        page.goto(f"{stage.url}/")
        page.get_by_role("link", name="作业", exact=True).click()
        page.wait_for_url(f"{stage.url}/jobs")
        expect(page.get_by_role("heading", name="作业")).to_be_focused()
        page.get_by_label("语言").select_option("en")
        expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
        expect(page).to_have_title("Jobs · jobcloud")
        page.go_back()
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()


@needs_browser
def test_menu_offers_only_pages_that_the_person_may_see(stage: Stage, browser: Browser) -> None:
    stage.member("bob", "viewer", "billing")
    with stage.context(browser, "bob") as context, watched(context) as page:
        page.goto(f"{stage.url}/")
        menu = page.get_by_role("navigation", name="Menu")
        expect(menu.get_by_role("link", name="Jobs")).to_be_visible()
        for name in ("Cluster", "Users", "Audit"):
            expect(menu.get_by_role("link", name=name)).to_have_count(0)


def test_catalogues_have_the_same_keys_in_all_languages() -> None:
    """The console checks it at run time too, but only for modules that a test loads."""
    for path in OWN:
        text = path.read_text()
        for block in re.findall(r"texts\(\{\n(.*?)\n\}\)", text, re.DOTALL):
            english, chinese = re.split(r"^  zh: \{", block, maxsplit=1, flags=re.MULTILINE)
            keys = [re.findall(r"\b(\w+): (?:\"(?:[^\"\\]|\\.)*\"|`)", part) for part in (english, chinese)]
            assert sorted(keys[0]) == sorted(keys[1]), path.name


@needs_browser
def test_link_to_the_content_skips_the_menu(stage: Stage, browser: Browser) -> None:
    with stage.context(browser) as context, watched(context) as page:
        page.goto(f"{stage.url}/jobs")
        page.get_by_role("heading", name="Jobs").wait_for()
        page.get_by_role("link", name="Skip to the content").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("main")).to_be_focused()
        page.keyboard.press("Tab")
        expect(page.locator("main :focus")).to_have_count(1)


@needs_browser
def test_part_that_cannot_be_loaded_is_asked_for_again(stage: Stage, browser: Browser) -> None:
    with stage.context(browser) as context, watched(context, expected=["Failed to load"]) as page:
        page.goto(f"{stage.url}/jobs")
        page.route("**/pages/users.js", lambda route: route.abort())
        page.get_by_role("link", name="Users").click()
        expect(page.get_by_text("A part of the console cannot be loaded")).to_be_visible()
        page.unroute("**/pages/users.js")
        page.get_by_role("button", name="Load again").click()
        expect(page.get_by_role("heading", name="Users")).to_be_visible()
