"""Parameters with a schema: `parameterSchema` of a job describes the JSON object that is its `jobParameter`.

The schema is a bounded part of JSON Schema 2020-12: one object of scalars, without references and without keywords that
combine schemas. docs/api.md lists the keywords. All others are refused, so no keyword is ignored.

Patterns are checked by `re`, which may take exponential time. So a pattern is a sequence of characters and classes of
characters with quantifiers: it has no groups and no alternatives. The number of ways in which its quantifiers can share
a text is bounded, and so are the texts.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Iterator, Mapping, Set
from decimal import Decimal
from functools import lru_cache
from typing import Any

from jobcloud.config import MAX_PARAMETER_SCHEMA, Job
from jobcloud.errors import ConfigError
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import choose, such_as
from jobcloud.server.api.body import json_type, parse
from jobcloud.server.api.problems import Problem

SCHEMA, PARAMETER = "parameterSchema", "jobParameter"
MAX_PROPERTIES = 50
MAX_NAME = 100
MAX_PATTERN = 200
#: the longest text, in characters, that is compared with a pattern
MAX_MATCHED = 1_000
_MAX_WAYS = 5_000
_UNBOUNDED = MAX_MATCHED + 1

_OF_OBJECT = ("type", "properties", "required", "additionalProperties", "title", "description", "$schema")
_COMMON = ("type", "title", "description", "default", "enum")
_OF_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_KEYWORDS = {
    "string": (*_COMMON, "minLength", "maxLength", "pattern"),
    "integer": (*_COMMON, *_OF_NUMBERS),
    "number": (*_COMMON, *_OF_NUMBERS),
    "boolean": _COMMON,
}
# An atom of a pattern: a class, an escape, a dot, or a character without a meaning; then a quantifier, or nothing.
_ATOM = re.compile(
    r"(\[\^?(?:[^\\\[\]&~|]|\\[dDwW\\\[\]^./-])+\]|\\[dDwW\\\[\](){}|*+?^$./-]|[^\\\[\](){}|*+?^$])"
    r"(?:([?*+])|\{([0-9]{1,3})(?:(,)([0-9]{1,3})?)?\})?"
)
# In ECMAScript, whose syntax JSON Schema has, a dot excludes four ends of lines.
_DOT = r"[^\n\r\u2028\u2029]"


def check_schema(job: Job) -> None:
    """Raises ConfigError if the job's schema is not valid, or if its own parameter does not meet it."""
    if not job.parameter_schema:
        return
    if PARAMETER in job.placeholders:
        problem = Told("is a JSON object, whose braces are no placeholders", "braces")
        raise ConfigError(
            problem,
            field=PARAMETER,
            fix=Told(f"drop it from placeholders, or drop {SCHEMA}", "drop_placeholder", other=SCHEMA),
        )
    schema = _parsed(job.parameter_schema)
    # Runs at a fire time get this text as it is, without the defaults.
    _checked(schema, job.parameter, frozenset(schema.get("required", ())))


def completed(job: Job, given: str) -> str:
    """The parameter of a run as JSON text, with the defaults of the schema. "" stands for an empty object.

    Raises ConfigError that names each wrong parameter, such as `jobParameter.day`.
    """
    schema = _parsed(job.parameter_schema)
    properties = schema.get("properties", {})
    required = {name for name in schema.get("required", ()) if "default" not in properties[name]}
    value = _checked(schema, given, required)
    defaults = {name: one["default"] for name, one in properties.items() if "default" in one and name not in value}
    return text_of(value | defaults) if given.strip() or defaults else given


def _checked(schema: Mapping[str, Any], given: str, required: Set[str]) -> dict[str, Any]:
    """The object of a text. Raises ConfigError."""
    value = _read(given, PARAMETER) if given.strip() else {}
    if not isinstance(value, dict):
        found = json_type(value)
        problem = Told(f"must be an object, not {found}", "value_type", wanted="an object", found=found)
        raise ConfigError(problem, field=PARAMETER, fix=_known(schema))
    faults = list(_faults(schema, value, required))
    if faults:
        faults[0].others = tuple(faults[1:20])
        raise faults[0]
    return value


