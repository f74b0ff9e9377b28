"""Elastic-Job-Cloud's API over a scheduler with an app and a job."""

from __future__ import annotations

from pathlib import Path

import pytest
from httpx import Client
from tests.api_kit import FakeLoop, client_of, make_api

from jobcloud.server.api import ApiOptions, ElasticJobOptions

URL = "http://127.0.0.1/api"


@pytest.fixture
def ej(api: Client, demo: str) -> Client:
    """A client of Elastic-Job-Cloud's API. The app `demo` has a package with the class hello:Hello."""
    return Client(transport=api._transport, base_url=URL)


@pytest.fixture
def api(loop: FakeLoop, tmp_path: Path) -> Client:
    options = ApiOptions(elastic_job=ElasticJobOptions(zone="Asia/Shanghai"))
    return client_of(make_api(tmp_path, loop, options=options, clock=lambda: loop.now))
