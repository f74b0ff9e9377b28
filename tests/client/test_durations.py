"""Durations in options and configurations."""

from __future__ import annotations

import pytest

from jobcloud.client.durations import in_numbers, parse_ms, parse_s
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


@pytest.mark.parametrize("text", ["", "h", "1x", "-1s", "1 h", "1.5ms", "1e3", "inf", "1h 30m", "٣s", "9999999999s"])
def test_other_texts_are_refused_with_the_field(text: str) -> None:
    with pytest.raises(ConfigError, match="--x: "):
        parse_ms(text, "--x")


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
