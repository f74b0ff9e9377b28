"""Directions of imports, checked in the syntax trees.

`scheduler/`, `match/`, `planning/` and the vocabulary at the top decide and touch nothing. The other packages touch the
world.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import jobcloud

ROOT = Path(jobcloud.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# Code that runs on agents: only the standard library of CPython 3.9.
ON_AGENTS = [*(ROOT / "executor").rglob("*.py"), *(ROOT / f"{name}.py" for name in ("job", "wire", "zones"))]
_NOT_VOCABULARY = ("__init__", "__main__", "job", "wire", "zones")
VOCABULARY = [path for path in sorted(ROOT.glob("*.py")) if path.stem not in _NOT_VOCABULARY]
SCHEDULER = sorted((ROOT / "scheduler").rglob("*.py"))
MATCH = [*sorted((ROOT / "match").rglob("*.py")), ROOT / "_match_types.py"]
PLANNING = sorted((ROOT / "planning").rglob("*.py"))
ACCESS = sorted((ROOT / "access").rglob("*.py"))
CRON_WORDS = sorted((ROOT / "cron_words").rglob("*.py"))
TRIGGERS = sorted((ROOT / "triggers").rglob("*.py"))
RANGES = sorted((ROOT / "ranges").rglob("*.py"))
SENTENCES = sorted((ROOT / "sentences").rglob("*.py"))
WORKFLOW = sorted((ROOT / "workflow").rglob("*.py"))
PURE = sorted({*VOCABULARY, *SCHEDULER, *MATCH, *ACCESS, *CRON_WORDS, *TRIGGERS, *RANGES, *SENTENCES, *WORKFLOW})
PURE_PACKAGES = ("access", "cron_words", "match", "ranges", "scheduler", "sentences", "triggers", "workflow")

QUIET = {
    "__future__", "base64", "bisect", "calendar", "collections", "contextlib", "copy", "dataclasses", "datetime",
    "decimal", "enum", "fnmatch", "functools", "hashlib", "heapq", "itertools", "json", "math", "operator", "re",
    "shlex", "types", "typing", "zlib", "zoneinfo",
}  # fmt: skip
# Libraries by the pure modules that may use them.
LIBRARIES = {
    "numpy": {*MATCH, ROOT / "scheduler" / "cluster.py", ROOT / "scheduler" / "masks.py"},
    "croniter": {ROOT / "cron.py"},
    "threading": {ROOT / "_match_types.py"},  # which thread's call uses a matcher
    "sys": {*WORKFLOW},  # the line of a user's file that makes a node
    "gc": {ROOT / "match" / "placer.py"},  # off while a snapshot with many tasks is restored
    "msgspec": {ROOT / f"{name}.py" for name in ("config", "messages", "model", "ports", "sentences/__init__")},
}


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imports(path: Path) -> Iterator[str]:
    """The full names of all modules imported anywhere in a file."""
    package = ("jobcloud", *path.relative_to(ROOT).parent.parts)
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            base = ".".join(filter(None, (above, node.module)))
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names if is_module(f"{base}.{alias.name}"))


def is_module(name: str) -> bool:
    path = ROOT.parent / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").exists()


def within(path: Path, *folders: str) -> set[str]:
    """The modules that a file imports from some folders of the package."""
    prefixes = tuple(f"jobcloud.{folder}" for folder in folders)
    return {name for name in imports(path) if name in prefixes or name.startswith(tuple(p + "." for p in prefixes))}


def top(name: str) -> str:
    return name.partition(".")[0]


IMPURE_PACKAGES = tuple(
    path.name for path in ROOT.iterdir() if (path / "__init__.py").exists() and path.name not in PURE_PACKAGES
)


def test_every_package_is_either_pure_or_not() -> None:
    assert set(PURE_PACKAGES) | {"planning"} <= {path.name for path in ROOT.iterdir()}
    assert len(SCHEDULER) > 20
    assert len(VOCABULARY) + len(_NOT_VOCABULARY) <= 16, "the top holds only the vocabulary"


@pytest.mark.parametrize("path", PURE, ids=named)
def test_pure_module_imports_nothing_that_touches_the_world(path: Path) -> None:
    libraries = {name for name, users in LIBRARIES.items() if path in users}
    foreign = {top(name) for name in imports(path)} - QUIET - libraries - {"jobcloud"}
    assert not foreign, f"{named(path)} imports {foreign}"
    impure = within(path, *IMPURE_PACKAGES)
    assert not impure, f"{named(path)} imports {impure}"


@pytest.mark.parametrize("path", PURE, ids=named)
def test_pure_module_uses_no_clock_no_randomness_and_no_files(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Attribute):
            assert node.attr not in {"now", "utcnow", "today", "urandom"}, f"{named(path)}:{node.lineno}: {node.attr}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"open", "print", "input", "exec", "eval", "__import__"}, f"line {node.lineno}"


@pytest.mark.parametrize("path", VOCABULARY, ids=named)
def test_vocabulary_imports_no_package(path: Path) -> None:
    # The fire times of a job and the range of its shards are parts of its configuration.
    assert path.stem == "placer" or not within(path, *set(PURE_PACKAGES) - {"ranges", "sentences", "triggers"})


@pytest.mark.parametrize("path", SCHEDULER, ids=named)
def test_scheduler_identifies_apps_and_jobs_by_key(path: Path) -> None:
    """A bare name is unique in one team only. Executors receive it: job authors see the team in a field of its own."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            bare = (node.value.id in ("app", "job", "known") and node.attr == "name") or (
                node.value.id in ("job", "known") and node.attr == "app"
            )
            if bare:
                assert (path.stem, node.attr) in {("launch", "name"), ("sharding", "name")}, f"line {node.lineno}"


