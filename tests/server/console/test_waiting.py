"""Tests in a browser wait for what they want to see: a page that is read once may not be ready on a slow machine."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

_TESTS = Path(__file__).parents[2]
# Methods of a page or a locator that do not wait for a state. `expect` has a waiting form of each.
_READS = {
    "title", "count", "inner_text", "all_inner_texts", "text_content", "all_text_contents", "input_value", "is_visible",
    "is_hidden", "is_checked", "is_enabled", "is_disabled", "get_attribute",
}  # fmt: skip
_OTHER_ADDRESSES = {"stage", "request"}


def drives_a_browser(path: Path) -> bool:
    text = path.read_text()
    return "from playwright.sync_api import" in text or "import needs_browser" in text


_MODULES = sorted(path for path in _TESTS.rglob("test_*.py") if drives_a_browser(path))


def single_reads(text: str) -> Iterator[str]:
    """Each read of a page in an assertion, as `LINE: NAME`."""
    assertions = [statement.test for statement in ast.walk(ast.parse(text)) if isinstance(statement, ast.Assert)]
    for node in (node for test in assertions for node in ast.walk(test)):
        match node:
            case ast.Call(ast.Attribute(attr="count"), [_]):
                pass  # a list or a text counts something
            case ast.Attribute(ast.Name(name), "url") if name in _OTHER_ADDRESSES:
                pass
            case ast.Call(ast.Attribute(attr=name)) if name in _READS:
                yield f"{node.lineno}: {name}"
            case ast.Attribute(attr="url"):
                yield f"{node.lineno}: url"


@pytest.mark.parametrize("path", _MODULES, ids=lambda path: path.stem)
def test_no_assertion_reads_a_page_once(path: Path) -> None:
    assert list(single_reads(path.read_text())) == [], "use expect(…), which waits"


def test_single_reads_are_found() -> None:
    found = single_reads(
        'assert page.title() == "x"\nassert rows.count() == 1\nassert page.url\nassert "a" in row.inner_text()\n'
        'assert [1].count(1)\nassert stage.url\nexpect(page).to_have_title("x")\n'
    )
    assert list(found) == ["1: title", "2: count", "3: url", "4: inner_text"]
    assert len(_MODULES) > 12
