"""Fixtures shared by many tests, the seed of random histories, and the split of the tests over processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from httpx._config import DEFAULT_TIMEOUT_CONFIG
from hypothesis import Phase, settings

from jobcloud.adapters.memory import MemoryServer, MemoryStore
from jobcloud.ports import LastingStore

if TYPE_CHECKING:
    from tests.whole_kit import Product

# The same processors as in production. structlog's default spends half a second on each traceback, because it renders
# every local variable.
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,
        structlog.processors.KeyValueRenderer(),
    ]
)
settings.register_profile("jobcloud", derandomize=True, deadline=None, database=None)
# For callers that only ask whether a test fails. Shrinking takes minutes.
settings.register_profile("no_shrinking", settings.get_profile("jobcloud"), phases=(Phase.explicit, Phase.generate))
settings.load_profile("jobcloud")

# httpx gives up after 5 seconds. A server of a test needs longer now and then, if the machine is busy.
for _part in ("connect", "read", "write", "pool"):
    setattr(DEFAULT_TIMEOUT_CONFIG, _part, 60.0)

_FALLBACK_SEED = 20_260_101


@cache
def run_seed() -> int:
    """JOBCLOUD_SEED, or a number from the hash of the commit: each commit tries new histories, repeatably."""
    if given := os.environ.get("JOBCLOUD_SEED"):
        return int(given)
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return int(found.stdout[:8], 16) if found.returncode == 0 else _FALLBACK_SEED


def pytest_report_header() -> str:
    return f"jobcloud seed: {run_seed()} (set JOBCLOUD_SEED to repeat)"


# How `pytest -n` splits the tests over its workers. The tests of a unit run in one worker, in order. Units start in the
# order of collection, these files first: a long unit that starts last would leave the other workers idle.
_LONGEST_FIRST = (
    "tests/server/api/test_api_schema.py",
    "tests/dev/test_dev.py",
    "tests/history/test_servers.py",
    "tests/history/test_elastic_job_search.py",
    "tests/attack/test_attacks.py",
    "tests/match/test_match_props.py",
    "tests/adapters/test_store_contract.py",
    "tests/adapters/zookeeper/test_zookeeper_store.py",
    "tests/adapters/test_store_election.py",
    "tests/adapters/zookeeper/test_zookeeper_election.py",
    "tests/adapters/zookeeper/test_zookeeper_simulated.py",
    "tests/adapters/etcd/test_etcd_election.py",
    "tests/adapters/etcd/test_etcd_store.py",
    "tests/test_simulation.py",
    "tests/whole/test_misbehaviour.py",
    "tests/whole/test_whole_teams.py",
    "tests/whole/test_whole_pair.py",
    "tests/whole/test_whole_console.py",
    "tests/whole/test_whole_java.py",
    "tests/server/console/test_looks.py",
    "tests/server/console/test_run_pages.py",
    "tests/server/console/test_jobs_pages.py",
    "tests/executor/test_executor_misbehaviour.py",
    "tests/test_cron_oracles.py",
    "tests/match/test_match_mutants.py",
    "tests/contract/test_mesos_contract.py",
    "tests/executor/test_executor.py",
    "tests/executor/test_executor_isolation.py",
    "tests/executor/test_executor_agent.py",
    "tests/server/test_bad_input.py",
    "tests/scheduler/test_scheduler_props.py",
)
# Files whose tests share no costly fixture and take long: each test is a unit.
_TEST_BY_TEST = frozenset(
    {
        "tests/match/test_match_mutants.py",
        "tests/match/test_match_props.py",
        "tests/server/api/test_api_schema.py",
        "tests/test_cron_oracles.py",
        "tests/test_simulation.py",
    }
)
# Files that share the ZooKeeper servers of this module are one unit, so that these are started once.
_ON_ZOOKEEPER = frozenset(
    {
        "tests/adapters/test_store_contract.py",
        "tests/adapters/test_store_election.py",
        "tests/adapters/zookeeper/test_zookeeper_election.py",
        "tests/adapters/zookeeper/test_zookeeper_simulated.py",
        "tests/adapters/zookeeper/test_zookeeper_store.py",
    }
)
# With JOBCLOUD_TEST_MESOS these share one real cluster.
_ON_MESOS = frozenset(
    {
        "tests/adapters/mesos/test_mesos_driver_real.py",
        "tests/contract/test_mesos_contract.py",
        "tests/contract/test_mesos_contract_agents.py",
        "tests/contract/test_mesos_contract_operators.py",
        "tests/executor/test_executor_mesos.py",
        "tests/whole/test_misbehaviour.py",
        "tests/whole/test_whole_mesos.py",
    }
)


def unit_of(nodeid: str) -> str:
    """The unit of a test: by default its file, because of the fixtures of modules."""
    file = nodeid.partition("::")[0]
    if file in _TEST_BY_TEST:
        return nodeid
    if file in _ON_MESOS and os.environ.get("JOBCLOUD_TEST_MESOS"):
        return "mesos"
    return "zookeeper" if file in _ON_ZOOKEEPER else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class Units(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            return unit_of(nodeid)

    config.option.loadscopereorder = False  # it would start the units with most tests first
    return Units(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        rank = {file: number for number, file in enumerate(_LONGEST_FIRST)}
        items.sort(key=lambda item: rank.get(item.nodeid.partition("::")[0], len(rank)))


# The marks of tests that need a real server.
_SERVERS = frozenset({"mesos", "zookeeper", "etcd", "oidc", "sql", "browser"})
_skipped: list[tuple[str, frozenset[str]]] = []


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("browser") is not None and shutil.which("chromium") is None:
        pytest.skip("needs a browser: apt-get install chromium")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        _skipped.append((report.nodeid, _SERVERS & report.keywords.keys()))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A skipped test fails the run if JOBCLOUD_TEST_NO_SKIP is 1, or a list of all servers that the test needs.

    CI sets it when these servers are installed.
    """
    if hasattr(session.config, "workerinput"):
        return  # a worker of xdist; the controller sees the reports of all workers
    wanted = os.environ.get("JOBCLOUD_TEST_NO_SKIP", "")
    servers = frozenset(wanted.split(","))
    missed = [nodeid for nodeid, needs in _skipped if wanted == "1" or (needs and needs <= servers)]
    if missed:
        print(f"\nJOBCLOUD_TEST_NO_SKIP={wanted}, but {len(missed)} tests were skipped: {', '.join(missed[:5])} …")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_unconfigure() -> None:
    if (kit := sys.modules.get("tests.api_kit")) is not None:
        kit.RUNNER.close()


