"""Hashes of passwords, and the rules for new ones."""

from __future__ import annotations

import threading
import unicodedata

import pytest
from argon2 import PasswordHasher, Type, extract_parameters
from argon2.profiles import CHEAPEST

from jobcloud.errors import ConfigError
from jobcloud.server.identity import passwords
from jobcloud.server.identity.passwords import check, hash_password, verify

GOOD = "correct horse battery"


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> PasswordHasher:
    hasher = PasswordHasher.from_parameters(CHEAPEST)
    monkeypatch.setattr(passwords, "_HASHER", hasher)
    return hasher


def test_hash_has_the_parameters_of_rfc_9106() -> None:
    made = hash_password(GOOD)
    found = extract_parameters(made)
    assert (found.type, found.time_cost, found.memory_cost, found.parallelism) == (Type.ID, 3, 65_536, 4)
    assert (found.salt_len, found.hash_len) == (16, 32)
    assert verify(made, GOOD)
    assert not verify(made, GOOD + " ")
    assert made != hash_password(GOOD)


def test_unknown_user_costs_as_much_as_a_known_one(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[tuple[int, int, int]] = []
    plain = passwords._HASHER.verify

    class Counting:
        def verify(self, hash: str, text: str) -> bool:  # noqa: A002
            found = extract_parameters(hash)
            computed.append((found.memory_cost, found.time_cost, found.parallelism))
            return plain(hash, text)

    known = hash_password(GOOD)
    monkeypatch.setattr(passwords, "_HASHER", Counting())
    for hash_ in (known, "", "damaged", "$argon2id$v=19$m=8,t=1,p=1$AAAA", known):
        verify(hash_, "wrong password")
    assert computed == [(65_536, 3, 4)] * 5
    assert not verify("", "")


def test_hash_with_other_parameters_is_verified(cheap: PasswordHasher, monkeypatch: pytest.MonkeyPatch) -> None:
    old = cheap.hash(GOOD)
    monkeypatch.setattr(passwords, "_HASHER", PasswordHasher(time_cost=2, memory_cost=64, parallelism=1))
    assert verify(old, GOOD)
    assert not verify(old, GOOD + "!")


@pytest.mark.parametrize(
    "hash_",
    [
        "$argon2id$v=19$m=4194304,t=1,p=1$c2FsdHNhbHRzYWx0$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "$argon2id$v=19$m=65536,t=4000000,p=1$c2FsdHNhbHRzYWx0$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "$argon2i$v=19$m=8,t=1,p=1$c2FsdHNhbHRzYWx0$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "$2b$12$abcdefghijklmnopqrstuv",
    ],
)
def test_stored_hash_of_another_form_or_cost_is_not_computed(hash_: str, cheap: PasswordHasher) -> None:
    assert not verify(hash_, GOOD)


def test_one_hash_is_computed_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    inside, seen, go = [0], list[int](), threading.Event()

    class Slow:
        def verify(self, hash: str, text: str) -> bool:  # noqa: A002
            inside[0] += 1
            seen.append(inside[0])
            go.wait(10)
            inside[0] -= 1
            return False

    monkeypatch.setattr(passwords, "_HASHER", Slow())
    threads = [threading.Thread(target=verify, args=("", GOOD)) for _ in range(6)]
    for thread in threads:
        thread.start()
    go.set()
    for thread in threads:
        thread.join()
    assert seen == [1] * 6


def test_letters_composed_in_another_way_are_the_same(cheap: PasswordHasher) -> None:
    text = "größere Schlösser"
    assert verify(hash_password(unicodedata.normalize("NFD", text)), unicodedata.normalize("NFC", text))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("eleven chars"[:11], "fewer than 12"),
        ("ü" * 129, "more than 256 bytes"),
        ("correct\nhorse battery", "control character"),
        ("abababababab", "too easy"),
        ("AliceAliceAlice", "too easy"),
    ],
)
def test_weak_password_is_refused_without_repeating_it(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as error:
        check(text, "alice")
    assert text not in str(error.value)


def test_password_of_the_greatest_length_is_accepted(cheap: PasswordHasher) -> None:
    longest = "abcd" * 64
    check(longest)
    assert verify(hash_password(longest), longest)
    assert not verify(hash_password(longest), longest + "e")
    check("twelve chars")
