"""Write the tables of fields in docs/job-configuration.md, from the descriptions in src/jobcloud/config.py.

`make docs` runs this. `tests/test_fields.py` fails while the page differs from the code.
"""

from __future__ import annotations

from pathlib import Path

from jobcloud.config import App, Job
from jobcloud.fields import markdown

PATH = Path(__file__).parents[1] / "docs" / "job-configuration.md"
END = "<!-- end of fields -->\n"


def updated(text: str) -> str:
    """The text with a current table between each pair of markers. Raises ValueError if a marker is missing."""
    for record in (App, Job):
        start = f"<!-- fields of {record.__name__}, written by make docs -->\n"
        before, found, rest = text.partition(start)
        _, closed, after = rest.partition(END)
        if not (found and closed):
            raise ValueError(f"the page has no place for the fields of {record.__name__}")
        text = f"{before}{start}\n{markdown(record)}\n{END}{after}"
    return text


if __name__ == "__main__":
    PATH.write_text(updated(PATH.read_text()))
