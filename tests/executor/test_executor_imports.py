"""The processes of an executor import few modules, because each module costs memory and time on every agent."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import jobcloud

SOURCES = Path(jobcloud.__file__).resolve().parents[1]


def imported(module: str) -> set[str]:
    """The modules that an interpreter has after it has imported `module`, beyond those that it starts with."""
    count = f"import sys; sys.path.insert(0, {str(SOURCES)!r}); before = set(sys.modules); import {module}; "
    argv = [sys.executable, "-I", "-S", "-c", count + "print(*set(sys.modules) - before)"]
    return set(subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize("module", ["jobcloud.executor.warden", "jobcloud.executor.__main__"])
def test_the_warden_has_few_modules(module: str) -> None:
    found = imported(module)
    assert {one for one in found if one.startswith("jobcloud")} <= {
        "jobcloud", "jobcloud.executor", "jobcloud.executor.__main__", "jobcloud.executor.warden",
    }  # fmt: skip
    assert len(found) <= 30, sorted(found)
    assert not found & {"asyncio", "ctypes", "json", "re", "ssl", "subprocess", "threading", "typing"}


def test_a_worker_imports_only_what_jobs_need() -> None:
    found = imported("jobcloud.executor.worker")
    unneeded = {
        "asyncio",
        "ctypes",
        "hashlib",
        "http",
        "selectors",
        "shutil",
        "ssl",
        "subprocess",
        "zipfile",
        "zoneinfo",
    }
    assert not found & unneeded
    assert len(found) <= 90, sorted(found)
