"""Write the tables of roles and routes in docs/security.md, from the tables in the code.

`make docs` runs this. `tests/server/api/test_right_tables.py` fails while the page differs from the code.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from pathlib import Path

from jobcloud.access.verbs import OF_INSTALLATION, ROLES, Verb
from jobcloud.server.api.authorization import RULES, Of, Rule

PATH = Path(__file__).parents[1] / "docs" / "security.md"
END = "<!-- end of the table -->\n"
_PLACES = {
    Of.INSTALLATION: "in the installation",
    Of.SOMEWHERE: "in any team",
    Of.DEFAULT: "in the team `default`",
    Of.PATH: "in the team of the app, job, calendar, workflow, run or task",
    Of.FILTERED: "in any team; the answer has only teams with this right",
    Of.CHECKED: "in each team that the request concerns",
}
_CONVERTED = {"{switch:switch}": "enable\\|disable", "{pausing:pausing}": "pause\\|resume"}


def updated(text: str) -> str:
    """The text with a current table between each pair of markers. Raises ValueError if a marker is missing."""
    for name, rows in (("roles", _roles()), ("routes", _routes())):
        start = f"<!-- table of {name}, written by make docs -->\n"
        before, found, rest = text.partition(start)
        _, closed, after = rest.partition(END)
        if not (found and closed):
            raise ValueError(f"the page has no place for the table of {name}")
        text = f"{before}{start}\n" + "".join(f"{row}\n" for row in rows) + f"\n{END}{after}"
    return text


def _roles() -> Iterator[str]:
    yield f"| verb | {' | '.join(ROLES)} |"
    yield "| --- |" + " --- |" * len(ROLES)
    for verb in Verb:
        name = f"`{verb}`" + (" (installation)" if verb in OF_INSTALLATION else "")
        yield f"| {name} | {' | '.join('yes' if verb in verbs else '' for verbs in ROLES.values())} |"


def _routes() -> Iterator[str]:
    yield "| request | needs |"
    yield "| --- | --- |"
    for (method, path), rule in sorted(RULES.items(), key=lambda item: (item[0][1], item[0][0])):
        shown = reduce(lambda text, pair: text.replace(*pair), _CONVERTED.items(), path)
        yield f"| `{method} {shown}` | {_needs(rule)} |"


def _needs(rule: Rule) -> str:
    if rule.of is Of.NONE:
        return "nothing"
    if rule.of is Of.SIGNED:
        return "the [signature](webhooks.md) of a webhook"
    return f"`{rule.verb}` {_PLACES[rule.of]}" if rule.of in _PLACES else "an identity"


if __name__ == "__main__":
    PATH.write_text(updated(PATH.read_text()))
