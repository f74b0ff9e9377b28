"""The modules of the console: a linter finds no fault in them, and each of them can be loaded."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from playwright.sync_api import Browser
from tests.browser_kit import needs_browser
from tests.console_kit import staged
from tests.npm_kit import install

import jobcloud.server.console

pytestmark = needs_browser
FILES = Path(jobcloud.server.console.__file__).parent / "files"
OWN = sorted(path for path in FILES.rglob("*.js") if "vendor" not in path.parts)
_ESLINT = Path(__file__).parents[2] / "eslint"
_LOAD = """async paths => Object.fromEntries(await Promise.all(paths.map(path => import(path).then(
  module => [path, Object.keys(module)], error => [path, String(error)]))))"""


def lint(*paths: Path, cwd: Path) -> list[str]:
    """The faults that ESLint finds: `FILE:LINE: RULE: MESSAGE`."""
    program = install(_ESLINT) / "node_modules" / "eslint" / "bin" / "eslint.js"
    config = _ESLINT / "eslint.config.mjs"
    argv = ["node", str(program), "--no-config-lookup", "--config", str(config), "--format", "json"]
    done = subprocess.run([*argv, *map(str, paths)], cwd=cwd, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode in {0, 1}, done.stderr
    return [
        f"{Path(file['filePath']).name}:{one['line']}: {one['ruleId']}: {one['message']}"
        for file in json.loads(done.stdout)
        for one in file["messages"]
    ]


def test_linter_finds_no_fault_in_the_modules() -> None:
    assert len(OWN) > 60
    assert lint(FILES / "core", FILES / "pages", FILES / "main.js", cwd=FILES) == []


def test_linter_finds_unused_and_undeclared_names(tmp_path: Path) -> None:
    shutil.copytree(FILES / "core", tmp_path / "core")
    (tmp_path / "core" / "faults.js").write_text(
        'import {html, useState} from "./html.js";\nexport const shown = () => html`<p>${absent}</p>`;\n'
    )
    found = lint(tmp_path / "core", cwd=tmp_path)
    assert [one.split(": ")[1] for one in found] == ["no-unused-vars", "no-undef"]
    assert "'useState'" in found[0]


def test_each_module_finds_all_that_it_imports(tmp_path: Path, browser: Browser) -> None:
    """A page loads its modules when it is opened, so a test of the first page would miss a wrong name."""
    with staged(tmp_path) as stage, stage.context(browser) as context:
        page = context.new_page()
        page.goto(f"{stage.url}/jobs")
        folder = page.locator("script[type=module]").get_attribute("src") or ""
        folder = folder.removesuffix("/main.js")
        paths = [f"{folder}/{path.relative_to(FILES).as_posix()}" for path in OWN if path.name != "main.js"]
        loaded = page.evaluate(_LOAD, paths)
    assert loaded.keys() == set(paths)
    assert {path: names for path, names in loaded.items() if isinstance(names, str)} == {}
