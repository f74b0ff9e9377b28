"""Descriptions of the fields that users configure.

`config` describes each field of an app and of a job once, in its declaration. These descriptions determine the API's
schema and converters, the checks of ranges, the revisions of resident shards, the tables in docs/job-configuration.md
and the help of `--set`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass
from decimal import Decimal
from enum import Enum, StrEnum
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final, NamedTuple, TypeVar, get_type_hints

from jobcloud.errors import ConfigError
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import between, out_of_range

T = TypeVar("T")

#: Stands in place of a default if the field must be given.
REQUIRED: Final = MISSING
# Stands in place of a default in JSON if this default is the same as in Python.
_AS_IN_PYTHON: Final = object()


class Unit(Enum):
    """The form of a value in JSON, if it differs from the form in Python."""

    WHOLE = "whole number"
    #: 1500 is written 1.5: milliseconds as seconds, thousandths of a cpu as cpus.
    MILLI = "number"
    #: -1 is written "each".
    WHOLE_OR_EACH = 'whole number, `"each"`'
    #: a text, or an object that maps items to texts; in Python, this object is JSON text
    TEXT_OR_ITEMS = "text, object"
    #: an object that maps paths to the texts of files; in Python, this object is JSON text, or "" without files
    FILES = "object"

    def text(self, number: int, separator: str = "") -> str:
        """The number in its JSON form. With `separator` "," the thousands are separated, for users."""
        return f"{Decimal(number) / 1000 if self is Unit.MILLI else Decimal(number):{separator}f}"


#: the fields whose objects are values, and no groups of fields
OBJECTS = frozenset({"shardingItemParameters", "files"})


class Change(StrEnum):
    """The effect of a changed field on work that has not ended."""

    #: The field cannot change.
    FIXED = "fixed"
    #: Running work continues. The scheduler uses the new value from its next decision on.
    NONE = "none"
    #: The runs of a TRANSIENT job continue. A DAEMON job's shards, which compute their times themselves, are replaced.
    TIMES = "times"
    #: Running shards of a TRANSIENT job continue, and shards that start later use the new value. A DAEMON job's shards
    #: are replaced.
    PLACE = "place"
    #: The runs of a TRANSIENT job are stopped. Of a DAEMON job, the shards whose configuration differs are replaced.
    SHARDS = "shards"
    #: The runs of a TRANSIENT job are stopped if the field belongs to the job, not to its app. A DAEMON job's shards
    #: are replaced in both cases.
    REPLACE = "replace"


@dataclass(frozen=True, slots=True)
class Spec:
    """A field in JSON.

    `name` has a dot if the field belongs to a nested object. `text` is the meaning of the field: one sentence, without
    a capital letter at its start and a full stop at its end. `see` links to a section of the documentation. Valid
    numbers are multiples of `step` from `low` to `high`, all in Python's unit. If `high` is None, the number has no
    range. `pattern` and `max_length` are the form of a text, or the number of texts, for the API's schema. The record
    checks them. `json_default` is given if it differs from Python's default. `elastic_job` marks the fields of
    Elastic-Job-Cloud.
    """

    name: str
    text: str
    unit: Unit = Unit.WHOLE
    low: int = 0
    high: int | None = None
    step: int = 1
    pattern: str = ""
    max_length: int | None = None
    change: Change = Change.REPLACE
    see: str = ""
    json_default: Any = _AS_IN_PYTHON
    elastic_job: bool = False

    def check(self, number: int) -> None:
        """Raises ConfigError if a number in Python's unit is not valid."""
        if self.high is not None and not self.low <= number <= self.high:
            fix = between(*self._ends())
            raise ConfigError(out_of_range(self.unit.text(number)), field=self.name, fix=fix)
        if number % self.step:
            text = self.unit.text(number)
            raise ConfigError(Told(f"{text} is not a whole number", "no_whole_number", value=text), field=self.name)

    def range(self, separator: str = "") -> str:
        """The valid numbers, in JSON's unit; "" if there is no range."""
        if self.high is None:
            return ""
        return " to ".join(self._ends(separator))

    def _ends(self, separator: str = "") -> tuple[str, str]:
        low = max(self.low, 0) if self.unit is Unit.WHOLE_OR_EACH else self.low
        return self.unit.text(low, separator), self.unit.text(self.high or 0, separator)


def spec(name: str, text: str, **about: Any) -> Mapping[str, Spec]:
    """The metadata of a dataclass field; `about` holds further attributes of the Spec.

    If the dataclass field holds a record whose members are fields in JSON, the metadata map each member to a Spec.
    """
    return {"": Spec(name, text, **about)}


def described(default: T, name: str, text: str, **about: Any) -> T:
    """A dataclass field with a default and a description; see `spec`."""
    return dataclasses.field(default=default, metadata=spec(name, text, **about))


