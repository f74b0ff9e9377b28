"""Runs a Python file with workflows: `python -P -m jobcloud.client.workflow_process FILE`.

The standard output gets one JSON object: `{workflows, lines}`, or `{problem, line, traceback}` if the file fails. All
that the file prints goes to standard error. `lines`: the lines of the file by the fields of the workflows, such as
`workflows.0.nodes.1`.
"""

from __future__ import annotations

import json
import os
import resource
import runpy
import sys
import traceback
from pathlib import Path
from typing import Any, Final

import jobcloud.workflow

#: of each file that the process writes, so also of its output
_MAX_OUTPUT: Final = 64 << 20
_MAX_FRAMES: Final = 5
_MAX_PROBLEM: Final = 1_000


def run(path: str) -> dict[str, Any]:
    """Run the file; returns its workflows with their lines, or the problem."""
    sys.argv = [path]
    sys.path.insert(0, str(Path(path).absolute().parent))
    try:
        runpy.run_path(path, run_name="__workflow__")
    except (Exception, SystemExit) as error:
        return _problem(path, error)
    lines: dict[str, int] = {}
    found = jobcloud.workflow.workflows()
    for number, one in enumerate(found):
        for place, (file, line) in one.places().items():
            if file == path:
                lines[".".join(map(str, ("workflows", number, *place)))] = line
    return {"workflows": [one.config() for one in found], "lines": lines}


def _problem(path: str, error: BaseException) -> dict[str, Any]:
    told = traceback.TracebackException.from_exception(error)
    frames = list(told.stack)
    first = next((number for number, frame in enumerate(frames) if frame.filename == path), len(frames))
    own = [frame for frame in frames[first:] if frame.filename != jobcloud.workflow.__file__]
    line = next((frame.lineno for frame in reversed(own) if frame.filename == path), 0)
    if isinstance(error, SyntaxError) and error.filename == path:
        line = error.lineno or 0
    text = traceback.format_exception_only(error)[-1].strip()
    shown = traceback.StackSummary.from_list(own[-_MAX_FRAMES:]).format()
    return {"problem": text[:_MAX_PROBLEM], "line": line, "traceback": "".join(shown).rstrip()}


def main() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (_MAX_OUTPUT, _MAX_OUTPUT))
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answer:
        os.dup2(2, 1)
        json.dump(run(sys.argv[1]), answer)


if __name__ == "__main__":
    main()
