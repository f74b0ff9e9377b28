"""Constraints on attributes as text, and their masks in the matcher."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from jobcloud.match import REFUSED, Matcher
from jobcloud.match.constraints import Constraint, ConstraintError, Op, failing, mask, numbers, parse, penalties

HOST = {"host": "web-1", "zone": "a", "cores": "16", "rack": "r 7"}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("zone == a", True),
        ("zone==b", False),
        ("zone != b", True),
        ("zone != a", False),
        ("zone in b, a", True),
        ("zone in b,c", False),
        ("zone not  in b, c", True),
        ("zone not in a", False),
        ("host ~ web-*", True),
        ("host ~ WEB-*", False),
        ("host !~ web-?", False),
        ("host !~ db-*", True),
        ("rack == r 7", True),
        ("cores >= 16", True),
        ("cores > 16.0", False),
        ("cores <= 16.000", True),
        ("cores < 1e2", True),
        ("zone >= 1", False),
        # a host without the attribute
        ("gpu == a100", False),
        ("gpu in a100", False),
        ("gpu ~ *", False),
        ("gpu < 1", False),
        ("gpu != a100", True),
        ("gpu not in a100", True),
        ("gpu !~ a*", True),
    ],
)
def test_constraint_holds_for_the_right_hosts(text: str, holds: bool) -> None:
    assert parse(text).holds(HOST) is holds


@pytest.mark.parametrize(
    "text", ["", "zone", "zone ==", "zone in", "zone in a,,b", "== a", "zone = a", "cores >= many", "x > nan"]
)
def test_invalid_constraint_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(ConstraintError, match=r"write an attribute|needs a (value|number)"):
        parse(text)


def test_attribute_may_be_named_like_an_operator() -> None:
    assert parse("inside in yes") == Constraint("inside", Op.IN, ("yes",))
    assert parse("not == in") == Constraint("not", Op.EQUALS, ("in",))


def test_mask_allows_hosts_that_meet_all_constraints() -> None:
    hosts: list[Any] = [HOST, None, {"host": "web-2", "zone": "b"}, {"host": "db-1", "zone": "a"}]
    wanted = [parse("zone == a"), parse("host ~ web-*")]
    assert mask(wanted, hosts).tolist() == [True, False, False, False]
    assert mask([], hosts).tolist() == [True, False, True, True]
    matcher = Matcher(1)
    for _ in hosts:
        matcher.add_host(np.array([1_000]))
    picky = matcher.add_class(np.array([1_000]), allowed=mask([parse("zone in a")], hosts))
    assert matcher.match(np.array([picky] * 3))[0].tolist() == [0, 3, REFUSED]
    assert matcher.refusal(picky).disallowed == 2


def test_soft_constraints_become_penalties() -> None:
    hosts: list[Any] = [HOST, None, {"host": "web-2", "zone": "b"}]
    soft = [(parse("zone == b"), 5), (parse("cores >= 8"), 3)]
    assert penalties(soft, hosts).tolist() == [5, 0, 3]
    matcher = Matcher(1)
    for _ in hosts:
        matcher.add_host(np.array([1_000]))
    cls = matcher.add_class(np.array([1_000]), allowed=mask([], hosts), penalty=penalties(soft, hosts))
    assert matcher.match(np.array([cls] * 3))[0].tolist() == [2, 0, REFUSED]


def test_attribute_values_are_numbered_and_failing_hosts_counted() -> None:
    hosts: list[Any] = [{"zone": "b"}, None, {"zone": "a"}, {}, {"zone": "b"}]
    assert numbers("zone", hosts).tolist() == [1, -1, 0, -1, 1]
    assert failing([parse("zone == b"), parse("zone != a")], hosts) == (2, 1)


def test_mask_needs_no_additional_scores(seed: int) -> None:
    """The number of scores is the same with and without masks."""
    chance = np.random.default_rng(seed)
    tasks = chance.integers(0, 8, 5_000)

    def placed(*allowed: Any) -> tuple[Any, int]:
        matcher = Matcher(1)
        matcher.add_hosts(np.full((1_000, 1), 16_000))
        for number in range(8):
            matcher.add_class(np.array([100 * (number + 1)]), allowed=allowed[number % len(allowed)])
        return matcher.match(tasks)[0], matcher.evaluations

    slots, scores = placed(None)
    same, same_scores = placed(np.ones(1_000, dtype=bool))
    assert np.array_equal(slots, same)
    assert same_scores == scores
    _, masked = placed(*(chance.random(1_000) < 0.9 for _ in range(8)))
    assert masked < 1.1 * scores
