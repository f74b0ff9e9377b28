"""Wheels as a package and in one: their content, their tags, and damage."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.executor_kit import FakeAgent, Start, app_payload, task_payload

from jobcloud.client.apps import add_app
from jobcloud.client.http import Client
from jobcloud.client.local import run_local
from jobcloud.client.pack import pack, read_manifest
from jobcloud.errors import ConfigError
from jobcloud.executor.package import Limits, PackageError, inspect, unpack, unpack_wheels
from jobcloud.executor.wheels import Interpreter, WheelError, choose, fits, this_interpreter

pytest_plugins = ["tests.executor_kit.fixtures"]

VENV = Path(__file__).parents[2] / "examples" / "venv"
GLIBC = Interpreter(11, "x86_64", ("glibc", (2, 31)))


def wheel_of(
    files: Mapping[str, str], name: str = "stock", version: str = "1.2", record: Mapping[str, str] | None = None
) -> bytes:
    """A wheel with these files. `record` overrides lines of its RECORD; "" leaves one out."""
    info = f"{name}-{version}.dist-info"
    everything = {**files, f"{info}/METADATA": f"Name: {name}\n", f"{info}/WHEEL": "Wheel-Version: 1.0\n"}
    lines = {path: f"{path},{_hash(content.encode())},{len(content)}" for path, content in everything.items()}
    lines = {**lines, f"{info}/RECORD": f"{info}/RECORD,,", **(record or {})}
    everything[f"{info}/RECORD"] = "\n".join(filter(None, lines.values())) + "\n"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in everything.items():
            archive.writestr(path, content)
    return out.getvalue()


def _hash(content: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")


def with_wheels(files: Mapping[str, str], **wheels: bytes) -> bytes:
    """A package with files and, in its folder `wheels`, `name-version…` without the tags."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        for name, wheel in wheels.items():
            archive.writestr(f"wheels/{name}-1.2-py3-none-any.whl", wheel)
    return out.getvalue()


def test_wheels_in_a_package_are_inspected_with_it() -> None:
    """Damaged wheels are found at the upload, before any agent gets them."""
    good = wheel_of({"stock/__init__.py": "A = 1"})
    assert "wheels/stock-1.2-py3-none-any.whl" in inspect(with_wheels({"a.py": ""}, stock=good)).names
    altered = wheel_of(
        {"stock/__init__.py": "A = 1"}, record={"stock/__init__.py": f"stock/__init__.py,{_hash(b'B')},5"}
    )
    for wheel, why in (
        (altered, "differs from the wheel's RECORD"),
        (with_wheels({"a.py": ""}), "no .*dist-info"),
        (b"nothing", "not a zip, tar"),
        (good[:-9], "damaged"),
    ):
        with pytest.raises(PackageError, match=f"wheels/stock-1.2-py3-none-any.whl.*{why}"):
            inspect(with_wheels({"a.py": ""}, stock=wheel))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("wheels/stock.whl", good)
        archive.writestr("elsewhere/any.whl", b"nobody imports from this")
    with pytest.raises(PackageError, match="is not named as a wheel"):
        inspect(out.getvalue())


# ---------------------------------------------------------------------------------------------------- as a package


def test_wheel_is_unpacked_as_a_package_with_each_part_in_its_place(tmp_path: Path) -> None:
    wheel = wheel_of(
        {
            "stock/__init__.py": "A = 1",
            "stock-1.2.data/purelib/more.py": "B = 2",
            "stock-1.2.data/scripts/tell": "#!/bin/sh\n",
            "stock-1.2.data/data/share/x.txt": "x",
        }
    )
    unpack(wheel, tmp_path / "app", wheel=True)
    found = {str(path.relative_to(tmp_path / "app")) for path in (tmp_path / "app").rglob("*") if path.is_file()}
    code = {"stock/__init__.py", "more.py", "bin/tell", "share/x.txt"}
    assert found == code | {f"stock-1.2.dist-info/{name}" for name in ("METADATA", "WHEEL", "RECORD")}
    unpack(wheel, tmp_path / "again")
    assert (tmp_path / "again" / "more.py").exists(), "known by what is in it, whatever its name"
    assert "more.py" in inspect(wheel).names


