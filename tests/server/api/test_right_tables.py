"""The tables of roles and routes in the documentation."""

from __future__ import annotations

import pytest
from tools.right_tables import PATH, updated


def test_page_has_the_tables_of_the_code() -> None:
    text = PATH.read_text()
    assert updated(text) == text, "run `make docs`"


def test_page_without_a_marker_is_refused() -> None:
    with pytest.raises(ValueError, match="routes"):
        updated(PATH.read_text().replace("<!-- table of routes", "<!-- table"))
