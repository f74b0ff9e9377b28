"""The form of tokens and cookies."""

from __future__ import annotations

import pytest

from jobcloud.access import tokens

RANDOM = bytes(range(38))


def test_made_token_is_read_back() -> None:
    made = tokens.make(tokens.TOKEN_PREFIX, RANDOM)
    assert tokens.parse(made.text) == made
    assert made.id == "000102030405"
    assert made.hash not in made.text


def test_each_random_byte_of_the_secret_changes_the_hash() -> None:
    hashes = set()
    for at in range(6, 38):
        changed = bytearray(RANDOM)
        changed[at] ^= 1
        hashes.add(tokens.make(tokens.TOKEN_PREFIX, bytes(changed)).hash)
    assert len(hashes) == 32


def test_token_and_cookie_differ() -> None:
    assert tokens.make(tokens.SESSION_PREFIX, RANDOM).hash != tokens.make(tokens.TOKEN_PREFIX, RANDOM).hash


@pytest.mark.parametrize(
    "text",
    ["", "jct", "jct_0001_x", "jct_000102030405_", "jcx_000102030405_" + "A" * 43, "jct_00010203040G_" + "A" * 43,
     "jct_000102030405_" + "A" * 44, " jct_000102030405_" + "A" * 43, "jct_000102030405_" + "A" * 43 + "\n"],
)  # fmt: skip
def test_text_of_another_form_is_no_token(text: str) -> None:
    assert tokens.parse(text) is None
