"""The matcher as a library: it places tasks on hosts and explains each refusal in numbers.

``Matcher`` is compiled. ``PlainMatcher`` is its twin in plain Python, with the same interface and the same answers. The
twin is used only on request (``JOBCLOUD_PURE_MATCHER=true``), never as a silent replacement for a broken build.
``docs/matcher.md`` has the rules, the interface and an example.
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
    CustomFitness,
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
    "CustomFitness",
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
