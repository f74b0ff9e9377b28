"""Whether a package lacks the object that a job names. An object that may exist is never called missing."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from jobcloud.server.modules import missing_object

FILES = {
    "jobs.py": "class Report:\n    pass\n\ndef settle(ctx): ...\n\nfrom shop import jobs as alias\n",
    "shop/__init__.py": "",
    "shop/jobs.py": "class Settle: ...\n",
    "shop/stars.py": "from shop.jobs import *\n",
    "shop/lazy.py": "def __getattr__(name): return object\n",
    "shop/made.py": "for n in (1, 2): globals()[f'Job{n}'] = object\n",
    "shop/large.py": "#" * (1 << 20) + "\nReal = object\n",
    "shop/fast.cpython-311-x86_64-linux-gnu.so": "",
    "shop/plain/inner.py": "Deep = object\n",
    "moved/__init__.py": "__path__.append('elsewhere')\n",
    "loose/jobs.py": "Loose = object\n",
    "jobcloud/__init__.py": "",
}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("package") / "package.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in FILES.items():
            archive.writestr(name, text)
    return file


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("jobs:Repor", "jobs.py has no Repor"),
        ("jobs.Missing", "jobs.py has no Missing"),
        ("jobs.inner:Report", "jobs.py is not a package"),
        ("shop.job:Settle", "there is no shop/job.py"),
        ("shop.jobs:settle", "shop/jobs.py has no settle"),
        ("shop:Settle", "shop/__init__.py has no Settle"),
        ("shop.jobs.more.Settle", "shop/jobs.py is not a package"),
    ],
)
def test_object_that_the_files_exclude_is_missing(package: Path, name: str, problem: str) -> None:
    assert missing_object(package, name) == problem


@pytest.mark.parametrize(
    "name",
    [
        "jobs:Report", "jobs:settle", "jobs:alias", "shop.jobs:Settle", "shop.jobs.Settle", "shop.stars:Settle",
        "shop.lazy:Anything", "shop.made:Job1", "shop.large:Real", "shop.fast:Job", "shop.plain.inner:Deep",
        "moved.jobs:Job", "loose.jobs:Loose", "loose.other:Job", "installed.on.agents:Job", "statistics:mean",
        "jobcloud.job:SimpleJob", "jobs:Ünïcode",
    ],
)  # fmt: skip
def test_object_that_may_exist_is_not_missing(package: Path, name: str) -> None:
    assert missing_object(package, name) == ""


def test_objects_that_python_finds_are_not_missing(package: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(package) as archive:
        archive.extractall(tmp_path)
    code = "import jobs, shop.stars, shop.made; print(jobs.Report, shop.stars.Settle, shop.made.Job1)"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)


def test_package_that_cannot_be_read_lacks_nothing(tmp_path: Path) -> None:
    tar = tmp_path / "package.tar"
    with tarfile.open(tar, "w"):
        pass
    damaged = tmp_path / "package.zip"
    damaged.write_bytes(b"PK\x03\x04 damaged")
    assert [missing_object(file, "jobs:Report") for file in (tar, damaged, tmp_path / "absent")] == ["", "", ""]