class Field(NamedTuple):
    """A described field of a record.

    It is the record's attribute `name`, or the attribute `name` of the record's attribute `owner`.

    `group` is the nested object in JSON that contains the field, or "". `default` is the default of the attribute, and
    `json_default` the default of the JSON field. Both are in Python's unit, and may be REQUIRED.
    """

    name: str
    owner: str
    group: str
    type: Any
    default: Any
    json_default: Any
    spec: Spec

    @property
    def path(self) -> str:
        return f"{self.owner}.{self.name}" if self.owner else self.name


@lru_cache(maxsize=16)
def fields_of(record: type) -> tuple[Field, ...]:
    """The described fields of a dataclass, in the order of their declaration."""
    types = get_type_hints(record)
    found = []
    for declared in dataclasses.fields(record):
        name, type_, default = declared.name, types[declared.name], declared.default
        for member, described in declared.metadata.items():
            if not member:
                found.append(_field(name, "", type_, default, described))
            else:
                member_default = REQUIRED if default is MISSING else getattr(default, member)
                found.append(_field(member, name, get_type_hints(type_)[member], member_default, described))
    return tuple(found)


def _field(name: str, owner: str, type_: Any, default: Any, described: Spec) -> Field:
    json_default = default if described.json_default is _AS_IN_PYTHON else described.json_default
    return Field(name, owner, described.name.rpartition(".")[0], type_, default, json_default, described)


@lru_cache(maxsize=64)
def changing(record: type, *effects: Change) -> frozenset[str]:
    """The names of the fields whose change has one of these effects."""
    return frozenset(field.name for field in fields_of(record) if field.spec.change in effects)


@lru_cache(maxsize=16)
def values_of(record: type) -> Callable[[Any], tuple[Any, ...]]:
    """A function that returns the values of a record's described fields, in the order of `fields_of`."""
    return attrgetter(*(field.path for field in fields_of(record)))


def check_ranges(record: Any, *, leave_out: frozenset[str] = frozenset()) -> None:
    """Raises ConfigError with the JSON name of the first number that is out of range."""
    kind: type = type(record)
    values, specs = _numbers(kind, leave_out)
    for described, value in zip(specs, values(record), strict=True):
        described.check(value)


@lru_cache(maxsize=16)
def _numbers(record: type, leave_out: frozenset[str]) -> tuple[Callable[[Any], tuple[int, ...]], tuple[Spec, ...]]:
    found = [field for field in fields_of(record) if field.spec.high is not None and field.name not in leave_out]
    return attrgetter(*(field.path for field in found)), tuple(field.spec for field in found)


# ------------------------------------------------------------------------------------------- configurations in JSON


class Difference(NamedTuple):
    """A field whose value differs, by its JSON name. The value None means that the field is absent or null."""

    name: str
    before: Any
    after: Any


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """The fields that differ between two configurations, in the order of `after`.

    The fields of nested objects are compared one by one. Both configurations must have all fields, as in the API.
    """
    old, new = _flat(before), _flat(after)
    names = dict.fromkeys([*new, *old])
    return [Difference(name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)]


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and name not in OBJECTS:
            flat |= {f"{name}.{member}": inner for member, inner in value.items()}
        else:
            flat[name] = value
    return flat


# ----------------------------------------------------------------------------------------------------- documentation


def names(record: type) -> tuple[str, ...]:
    """The JSON names of the fields, in the order of the documentation."""
    return tuple(field.spec.name for field in fields_of(record))


def markdown(record: type) -> str:
    """A table with one row for each field."""
    rows = ["| field | type | default | range | change | meaning |", "| --- | --- | --- | --- | --- | --- |"]
    for field in fields_of(record):
        own = field.spec
        name = f"`{own.name}`" if own.elastic_job else f"`{own.name}` †"
        meaning = f"{own.text[0].upper()}{own.text[1:]}."
        if own.see:
            meaning += f" See [{own.see.partition('#')[0] or 'below'}]({own.see})."
        cells = (name, _type_text(field), _default_text(field), own.range(","), own.change.value, meaning)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _type_text(field: Field) -> str:
    if isinstance(field.type, type) and issubclass(field.type, Enum):
        return ", ".join(f"`{member.value}`" for member in field.type)
    whole = field.spec.unit is Unit.MILLI and field.spec.step % 1_000 == 0
    own = (Unit.WHOLE if whole else field.spec.unit).value
    text = own if field.spec.unit in (Unit.TEXT_OR_ITEMS, Unit.FILES) else "text"
    name = {bool: "boolean", int: own, str: text}.get(field.type, "list of texts")
    return f"{name} or null" if field.json_default is None else name


def _default_text(field: Field) -> str:
    default = field.json_default
    if default is REQUIRED:
        return f"required in `{field.group}`" if field.group else "required"
    if field.type is int:
        return f"`{field.spec.unit.text(default)}`"
    if isinstance(default, Enum):
        return f"`{default.value}`"
    if field.spec.unit is Unit.FILES:
        return "`{}`"
    return f"`{json.dumps(default)}`"
