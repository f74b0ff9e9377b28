"""The comparison of the two matchers catches planted bugs."""

from __future__ import annotations

import pytest
from tests.match.match_mutants import MUTANTS, QUICK, Mutant, is_caught, read_sources


@pytest.mark.parametrize("mutant", QUICK, ids=lambda mutant: mutant.name)
def test_planted_bug_is_caught(mutant: Mutant) -> None:
    """One of the bugs of `make match-mutants`, because each takes a build."""
    assert is_caught(mutant.planted(read_sources()))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_planted_bug_still_applies(mutant: Mutant) -> None:
    assert mutant.planted(read_sources())
