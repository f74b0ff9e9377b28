"""Placeholders in the parameters and the command of a job, such as `{fire_time:%Y-%m-%d}`.

Registration checks the texts with this module, and executors replace the placeholders when a shard starts.
docs/executor.md lists the placeholders. Times are formatted here and not by `strftime`, because its directives differ
between C libraries. The module uses the standard library only, and runs on CPython 3.9 or newer.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from typing import AbstractSet, Callable, Dict, Iterator, Mapping, Optional, Tuple

from jobcloud.wire import MAX_RESULTS_BYTES, NODE

#: The names of the placeholders. TIMES may be followed by a colon and a format, RESULT by a colon and a node.
TIMES = ("fire_time", "previous_success")
RESULT = "result"
NAMES = (*TIMES, "run_id", "job", "item", "shard_count", RESULT)
#: The maximum number of results in a text, and of different nodes in a job.
MAX_RESULTS = 16
_TOKEN = re.compile(r"\{\{|\}\}|\{([A-Za-z_]+)(?::([^{}]*))?\}|[{}]")
_DIRECTIVE = re.compile(r"%(.?)", re.DOTALL)


def _offset(at: datetime) -> str:
    minutes = int(at.utcoffset().total_seconds()) // 60 if at.utcoffset() else 0  # type: ignore[union-attr]
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}{abs(minutes) % 60:02}"


# The text of each directive, and its greatest length.
_DIRECTIVES: Dict[str, Tuple[Callable[[datetime], str], int]] = {
    "Y": (lambda at: f"{at.year:04}", 4),
    "y": (lambda at: f"{at.year % 100:02}", 2),
    "m": (lambda at: f"{at.month:02}", 2),
    "d": (lambda at: f"{at.day:02}", 2),
    "H": (lambda at: f"{at.hour:02}", 2),
    "M": (lambda at: f"{at.minute:02}", 2),
    "S": (lambda at: f"{at.second:02}", 2),
    "j": (lambda at: f"{at.timetuple().tm_yday:03}", 3),
    "G": (lambda at: f"{at.isocalendar()[0]:04}", 4),
    "V": (lambda at: f"{at.isocalendar()[1]:02}", 2),
    "u": (lambda at: str(at.isoweekday()), 1),
    "w": (lambda at: str(at.isoweekday() % 7), 1),
    "z": (_offset, 5),
    "s": (lambda at: str(int(at.timestamp())), 12),
    "%": (lambda at: "%", 1),
}
DIRECTIVES = tuple(f"%{letter}" for letter in _DIRECTIVES)
# The greatest lengths of placeholders without a format. A run's id has the key of its job, its time and its cluster.
_ISO_LENGTH = len("2026-12-02T06:00:00+01:00")
_LENGTHS = {"fire_time": _ISO_LENGTH, "previous_success": _ISO_LENGTH, "run_id": 300, "job": 100}
_NUMBER_LENGTH = 5


@dataclass(frozen=True)
class Values:
    """The values of one execution. The times are in ms since 1970; None and 0 become "".

    `results`: node of the workflow's run → the text of its result. Other nodes become "".
    """

    run_id: str
    job: str
    item: int
    shard_count: int
    zone: tzinfo
    fire_time_ms: Optional[int] = None
    previous_success_ms: Optional[int] = None
    results: Mapping[str, str] = field(default_factory=dict)


def check(text: str, names: AbstractSet[str] = frozenset(NAMES)) -> None:
    """Raises ValueError if a text has an invalid placeholder, or one that is not in `names`, or too many results."""
    results = 0
    for name, form in _parts(text):
        if name and name not in names:
            known = ", ".join(f"{{{known}}}" for known in NAMES if known in names)
            raise ValueError(f"{{{name[:40]}}} is no placeholder of this field; use one of {known}")
        if name == RESULT:
            _check_node(form)
            results += 1
            if results > MAX_RESULTS:
                raise ValueError(f"a text has at most {MAX_RESULTS} placeholders {{{RESULT}:NODE}}")
            continue
        if form is not None and name not in TIMES:
            raise ValueError(f"{{{name}}} has no format; only {' and '.join(TIMES)} have one")
        _check_format(form or "")


def widest(text: str) -> str:
    """A text that is at least as long as any result of `render` for a valid `text`, in JSON too.

    Results of nodes do not count: MAX_RESULTS_BYTES bounds them.
    """
    return "".join(literal if not name else "x" * _length(name, form) for literal, name, form in _pieces(text))


def render(text: str, values: Values) -> str:
    """The text with values in place of its placeholders.

    Raises ValueError if the text is not valid, or if its results take more than MAX_RESULTS_BYTES.
    """
    if values.results:
        named = (form for name, form in _parts(text) if name == RESULT and form)
        size = sum(len(json.dumps(values.results.get(node, ""))) - 2 for node in named)
        if size > MAX_RESULTS_BYTES:
            raise ValueError(f"the results take {size:,} bytes, at most {MAX_RESULTS_BYTES:,}; pass files instead")
    return "".join(literal if not name else _value(name, form, values) for literal, name, form in _pieces(text))


def _parts(text: str) -> Iterator[Tuple[str, Optional[str]]]:
    return ((name, form) for _, name, form in _pieces(text))


def _pieces(text: str) -> Iterator[Tuple[str, str, Optional[str]]]:
    """(literal, "", None) for other text, and ("", name, format) for a placeholder. Raises ValueError."""
    end = 0
    for found in _TOKEN.finditer(text):
        yield text[end : found.start()], "", None
        end = found.end()
        token, (name, form) = found.group(), found.groups()
        if name:
            yield "", name, form
        elif len(token) == 2:
            yield token[0], "", None
        else:
            near = text[found.start() : found.start() + 20]
            raise ValueError(f"the brace at {near!r} belongs to no placeholder; double it to keep it: {token * 2}")
    yield text[end:], "", None


def _length(name: str, form: Optional[str]) -> int:
    if name == RESULT:
        return 0
    if form is None:
        return _LENGTHS.get(name, _NUMBER_LENGTH)
    # A character of the format may take up to 12 bytes in JSON.
    return sum(12 if ord(char) > 126 or char < " " or char in '"\\' else 1 for char in form) + sum(
        _DIRECTIVES[letter][1] for letter in _DIRECTIVE.findall(form)
    )


def _value(name: str, form: Optional[str], values: Values) -> str:
    if name in TIMES:
        return _time(values.fire_time_ms if name == "fire_time" else values.previous_success_ms, form, values.zone)
    if name == RESULT:
        return values.results.get(_check_node(form), "")
    known = {"run_id": values.run_id, "job": values.job, "item": values.item, "shard_count": values.shard_count}
    if name not in known:
        raise ValueError(f"{{{name[:40]}}} is no placeholder")
    if form is not None:
        raise ValueError(f"{{{name}}} has no format")
    return str(known[name])


def _check_node(name: Optional[str]) -> str:
    if name is None or not NODE.fullmatch(name):
        raise ValueError(f"{{{RESULT}}} needs the name of a node, such as {{{RESULT}:extract}}")
    return name


def _check_format(form: str) -> None:
    for letter in _DIRECTIVE.findall(form):
        if letter not in _DIRECTIVES:
            raise ValueError(f"%{letter} is no directive of times; there are {' '.join(DIRECTIVES)}")


def _time(ms: Optional[int], form: Optional[str], zone: tzinfo) -> str:
    _check_format(form or "")
    if not ms:
        return ""
    at = datetime.fromtimestamp(ms // 1000, zone)
    if form is None:
        return at.isoformat(timespec="seconds")
    return _DIRECTIVE.sub(lambda found: _DIRECTIVES[found.group(1)][0](at), form)
