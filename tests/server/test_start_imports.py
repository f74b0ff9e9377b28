"""A start imports only what its configuration and the first requests need: each module costs time and memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import jobcloud

SOURCES = Path(jobcloud.__file__).resolve().parents[1]
#: libraries that only optional parts need, by the part
OPTIONAL = {
    "the history": {"sqlalchemy"},
    "OpenID Connect": {"joserfc"},
    "TLS": {"cryptography"},
    "ZooKeeper": {"kazoo"},
    "a scrape": {"prometheus_client"},
    "logs of tasks and other schedulers": {"httpx", "httpcore"},
    "traces": {"opentelemetry.sdk"},
    "plans": {"scipy", "matplotlib"},
}


def imported(statement: str) -> set[str]:
    """The modules that a fresh interpreter has after a statement, beyond those that it starts with."""
    count = f"import sys; sys.path.insert(0, {str(SOURCES)!r}); before = set(sys.modules); {statement}; "
    argv = [sys.executable, "-I", "-c", count + "print(*set(sys.modules) - before)"]
    return set(subprocess.run(argv, check=True, capture_output=True, text=True).stdout.splitlines()[-1].split())


@pytest.fixture(scope="module")
def of_scheduler() -> set[str]:
    return imported("import jobcloud.server.wiring")


@pytest.mark.parametrize("part", OPTIONAL)
def test_scheduler_imports_no_library_of_an_optional_part(of_scheduler: set[str], part: str) -> None:
    assert not of_scheduler & OPTIONAL[part]


def test_scheduler_imports_no_optional_part_of_its_own(of_scheduler: set[str]) -> None:
    unneeded = (
        "jobcloud.adapters.etcd",
        "jobcloud.adapters.zookeeper",
        "jobcloud.history.database",
        "jobcloud.server.alerts",
        "jobcloud.server.identity.oidc.provider",
        "jobcloud.server.metrics.exposition",
    )
    assert not {name for name in of_scheduler if name.startswith(unneeded)}


def test_history_in_sqlite_imports_no_dialect_of_postgresql() -> None:
    assert not {name for name in imported("import jobcloud.history.service") if "dialects.postgresql" in name}


def test_scheduler_imports_few_modules(of_scheduler: set[str]) -> None:
    assert len(of_scheduler) <= 1_000, sorted(of_scheduler)


def test_command_line_imports_only_the_command_that_runs() -> None:
    statement = "from jobcloud.client.cli import main\ntry: main(['job', 'list', '--help'])\nexcept SystemExit: pass\n"
    found = imported(f"exec({statement!r})")
    assert {name for name in found if name.startswith("jobcloud.client.commands.")} <= {
        "jobcloud.client.commands.connection",
        "jobcloud.client.commands.exit_codes",
        "jobcloud.client.commands.field_help",
        "jobcloud.client.commands.jobs",
        "jobcloud.client.commands.options",
    }
