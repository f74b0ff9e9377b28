"""What the comparison of the two matchers is worth: planted bugs are caught."""

from __future__ import annotations

import pytest
from tests.match.match_mutants import MUTANTS, QUICK, Mutant, is_caught, read_sources


@pytest.mark.parametrize("mutant", QUICK, ids=lambda mutant: mutant.name)
def test_a_planted_bug_is_caught(mutant: Mutant) -> None:
    """Two of those that `make match-mutants` tries, as each takes a build."""
    assert is_caught(mutant.planted(read_sources()))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_bug_has_its_place(mutant: Mutant) -> None:
    assert mutant.planted(read_sources())