@pytest.mark.parametrize("path", MATCH, ids=named)
def test_matcher_imports_only_itself(path: Path) -> None:
    own = {name for name in imports(path) if name.startswith("jobcloud.")}
    allowed = ("jobcloud._match", "jobcloud.match")
    assert {name for name in own if not name.startswith(allowed)} == set()


@pytest.mark.parametrize("path", ON_AGENTS, ids=named)
def test_agent_code_needs_only_python_3_9(path: Path) -> None:
    foreign = {top(name) for name in imports(path)} - sys.stdlib_module_names - {"jobcloud"}
    assert not foreign, f"{named(path)} imports {foreign}"
    own = {name for name in imports(path) if name.startswith("jobcloud.")}
    allowed = ("jobcloud.executor", "jobcloud.job", "jobcloud.wire", "jobcloud.zones")
    assert {name for name in own if not name.startswith(allowed)} == set()
    tree = ast.parse(path.read_text(), str(path), feature_version=(3, 9))
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword):
            assert node.arg not in {"slots", "kw_only"}, f"line {node.value.lineno}: dataclasses of 3.9 know no such"
        if isinstance(node, ast.Call):
            strict = any(keyword.arg == "strict" for keyword in node.keywords)
            assert not (isinstance(node.func, ast.Name) and strict), f"line {node.lineno}: zip of 3.9 knows no strict"


def technology(path: Path) -> str:
    """The folder of an adapter, or its file: `mesos`, `sqlite`."""
    return path.relative_to(ROOT / "adapters").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sorted((ROOT / "adapters").rglob("*.py")), ids=named)
def test_adapter_imports_neither_the_server_nor_another_technology(path: Path) -> None:
    assert not within(path, "server", "client", "dev", "planning", "scheduler")
    others = {name.split(".")[2] for name in within(path, "adapters") if name.count(".") >= 2}
    # Several stores keep their records in a journal. Its code is pure.
    assert others <= {technology(path), "journal"}


# Commands that run code of the server or the dev cluster in this process. They import it when they are called:
# tests/client/test_cli.py checks that `--help` does not.
RUN_THE_SERVER = {
    f"client/commands/{name}.py" for name in ("backup", "calendar_files", "doctor", "import_ej", "server", "state")
}


@pytest.mark.parametrize("path", sorted((ROOT / "client").rglob("*.py")), ids=named)
def test_client_imports_no_code_of_the_server(path: Path) -> None:
    # `run-local` runs a job with the code of agents, and packages are checked with it before they are sent.
    executor = () if path.stem in ("local", "apps") else ("executor",)
    if named(path) not in RUN_THE_SERVER:
        assert not within(path, "server", "adapters", "dev", *executor)
    assert not {top(name) for name in imports(path)} & {"fastapi", "uvicorn", "pymesos", "kazoo", "pydantic"}
    assert not within(path, "history")


