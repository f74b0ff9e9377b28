"""Tokens: sealed grants that nobody can alter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobcloud.server.secrets.tokens import Grant, InvalidToken, seal, unseal

KEY = b"k" * 32
GRANT = Grant("jobcloud", "job@-@0@-@READY@-@agent@-@1", "agent", "10.0.0.7:5051", ("db-password", "tls-key"), 60_000)


def test_sealed_grant_is_read_with_the_same_key_only() -> None:
    token = seal(KEY, GRANT)
    assert unseal(KEY, token) == GRANT
    with pytest.raises(InvalidToken):
        unseal(b"K" * 32, token)


@given(st.data())
def test_altered_token_is_refused(data: st.DataObject) -> None:
    token = seal(KEY, GRANT)
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters().filter(lambda character: character != token[place]))
    with pytest.raises(InvalidToken):
        unseal(KEY, token[:place] + other + token[place + 1 :])


@pytest.mark.parametrize("token", ["", ".", "..", "jcx1..", "é", "a" * 10_000, "jcx1.e30.AAAA", seal(KEY, GRANT)[:-1]])
def test_hostile_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidToken):
        unseal(KEY, token)
