"""The hooks that all parts of the scheduler share."""

from __future__ import annotations

import inspect
from typing import Any

from tests.core_world import POLICY

from jobcloud.match import Matcher
from jobcloud.scheduler import Stored
from jobcloud.scheduler.part import Hooks, Part
from jobcloud.scheduler.state import State


def test_every_method_of_a_part_is_a_hook_that_does_nothing() -> None:
    methods = {name: one for name, one in vars(Part).items() if inspect.isfunction(one) and name != "__init__"}
    assert vars(Hooks()).keys() == methods.keys()
    part = Part(State(POLICY, Stored(), 1, 0, Matcher))
    for name, method in methods.items():
        arguments: list[Any] = [None] * (len(inspect.signature(method).parameters) - 1)
        assert not getattr(part, name)(*arguments)


def test_hooks_call_only_the_parts_that_override_them_and_in_order() -> None:
    calls: list[str] = []

    class First(Part):
        def sweep(self, at: int) -> None:
            calls.append(f"first {at}")

    class Idle(Part):
        pass

    class Last(First):
        def sweep(self, at: int) -> None:
            calls.append(f"last {at}")

    hooks, state = Hooks(), State(POLICY, Stored(), 1, 0, Matcher)
    hooks.install([First(state), Idle(state), Last(state)])
    assert len(hooks.sweep) == 2
    assert hooks.begin == ()
    for sweep in hooks.sweep:
        sweep(7)
    assert calls == ["first 7", "last 7"]
