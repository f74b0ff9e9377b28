"""docs/states.md shows the tables of the code."""

from __future__ import annotations

from tools import state_pictures

from jobcloud.server.loop import Phase


def test_document_of_states_is_up_to_date() -> None:
    assert state_pictures.PATH.read_text() == state_pictures.page(), "run `make docs`"


def test_every_phase_of_a_leader_is_reached_in_the_picture() -> None:
    assert {new for _, new, _ in state_pictures._PHASES} == set(Phase)
