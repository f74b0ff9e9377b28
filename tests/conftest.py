"""Fixtures that many tests share: a fresh seed for random histories, and each store behind one face."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import structlog
from hypothesis import Phase, settings

from jobcloud.adapters.memory import MemoryServer, MemoryStore
from jobcloud.ports import Store

# As in production: by default structlog would spend half a second on each traceback, with every variable in it.
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,
        structlog.processors.KeyValueRenderer(),
    ]
)
settings.register_profile("jobcloud", derandomize=True, deadline=None, database=None)
# For who asks only whether there is a failure: making it small takes minutes.
settings.register_profile("no_shrinking", settings.get_profile("jobcloud"), phases=(Phase.explicit, Phase.generate))
settings.load_profile("jobcloud")

_FALLBACK_SEED = 20_260_101


@cache
def run_seed() -> int:
    """JOBCLOUD_SEED, else taken from the commit's hash: each commit tries histories of its own, repeatably."""
    if given := os.environ.get("JOBCLOUD_SEED"):
        return int(given)
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return int(found.stdout[:8], 16) if found.returncode == 0 else _FALLBACK_SEED


def pytest_report_header() -> str:
    return f"jobcloud seed: {run_seed()} (set JOBCLOUD_SEED to repeat)"


_skipped: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        _skipped.append(report.nodeid)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """With JOBCLOUD_TEST_NO_SKIP=1, as CI has it where the real servers are, a test skipped is a test failed."""
    if _skipped and os.environ.get("JOBCLOUD_TEST_NO_SKIP") == "1":
        print(f"\n{len(_skipped)} tests were skipped where none may be: {', '.join(_skipped[:5])} …")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture
def seed() -> int:
    return run_seed()


OpenStore = Callable[[], Store]


@pytest.fixture(scope="session")
def zookeeper_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one real ZooKeeper server; tests take namespaces of their own."""
    import zookeeper_kit

    with zookeeper_kit.running(tmp_path_factory.mktemp("zookeeper")) as servers:
        yield zookeeper_kit.hosts(servers)


@pytest.fixture(scope="session")
def ensemble_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The addresses of three real ZooKeeper servers, for tests that leave them alone."""
    import zookeeper_kit

    with zookeeper_kit.running(tmp_path_factory.mktemp("ensemble"), 3) as servers:
        yield zookeeper_kit.hosts(servers)


@pytest.fixture(
    params=[
        "memory",
        "sqlite",
        pytest.param("zookeeper_hosts", marks=pytest.mark.zookeeper),
        pytest.param("ensemble_hosts", marks=pytest.mark.zookeeper),
    ]
)
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    """Opens the state of one test; called again, it is another scheduler on the same state."""
    opened: list[Store] = []
    server = MemoryServer()
    where = request.getfixturevalue(request.param) if request.param.endswith("_hosts") else ""
    namespace = f"test/{uuid.uuid4().hex}"

    def open_one() -> Store:
        if request.param == "memory":
            opened.append(MemoryStore(server))
        elif where:
            import zookeeper_kit
            from jobcloud.adapters.zookeeper.store import ZooKeeperStore

            opened.append(ZooKeeperStore(zookeeper_kit.connect(where, namespace)))
        else:
            from jobcloud.adapters.sqlite import SqliteStore

            opened.append(SqliteStore(tmp_path / "state" / "jobcloud.db"))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: OpenStore) -> Store:
    return open_store()
