"""`/files/read` and `/files/browse` of an agent: its sandboxes, by path or by Mesos' virtual path."""

from __future__ import annotations

import json
import stat
from pathlib import Path

_MAX_READ = 16 * 4096  # what Mesos gives at most in one answer (16 pages)


def read(root: Path, query: dict[str, str]) -> tuple[int, str]:
    """Part of a file: status and JSON `{"data", "offset"}`; without `offset` (or with -1) only how long it is."""
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


def browse(root: Path, query: dict[str, str]) -> tuple[int, str]:
    """What a directory holds, as Mesos lists it."""
    path = _resolved(root, query.get("path"))
    if isinstance(path, str):
        return 400, path
    if path is None or not path.is_dir():
        return 404, ""
    shown = []
    for entry in sorted(path.iterdir()):
        found = entry.lstat()
        shown.append(
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
    return 200, json.dumps(shown)


def _resolved(root: Path, path: str | None) -> Path | str | None:
    """The file meant; a text if the request is bad; None if it is no business of ours."""
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
