"""Ids of tasks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobcloud.model import Execution, TaskName

NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.]{0,20}", fullmatch=True)


@given(NAMES, st.integers(0, 9999), st.sampled_from(Execution), NAMES, NAMES)
def test_task_id_contains_the_parts_it_was_made_of(
    job: str, item: int, execution: Execution, agent: str, unique: str
) -> None:
    name = TaskName(job, item, execution, agent, unique)
    assert TaskName.parse(str(name)) == name


@pytest.mark.parametrize(
    "text", ["", "a", "a@-@b@-@READY@-@s@-@u", "a@-@0@-@MAYBE@-@s@-@u", "a@-@0@-@READY@-@s@-@u@-@v"]
)
def test_foreign_task_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        TaskName.parse(text)
