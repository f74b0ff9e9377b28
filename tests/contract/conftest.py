"""Fixtures of the contract suite: clusters of both kinds, and frameworks on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.contract.clusters import KINDS, start_cluster
from tests.mesos_client import Cluster, Framework


@pytest.fixture(scope="module", params=KINDS)
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two agents. The tests of a module share them, and leave nothing on them."""
    yield from start_cluster(request.param, tmp_path_factory, 2)


@pytest.fixture(scope="module", params=KINDS)
def frail_cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three agents that tests may mark gone. Offers time out after five seconds."""
    yield from start_cluster(request.param, tmp_path_factory, 3, offer_timeout_s=5)


@pytest.fixture
def frameworks() -> Iterator[Callable[..., Framework]]:
    """Creates subscribed frameworks, which are torn down after the test."""
    made: list[Framework] = []

    def make(master: str, *capabilities: str, **info: Any) -> Framework:
        framework = Framework(master, *(capabilities or ("PARTITION_AWARE",)), **info)
        made.append(framework)
        return framework.subscribe()

    yield make
    for framework in made:
        framework.teardown()
