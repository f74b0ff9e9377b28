"""The dev cluster's packages: no import cycles, and state machines that touch nothing outside."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import jobcloud.dev

ROOT = Path(jobcloud.dev.__file__).parent
PURE_MODULES = ("fault_injection", "framework_info", "protocol", "resources", "schema", "virtual")
PURE = sorted(
    [*(ROOT / "master").rglob("*.py"), *(ROOT / "agent").rglob("*.py"), *(ROOT / f"{name}.py" for name in PURE_MODULES)]
)
ALLOWED_LIBRARIES = {
    "__future__", "collections", "dataclasses", "enum", "functools", "heapq", "json", "msgspec", "re", "typing",
}  # fmt: skip
ALLOWED_OWN = ("jobcloud.wire", *(f"jobcloud.dev.{name}" for name in ("agent", "master", *PURE_MODULES)))


def name_of(path: Path) -> str:
    """`jobcloud.dev.master.state`; a package is named by its `__init__.py`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("jobcloud.dev", *(part for part in parts if part != "__init__")))


MODULES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def imports(path: Path) -> Iterator[str]:
    """The full names of all modules that a file imports, also inside functions and for type checkers."""
    package = ("jobcloud", "dev", *path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            base = ".".join(filter(None, (base, node.module)))
            submodules = [f"{base}.{alias.name}" for alias in node.names if f"{base}.{alias.name}" in MODULES]
            yield from submodules
            if len(submodules) < len(node.names):
                yield base


def cycle_from(name: str, graph: dict[str, set[str]], above: tuple[str, ...] = ()) -> tuple[str, ...]:
    """An import cycle that is reached from a module, or ()."""
    if name in above:
        return (*above[above.index(name) :], name)
    return next((found for one in sorted(graph[name]) if (found := cycle_from(one, graph, (*above, name)))), ())


def test_modules_import_each_other_without_a_cycle() -> None:
    graph = {name: {one for one in imports(path) if one in MODULES} for name, path in MODULES.items()}
    assert {"jobcloud.dev.master.state", "jobcloud.dev.master.views"} <= graph["jobcloud.dev.master.core"]
    for name in graph:
        assert not cycle_from(name, graph)


def test_cycle_is_found() -> None:
    assert cycle_from("a", {"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ("b", "c", "b")


@pytest.mark.parametrize("path", PURE, ids=name_of)
def test_state_machine_imports_no_socket_thread_or_clock(path: Path) -> None:
    for name in imports(path):
        own = name.startswith(ALLOWED_OWN)
        assert own or name.partition(".")[0] in ALLOWED_LIBRARIES, f"{name_of(path)} imports {name}"


@pytest.mark.parametrize("path", PURE, ids=name_of)
def test_state_machine_opens_and_prints_nothing(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"open", "print", "input", "exec", "eval", "__import__"}, f"line {node.lineno}"
