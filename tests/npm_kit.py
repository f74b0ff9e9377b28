"""Packages of npm for tests."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_BUILD = Path(__file__).parents[1] / "build"


def install(source: Path) -> Path:
    """Install the packages that the lock file in a folder names, once. Returns the folder with `node_modules`.

    Raises RuntimeError if they cannot be installed.
    """
    folder = _BUILD / source.name
    if not shutil.which("node") or not shutil.which("npm"):
        raise RuntimeError("needs node 20 and npm: apt-get install nodejs npm")
    folder.mkdir(parents=True, exist_ok=True)
    lock = (source / "package-lock.json").read_bytes()
    if not (mark := folder / "installed").exists() or mark.read_bytes() != lock:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(source / name, folder)
        argv = ["npm", "ci", "--no-fund", "--no-audit", "--ignore-scripts"]
        done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
        if done.returncode:
            raise RuntimeError(f"npm cannot install the packages of {source.name}: {done.stderr[-300:]}")
        mark.write_bytes(lock)
    return folder
