"""The listener that serves packages and the executor to agents, and nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.request import urlopen

import httpx
import pytest
from tests.api_kit import client_of, package_bytes, serving

from jobcloud.server.api import create_artifacts
from jobcloud.server.packages import PackageStore

EXECUTOR = b"the executor"
EXECUTOR_SHA = hashlib.sha256(EXECUTOR).hexdigest()


@pytest.fixture
def sha256(tmp_path: Path) -> str:
    with PackageStore(tmp_path / "packages").receive() as upload:
        upload.write(package_bytes())
        return upload.commit().sha256


@pytest.fixture
def listener(tmp_path: Path, sha256: str) -> httpx.Client:
    path = tmp_path / "executor.zip"
    path.write_bytes(EXECUTOR)
    app = create_artifacts(PackageStore(tmp_path / "packages"), (EXECUTOR_SHA, path))
    return client_of(app, url="http://agents-see-this.test")


def test_packages_and_the_executor_are_served_by_their_hash(listener: httpx.Client, sha256: str) -> None:
    answer = listener.get(f"/{sha256}/package.zip")
    assert answer.content == package_bytes()
    assert answer.headers["content-length"] == str(len(package_bytes()))
    assert "immutable" in answer.headers["cache-control"]
    assert listener.get(f"/{EXECUTOR_SHA}/executor.zip").content == EXECUTOR


def test_head_answers_with_the_size_only(listener: httpx.Client, sha256: str) -> None:
    answer = listener.head(f"/{sha256}/package.zip")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(len(package_bytes()))


@pytest.mark.parametrize(
    "path",
    [
        "/", "/{sha}", "/{sha}/", "/{sha}/package.tar", "/{sha}/executor.zip", "/{exe}/package.zip",
        "/{SHA}/package.zip",
        "/{sha}//package.zip", "/{sha}/%2e%2e/x", "/{sha}/package.zip/", "/.incoming/x",
        "//{sha}/package.zip", "/{sha}/package.zip%00", "/{sha}/package.zip%0a", "/api/v1/health",
        "/{zero}/package.zip",
    ],
)  # fmt: skip
def test_every_other_path_is_not_found(listener: httpx.Client, sha256: str, path: str) -> None:
    url = path.format(sha=sha256, SHA=sha256.upper(), exe=EXECUTOR_SHA, zero="0" * 64)
    answer = listener.get(httpx.URL("http://agents.test").copy_with(raw_path=url.encode()))
    assert (answer.status_code, answer.content) == (404, b"")


def test_other_methods_are_refused(listener: httpx.Client, sha256: str) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        answer = listener.request(method, f"/{sha256}/package.zip")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


def test_package_is_served_over_a_socket(tmp_path: Path, sha256: str) -> None:
    with (
        serving(create_artifacts(PackageStore(tmp_path / "packages"))) as url,
        urlopen(f"{url}/{sha256}/package.zip") as answer,
    ):
        assert answer.read() == package_bytes()
