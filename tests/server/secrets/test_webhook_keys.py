"""Keys of webhooks: how often the source is asked does not depend on what it has."""

from __future__ import annotations

import pytest

from jobcloud.server.secrets.sources import SHARED, Missing, SourceFailed
from jobcloud.server.secrets.webhook_keys import keys_of


class Vault:
    """A source that has some secrets, and fails for some names. `asked` has all questions."""

    def __init__(self, known: dict[tuple[str, str], bytes], fails: tuple[str, ...] = ()) -> None:
        self.known, self.fails = known, fails
        self.asked: list[tuple[str, str]] = []

    def read(self, team: str, name: str) -> bytes:
        self.asked.append((team, name))
        if name in self.fails or "*" in self.fails:
            raise SourceFailed("it is away")
        if (team, name) not in self.known:
            raise Missing
        return self.known[team, name]


OWN = {("shop", "new"): b"1", ("shop", "old"): b"2", (SHARED, "old"): b"3", (SHARED, "common"): b"4"}


@pytest.mark.parametrize(
    ("names", "found"),
    [((), []), (("new",), [b"1"]), (("new", "old"), [b"1", b"2"]), (("common",), [b"4"]), (("gone", "new"), [b"1"])],
)
def test_keys_are_read_by_the_same_number_of_questions(names: tuple[str, ...], found: list[bytes]) -> None:
    vault = Vault(OWN)
    assert keys_of(vault, "shop", names) == (found, [])
    assert len(vault.asked) == 4


def test_source_that_is_away_fails_for_each_name_alike() -> None:
    for names in ((), ("new",), ("new", "old")):
        with pytest.raises(SourceFailed):
            keys_of(Vault(OWN, fails=("*",)), "shop", names)


def test_one_key_that_cannot_be_read_looks_like_a_missing_one() -> None:
    assert keys_of(Vault(OWN, fails=("new",)), "shop", ("new",))[0] == []
    assert keys_of(Vault(OWN, fails=("new",)), "shop", ("new", "old")) == ([b"2"], ["it is away"] * 2)