@pytest.fixture
def seed() -> int:
    return run_seed()


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Product]:
    """The product in a folder of its own. Its processes end with the test."""
    from tests.whole_kit import Product, processes_with, until

    product = Product(tmp_path)
    yield product
    product.end()
    until(lambda: not processes_with(str(tmp_path)), "the process tree to end")


OpenStore = Callable[[], LastingStore]


@pytest.fixture(scope="session")
def zookeeper_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one real ZooKeeper server. Each test uses a namespace of its own."""
    from tests import zookeeper_kit

    with zookeeper_kit.running(tmp_path_factory.mktemp("zookeeper")) as servers:
        yield zookeeper_kit.hosts(servers)


@pytest.fixture(scope="session")
def ensemble_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The addresses of an ensemble of three real ZooKeeper servers, for tests that do not stop them."""
    from tests import zookeeper_kit

    with zookeeper_kit.running(tmp_path_factory.mktemp("ensemble"), 3) as servers:
        yield zookeeper_kit.hosts(servers)


@pytest.fixture(scope="session")
def etcd_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one real etcd member. Each test uses a prefix of its own."""
    from tests import etcd_kit

    with etcd_kit.running(tmp_path_factory.mktemp("etcd")) as members:
        yield etcd_kit.hosts(members)


@pytest.fixture(scope="session")
def etcd_cluster_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The addresses of a cluster of three real etcd members, for tests that do not stop them."""
    from tests import etcd_kit

    with etcd_kit.running(tmp_path_factory.mktemp("etcd-cluster"), 3) as members:
        yield etcd_kit.hosts(members)


@pytest.fixture(
    params=[
        "memory",
        "sqlite",
        pytest.param("zookeeper_hosts", marks=pytest.mark.zookeeper),
        pytest.param("ensemble_hosts", marks=pytest.mark.zookeeper),
        pytest.param("etcd_hosts", marks=pytest.mark.etcd),
        pytest.param("etcd_cluster_hosts", marks=pytest.mark.etcd),
    ]
)
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    """A function that opens the state of one test. Each further call opens the same state as another scheduler."""
    opened: list[LastingStore] = []
    server = MemoryServer()
    hosts = request.getfixturevalue(request.param) if request.param.endswith("_hosts") else ""
    namespace = f"test/{uuid.uuid4().hex}"

    def open_one() -> LastingStore:
        if request.param == "memory":
            opened.append(MemoryStore(server))
        elif request.param.startswith("etcd_"):
            from tests import etcd_kit

            from jobcloud.adapters.etcd.store import EtcdStore

            opened.append(EtcdStore(etcd_kit.connect(hosts, namespace)))
        elif hosts:
            from tests import zookeeper_kit

            from jobcloud.adapters.zookeeper.store import ZooKeeperStore

            opened.append(ZooKeeperStore(zookeeper_kit.connect(hosts, namespace)))
        else:
            from jobcloud.adapters.sqlite import SqliteStore

            opened.append(SqliteStore(tmp_path / "state" / "jobcloud.db"))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: OpenStore) -> LastingStore:
    return open_store()