@pytest.mark.parametrize(
    ("wheel", "why"),
    [
        (wheel_of({"a.py": "1"}, record={"a.py": f"a.py,{_hash(b'2')},1"}), "'a.py' in the package is damaged"),
        (wheel_of({"a.py": "1"}, record={"a.py": ""}), "'a.py' is in the wheel and not in RECORD"),
        (wheel_of({"a.py": "1"}, record={"b.py": f"b.py,{_hash(b'2')},1"}), "'b.py' is in RECORD and not in the wheel"),
        (wheel_of({"a.py": "1"}, record={"a.py": "a.py,,1"}), "RECORD has no SHA-2 hash of 'a.py'"),
        (wheel_of({"a.py": "1"}, record={"a.py": "a.py,md5=AAAA,1"}), "RECORD has no SHA-2 hash of 'a.py'"),
        (wheel_of({"a.py": "1"}, record={"a.py": "a.py,sha256=%%%,1"}), "RECORD cannot be read"),
        (wheel_of({"a.py": "1"}, record={"a.py": "a.py"}), "RECORD cannot be read"),
        (wheel_of({"stock-1.2.data/other/x": "1"}), "does not belong to any part of a wheel"),
        (wheel_of({"../a.py": "1"}), "would escape"),
        (wheel_of({"other-1.dist-info/WHEEL": "1"}), "or more than one"),
        (wheel_of({"stock-1.2.data/purelib/a.py": "1", "a.py": "2"}), "'a.py' is in the package twice"),
        (wheel_of({"a.py": "1"}).replace(b"dist-info", b"dist-inf0"), "has no *.dist-info/WHEEL"),
        (b"\x1f\x8b" + bytes(600), "it is not a zip archive"),
    ],
)
def test_invalid_wheel_is_refused_and_leaves_nothing(wheel: bytes, why: str, tmp_path: Path) -> None:
    with pytest.raises(PackageError) as refused:
        inspect(wheel, wheel=True)
    assert why in str(refused.value)
    with pytest.raises(PackageError):
        unpack(wheel, tmp_path / "app", wheel=True)
    assert list(tmp_path.iterdir()) == []


def test_package_with_an_installed_project_next_to_app_code_is_not_taken_for_a_wheel(tmp_path: Path) -> None:
    inside = wheel_of({"stock-1.2.data/purelib/more.py": "1"})
    out = io.BytesIO(inside)
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr("own_jobs.py", "import stock")
    unpack(out.getvalue(), tmp_path / "app")
    assert (tmp_path / "app" / "stock-1.2.data" / "purelib" / "more.py").exists()


# --------------------------------------------------------------------------------------------------- tags


@pytest.mark.parametrize(
    ("tags", "fitting"),
    [
        ("py3-none-any", True),
        ("py2.py3-none-any", True),
        ("py2-none-any", False),
        ("py311-none-any", True),
        ("py312-none-any", False),
        ("cp311-none-any", True),
        ("cp310-none-any", False),
        ("cp311-cp311-linux_x86_64", True),
        ("cp310-cp310-linux_x86_64", False),
        ("cp312-cp312-linux_x86_64", False),
        ("cp38-abi3-manylinux2014_x86_64", True),
        ("cp312-abi3-manylinux2014_x86_64", False),
        ("cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64", True),
        ("cp311-cp311-manylinux_2_31_x86_64", True),
        ("cp311-cp311-manylinux_2_32_x86_64", False),
        ("cp311-cp311-manylinux1_x86_64", True),
        ("cp311-cp311-musllinux_1_2_x86_64", False),
        ("cp311-cp311-manylinux2014_aarch64", False),
        ("cp311-cp311-macosx_11_0_arm64", False),
        ("cp311-cp311-win_amd64", False),
        ("cp311-cp311t-linux_x86_64", False),
        ("pp310-pypy310_pp73-any", False),
    ],
)
def test_wheel_tags_are_matched_with_the_interpreter(tags: str, fitting: bool) -> None:
    assert fits(f"stock-1.2-{tags}.whl", GLIBC) == fitting


def test_musl_wheels_do_not_fit_glibc() -> None:
    alpine = Interpreter(11, "x86_64", ("musl", (1, 2)))
    assert fits("stock-1.2-cp311-cp311-musllinux_1_2_x86_64.whl", alpine)
    assert not fits("stock-1.2-cp311-cp311-musllinux_1_3_x86_64.whl", alpine)
    assert not fits("stock-1.2-cp311-cp311-manylinux2014_x86_64.whl", alpine)


