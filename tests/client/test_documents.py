"""Files in YAML, TOML and JSON: the same values, hostile ones refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobcloud.client import documents
from jobcloud.client.documents import parse, read, to_yaml
from jobcloud.errors import ConfigError

ODD = [
    *[
        "no",
        "on",
        "y",
        "12:30",
        "010",
        "0o17",
        "0x1F",
        "1e3",
        "1_000",
        "2026-01-01",
        "~",
        "null",
        ".inf",
        "-",
        "*a",
        "&a",
        "!x",
        "%",
        "@",
        "=",
        "<<",
        "true",
        "1.",
        ".5",
        "+1",
    ],
    *("? ", "0 0 12 * * ?", "a: b", "a #b", " a ", "a\nb\n", "\t"),
]
CHARACTERS = st.characters(codec="utf-8", exclude_characters="\x85\u2028\u2029\ufeff")
TEXTS = st.text(CHARACTERS, max_size=12) | st.sampled_from(ODD)
NUMBERS = st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_values_written_as_yaml_and_json_are_read_again(value: Any) -> None:
    assert parse(to_yaml(value).encode(), "a.yaml").value == value
    assert parse(json.dumps(value).encode(), "a.json").value == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("yes", "yes"), ("off", "off"), ("12:30", "12:30"), ("2026-01-01", "2026-01-01"),
        ("1_000", "1_000"), ("1e3", 1000.0), ("true", True), ("~", None), ("", None), ("-5", -5), ("0", 0), (".5", 0.5),
        ("'010'", "010"), ("!!str 5", "5"),
    ],
)  # fmt: skip
def test_yaml_follows_the_core_schema(text: str, value: Any) -> None:
    assert parse(f"key: {text}\n".encode(), "a.yaml").value == {"key": value}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: 2\na: 3\n", r"a\.yaml:3: has the key 'a' twice, also in line 1"),
        ("a: 010\n", r"a\.yaml:1: 010 is not the same number"),
        ("a: 0x10\n", "not the same number"),
        ("a: .inf\n", "not the same number"),
        ("a: 1\n---\nb: 2\n", r"a\.yaml:2: holds a second document"),
        ("a: !!python/object/apply:os.system ['true']\n", "tag .* is not supported"),
        ("a: !!timestamp 2026-01-01\n", "tag .* is not supported"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "merge keys"),
        ("a: &x [*x]\n", "names no finished value"),
        ("cron: * * * * *\n", "quotes"),
        ("[a, b]: 1\n", "a key is no text"),
        ("a: [\n", "not valid YAML"),
        ("a: \x07\n", "not valid YAML"),
        ("a:\n\t- b\n", "not valid YAML"),
    ],
)
def test_wrong_yaml_is_refused_with_its_line(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse(text.encode(), "a.yaml")


def test_bombs_are_refused() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
    with pytest.raises(ConfigError, match="too many values"):
        parse(bomb.encode(), "a.yaml")
    long = f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 1_000)}]\n"
    with pytest.raises(ConfigError, match="too many values"):
        parse(long.encode(), "a.yaml")
    for name, text in (("a.yaml", "[" * 100_000), ("a.json", "[" * 100_000), ("a.toml", "a = " + "[" * 100_000)):
        with pytest.raises(ConfigError, match=r"deep|valid"):
            parse(text.encode(), name)
    for name in ("a.yaml", "a.json", "a.toml"):
        deep = "[" * 40 + "]" * 40
        with pytest.raises(ConfigError, match="deep"):
            parse((f"a = {deep}" if name == "a.toml" else deep).encode(), name)
        with pytest.raises(ConfigError, match="longer than"):
            parse(b" " * (documents.MAX_BYTES + 1), name)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.json", '{"a": 1, "a": 2}', "key 'a' twice"),
        ("a.json", '{"a": NaN}', "JSON cannot represent: a is nan"),
        ("a.json", "{\n,", r"a\.json:2: is not valid JSON"),
        ("a.json", "1" * 5_000, "not valid JSON|digits"),
        ("a.json", '"\\ud800"', "JSON cannot represent"),
        ("a.toml", "a = 1\na = 2", "not valid TOML"),
        ("a.toml", "a = [1979-05-27]", r"JSON cannot represent: a\.0 is a date"),
        ("a.toml", "a = inf", "JSON cannot represent"),
        ("a.yaml", "a: \xff", "UTF-8"),
    ],
)
def test_wrong_json_and_toml_are_refused(name: str, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse(text.encode("latin-1"), name)


def test_lines_of_yaml_are_known() -> None:
    document = parse(b"apps:\n- appName: a\n\n- appName: b\n  team: t\n", "m.yaml")
    assert document.where("apps", 1) == "m.yaml:4"
    assert document.where("apps", 1, "team") == "m.yaml:5"
    assert document.where("apps", 1, "cpuCount") == "m.yaml:4"
    assert parse(b"{}", "m.json").where("apps", 1) == "m.json"


def test_form_of_a_text_without_a_name_is_found(tmp_path: Path) -> None:
    assert parse(b' {"a": 1}', "-").value == parse(b"a: 1", "-").value == {"a": 1}
    assert parse(b"a = 1", "x", ".toml").value == {"a": 1}
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read(tmp_path / "none.yaml")
