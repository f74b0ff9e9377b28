"""Durations in options and configurations."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from jobcloud.durations import in_numbers, parse_instant, parse_ms, parse_s
from jobcloud.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1h", 3_600_000), ("1h30m", 5_400_000), ("90", 90_000), ("0.5", 500), ("1.5s", 1_500), ("500ms", 500),
        ("2d", 172_800_000), ("0s", 0),
    ],
)  # fmt: skip
def test_durations_are_read(text: str, ms: int) -> None:
    assert parse_ms(text, "--x") == ms
    assert parse_s(text, "--x") == ms / 1_000


@pytest.mark.parametrize(
    "text", ["", "h", "1x", "-1s", "1 h", "1.5ms", "1e3", "inf", "1h 30m", "٣s", "9999999999999s", "30m1h"]
)
def test_other_texts_are_refused_with_the_field(text: str) -> None:
    with pytest.raises(ConfigError, match="--x: "):
        parse_ms(text, "--x")


def test_bare_number_is_refused_if_it_must_have_a_unit() -> None:
    assert parse_ms("1w", "--x", bare=False) == 604_800_000
    with pytest.raises(ConfigError, match="'90' is not a duration"):
        parse_ms("90", "--x", bare=False)


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("1h30m", "2026-01-31T10:30:00.000Z"), ("1w", "2026-01-24T12:00:00.000Z"),
        ("2026-01-31T08:00+01:00", "2026-01-31T07:00:00.000Z"), ("2026-01-31T08:00Z", "2026-01-31T08:00:00.000Z"),
    ],
)  # fmt: skip
def test_instants_are_times_or_durations_before_now(text: str, instant: str) -> None:
    assert parse_instant(text, "--since", datetime(2026, 1, 31, 12, tzinfo=UTC)) == instant


def test_instant_without_an_offset_is_local() -> None:
    local = datetime(2026, 1, 31, 8).astimezone(UTC)
    assert parse_instant("2026-01-31T08:00", "--since", local) == local.strftime("%Y-%m-%dT%H:%M:%S.000Z")


@pytest.mark.parametrize("text", ["", "soon", "90", "999999999999w", "2026-13-01", "0001-01-01T00:00+20:00"])
def test_other_texts_are_no_instants(text: str) -> None:
    with pytest.raises(ConfigError, match="--since: "):
        parse_instant(text, "--since", datetime(2026, 1, 31, tzinfo=UTC))


def test_fields_with_units_in_their_names_take_durations() -> None:
    given = {
        "timeoutSeconds": "1h30m",
        "killGraceSeconds": "500ms",
        "retryDelaySeconds": 5,
        "jobParameter": "1h",
        "distributedListener": {"class": "a:B", "startedTimeoutMilliseconds": "2s"},
        "shardingItemParameters": {"0": "1h"},
    }
    assert in_numbers(given) == given | {
        "timeoutSeconds": 5_400,
        "killGraceSeconds": 0.5,
        "distributedListener": {"class": "a:B", "startedTimeoutMilliseconds": 2_000},
    }
    for wrong in ("soon", "90"):
        with pytest.raises(ConfigError) as caught:
            in_numbers({"timeoutSeconds": wrong})
        assert caught.value.field == "timeoutSeconds"
