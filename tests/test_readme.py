"""The examples in README.md do what it says: its app runs on a dev cluster, its commands and links exist."""

from __future__ import annotations

import re
import shlex
from functools import partial
from pathlib import Path

import pytest
from tests.whole_kit import ROOT, Product, until

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
LINES = [
    shlex.split(line, comments=True) for language, text in BLOCKS if language == "sh" for line in text.splitlines()
]
APP_COMMANDS = [line[1:] for line in LINES if line[0] == "jobcloud" and line[1] != "scheduler"]


def write_app(folder: Path) -> None:
    """The blocks that begin with `# NAME` are the files of the app."""
    folder.mkdir()
    for language, text in BLOCKS:
        if language in ("python", "toml"):
            name = text.partition("\n")[0].removeprefix("# ")
            (folder / name).write_text(text)


@pytest.mark.dev_cluster
def test_app_and_commands_of_readme_work_on_a_dev_cluster(dev: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(dev.folder)
    write_app(dev.folder / "hello")
    dev.start("dev", "--data", str(dev.data), "--port", str(dev.port), "--agents", "1")
    until(dev.healthy, "a healthy server")
    printed = {}
    for command in APP_COMMANDS:
        # At a full minute the newest task is that of a new run, which may not have printed yet.
        printed[command[0]] = until(partial(dev.run, *command), f"output of {command}")
        if command[0] == "job":
            until(lambda: dev.runs("greet"), "the triggered run to finish")
    assert "shard 1 finished" in printed["run-local"]
    assert "job greet is registered" in printed["app"]
    assert "trigger  FINISHED" in printed["runs"]
    assert printed["logs"] == "hello from shard 0 of 2: Berlin\n"
    assert printed["explain"].startswith("greet: ")
    assert re.search(r"\w{3} 20\d\d-\d\d-\d\d 03:00:00 CES?T", printed["next"])


def test_files_of_readmes_app_are_the_ones_that_it_lists() -> None:
    (tree,) = [text for language, text in BLOCKS if not language]
    named = {text.partition("\n")[0].removeprefix("# ") for language, text in BLOCKS if language in ("python", "toml")}
    assert named == set(tree.split()) - {"hello/"}


def test_make_targets_of_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = {line[1] for line in LINES if line[0] == "make"}
    assert targets == {"run", "test"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_links_of_readme_lead_to_files() -> None:
    links = re.findall(r"\]\(([^)#]+)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
