"""Tasks × hosts → placements, and a refusal with numbers for the rest: the matcher as a library.

``Matcher`` is the compiled one. ``PlainMatcher`` is its twin in plain Python with the same interface and, always, the
same answers; it is chosen by whoever wires the program (``JOBCLOUD_PURE_MATCHER=true``), never silently in place of a
broken build. The rules, the interface and an example stand in ``docs/matcher.md``.
"""

from typing import TypeAlias

from jobcloud._match import Matcher as CompiledMatcher
from jobcloud._match import vector_path
from jobcloud._match_types import (
    BY_HOST,
    ENGINES,
    FITNESS,
    MAX_AMOUNT,
    MAX_DIMENSIONS,
    MAX_PENALTY,
    REFUSED,
    UNTRIED,
    Judge,
    MatchError,
    MatchStateError,
    Nearest,
    Preemption,
    Refusal,
    Rule,
    at_most,
    balanced,
    near,
)
from jobcloud.match.plain import Matcher as PlainMatcher

Matcher = CompiledMatcher
AnyMatcher: TypeAlias = CompiledMatcher | PlainMatcher

__all__ = [
    "BY_HOST",
    "ENGINES",
    "FITNESS",
    "MAX_AMOUNT",
    "MAX_DIMENSIONS",
    "MAX_PENALTY",
    "REFUSED",
    "UNTRIED",
    "AnyMatcher",
    "CompiledMatcher",
    "Judge",
    "MatchError",
    "MatchStateError",
    "Matcher",
    "Nearest",
    "PlainMatcher",
    "Preemption",
    "Refusal",
    "Rule",
    "at_most",
    "balanced",
    "near",
    "vector_path",
]
