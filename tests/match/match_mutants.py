"""Planted bugs in the compiled matcher. The comparison with the plain matcher must catch each of them.

``python -m tests.match.match_mutants [NAME …]`` (``make match-mutants``) builds each bug in a temporary folder and runs
the random histories of ``test_match_props`` on it. It does not change the checkout.
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
PLACEMENTS = 30_000  # of the random histories; every mutant is caught well before that


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
        "a host takes one claim too many of a group",
        "view->grouped[host] >= view->max_per_host",
        "view->grouped[host] > view->max_per_host",
    ),
    Mutant(
        "a scan lets a host take one claim too many of a group",
        "grouped[i] >= max_per_host",
        "grouped[i] > max_per_host",
    ),
    Mutant(
        "the top minimum is not updated when a minimum below it rises",
        "lines += least != table->line[line];",
        "lines += least < table->line[line];",
    ),
    Mutant(
        "the minimum of a line uses the place of another host",
        "table->score + (size_t)line * JOBCLOUD_LINE, host % JOBCLOUD_LINE, score[i]);",
        "table->score + (size_t)line * JOBCLOUD_LINE, (host + 1) % JOBCLOUD_LINE, score[i]);",
    ),
    Mutant(
        "the index picks a higher slot among equal scores",
        "if (lowest < ((int64_t)table->best_score << 32 |",
        "if (lowest >> 32 < table->best_score && lowest < ((int64_t)table->best_score << 32 |",
    ),
    Mutant(
        "gathering swaps two hosts",
        "c = JOBCLOUD_SHUFFLE(high, higher, 0, 1, 4, 5);",
        "c = JOBCLOUD_SHUFFLE(high, higher, 1, 0, 4, 5);",
    ),
    Mutant(
        "the last gathered host gets the score of another",
        "hosts[i + k < n ? i + k : n - 1]",
        "hosts[i + k < n - 1 ? i + k : 0]",
    ),
    Mutant(
        "gathered hosts never need the shared part",
        "columns->pays[i] = view->key_claims[hosts[i]] == 0;",
        "columns->pays[i] = 0;",
    ),
    Mutant(
        "gathered hosts are never excluded",
        "columns->word[0][i] |= jobcloud_exclusion(view, hosts[i]);",
        "columns->word[0][i] |= 0;",
    ),
    Mutant(
        "a dimension that is not asked for costs nothing",
        "*score += -(int32_t)(relative > 0) & unasked;",
        "",
    ),
    Mutant(
        "an imbalanced host pays no penalty",
        "(balance < 0 ? JOBCLOUD_IMBALANCE : 0);\n}",
        "0;\n}",
    ),
    Mutant(
        "a dimension counts from half of the most votes on",
        "JOBCLOUD_VOTES_TO_COUNT = 16",
        "JOBCLOUD_VOTES_TO_COUNT = 2",
    ),
    Mutant(
        "a dimension that does not count hides an imbalance",
        "largest = counted[d] && share > largest ? share : largest;",
        "largest = share > largest ? share : largest;",
    ),
    Mutant(
        "a dimension that does not count belongs to the size",
        "if (total[d] > 0 && median[d] > 0 && counted[d]) {",
        "if (total[d] > 0 && median[d] > 0) {",
    ),
    Mutant(
        "rows are not refreshed when other dimensions count",
        "if recounted or size != self.host_size[slot]:",
        "if size != self.host_size[slot]:",
    ),
    Mutant(
        "an executor starts on a full host as readily as on an empty one",
        "const int32_t cost = full * full * full >> 9;",
        "const int32_t cost = full * 0;",
    ),
    Mutant(
        "the cost of starting an executor on a full host is not limited",
        "(cost < JOBCLOUD_MAX_FULL ? cost : JOBCLOUD_MAX_FULL)",
        "cost",
    ),
    Mutant("a class without claims still votes after its removal", "        self.vote(cls, -1)\n", ""),
    Mutant(
        "packing one dimension ignores the request",
        "packed += fitness[PARTS + d] * left;",
        "packed += fitness[PARTS + d] * had;",
    ),
    Mutant(
        "a scan forgets the cost of starting an executor",
        "            out[i] += key_claims[i] == 0 ? jobcloud_start_cost(level[i]) : 0;",
        "            out[i] += 0;",
    ),
    Mutant(
        "a changed mask entry is scored with the next change only",
        "        self.layout += 1\n        self.touch(at)\n        self.capacity_epoch += 1\n\n    def set_group_limit",
        "        self.layout += 1\n        self.capacity_epoch += 1\n\n    def set_group_limit",
    ),
    Mutant("convex divides by four", "(convex / 3)", "(convex / 4)"),
    Mutant("the sum of penalties is not capped", "sum < JOBCLOUD_MAX_PENALTY ? sum : JOBCLOUD_MAX_PENALTY", "sum"),
    Mutant(
        "a balanced rule is paid once instead of per claim",
        "(term->graded ? excess : 1) * term->weight",
        "term->weight",
    ),
    Mutant(
        "a class stays refused although a rule allows it again",
        "        self.class_refused[cls] = 0\n        if table.lines == 0:",
        "        if table.lines == 0:",
    ),
    Mutant(
        "scores are kept when a new claim changes a rule's effect",
        "        if (count >= limit) != (count - by >= limit):",
        "        if by < 0 and (count >= limit) != (count - by >= limit):",
    ),
    Mutant("a release does not lower the lowest count", "rule.least = min(rule.least, count)", "pass"),
    Mutant(
        "a balanced rule counts values that the mask does not allow",
        "self.host_status[host] == HOST_ENABLED and self.may_use(cls, host):\n                    rule.eligible",
        "self.host_status[host] == HOST_ENABLED:\n                    rule.eligible",
    ),
    Mutant(
        "a near rule also binds the first task of its own group",
        "if self.group_claims[rule.group] > 0 or self.class_group[rule.cls] != rule.group:",
        "if True:",
    ),
    Mutant("an exclusive task shares its host", "self.host_exclusive[slot] += by", "self.host_exclusive[slot] += 0"),
    Mutant(
        "a group stops one short of its limit",
        "if self.request[cls, d] > limit - self.group_used[group, d]:",
        "if self.request[cls, d] >= limit - self.group_used[group, d]:",
    ),
    Mutant(
        "the rollback of a gang keeps its new ids",
        "        if claim >= first_new:\n            self.claims_end -= 1",
        "        if claim >= first_new + 1:\n            self.claims_end -= 1",
    ),
    Mutant("an id is used twice", "self.generation[claim] += 1", "self.generation[claim] += claim & 1"),
    Mutant(
        "a disabled host takes tasks", "status == HOST_ENABLED and self.host", "status != HOST_ABSENT and self.host"
    ),
    Mutant(
        "the use of a group is not counted",
        "self.group_used[group, d] += by * self.request[cls, d]",
        "pass",
    ),
    Mutant(
        "the last claim with a key leaves the shared part behind",
        "            self.key_claims[key, slot] -= 1\n        need = self.need(cls, slot)",
        "            self.key_claims[key, slot] -= 0\n        need = self.need(cls, slot)\n"
        "        if key >= 0 and by < 0:\n            self.key_claims[key, slot] -= 1",
    ),
    Mutant(
        "a preemption proposal ignores the amounts that its victims would free",
        "self.count(self.claim_class[claim], self.claim_slot[claim], -1)\n        self.refresh(self.claim_slot[claim])",
        "self.count(self.claim_class[claim], self.claim_slot[claim], -1)",
    ),
    Mutant(
        "the custom fitness does not score the host that changed last",
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
#: The ordinary test run tries these as well; each takes a build.
QUICK = tuple(mutant for mutant in MUTANTS if "rollback of a gang" in mutant.name)


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
    crashed = done.returncode < 0  # by a signal: the mutant wrote outside its memory
    if not crashed and done.returncode not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"the tests did not run:\n{done.stdout}{done.stderr}")
    return crashed or done.returncode == pytest.ExitCode.TESTS_FAILED


def run_tests_on(module: Path) -> int:
    """Run the histories in this process, with ``module`` as the compiled matcher."""
    spec = importlib.util.spec_from_file_location("jobcloud._match", module)
    assert spec
    assert spec.loader
    mutant = importlib.util.module_from_spec(spec)
    sys.modules["jobcloud._match"] = mutant
    spec.loader.exec_module(mutant)
    from jobcloud.match import CompiledMatcher

    assert CompiledMatcher is mutant.Matcher
    wanted = "random_placements or TestHistories or engines_agree or gathered_scores or executors_that_start"
    options = ["-x", "-q", "--reruns=0", "-p", "no:cacheprovider", "--hypothesis-profile=no_shrinking"]
    return pytest.main([*options, "tests/match/test_match_props.py", "-k", wanted])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="mutants to try, by any part of their names")
    parser.add_argument("--module", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.module:
        return run_tests_on(options.module)
    sources = read_sources()
    escaped = []
    if not options.names:
        assert not is_caught(sources), "the histories fail on the unchanged matcher"
    for mutant in MUTANTS:
        if not options.names or any(part in mutant.name for part in options.names):
            caught = is_caught(mutant.planted(sources))
            print(f"{'caught ' if caught else 'ESCAPED'} {mutant.name}", flush=True)
            if not caught:
                escaped.append(mutant.name)
    return len(escaped)


if __name__ == "__main__":
    sys.exit(main())
