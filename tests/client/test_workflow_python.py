"""Python files with workflows: they run in a process of their own, and errors name their lines."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from tests.client.test_apply import Shell
from tests.client.test_workflows import shell
from tests.whole_kit import ROOT

from jobcloud.client import workflow_python
from jobcloud.errors import ConfigError

__all__ = ["shell"]

PIPELINE = ROOT / "examples" / "pipeline"
_HEAD = "from jobcloud.workflow import Node, Workflow\n"


def written(folder: Path, text: str, name: str = "flow.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def refused(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        workflow_python.read(path)
    return str(caught.value)


def test_example_in_python_is_that_in_toml() -> None:
    wanted = tomllib.loads((PIPELINE / "workflow.toml").read_text())
    assert workflow_python.read(PIPELINE / "workflow.py").value == {"workflows": [wanted]}
    printed = subprocess.run([sys.executable, PIPELINE / "workflow.py"], capture_output=True, check=True)
    assert json.loads(printed.stdout) == wanted


def test_file_is_set_and_applied(shell: Shell) -> None:
    text = (
        _HEAD + 'with Workflow("one"):\n    Node("extract") >> Node("load")\nwith Workflow("two"):\n    Node("load")\n'
    )
    path = written(shell.folder, text)
    assert shell("workflow", "set", path)[:2] == (
        0,
        "workflow one starts with extract; nodes: 2\nworkflow two starts with load; nodes: 1\n",
    )
    assert shell("--team", "beta", "apply", "-f", path)[0] == 0
    assert set(shell.loop.scheduler.workflows) == {"one", "two", "beta:one", "beta:two"}


def test_refusal_of_the_server_names_the_line(shell: Shell) -> None:
    path = written(shell.folder, _HEAD + 'with Workflow("a"):\n    x = Node("extract")\n    Node("none").after(x)\n')
    code, _, err = shell("workflow", "set", path)
    assert (code, f"{path}:4: workflow a: nodes.1.job" in err) == (1, True), err


def test_apply_of_a_directory_runs_no_python_file(shell: Shell) -> None:
    folder = shell.folder / "files"
    folder.mkdir()
    written(folder, "raise SystemExit('it ran')")
    written(folder, "workflows: [{workflowName: etl, nodes: [{job: extract}]}]", "etl.yaml")
    assert shell("apply", "-f", folder)[0] == 0
    assert set(shell.loop.scheduler.workflows) == {"etl"}


def test_file_imports_from_its_directory_and_prints_what_it_wants(tmp_path: Path) -> None:
    written(tmp_path, 'NAMES = ["a", "b"]\n', "own_names.py")
    text = (
        _HEAD
        + 'import own_names\nprint("{")\nwith Workflow("w"):\n    for name in own_names.NAMES:\n        Node(name)\n'
    )
    found = workflow_python.read(written(tmp_path, text))
    assert found.value["workflows"][0]["nodes"] == [{"job": "a"}, {"job": "b"}]
    assert found.where("workflows", 0, "nodes", 1, "job").endswith("flow.py:6")


def test_error_names_the_line_of_the_file_and_the_traceback(tmp_path: Path) -> None:
    text = _HEAD + 'def make():\n    return Node(1)\n\nwith Workflow("w"):\n    make()\n'
    path = written(tmp_path, text)
    lines = refused(path).splitlines()
    assert lines[0] == f"{path}:3: fails: TypeError: job is a text, and not 1"
    assert [line for line in lines[1:] if "File" in line] == [
        f'  File "{path}", line 6, in <module>',
        f'  File "{path}", line 3, in make',
    ]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("x = 1\nwith Workflow(\n", 2, "SyntaxError: '(' was never closed"),
        ("import no_such_module", 1, "No module named 'no_such_module'"),
        ("import sys\nsys.exit(3)", 2, "SystemExit: 3"),
        (_HEAD + "Node('a')", 2, "node a stands outside of a workflow"),
        ("x = '" + "a" * 5_000 + "'\nraise ValueError(x)", 2, "ValueError: aaa"),
    ],
)
def test_file_that_fails_is_refused_in_plain_words(tmp_path: Path, text: str, line: int, said: str) -> None:
    problem = refused(path := written(tmp_path, text))
    assert problem.startswith(f"{path}:{line}: fails: ")
    assert said in problem
    assert len(problem) < 8_000


def test_file_without_a_workflow_is_refused(tmp_path: Path) -> None:
    assert "makes no workflow" in refused(written(tmp_path, "x = 1"))
    assert "No such file" in refused(tmp_path / "none.py")


def test_process_that_dies_is_reported_with_what_it_said(tmp_path: Path) -> None:
    text = "import os\nprint('the last words', flush=True)\nos._exit(7)"
    problem = refused(written(tmp_path, text))
    assert "ended with exit code 7:\nthe last words" in problem


def test_file_that_never_ends_is_stopped_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    text = (
        "import pathlib, subprocess\n"
        f"pathlib.Path({str(fifo)!r}).write_text(str(subprocess.Popen(['sleep', '1000']).pid))\nwhile True: pass"
    )
    children: list[int] = []
    wait = subprocess.Popen.wait

    def until_it_has_a_child(process: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        if timeout is None:
            return wait(process)
        children.append(os.pidfd_open(int(fifo.read_text())))
        raise subprocess.TimeoutExpired("python", timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", until_it_has_a_child)
    with pytest.raises(ConfigError, match=r"ran longer than 60 s \(make the workflows without waiting"):
        workflow_python.read(written(tmp_path, text))
    (child,) = children
    ended = select.poll()
    ended.register(child, select.POLLIN)
    assert ended.poll(60_000), "the child of the file goes on"
    os.close(child)


def test_file_cannot_fill_the_disk_with_its_output(tmp_path: Path) -> None:
    assert "File too large" in refused(written(tmp_path, "while True: print('x' * 1_000_000)"))


def test_large_workflow_is_refused(tmp_path: Path) -> None:
    text = _HEAD + "with Workflow('w', description='x' * 5_000_000):\n    Node('a')\n"
    assert "is longer than 4,194,304 bytes" in refused(written(tmp_path, text))
