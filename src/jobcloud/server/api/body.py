"""Strict JSON of bounded size with exact numbers, for request bodies that may be hostile."""

from __future__ import annotations

import json
from contextlib import suppress
from decimal import Decimal
from typing import Any, NoReturn

from fastapi import Request

from jobcloud.server.api.problems import Problem

MAX_JSON_BYTES = 1 << 20
# The limit for a request with the apps and jobs of a whole cluster.
MAX_APPLY_BYTES = 4 << 20
MAX_DEPTH = 32
_MAX_NUMBER_LENGTH = 64


async def read_json(request: Request) -> Any:
    """The body as plain values. Numbers with a point or an exponent are Decimals. Raises Problem."""
    return parse(await read_bytes(request))


async def read_bytes(request: Request) -> bytes:
    """The bytes of the body. Raises Problem if the media type of the request is not JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise Problem("unsupported-media-type", f"Send application/json, not {kind[:80] or 'no type'!r}.")
    return await request.body()


async def read_object(request: Request) -> dict[str, Any]:
    """The body as a JSON object. Raises Problem if it is not one."""
    value = await read_json(request)
    if not isinstance(value, dict):
        raise Problem("malformed-json", f"The body must be a JSON object, not {json_type(value)}.")
    return value


async def read_object_or_nothing(request: Request) -> dict[str, Any]:
    """The body as a JSON object; {} if there is no body. Raises Problem if it is something else."""
    return await read_object(request) if await request.body() else {}


def parse(body: bytes) -> Any:
    """Parse JSON in UTF-8 without NaN, Infinity and repeated keys, at most MAX_DEPTH deep. Raises Problem.

    A byte order mark is accepted: some editors and shells write it.
    """
    _check_depth(body)
    try:
        value = json.loads(
            body.decode("utf-8-sig"),
            parse_float=_decimal,
            parse_int=_integer,
            parse_constant=_no_constant,
            object_pairs_hook=_no_key_twice,
        )
        _check_text(value)
        return value
    except UnicodeDecodeError as error:
        raise Problem("malformed-json", f"The body is not UTF-8 at byte {error.start}.") from None
    except UnicodeEncodeError:
        raise Problem(
            "malformed-json", "The body contains half of a surrogate pair, which is not a character."
        ) from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise Problem("malformed-json", f"{error.msg} at {where}." if body else "The body is empty.") from None


def json_type(value: Any) -> str:
    """The name of a value's type in JSON."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float() | Decimal():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"


def _check_depth(body: bytes) -> None:
    """Refuse deep nesting before the parser recurses. Brackets inside strings do not count."""
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return
    depth, in_string, escaped = 0, False, False
    for byte in body:
        if in_string:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                in_string = False
        elif byte == 0x22:
            in_string = True
        elif byte in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise Problem("malformed-json", f"The body is nested more than {MAX_DEPTH} deep.")
        elif byte in b"]}":
            depth -= 1


def _check_text(value: Any) -> None:
    """Raises UnicodeEncodeError for half of a surrogate pair: JSON can spell it, but it cannot be stored."""
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, dict):
        for key, item in value.items():
            key.encode()
            _check_text(item)
    elif isinstance(value, list):
        for item in value:
            _check_text(item)


def _decimal(text: str) -> Decimal:
    number = None
    with suppress(ArithmeticError):  # an exponent that Decimal cannot hold
        number = Decimal(text) if len(text) <= _MAX_NUMBER_LENGTH else None
    if number is None or abs(number.adjusted()) > 30:
        raise Problem("malformed-json", f"The number {text[:20]}… is too long or out of range.")
    return number


def _integer(text: str) -> int:
    if len(text) > 30:
        raise Problem("malformed-json", f"The number {text[:20]}… is out of range.")
    return int(text)


def _no_constant(text: str) -> NoReturn:
    raise Problem("malformed-json", f"{text} is not a JSON number.")


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise Problem("malformed-json", f"The key {key[:80]!r} occurs twice in one object.")
        found[key] = value
    return found