def test_wheel_for_this_interpreter_is_chosen_among_several() -> None:
    files = [f"fast-1-cp3{minor}-cp3{minor}-manylinux2014_x86_64.whl" for minor in (10, 11, 12)]
    assert choose([*files, "Fast-1-py3-none-any.whl", "other-2-py3-none-any.whl"], GLIBC) == [
        "fast-1-cp311-cp311-manylinux2014_x86_64.whl",
        "other-2-py3-none-any.whl",
    ]
    for files, why in (
        (["fast-1-cp312-cp312-win_amd64.whl"], "is not for CPython 3.11 on linux x86_64"),
        (["fast-1-py3-none-any.whl", "fast-2-py3-none-any.whl"], "two versions"),
        (["fast.whl"], "is not named as a wheel"),
    ):
        with pytest.raises(WheelError, match=why):
            choose(files, GLIBC)


def test_tags_agree_with_pip(tmp_path: Path) -> None:
    """Every tag that pip would install here fits, and none of another minor version does."""
    out = subprocess.run(
        [sys.executable, "-m", "pip", "debug", "--verbose"], capture_output=True, text=True, check=False
    )
    tags = [line.strip() for line in out.stdout.partition("Compatible tags")[2].splitlines()[1:] if "-" in line]
    if not tags:
        pytest.skip("pip does not tell its tags here")
    mine = this_interpreter()
    # pip also takes wheels for a platform without an ABI, which nobody builds.
    told = [tag for tag in tags if not (tag.startswith("cp") and tag.split("-")[1] == "none")]
    assert [tag for tag in told if not fits(f"a-1-{tag}.whl", mine)] == []


# ------------------------------------------------------------------------------------------------------- in an app


def test_wheels_of_a_package_share_one_folder_and_equal_files(tmp_path: Path) -> None:
    folder = tmp_path / "wheels"
    folder.mkdir()
    assert not unpack_wheels(str(folder), str(tmp_path / "none"))
    shared = {"ns/__init__.py": "# shared"}
    for name in ("one", "two"):
        (folder / f"{name}-1.2-py3-none-any.whl").write_bytes(wheel_of({**shared, f"ns/{name}.py": ""}, name))
    assert unpack_wheels(str(folder), str(tmp_path / "out"))
    assert sorted(os.listdir(tmp_path / "out" / "ns")) == ["__init__.py", "one.py", "two.py"]
    with pytest.raises(PackageError, match="over 10 bytes"):
        unpack_wheels(str(folder), str(tmp_path / "small"), Limits(bytes=10))
    (folder / "three-1.2-py3-none-any.whl").write_bytes(wheel_of({"ns/__init__.py": "# other"}, "three"))
    with pytest.raises(PackageError, match="in two of the wheels"):
        unpack_wheels(str(folder), str(tmp_path / "more"))
    (folder / "three-1.2-py3-none-any.whl").write_bytes(b"PK\x03\x04")
    with pytest.raises(PackageError, match=r"three-1\.2-py3-none-any\.whl: "):
        unpack_wheels(str(folder), str(tmp_path / "more"))
    assert sorted(os.listdir(tmp_path)) == ["out", "wheels"]


JOBS = "import stock, json\ndef tell(ctx):\n    return [stock.WHERE, json.__file__.startswith(stock.__file__)]\n"
STOCK = wheel_of({"stock.py": "WHERE = 'wheel'", "json.py": "raise ImportError('no shadow of the standard library')"})


def test_jobs_and_scripts_import_from_the_wheels_of_their_package(agent: FakeAgent, start: Start, python: str) -> None:
    package = with_wheels({"shop.py": JOBS, "show.py": "import stock; print(stock.WHERE)"}, stock=STOCK)
    agent.executor_data = app_payload(package)
    executor = start(package, python=python)
    agent.launch("t1", jobClass="shop:tell")
    assert agent.end("t1").data["result"] == ["wheel", False], agent.end("t1")
    agent.launch("t2", jobType="SCRIPT", scriptCommandLine=f"{python} show.py")
    assert agent.end("t2").state == "TASK_FINISHED", agent.end("t2")
    assert executor.output("t2") == "wheel\n"


