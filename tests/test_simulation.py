"""The simulator in `make test`: fresh histories, seeds that failed once, and deliberate bugs that it must catch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.simulation.mutations import MUTATIONS, caught
from tests.simulation.plan import AIMED, ALL_POINTS, Fault, make_plan
from tests.simulation.runner import Summary, main, run, run_all
from tests.simulation.shrink import shrink, tell
from tests.simulation.world import History, play

import jobcloud

HISTORIES = 150
KNOWN = [
    int(line.split()[0])
    for line in (Path(__file__).parent / "simulation" / "seeds.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


def judged(history: History) -> History:
    if history.violations:
        pytest.fail(tell(shrink(history)), pytrace=False)
    return history


@pytest.mark.timeout(1_200)  # a busy machine needs more than the usual limit
def test_fresh_histories_keep_every_promise_and_reach_every_crash_point(seed: int) -> None:
    first = seed % 1_000_000_000
    assert len(ALL_POINTS) >= 40
    summary = played(range(first, first + HISTORIES))
    # Some points are rare, because few histories allow the operator's command that leads there.
    for turn in range(100):
        missed = [number for number, point in enumerate(ALL_POINTS) if not summary.hit[point]]
        if not missed:
            break
        aimed = [(number + 1) * AIMED + first + 2 * turn for number in missed]
        summary.hit += played([one + more for one in aimed for more in (0, 1)]).hit
    assert [point for point in ALL_POINTS if not summary.hit[point]] == []


def played(seeds: Sequence[int]) -> Summary:
    summary = run_all(seeds, processes=2)
    if summary.failed:
        judged(run(summary.failed[0]))
    assert summary.histories == len(seeds)
    assert summary.fewest_steps >= 500
    return summary


@pytest.mark.parametrize("known", KNOWN)
def test_seed_that_failed_once_passes(known: int) -> None:
    judged(run(known))


def test_same_seed_makes_the_same_history() -> None:
    first, second = play(make_plan(7)), play(make_plan(7))
    assert (first.hash, first.steps) == (second.hash, second.steps)
    assert first.hash != play(make_plan(8)).hash


def test_history_does_not_depend_on_the_order_of_sets() -> None:
    """Seed 5032: an agent that reconnects is told several kills at once."""
    program = "from tests.simulation.plan import make_plan; from tests.simulation.world import play\n"
    program += "print([play(make_plan(seed)).hash for seed in (7, 8, 5032, 5034)])"
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", program]
    hashes = set()
    for number in ("1", "2", "3"):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path]), "PYTHONHASHSEED": number}
        done = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, check=True, timeout=120
        )
        hashes.add(done.stdout)
    assert len(hashes) == 1, hashes


def test_failing_plan_shrinks_to_the_faults_that_matter() -> None:
    plan = make_plan(3)
    needed = {plan.faults[1], plan.faults[-2]}

    def breaks_with_both(tried: object) -> History:
        faults: tuple[Fault, ...] = tried.faults  # type: ignore[attr-defined]
        broken = ["1: twice"] if needed <= set(faults) else []
        return History(tried, violations=broken, hit=Counter())  # type: ignore[arg-type]

    found = shrink(breaks_with_both(plan), run=breaks_with_both)
    assert set(found.plan.faults) == needed
    assert all(str(fault) in tell(found) for fault in needed)


def test_replay_prints_the_whole_history(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    history = play(make_plan(7))
    monkeypatch.setattr(sys, "argv", ["simulation", "--seed", "7", "--replay"])
    assert main() == 0
    output = capsys.readouterr().out
    assert output.splitlines()[-1] == f"{history.steps} steps, hash {history.hash}"
    assert output.count("\n  ") == len(history.plan.faults) + len(history.trace)
    assert all(line[:220] in output for line in (*map(str, history.plan.faults), *history.trace))


def test_every_deliberate_bug_still_applies() -> None:
    source = Path(jobcloud.__file__).parent
    places = [(one.name, file, old, new) for one in MUTATIONS for file, old, new in one.places]
    assert not [(name, file) for name, file, old, _ in places if (source / file).read_text().count(old) != 1]
    for name, file, old, new in places:
        compile((source / file).read_text().replace(old, new), f"{file}: {name}", "exec")
    assert len({file for _, file, _, _ in places}) >= 8
    assert len(MUTATIONS) >= 20
    assert sum(one.quiet for one in MUTATIONS) >= 18, "the simulator finds bugs that the unit tests miss"


@pytest.mark.parametrize("name", ["acknowledge before the write", "no fencing", "forget the retry"])
def test_deliberate_bug_is_caught(name: str, tmp_path: Path) -> None:
    found = caught(next(one for one in MUTATIONS if one.name == name), tmp_path, max_histories=300)
    assert found.broken, f"{name} was not caught in {found.histories} histories"
