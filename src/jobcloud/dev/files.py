"""Reads an agent's sandboxes. A file is named by its path or by Mesos' virtual path.

This module answers `/files/read`, `/files/browse` and the operator calls READ_FILE and LIST_FILES. It also finds the
executors for `/state`.
"""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_MAX_READ = 16 * 4096  # Mesos' limit for one answer: 16 pages


def read(root: Path, query: Mapping[str, str]) -> tuple[int, str]:
    """Read part of a file. Returns the HTTP status and JSON `{"data", "offset"}`, or the text of an error.

    If the query has no `offset`, the data is empty and the offset is the size of the file.
    """
    path = _resolved(root, query.get("path"))
    if isinstance(path, str):
        return 400, path
    try:
        offset, length = int(query.get("offset") or -1), int(query.get("length") or -1)
    except ValueError:
        return 400, "Failed to parse offset or length: expecting a number.\n"
    if path is None or not path.exists():
        return 404, ""
    if path.is_dir():
        return 400, "Cannot read from a directory.\n"
    if offset < -1 or length < -1:
        return 400, "Negative offset or length provided.\n"
    size = path.stat().st_size
    if offset == -1:
        return 200, json.dumps({"data": "", "offset": size})
    wanted = _MAX_READ if length == -1 else min(length, _MAX_READ)
    with path.open("rb") as file:
        file.seek(min(offset, size))
        return 200, json.dumps({"data": file.read(wanted).decode("utf-8", "replace"), "offset": offset})


def browse(root: Path, query: Mapping[str, str]) -> tuple[int, str]:
    """List a directory. Returns the HTTP status and a JSON array, or the text of an error."""
    path = _resolved(root, query.get("path"))
    if isinstance(path, str):
        return 400, path
    if path is None or not path.is_dir():
        return 404, ""
    listed = []
    for entry in sorted(path.iterdir()):
        found = entry.lstat()
        listed.append(
            {
                "path": f"{(query.get('path') or '').rstrip('/')}/{entry.name}",
                "size": found.st_size,
                "mode": stat.filemode(found.st_mode),
                "mtime": float(found.st_mtime),
                "nlink": found.st_nlink,
                "uid": str(found.st_uid),
                "gid": str(found.st_gid),
            }
        )
    return 200, json.dumps(listed)


def operate(root: Path, call: object) -> tuple[int, str]:
    """Answer READ_FILE or LIST_FILES. Returns the HTTP status and JSON, or the text of an error."""
    kind = call.get("type") if isinstance(call, dict) else None
    body = call.get(kind.lower()) if isinstance(call, dict) and isinstance(kind, str) else None
    if kind not in ("READ_FILE", "LIST_FILES") or not isinstance(body, dict) or not isinstance(body.get("path"), str):
        return 400, "Failed to validate agent::Call: expecting READ_FILE or LIST_FILES with a path"
    if kind == "LIST_FILES":
        status, listed = browse(root, {"path": body["path"]})
        if status != 200:
            return status, listed
        return 200, json.dumps({"type": kind, "list_files": {"file_infos": [_info(one) for one in json.loads(listed)]}})
    path = _resolved(root, body["path"])
    if not isinstance(path, Path) or not path.exists():
        return 404, ""
    if path.is_dir():
        return 400, "Cannot read from a directory.\n"
    offset, length = body.get("offset", 0), body.get("length", _MAX_READ)
    if not all(type(number) is int and number >= 0 for number in (offset, length)):
        return 400, "Failed to parse body into JSON: expecting numbers\n"
    with path.open("rb") as file:
        file.seek(offset)
        data = base64.b64encode(file.read(min(length, _MAX_READ))).decode()
    return 200, json.dumps({"type": kind, "read_file": {"size": path.stat().st_size, "data": data}})


def _info(browsed: dict[str, Any]) -> dict[str, Any]:
    """A FileInfo of the operator API, without optional fields."""
    return {name: browsed[name] for name in ("path", "size", "nlink", "uid", "gid")}


def frameworks(root: Path, live: Mapping[str, str]) -> list[dict[str, Any]]:
    """The frameworks of an agent's /state, with their executors. `live` maps container ids to ids of live executors."""
    found: dict[str, dict[str, Any]] = {}
    runs = [run for run in root.glob("*/frameworks/*/executors/*/runs/*") if not run.is_symlink()]
    for run in sorted(runs, key=lambda run: run.stat().st_mtime):
        framework_id, executor_id = run.parts[-5], run.parts[-3]
        empty = {"id": framework_id, "executors": [], "completed_executors": []}
        framework = found.setdefault(framework_id, empty)
        kind = "executors" if live.get(run.name) == executor_id else "completed_executors"
        framework[kind].append({"id": executor_id, "container": run.name, "directory": str(run)})
    return list(found.values())


def _resolved(root: Path, path: str | None) -> Path | str | None:
    """The path of a file; an error text if there is no path; None if the path is invalid or outside the sandboxes."""
    if not path:
        return "Expecting 'path=value' in query.\n"
    wanted = Path(path)
    parts = wanted.parts
    if len(parts) > 5 and parts[1] == "frameworks" and parts[3] == "executors":
        latest = next(root.glob(f"*/frameworks/{parts[2]}/executors/{parts[4]}/runs/{_run(parts)}"), None)
        if latest is None:
            return None
        wanted = latest.joinpath(*parts[7:])
    try:
        wanted = wanted.resolve()
    except (OSError, ValueError, RuntimeError):
        return None
    return wanted if wanted.is_relative_to(root.resolve()) else None


def _run(parts: tuple[str, ...]) -> str:
    return parts[6] if len(parts) > 6 and parts[5] == "runs" else "latest"
