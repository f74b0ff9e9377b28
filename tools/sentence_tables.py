"""Write the table of the sentences of refusals in docs/api.md, from the calls in the code that make sentences.

`make docs` runs this. `tests/server/console/test_sentence_texts.py` fails while the page differs from the code.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import jobcloud

PATH = Path(__file__).parents[1] / "docs" / "api.md"
START = "<!-- table of refusals, written by make docs -->\n"
END = "<!-- end of the table -->\n"
_PRODUCT = Path(jobcloud.__file__).parent
#: calls whose parameters are those of another sentence and some of their own
PASSED_ON = {"cron_field", "skipped"}


def made_by_the_product() -> dict[str, set[str]]:
    """Code → the names of its parameters, from the calls that make sentences.

    Raises ValueError if a call hides its code or its parameters, or if two calls of a code have other parameters.
    """
    found: dict[str, set[str]] = {}
    for path in sorted(_PRODUCT.rglob("*.py")):
        text = path.read_text()
        if "Told(" not in text:  # to parse all modules takes seconds
            continue
        for call in ast.walk(ast.parse(text)):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id != "Told":
                continue
            place, code = f"{path.name}:{call.lineno}", call.args[1]
            if not isinstance(code, ast.Constant):
                if path.name != "service.py":  # an alert about several problems has the code of the first
                    raise ValueError(f"{place}: the code must be a literal")
                continue
            names = {one.arg for one in call.keywords if one.arg}
            if (len(names) < len(call.keywords)) != (code.value in PASSED_ON):
                raise ValueError(f"{place}: name all parameters")
            if found.setdefault(str(code.value), names) != names:
                raise ValueError(f"{place}: a code has one set of parameters")
    return found


def described(text: str) -> dict[str, set[str]]:
    """Code → the names of its parameters, from the rows about other sentences than refusals."""
    section = text.split("## Sentences\n")[1].split(START)[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*?) \|$", section, re.MULTILINE)
    return {code: set(re.findall(r"`(\w+)`", names)) for code, _, names in rows}


def updated(text: str) -> str:
    """The page with a current table between its markers. Raises ValueError if a marker is missing."""
    before, found, rest = text.partition(START)
    _, closed, after = rest.partition(END)
    if not (found and closed):
        raise ValueError("the page has no place for the table of refusals")
    made = made_by_the_product()
    rows = [
        f"| `{code}` | {', '.join(f'`{name}`' for name in sorted(made[code])) or '–'} |"
        for code in sorted(made.keys() - described(text).keys())
    ]
    table = "\n".join(["| code | parameters |", "| --- | --- |", *rows])
    return f"{before}{START}\n{table}\n\n{END}{after}"


if __name__ == "__main__":
    PATH.write_text(updated(PATH.read_text()))
