"""Packages in the API."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from httpx import Client
from tests.api_kit import FakeLoop, app_body, client_of, issues, make_api, package_bytes

from jobcloud.server.api import ApiOptions
from jobcloud.server.urls import UrlPolicy


def test_upload_that_is_not_an_archive_is_refused(api: Client) -> None:
    assert "package" in issues(api.post("packages", content=b"hello"))
    assert "package" in issues(api.post("packages", content=b""))
    assert "package" in issues(api.post("packages", content=package_bytes({"../x": "y"})))
    assert api.get("packages").json()["items"] == []


@pytest.mark.parametrize("name", ["caf\udce9.txt", "../caf\udce9.txt", "a/../../caf\udce9.txt"])
def test_upload_with_a_file_name_that_is_not_utf8_is_refused(api: Client, name: str) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo(name))
    assert r"caf\udce9.txt" in issues(api.post("packages", content=out.getvalue()))["package"]


def test_upload_with_another_hash_than_announced_is_refused(api: Client) -> None:
    answer = api.post("packages", content=package_bytes(), params={"sha256": "1" * 64})
    assert "not the expected one" in issues(answer)["package"]


def test_package_lists_the_apps_that_use_it(api: Client, sha256: str, demo: str) -> None:
    assert api.get(f"packages/{sha256}").json()["apps"] == ["demo"]
    assert api.get("packages/" + "0" * 64).status_code == 404


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://files.example.org/a.zip", "host"),
        ("ftp://good.example.org/a.zip", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("http://user:secret@good.example.org/a.zip", "user"),
        ("http://good.example.org/a.zip#x", "fragment"),
        ("http://127.0.0.1/a.zip", "host"),
        ("http://2130706433/a.zip", "host"),
        ("http://0x7f.1/a.zip", "host"),
        ("http://[::ffff:127.0.0.1]/a.zip", "host"),
        ("http://169.254.169.254/a.zip", "host"),
        ("http://localhost./a.zip", "host"),
        ("http://good.example.org:99999/a.zip", "plain URL"),
        ("http://good.example.org/a.zip;rm", "plain URL"),
        ("http://good.example.org/$(id).zip", "plain URL"),
        ("http://good.example.org/a b.zip", "plain URL"),
        ("http://gööd.example.org/a.zip", "plain URL"),
        ("http:///a.zip", "host"),
        ("", "plain URL"),
        ("package:sha256:ABC", "SHA-256"),
    ],
)
def test_package_url_outside_the_allow_list_is_refused(loop: FakeLoop, tmp_path: Path, url: str, why: str) -> None:
    policy = UrlPolicy(hosts=("good.example.org", "*.0.0.1", "*[0-9]*", "[!fg]*"))
    api = client_of(make_api(tmp_path, loop, options=ApiOptions(urls=policy)))
    answer = api.post("apps", json=app_body("", appURL=url, packageSha256="a" * 64))
    assert why in issues(answer)["appURL"]


def test_allowed_package_url_needs_a_hash(loop: FakeLoop, tmp_path: Path) -> None:
    options = ApiOptions(urls=UrlPolicy(hosts=("good.example.org",)))
    api = client_of(make_api(tmp_path, loop, options=options))
    url = {"appURL": "https://good.example.org/x/app-1.2.tar.gz"}
    assert "missing" in issues(api.post("apps", json=app_body("") | url))["packageSha256"]
