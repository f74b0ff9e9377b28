"""Planted bugs in the compiled matcher, each of which the comparison with the plain one must catch.

``python -m tests.match.match_mutants [NAME …]`` builds each into a folder of its own and lets the random histories of
``test_match_props`` loose on it (``make match-mutants``); nothing of the checkout is touched.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: The files that a build of the compiled matcher reads.
FILES = ("_match.pyx", "_match_score.h")
PLACEMENTS = 30_000  # of the random histories; each mutant here is caught well before


@dataclass(frozen=True, slots=True)
class Mutant:
    """One bug: ``good`` occurs once in the sources and becomes ``bad``."""

    name: str
    good: str
    bad: str

    def planted(self, sources: Mapping[str, str]) -> dict[str, str]:
        """The sources, text by file name, with this bug."""
        occurrences = sum(text.count(self.good) for text in sources.values())
        assert occurrences == 1, f"{self.name}: {self.good!r} occurs {occurrences} times"
        return {name: text.replace(self.good, self.bad) for name, text in sources.items()}


MUTANTS = (
    Mutant(
        "a group gets one too many on a host", "view->grouped[host] >= view->most", "view->grouped[host] > view->most"
    ),
    Mutant(
        "the minimum of minima is not looked for when one of them got worse",
        "lines += least != table->line[line];",
        "lines += least < table->line[line];",
    ),
    Mutant(
        "the minimum of a line is that beside another host's score",
        "table->score + (size_t)line * JOBCLOUD_LINE, host % JOBCLOUD_LINE, score[i]);",
        "table->score + (size_t)line * JOBCLOUD_LINE, (host + 1) % JOBCLOUD_LINE, score[i]);",
    ),
    Mutant(
        "among equals a higher slot wins in the index",
        "if (lowest < ((int64_t)table->best_score << 32 |",
        "if (lowest >> 32 < table->best_score && lowest < ((int64_t)table->best_score << 32 |",
    ),
    Mutant(
        "side by side, two hosts are taken for each other",
        "c = JOBCLOUD_SHUFFLE(high, higher, 0, 1, 4, 5);",
        "c = JOBCLOUD_SHUFFLE(high, higher, 1, 0, 4, 5);",
    ),
    Mutant(
        "side by side, the last host gets another's score",
        "hosts[i + k < n ? i + k : n - 1]",
        "hosts[i + k < n - 1 ? i + k : 0]",
    ),
    Mutant(
        "side by side, the shared part is paid everywhere",
        "lanes->pays[i] = view->payers[hosts[i]] == 0;",
        "lanes->pays[i] = 0;",
    ),
    Mutant("side by side, masks are not looked at", "view->allowed[hosts[i]] == 0", "view->allowed[hosts[i]] > 1"),
    Mutant(
        "side by side, a group gets one too many on a host",
        "view->grouped[hosts[i]] >= view->most",
        "view->grouped[hosts[i]] > view->most",
    ),
    Mutant("three is four in convex", "(convex / 3)", "(convex / 4)"),
    Mutant("all that a host pays is not capped", "sum < JOBCLOUD_MOST_PENALTY ? sum : JOBCLOUD_MOST_PENALTY", "sum"),
    Mutant("what a balance pays is not graded", "(term->graded ? excess : 1) * term->weight", "term->weight"),
    Mutant(
        "a refused class stays refused when a rule allows it again",
        "        self.class_refused[cls] = 0\n        if table.lines == 0:",
        "        if table.lines == 0:",
    ),
    Mutant(
        "a rule that turns leaves the scores as they are",
        "        if (count >= limit) != (count - by >= limit):",
        "        if by < 0 and (count >= limit) != (count - by >= limit):",
    ),
    Mutant("a release does not lower the lowest count", "rule.least = min(rule.least, count)", "pass"),
    Mutant(
        "a balance waits for values that the mask does not allow",
        "self.host_status[host] == HOST_ENABLED and self.may_use(cls, host):\n                    rule.eligible",
        "self.host_status[host] == HOST_ENABLED:\n                    rule.eligible",
    ),
    Mutant(
        "the first of a group that keeps together is held to company",
        "if self.group_claims[rule.group] > 0 or self.class_group[rule.cls] != rule.group:",
        "if True:",
    ),
    Mutant("an exclusive task shares", "self.host_exclusive[slot] += by", "self.host_exclusive[slot] += 0"),
    Mutant(
        "a group stops one short of its limit",
        "if self.request[cls, d] > most - self.group_used[group, d]:",
        "if self.request[cls, d] >= most - self.group_used[group, d]:",
    ),
    Mutant(
        "a gang that is given up does not give its new ids back",
        "        if claim >= first_new:\n            self.claims_end -= 1",
        "        if claim >= first_new + 1:\n            self.claims_end -= 1",
    ),
    Mutant("an id is used twice", "self.generation[claim] += 1", "self.generation[claim] += claim & 1"),
    Mutant("a disabled host is taken", "status == HOST_ENABLED and self.host", "status != HOST_ABSENT and self.host"),
    Mutant(
        "a proposal forgets what the group uses",
        "self.group_used[self.class_group[cls], d] += by * self.request[cls, d]",
        "pass",
    ),
    Mutant(
        "the function is not asked of the host that changed last",
        "cdef int host = self.newest\n        changed = []\n",
        "cdef int host = self.older[self.newest] if self.newest >= 0 else NONE\n        changed = []\n",
    ),
    Mutant("sizes do not follow the median", "            moved = True", "            moved = False"),
    Mutant(
        "a removed host still counts for the median",
        "            self.count_capacity(d, self.total[at, d], -1)\n",
        "",
    ),
)
#: Tried in the ordinary run as well: a build takes some time.
QUICK = tuple(mutant for mutant in MUTANTS if "turns leaves" in mutant.name or "a gang that is given up" in mutant.name)


_SETUP = """
from Cython.Build import cythonize
from setuptools import Extension, setup

