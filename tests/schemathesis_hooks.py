"""Hooks of schemathesis for the API: values that a JSON schema cannot describe, and names of things that exist."""

from __future__ import annotations

import json
import os
from typing import Any

import schemathesis
from hypothesis import strategies as st

# Names of things that exist, by path parameter. Half of the valid requests use them.
KNOWN: dict[str, Any] = json.loads(os.environ.get("JOBCLOUD_TEST_KNOWN", "{}"))
# At most one of these parameters may be given.
_ONE_OF = {
    "/history/": ("team", "app", "job", "run"),
    "/statistics": ("team", "app", "job"),
    "/logs": ("tail", "offset", "since"),
}

schemathesis.openapi.format("cursor", st.just(""))
schemathesis.openapi.format("cron", st.sampled_from(["0 0 8 * * ?", "0/5 * * * * ?", "0 0 12 1 1 ? 2030"]))
schemathesis.openapi.format("time-zone", st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata"]))


@schemathesis.hook  # type: ignore[untyped-decorator, unused-ignore]
def before_call(context: Any, case: Any, **more: Any) -> None:
    """Make a request valid by the rules that the schema leaves to the server's text."""
    if case.meta is None:
        return
    # JSON Schema takes 2.0 as an integer, and so does the API. The checks of schemathesis 4.32 do not.
    valid = case.meta.generation.mode.is_positive
    case.body = _without_whole_floats(case.body, 0 if valid else 0.5)
    if not valid:
        return
    path = case.operation.path
    if case.method != "DELETE" and len(repr(case.body)) % 2:
        case.path_parameters |= {name: KNOWN[name] for name in case.path_parameters if name in KNOWN}
    for part, names in _ONE_OF.items():
        if part in path:
            for name in [name for name in names if case.query.get(name)][1:]:
                del case.query[name]
    # schemathesis 4.32 sends 0 in some requests that it calls valid, against the pattern of the header.
    if case.headers.get("if-match") == "0":
        case.headers["if-match"] = "*"
    if path.endswith("/cron/next"):
        case.query.pop("dialect", None)
        for name in ("trigger", "start", "end", "blackout", "skipOn", "onlyOn"):  # texts with rules of their own
            case.query.pop(name, None)
        case.query["cron"] = case.query.get("cron") or "0 0 8 * * ?"
    if path.endswith("/statistics/series"):  # a range has a maximum number of steps
        case.query.pop("since", None)


def _without_whole_floats(value: Any, more: float) -> Any:
    """A body whose floats that are whole numbers are integers, or have a fraction, if `more` is not 0."""
    if isinstance(value, dict):
        return {name: _without_whole_floats(one, more) for name, one in value.items()}
    if isinstance(value, list):
        return [_without_whole_floats(one, more) for one in value]
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**50
    return (value + more if more else int(value)) if whole else value
