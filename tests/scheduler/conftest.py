"""Each reason that a test makes the scheduler give is declared."""

from __future__ import annotations

from typing import Any

import pytest

from jobcloud.scheduler.reason import CASES, Reason


@pytest.fixture(autouse=True)
def declared_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reason with a code, a case or parameters that `CASES` does not name fails the test."""
    make = Reason.__init__

    def checked(self: Reason, *args: Any, **named: Any) -> None:
        make(self, *args, **named)
        assert self.parameters.keys() == set(CASES[self.code][self.case]), self

    monkeypatch.setattr(Reason, "__init__", checked)