directives = {"boundscheck": False, "wraparound": False, "initializedcheck": False, "cdivision": True}
modules = [Extension("jobcloud._match", ["jobcloud/_match.pyx"], extra_compile_args=["-O0", "-g0", "-w"])]
setup(name="mutant", ext_modules=cythonize(modules, language_level=3, compiler_directives=directives))
"""


def read_sources() -> dict[str, str]:
    """The text of each of ``FILES``, by name."""
    return {name: (ROOT / "src" / "jobcloud" / name).read_text() for name in FILES}


def build(sources: Mapping[str, str], folder: Path) -> Path:
    """Compile the sources without optimisation; returns the path of the module."""
    (folder / "jobcloud").mkdir()
    for name, text in sources.items():
        (folder / "jobcloud" / name).write_text(text)
    (folder / "setup.py").write_text(_SETUP)
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", "built"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the mutant cannot be built:\n{done.stdout}{done.stderr}")
    (module,) = (folder / "built" / "jobcloud").glob("_match.*")
    return module


def is_caught(sources: Mapping[str, str]) -> bool:
    """Whether the random histories fail on a matcher built from these sources."""
    with tempfile.TemporaryDirectory(prefix="jobcloud-mutant-") as folder:
        module = build(sources, Path(folder))
        command = [sys.executable, "-m", "tests.match.match_mutants", "--module", str(module)]
        environment = os.environ | {"JOBCLOUD_MATCH_PLACEMENTS": str(PLACEMENTS)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    crashed = done.returncode < 0  # by a signal: it wrote where it must not
    if not crashed and done.returncode not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"the tests did not run:\n{done.stdout}{done.stderr}")
    return crashed or done.returncode == pytest.ExitCode.TESTS_FAILED


def run_tests_on(module: Path) -> int:
    """The histories in this process, with ``module`` in the place of the compiled matcher."""
    spec = importlib.util.spec_from_file_location("jobcloud._match", module)
    assert spec
    assert spec.loader
    mutant = importlib.util.module_from_spec(spec)
    sys.modules["jobcloud._match"] = mutant
    spec.loader.exec_module(mutant)
    from jobcloud.match import CompiledMatcher

    assert CompiledMatcher is mutant.Matcher
    wanted = "random_placements or TestHistories or engines_agree or side_by_side"
    options = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=no_shrinking"]
    return pytest.main([*options, "tests/match/test_match_props.py", "-k", wanted])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="some of the mutants, by any part of their names")
    parser.add_argument("--module", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.module:
        return run_tests_on(options.module)
    sources = read_sources()
    escaped = []
    if not options.names:
        assert not is_caught(sources), "the histories fail on the matcher as it is"
    for mutant in MUTANTS:
        if not options.names or any(part in mutant.name for part in options.names):
            caught = is_caught(mutant.planted(sources))
            print(f"{'caught ' if caught else 'ESCAPED'} {mutant.name}", flush=True)
            if not caught:
                escaped.append(mutant.name)
    return len(escaped)


if __name__ == "__main__":
    sys.exit(main())
