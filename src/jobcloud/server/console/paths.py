"""The paths of the console."""

from __future__ import annotations

from starlette.convertors import Convertor, register_url_convertor

#: the first parts of the paths of its pages. The overview has the path /.
PAGES = (
    "alerts", "apps", "audit", "calendars", "cluster", "events", "executors", "jobs", "packages", "queue", "runs",
    "secrets", "statistics", "teams", "tokens", "users", "workflows",
)  # fmt: skip
FOLDER = "/console"
#: the paths of its routes
SHELLS = ("/", "/{page:page}", "/{page:page}/{rest:path}")
FILE = f"{FOLDER}/{{folder}}/{{path:path}}"


class _PageConvertor(Convertor[str]):
    """Matches only the names of pages."""

    regex = "|".join(PAGES)

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("page", _PageConvertor())


def is_console(path: str) -> bool:
    """Whether a path belongs to the console."""
    return path == "/" or path[1:].partition("/")[0] in {*PAGES, FOLDER[1:]}