HISTORY = sorted((ROOT / "history").rglob("*.py"))


@pytest.mark.parametrize("path", HISTORY, ids=named)
def test_history_imports_neither_server_nor_scheduler(path: Path) -> None:
    assert not within(path, "server", "client", "adapters", "dev", "executor", "scheduler", "match", "planning")


@pytest.mark.parametrize("path", FILES, ids=named)
def test_sql_stays_in_the_history(path: Path) -> None:
    if path not in HISTORY:
        assert not {top(name) for name in imports(path)} & {"sqlalchemy", "alembic", "psycopg", "pymysql"}


@pytest.mark.parametrize("path", sorted((ROOT / "archive").rglob("*.py")), ids=named)
def test_archive_imports_neither_server_nor_agents(path: Path) -> None:
    assert not within(path, "server", "client", "dev", "executor", "history", "match", "planning", "adapters.mesos")
    assert path.stem == "s3" or not {top(name) for name in imports(path)} & {"obstore"}


@pytest.mark.parametrize("path", sorted((ROOT / "elastic_job").rglob("*.py")), ids=named)
def test_conversion_of_elastic_job_touches_nothing(path: Path) -> None:
    """Client and server share it."""
    assert not {top(name) for name in imports(path)} - QUIET - {"jobcloud"}
    assert not within(path, *set(IMPURE_PACKAGES) - {"elastic_job"}, *PURE_PACKAGES)


@pytest.mark.parametrize("path", PLANNING, ids=named)
def test_planning_imports_neither_server_nor_client(path: Path) -> None:
    assert not within(path, "server", "client", "adapters", "dev", "executor")
    foreign = {top(name) for name in imports(path)} - sys.stdlib_module_names - {"jobcloud", "numpy"}
    assert foreign <= {"scipy", "matplotlib"}


def test_planning_loads_solver_and_plotter_only_on_use() -> None:
    files = ", ".join(f"jobcloud.planning.{path.stem}" for path in (ROOT / "planning").glob("[!_]*.py"))
    assert not {top(name) for name in loaded_by(f"import {files}")} & {"scipy", "matplotlib", "httpx", "typer"}


def test_module_for_workflows_loads_nothing_else_of_jobcloud() -> None:
    found = {name for name in loaded_by("import jobcloud.workflow") if top(name) == "jobcloud"}
    assert found == {"jobcloud", "jobcloud.workflow"}


@pytest.mark.parametrize("path", FILES, ids=named)
def test_pymesos_stays_in_its_adapter(path: Path) -> None:
    if path.parent != ROOT / "adapters" / "mesos":
        assert not {top(name) for name in imports(path)} & {"pymesos", "http_parser", "addict"}


@pytest.mark.parametrize("path", FILES, ids=named)
def test_product_imports_no_dev_cluster(path: Path) -> None:
    if path.relative_to(ROOT).parts[0] != "dev" and named(path) not in RUN_THE_SERVER:
        assert not within(path, "dev")


def loaded_by(statement: str) -> set[str]:
    """The modules that a statement loads in a fresh interpreter."""
    code = f"import sys; before = set(sys.modules); {statement}; print(*(set(sys.modules) - before))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name for name in found.stdout.split() if not name.startswith("__")}


def test_importing_jobcloud_loads_nothing_else() -> None:
    assert loaded_by("import jobcloud") == {"jobcloud"}


def test_core_loads_no_library_of_the_server() -> None:
    libraries = {top(name) for name in loaded_by("import jobcloud.scheduler")}
    assert not libraries & {
        "pydantic",
        "fastapi",
        "httpx",
        "typer",
        "structlog",
        "pymesos",
        "kazoo",
        "sqlite3",
        "sqlalchemy",
    }


def test_rule_finds_every_form_of_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path / "jobcloud")
    inner = tmp_path / "jobcloud" / "server"
    inner.mkdir(parents=True)
    (inner / "api.py").touch()
    path = tmp_path / "jobcloud" / "model.py"
    path.write_text("import os.path\nfrom jobcloud import server\nfrom .server import api\ndef f():\n    import time\n")
    found = set(imports(path))
    assert {"os.path", "jobcloud.server", "jobcloud.server.api", "time"} <= found
    assert within(path, "server") == {"jobcloud.server", "jobcloud.server.api"}
