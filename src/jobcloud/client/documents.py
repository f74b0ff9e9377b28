"""Reading of files in YAML, TOML and JSON: plain values, and the lines of YAML.

The form follows from the end of the name: `.yaml`, `.yml`, `.toml`, `.json`. All of them hold the values of JSON: texts
as keys, finite numbers, no dates, and no key twice. Files are bounded in bytes, values and depth.

YAML is read by the core schema of version 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema): `no`, `on`, `12:30`,
`2026-01-01` and `1_000` are texts. Forms of numbers that YAML 1.1 and 1.2 read differently, such as `010`, are refused,
as are tags, merge keys and a second document. An alias counts as the values that it stands for.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, NoReturn, TypeAlias

from jobcloud.errors import ConfigError

SUFFIXES = (".yaml", ".yml", ".toml", ".json")
MAX_BYTES = 4 << 20
MAX_DEPTH = 32
# Each value counts as its characters and this number.
_VALUE_COST = 16
_MAX_COST = 16 << 20
_MAX_DIGITS = 30

Place: TypeAlias = tuple[str | int, ...]
"""The keys and indexes that lead to a value."""

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOLEAN = re.compile(r"true|True|TRUE|false|False|FALSE")
_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_AMBIGUOUS = re.compile(r"[-+]?(0[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+|0b[01]+)|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_TEXT_TAGS = (None, "!", "tag:yaml.org,2002:str")


@dataclass(frozen=True, slots=True)
class Document:
    """The content of a file. `lines`: the lines of values, as far as they are known."""

    name: str
    value: Any
    lines: Mapping[Place, int] = field(default_factory=dict)

    def where(self, *place: str | int) -> str:
        """The file with the line of a value, or of the innermost known value around it."""
        for length in range(len(place), -1, -1):
            if line := self.lines.get(place[:length]):
                return f"{self.name}:{line}"
        return self.name


def place_of(field: str) -> Place:
    """The place of a field such as `nodes.1.job`."""
    return tuple(int(part) if part.isdecimal() else part for part in field.split("."))


def read(path: Path) -> Document:
    """Raises ConfigError with the name of the file if it cannot be read, or holds values without a form in JSON."""
    return parse(read_bytes(path, MAX_BYTES), str(path))


def read_bytes(path: Path, most: int) -> bytes:
    """The content of a file. Raises ConfigError if it cannot be read, or has more than `most` bytes."""
    try:
        with path.open("rb") as file:
            return bounded(file.read(most + 1), str(path), most)
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {error.strerror}", field=str(path), fix="check the path and its permissions"
        ) from error


def bounded(data: bytes, name: str, most: int) -> bytes:
    """Raises ConfigError if the content of a file has more than `most` bytes."""
    if len(data) > most:
        raise ConfigError(f"is longer than {most:,} bytes", field=name, fix="split it")
    return data


def parse(data: bytes, name: str, form: str = "") -> Document:
    """The content of a file. `form` is one of SUFFIXES; default: the end of the name, else JSON or YAML."""
    bounded(data, name, MAX_BYTES)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = f"cannot be read: it is not UTF-8 at byte {error.start}"
        raise ConfigError(problem, field=name, fix="save it as UTF-8") from error
    form = form or PurePath(name).suffix.lower()
    try:
        if form == ".toml":
            document = Document(name, tomllib.loads(text))
        elif form == ".json" or (form not in SUFFIXES and text.lstrip()[:1] in ("{", "[")):
            document = Document(name, _json(text, name))
        else:
            document = _yaml(text, name)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"is not valid TOML: {error}", field=name) from error
    except RecursionError as error:
        raise ConfigError(f"is nested more than {MAX_DEPTH} deep", field=name, fix="flatten it") from error
    _check_values(document)
    return document


def _check_values(document: Document) -> None:
    """Raises ConfigError for a value without a form in JSON, and for too many or too deep values."""
    waiting: list[tuple[Place, Any]] = [((), document.value)]
    cost = 0
    while waiting:
        place, value = waiting.pop()
        where = ".".join(map(str, place))
        cost += _VALUE_COST + (len(value) if isinstance(value, str) else 0)
        if len(place) > MAX_DEPTH:
            raise ConfigError(f"is nested more than {MAX_DEPTH} deep", field=document.where(*place), fix="flatten it")
        if cost > _MAX_COST:
            raise ConfigError("holds too many values", field=document.name, fix="split it, or use fewer aliases")
        if isinstance(value, dict):
            cost += sum(map(len, value))
            waiting += [((*place, key), item) for key, item in value.items()]
        elif isinstance(value, list):
            waiting += [((*place, index), item) for index, item in enumerate(value)]
        elif isinstance(value, float) and not math.isfinite(value):
            _refuse_value(document, place, f"{where} is {value}")
        elif isinstance(value, int) and abs(value) >= 10**_MAX_DIGITS:
            _refuse_value(document, place, f"{where} has more than {_MAX_DIGITS} digits")
        elif isinstance(value, str):
            _check_text(document, place, value)
        elif not isinstance(value, float | int | None):
            _refuse_value(document, place, f"{where} is a date or a time")


def _refuse_value(document: Document, place: Place, problem: str) -> NoReturn:
    fix = "use texts in quotes, numbers and booleans"
    raise ConfigError(f"contains a value that JSON cannot represent: {problem}", field=document.where(*place), fix=fix)


def _check_text(document: Document, place: Place, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        _refuse_value(document, place, "half of a surrogate pair")


# --------------------------------------------------------------------------------------------------------------- JSON


def _json(text: str, name: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in found if keys.count(key) > 1)
            raise ConfigError(f"has the key {twice[:80]!r} twice in one object", field=name, fix="remove one")
        return found

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise ConfigError(f"is not valid JSON: {error.msg}", field=f"{name}:{error.lineno}") from error
    except ValueError as error:  # a number with thousands of digits
        raise ConfigError(f"is not valid JSON: {error}"[:200], field=name) from error


# --------------------------------------------------------------------------------------------------------------- YAML


@dataclass(slots=True)
class _Open:
    """A sequence or mapping whose end has not been read. `key`: the key that waits for its value."""

    value: list[Any] | dict[str, Any]
    place: Place
    anchor: str
    key: str | None = None


def _yaml(text: str, name: str) -> Document:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _Builder(name).build(yaml.parse(text, Loader=loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}" if mark else name
        problem = str(error.problem or error.context)
        fix = 'put the value in quotes, such as "* * * * *"' if "alias" in f"{error.context} {problem}" else ""
        raise ConfigError(f"is not valid YAML: {problem}", field=where, fix=fix) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"is not valid YAML: {str(error).splitlines()[0]}", field=name) from error


class _Builder:
    """Builds the value of the events of PyYAML's parser, without recursion. Aliases share one value."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lines: dict[Place, int] = {}
        self._open: list[_Open] = []
        self._anchors: dict[str, Any] = {}
        self._value: Any = None
        self._documents = 0

    def build(self, events: Iterator[Any]) -> Document:
        for event in events:
            kind, line = type(event).__name__, event.start_mark.line + 1
            if kind == "DocumentStartEvent":
                self._documents += 1
                if self._documents > 1:
                    self._refuse(line, "holds a second document", "one document a file")
            elif kind in ("MappingStartEvent", "SequenceStartEvent"):
                self._begin(event, {} if kind == "MappingStartEvent" else [], line)
            elif kind in ("MappingEndEvent", "SequenceEndEvent"):
                self._end()
            elif kind == "ScalarEvent":
                self._scalar(event, line)
            elif kind == "AliasEvent":
                if event.anchor not in self._anchors:
                    self._refuse(line, f"*{event.anchor} names no finished value", "quote a text that begins with *")
                self._add(self._anchors[event.anchor], line)
        return Document(self._name, self._value, self._lines)

    def _begin(self, event: Any, value: list[Any] | dict[str, Any], line: int) -> None:
        if event.tag not in (None, "!", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
            self._refuse(line, f"the tag {event.tag[:80]!r} is not supported", "remove it")
        if len(self._open) >= MAX_DEPTH:
            self._refuse(line, f"is nested more than {MAX_DEPTH} deep", "flatten it")
        place = self._add(value, line)
        self._open.append(_Open(value, place, event.anchor or ""))

    def _end(self) -> None:
        ended = self._open.pop()
        if ended.anchor:
            self._anchors[ended.anchor] = ended.value

    def _scalar(self, event: Any, line: int) -> None:
        if event.tag not in _TEXT_TAGS:
            self._refuse(line, f"the tag {event.tag[:80]!r} is not supported", "remove it")
        top = self._open[-1] if self._open else None
        if top is not None and isinstance(top.value, dict) and top.key is None:
            if event.value == "<<" and event.implicit[0]:
                self._refuse(line, "merge keys (<<) are not supported", "write the fields out")
            if event.value in top.value:
                first = self._lines.get((*top.place, event.value), 0)
                self._refuse(line, f"has the key {event.value[:80]!r} twice, also in line {first}", "remove one")
            top.key = event.value
            return
        value = self._plain(event.value, line) if event.implicit[0] else event.value
        self._add(value, line)
        if event.anchor:
            self._anchors[event.anchor] = value

    def _plain(self, text: str, line: int) -> Any:
        """The value of a text without quotes."""
        if _AMBIGUOUS.fullmatch(text):
            self._refuse(line, f"{text[:40]} is not the same number to all readers", "use decimal digits, or quotes")
        return resolved(text)

    def _add(self, value: Any, line: int) -> Place:
        """Put a value into the sequence or mapping that is open; returns its place."""
        place: Place = ()
        if not self._open:
            self._value = value
        else:
            top = self._open[-1]
            if isinstance(top.value, list):
                place = (*top.place, len(top.value))
                top.value.append(value)
            elif top.key is None:
                self._refuse(line, "a key is no text", "use a text as the key")
            else:
                place = (*top.place, top.key)
                top.value[top.key] = value
                top.key = None
        self._lines[place] = line
        return place

    def _refuse(self, line: int, problem: str, fix: str) -> NoReturn:
        raise ConfigError(problem, field=f"{self._name}:{line}", fix=fix)


def resolved(text: str) -> Any:
    """The value of a YAML scalar without quotes, by the core schema of YAML 1.2."""
    if _NULL.fullmatch(text):
        return None
    if _BOOLEAN.fullmatch(text):
        return text.lower() == "true"
    if _INTEGER.fullmatch(text):
        return int(text) if len(text) <= _MAX_DIGITS else text
    return float(text) if _FLOAT.fullmatch(text) else text


def to_yaml(value: Any) -> str:
    """A value of JSON as YAML that this module, and readers of YAML 1.1 and 1.2, read as the same value."""
    import yaml

    # A class of its own, because representers belong to a class.
    dumper: Any = type("Dumper", (yaml.SafeDumper,), {"ignore_aliases": lambda self, data: True})

    def text(writer: Any, data: str) -> Any:
        # The dumper quotes what YAML 1.1 would not read as this text.
        quoted = resolved(data) != data or _AMBIGUOUS.fullmatch(data) or not data.isprintable()
        return writer.represent_scalar("tag:yaml.org,2002:str", data, style='"' if quoted else None)

    dumper.add_representer(str, text)
    return str(yaml.dump(value, Dumper=dumper, sort_keys=False, allow_unicode=True, width=10_000))
