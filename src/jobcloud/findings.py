"""Findings of `jobcloud doctor`: a checked thing, its condition, and what to do about it."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Condition(StrEnum):
    """A PROBLEM keeps jobs from running, or will. A WARNING does not, but somebody should look at it."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(NamedTuple):
    """`subject`: the checked thing, such as "clock". `fix`: what to do; "" if nothing."""

    subject: str
    condition: Condition
    text: str
    fix: str = ""


def ok(subject: str, text: str) -> Finding:
    return Finding(subject, Condition.OK, text)


def warning(subject: str, text: str, fix: str) -> Finding:
    return Finding(subject, Condition.WARNING, text, fix)


def problem(subject: str, text: str, fix: str) -> Finding:
    return Finding(subject, Condition.PROBLEM, text, fix)