def test_wheels_precede_the_python_path_of_the_job(agent: FakeAgent, start: Start) -> None:
    package = with_wheels({}, stock=STOCK)
    agent.executor_data = app_payload(package)
    executor = start(package)
    given = task_payload("t1", jobType="SCRIPT", scriptCommandLine="sh -c env", environment={"PYTHONPATH": "/mine"})
    agent.launch("t1", {**given, "schema": 3})
    agent.end("t1")
    assert f"PYTHONPATH={executor.sandbox}/wheels:/mine" in executor.output("t1").splitlines()


def test_app_package_may_be_a_wheel(agent: FakeAgent, start: Start) -> None:
    package = wheel_of({"stock-1.2.data/purelib/shop.py": "def tell(ctx):\n    return 'wheel'\n"})
    agent.executor_data = app_payload(package)
    start(package)
    agent.launch("t1", jobClass="shop:tell")
    assert agent.end("t1").data["result"] == "wheel"


def test_broken_wheel_fails_the_tasks_of_its_app_with_the_reason(agent: FakeAgent, start: Start) -> None:
    package = with_wheels({"shop.py": JOBS}, stock=wheel_of({"a.py": "1"}, record={"a.py": f"a.py,{_hash(b'2')},1"}))
    agent.executor_data = app_payload(package)
    start(package)
    agent.launch("t1", jobClass="shop:tell")
    assert agent.end("t1").cause == "package"
    assert "stock-1.2-py3-none-any.whl: 'a.py' in the package is damaged" in agent.end("t1").message


def test_venv_example_makes_its_virtual_environment_once_and_runs_in_it(
    agent: FakeAgent, start: Start, tmp_path: Path
) -> None:
    app = tmp_path / "venv"
    shutil.copytree(VENV, app, ignore=shutil.ignore_patterns("wheelhouse", "__pycache__"))
    (app / "wheelhouse").mkdir()
    stand_in = {"tabulate.py": "def tabulate(rows, headers):\n    return f'{headers} {rows}'\n"}
    (app / "wheelhouse" / "tabulate-0.9.0-py3-none-any.whl").write_bytes(wheel_of(stand_in, "tabulate", "0.9.0"))
    pack(app, tmp_path / "app.zip")
    package = (tmp_path / "app.zip").read_bytes()
    agent.executor_data = app_payload(package, workerCommand=read_manifest(app).app["bootstrapScript"])
    executor = start(package)
    for task, isolation in (("t1", "shared"), ("t2", "process"), ("t3", "process")):
        agent.launch(task, jobClass="report_jobs:Report", parameter="north", isolation=isolation)
    ends = [agent.end(task, 120) for task in ("t1", "t2", "t3")]
    assert [end.data["result"] for end in ends] == [{"environment": str(executor.sandbox / "venv")}] * 3, ends
    assert executor.output("t1") == "['part', 'region'] [[0, 'north']]\n"


def test_run_local_imports_from_the_wheels(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "stock-1.2-py3-none-any.whl").write_bytes(wheel_of({"stock_here.py": "WHERE = 'wheel'"}))
    (tmp_path / "shop_here.py").write_text("import stock_here\ndef tell(ctx):\n    return stock_here.WHERE\n")
    (tmp_path / "jobcloud.toml").write_text('[[jobs]]\njobName = "tell"\njobClass = "shop_here:tell"\n')
    before = list(sys.path)
    assert [run.result for run in run_local(tmp_path, "tell")] == ["wheel"]
    assert sys.path == before


def test_unusable_wheel_is_refused_before_the_upload(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    broken = wheel_of({"a.py": "1"}, record={"a.py": ""})
    for path in (tmp_path / "stock-1.2-py3-none-any.whl", tmp_path / "wheels" / "stock-1.2-py3-none-any.whl"):
        path.write_bytes(broken)
    (tmp_path / "jobcloud.toml").touch()
    nobody = Client("http://127.0.0.1:1", "")
    for app in (tmp_path, tmp_path / "stock-1.2-py3-none-any.whl"):
        with pytest.raises(ConfigError, match="not in RECORD"):
            add_app(nobody, app)