def text_of(value: Mapping[str, Any]) -> str:
    """A JSON object as text. `parse` has made it, so its numbers are bounded."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_number)


def _number(number: Decimal) -> int | float:
    return int(number) if number == number.to_integral_value() and abs(number) < 2**53 else float(number)


def _faults(schema: Mapping[str, Any], given: Mapping[str, Any], required: Set[str]) -> Iterator[ConfigError]:
    properties = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in given and name in required:
            fix = _described(properties.get(name, {}))
            yield ConfigError(Told("is missing", "value_missing"), field=f"{PARAMETER}.{name}", fix=fix)
    for name, value in given.items():
        field = f"{PARAMETER}.{name[:MAX_NAME]}"
        if name in properties:
            if problem := _problem(properties[name], value):
                yield ConfigError(problem, field=field, fix=_described(properties[name]))
        elif schema.get("additionalProperties") is False:
            yield ConfigError(Told("is no parameter of the job", "no_parameter"), field=field, fix=_known(schema))


def _problem(wanted: Mapping[str, Any], value: Any) -> str:
    """Why a value does not meet the schema of its parameter; "" if it does."""
    if not _has_type(wanted["type"], value):
        return f"must be of type {wanted['type']}, not {json_type(value)}"
    if "enum" in wanted and not any(_same(value, one) for one in wanted["enum"]):
        return f"must be one of {', '.join(json.dumps(one, default=str) for one in wanted['enum'])}"[:300]
    if isinstance(value, str):
        return _problem_of_text(wanted, value)
    return "" if isinstance(value, bool) else _problem_of_number(wanted, Decimal(value))


def _problem_of_text(wanted: Mapping[str, Any], value: str) -> str:
    if len(value) < wanted.get("minLength", 0):
        return f"has {len(value)} characters, at least {wanted['minLength']} are needed"
    if len(value) > wanted.get("maxLength", len(value)):
        return f"has {len(value)} characters, at most {wanted['maxLength']} are allowed"
    if (pattern := wanted.get("pattern")) is None:
        return ""
    if len(value) > MAX_MATCHED:
        return f"has {len(value)} characters, at most {MAX_MATCHED} can be compared with a pattern"
    return "" if _compiled(pattern).fullmatch(value) else f"does not match the pattern {pattern}"


def _problem_of_number(wanted: Mapping[str, Any], value: Decimal) -> str:
    limits = (
        ("minimum", "at least", operator.ge),
        ("maximum", "at most", operator.le),
        ("exclusiveMinimum", "above", operator.gt),
        ("exclusiveMaximum", "below", operator.lt),
    )
    for keyword, words, holds in limits:
        if keyword in wanted and not holds(value, Decimal(wanted[keyword])):
            return f"must be {words} {wanted[keyword]}"
    step = Decimal(wanted.get("multipleOf", 0))
    if step and (value / step) != (value / step).to_integral_value():
        return f"must be a multiple of {step}"
    return ""


def _has_type(type_: str, value: Any) -> bool:
    if type_ in ("string", "boolean"):
        return isinstance(value, str if type_ == "string" else bool)
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return False
    # 2.0 is an integer in JSON Schema.
    return type_ == "number" or value == Decimal(value).to_integral_value()


def _same(one: Any, other: Any) -> bool:
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _described(wanted: Mapping[str, Any]) -> str:
    return str(wanted.get("description") or wanted.get("title") or "")[:300]


def _known(schema: Mapping[str, Any]) -> Told:
    return choose(f"{', '.join(schema.get('properties', {})) or 'none'}"[:500], "parameters: ")


# ---- the schema itself -----------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _parsed(text: str) -> Mapping[str, Any]:
    """Raises ConfigError if the schema is not valid."""
    if len(text.encode(errors="replace")) > MAX_PARAMETER_SCHEMA:
        raise _invalid("is too long", f"at most {MAX_PARAMETER_SCHEMA:,} bytes")
    schema = _read(text, SCHEMA)
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise _invalid("is no schema of an object", 'begin with {"type": "object", "properties": {')
    _only(schema, _OF_OBJECT, "the object")
    properties, required = schema.get("properties", {}), schema.get("required", [])
    if not isinstance(properties, dict) or len(properties) > MAX_PROPERTIES:
        raise _invalid("has properties that are no object, or too many", f"at most {MAX_PROPERTIES} parameters")
    if not isinstance(required, list) or not all(isinstance(name, str) and name in properties for name in required):
        raise _invalid("requires a parameter that is not in properties", "list names of properties in required")
    if not isinstance(schema.get("additionalProperties", True), bool):
        raise _invalid("additionalProperties is no boolean", "use false to refuse other parameters")
    for name, wanted in properties.items():
        if not name.isprintable() or not 0 < len(name) <= MAX_NAME or "." in name:
            raise _invalid(f"{name[:40]!r} cannot name a parameter", f"1 to {MAX_NAME} characters without a dot")
        _check_property(name, wanted)
    return schema


def _check_property(name: str, wanted: Any) -> None:
    type_ = wanted.get("type") if isinstance(wanted, dict) else None
    if not isinstance(type_, str) or type_ not in _KEYWORDS:
        raise _invalid(f"the type of {name} is missing or not supported", f"use one of {', '.join(_KEYWORDS)}")
    _only(wanted, _KEYWORDS[type_], name)
    for keyword in ("minLength", "maxLength"):
        length = wanted.get(keyword, 0)
        if isinstance(length, bool) or not isinstance(length, int) or not 0 <= length <= 65_536:
            raise _invalid(f"{keyword} of {name} is no length", "use a whole number from 0 to 65,536")
    for keyword in _OF_NUMBERS:
        limit = wanted.get(keyword, 1)
        if not _has_type("number", limit) or (keyword == "multipleOf" and limit <= 0):
            raise _invalid(f"{keyword} of {name} is no valid number", "such as 1")
    if "pattern" in wanted:
        try:
            _compiled(str(wanted["pattern"]))
        except ValueError as error:
            raise _invalid(f"the pattern of {name} {error}", "such as ^[A-Z]{2}-[0-9]+$, without groups") from error
    choices = wanted.get("enum", [wanted.get("default")])
    if not isinstance(choices, list) or not 0 < len(choices) <= 100:
        raise _invalid(f"enum of {name} is no list of 1 to 100 values", 'such as ["eu", "us"]')
    named = [("enum", one) for one in choices] if "enum" in wanted else []
    for keyword, value in (*named, *([("default", wanted["default"])] if "default" in wanted else [])):
        if problem := _problem(wanted, value):
            raise _invalid(f"{keyword} of {name} {problem}", "give a value that meets its own schema")


def _only(given: Mapping[str, Any], keywords: tuple[str, ...], where: str) -> None:
    for keyword in given:
        if keyword not in keywords:
            raise _invalid(f"{keyword[:40]!r} of {where} is no keyword here", f"use {', '.join(keywords)}")
    for keyword in ("title", "description", "$schema"):
        if not isinstance(given.get(keyword, ""), str):
            raise _invalid(f"{keyword} of {where} is no text", "use a text")


def _invalid(problem: str, fix: str) -> ConfigError:
    return ConfigError(problem, field=SCHEMA, fix=fix)


def _read(text: str, field: str) -> Any:
    try:
        return parse(text.encode())
    except (Problem, UnicodeError) as error:
        problem = error.detail if isinstance(error, Problem) else "is not Unicode"
        told = Told(f"is no JSON: {problem}", "no_json", problem=problem)
        raise ConfigError(told, field=field, fix=such_as('{"day": "2026-12-24"}')) from error


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str]:
    """Raises ValueError, whose text continues "the pattern", if the pattern might take long."""
    if not 2 <= len(pattern) <= MAX_PATTERN:
        raise ValueError(f"is no text of at most {MAX_PATTERN} characters")
    if pattern[0] != "^" or pattern[-1] != "$" or pattern.endswith("\\$"):
        raise ValueError("does not begin with ^ and end with $")
    inner, at, ways, parts = pattern[1:-1], 0, 1, []
    while at < len(inner):
        found = _ATOM.match(inner, at)
        if found is None:
            raise ValueError(f"has {inner[at : at + 10]!r}, which is not possible here")
        atom, sign, least, comma, most = found.groups()
        if sign:
            ways *= 2 if sign == "?" else _UNBOUNDED
        elif comma:
            ways *= max(1, int(most) - int(least) + 1) if most else _UNBOUNDED
        parts.append(_DOT + inner[found.start() + 1 : found.end()] if atom == "." else found.group())
        at = found.end()
    if ways > _MAX_WAYS:
        raise ValueError(f"has too many quantifiers with a range: {ways:,} combinations, at most {_MAX_WAYS:,}")
    if re.search(r"--", inner):
        raise ValueError("has '--', which is not possible here")
    try:
        return re.compile("".join(parts), re.ASCII)
    except (re.error, OverflowError) as error:
        raise ValueError(f"is not valid: {error}") from error
