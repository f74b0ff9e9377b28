"""Unit files of systemd: sections with keys and values.

Source: systemd.syntax(7), systemd.service(5) and systemd.unit(5) of systemd 252.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

_SECTION: Final = re.compile(r"\[([^\[\]]+)\]")
_ESCAPES: Final = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "v": "\v",
    "\\": "\\",
    '"': '"',
    "'": "'",
    "s": " ",
}


class UnitError(ValueError):
    """A unit file cannot be read. The text names the line or the value."""


@dataclass(slots=True)
class Unit:
    """The values of each section and key, in their order. An empty value removes those before it."""

    values: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def all(self, section: str, key: str) -> list[str]:
        return self.values.get((section, key), [])

    def last(self, section: str, key: str) -> str:
        """The last value, or ""."""
        return self.all(section, key)[-1] if self.all(section, key) else ""

    def keys(self, section: str) -> list[str]:
        """The keys of a section that have a value."""
        return [key for (of, key), values in self.values.items() if of == section and values]


def parse(texts: Iterable[bytes]) -> Unit:
    """The unit of a file and its drop-ins, in their order. Raises UnitError."""
    unit = Unit()
    for data in texts:
        section = ""
        for number, line in _lines(data):
            if found := _SECTION.fullmatch(line):
                section = found[1]
                continue
            key, sign, value = line.partition("=")
            if not sign or not section:
                raise UnitError(f"line {number}: {line[:80]!r} is no section, and no key with a value")
            values = unit.values.setdefault((section, key.strip()), [])
            if value.strip():
                values.append(value.strip())
            else:
                values.clear()
    return unit


def _lines(data: bytes) -> list[tuple[int, str]]:
    """The lines with their numbers, without comments. A line that ends with a backslash goes on in the next one."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise UnitError("it is not UTF-8 text") from error
    if "\0" in text:
        raise UnitError("it holds a NUL")
    found: list[tuple[int, str]] = []
    open_line = ""
    start = 0
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if line.startswith(("#", ";")) or (not line and not open_line):
            continue
        start = start if open_line else number
        if line.endswith("\\"):
            open_line += f"{line[:-1]} "
            continue
        if open_line + line:
            found.append((start, (open_line + line).strip()))
        open_line = ""
    if open_line:
        found.append((start, open_line.strip()))
    return found


def without_specifiers(text: str) -> str:
    """The text with `%%` as `%`. Raises UnitError for other specifiers."""
    other = re.search(r"%(?!%)(.?)", text.replace("%%", ""))
    if other:
        raise UnitError(f"the specifier %{other[1]} stands for a value of the machine")
    return text.replace("%%", "%")


def words(text: str) -> list[str]:
    """The words of a command line or of `Environment=`, without quotes and escapes. Raises UnitError."""
    found: list[str] = []
    word: list[str] = []
    quote, inside, index = "", False, 0
    while index < len(text):
        letter = text[index]
        if letter == "\\":
            index += 1
            piece, index = _escape(text, index)
            word.append(piece)
            inside = True
            continue
        if quote:
            if letter == quote:
                quote = ""
                if text[index + 1 : index + 2].strip():
                    raise UnitError(f"a word goes on behind its quotes in {text[:80]!r}; put the whole word in quotes")
            else:
                word.append(letter)
        elif letter in "\"'":
            if inside or word:
                raise UnitError(
                    f"a quote inside a word in {text[:80]!r} is not supported; put the whole word in quotes"
                )
            quote, inside = letter, True
        elif letter.isspace():
            if inside or word:
                found.append("".join(word))
            word, inside = [], False
        else:
            word.append(letter)
        index += 1
    if quote:
        raise UnitError(f"a quote is not closed in {text[:80]!r}")
    if inside or word:
        found.append("".join(word))
    return found


def _escape(text: str, index: int) -> tuple[str, int]:
    """The character of an escape whose backslash stands before `index`, and the index behind it."""
    letter = text[index : index + 1]
    if letter in _ESCAPES and letter:
        return _ESCAPES[letter], index + 1
    for sign, length, base in (("x", 2, 16), ("u", 4, 16), ("U", 8, 16), ("", 3, 8)):
        digits = text[index + len(sign) : index + len(sign) + length]
        if letter == sign or (not sign and letter in "01234567" and letter):
            try:
                code = int(digits, base) if len(digits) == length else -1
                if code > 0 and not 0xD800 <= code <= 0xDFFF:
                    return chr(code), index + len(sign) + length
            except (ValueError, OverflowError):
                pass
            break
    raise UnitError(f"the escape \\{letter} in {text[:80]!r} is not known")
