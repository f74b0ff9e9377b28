"""Count odd English phrases per 10,000 words in the docs, docstrings and comments of this repository.

`make prose` prints the rates. `--list` prints every occurrence. The rates only warn, and the exit code is always 0
without `--strict`: a reader decides.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]

# name → (pattern, limit per 10,000 words)
LIMITS: dict[str, tuple[re.Pattern[str], float]] = {
    "sentence that begins with What": (re.compile(r"(?:^|[.;:] )What\b"), 3),
    "whoever": (re.compile(r"\b[Ww]hoever\b"), 1),
    "where it/they/there/that/nothing/no": (re.compile(r"\b[Ww]here (?:it|there|they|that|nothing|no)\b"), 3),
    "beside(s)": (re.compile(r"\bbesides?\b"), 3),
    "no more": (re.compile(r"\bno more\b"), 1),
}
_TEST_NAME = re.compile(r"^\s*(?:async )?def (test_\w+)", re.MULTILINE)
_CYTHON = re.compile(r'"""(?P<doc>.*?)"""|(?:^|\s)#:? ?(?P<comment>[^\n]*)', re.DOTALL)
_C = re.compile(r"/\*(?P<doc>.*?)\*/|//(?P<comment>[^\n]*)", re.DOTALL)


@dataclass(frozen=True)
class Text:
    """A piece of prose: a line of a document, a docstring, a comment, or the words of a test's name."""

    path: Path
    line: int
    words: str


def texts() -> Iterator[Text]:
    documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bench/*.md")]
    for path in sorted(documents):
        yield from (Text(path, number, line) for number, line in enumerate(path.read_text().splitlines(), 1))
    for folder in ("src", "tests", "bench", "tools", "examples", "compat"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield from _of_python(path)
        for path in sorted((ROOT / folder).rglob("*.pyx")):
            yield from _matches(path, _CYTHON)
        for path in sorted((ROOT / folder).rglob("*.h")):
            yield from _matches(path, _C)
    yield from _hash_comments(ROOT / "Makefile")
    yield from _hash_comments(ROOT / ".ci" / "run")


def test_names() -> Iterator[Text]:
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        source = path.read_text()
        for found in _TEST_NAME.finditer(source):
            words = found[1].removeprefix("test_").replace("_", " ")
            yield Text(path, source.count("\n", 0, found.start()) + 1, words[:1].upper() + words[1:])


def _of_python(path: Path) -> Iterator[Text]:
    source = path.read_text()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield Text(path, token.start[0], token.string.lstrip("#: "))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            line = node.body[0].lineno if node.body else 1
            yield Text(path, line, re.sub(r"\s+", " ", ast.get_docstring(node) or ""))


def _matches(path: Path, pattern: re.Pattern[str]) -> Iterator[Text]:
    source = path.read_text()
    for found in pattern.finditer(source):
        words = re.sub(r"\s+", " ", found["doc"] or found["comment"] or "").strip()
        yield Text(path, source.count("\n", 0, found.start()) + 1, words)


def _hash_comments(path: Path) -> Iterator[Text]:
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.lstrip().startswith("#"):
            yield Text(path, number, line.lstrip("# "))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("paths", nargs="*", type=Path, help="only files below these paths")
    parser.add_argument("--list", action="store_true", help="print every occurrence")
    parser.add_argument("--strict", action="store_true", help="exit with 1 above a limit")
    asked = parser.parse_args()
    below = [path.resolve() for path in asked.paths] or [ROOT]
    above = 0
    for kind, all_pieces in (("docs, docstrings and comments", texts()), ("test names", test_names())):
        pieces = [one for one in all_pieces if any(one.path.is_relative_to(path) for path in below)]
        count = sum(len(one.words.split()) for one in pieces)
        print(f"{count:,} words of {kind}; odd phrases per 10,000 words:")
        for name, (pattern, limit) in LIMITS.items():
            found = [one for one in pieces for _ in pattern.finditer(one.words)]
            rate = 1e4 * len(found) / max(count, 1)
            above += rate > limit
            print(f"  {'WARNING ' if rate > limit else ''}{name}: {rate:.1f} (at most {limit:g}); {len(found)} places")
            for one in found if asked.list else ():
                print(f"    {one.path.relative_to(ROOT)}:{one.line}: {one.words[:160]}")
    return 1 if asked.strict and above else 0


if __name__ == "__main__":
    sys.exit(main())
