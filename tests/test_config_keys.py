"""Keys of apps and jobs, and names of teams."""

from __future__ import annotations

import pytest

from jobcloud.config import check_team, key_of, qualified, split_key, team_of
from jobcloud.errors import ConfigError

HOSTILE = [
    "", "Billing", "1st", "-a", "a_b", "a.b", "a b", "a:b", "a/b", "a@-@b", "..", "a\n", "a\0", "é", "a~b", "a" * 33,
]  # fmt: skip


@pytest.mark.parametrize(
    ("team", "name", "key"),
    [("default", "report", "report"), ("billing", "report", "billing:report"), ("b-2", "a.b_c-d", "b-2:a.b_c-d")],
)
def test_key_has_the_team_unless_it_is_the_default_and_splits_into_both(team: str, name: str, key: str) -> None:
    assert key_of(team, name) == key
    assert split_key(key) == (team, name)
    assert team_of(key) == team


def test_key_of_nothing_has_no_team() -> None:
    assert team_of("") == ""


@pytest.mark.parametrize(
    ("text", "team", "key"),
    [
        ("report", "", "report"),
        ("report", "billing", "billing:report"),
        ("report", "default", "report"),
        ("default:report", "billing", "report"),
        ("ops:report", "billing", "ops:report"),
        ("", "billing", ""),
        ("default:", "billing", "default:"),
        ("default:default:x", "", "default:default:x"),
        ("a:b:c", "", "a:b:c"),
    ],
)
def test_text_of_a_user_means_one_key(text: str, team: str, key: str) -> None:
    assert qualified(text, team) == key
    assert qualified(key) == key


@pytest.mark.parametrize("team", ["a", "default", "team-7", "a" * 32, "a-"])
def test_plain_team_is_valid(team: str) -> None:
    check_team("team", team)


@pytest.mark.parametrize("team", HOSTILE)
def test_hostile_team_is_refused_with_field_and_fix(team: str) -> None:
    with pytest.raises(ConfigError, match="not a valid name of a team") as caught:
        check_team("team", team)
    assert caught.value.field == "team"
    assert caught.value.fix == "use 1 to 32 lower-case letters, digits or '-', the first a letter"
