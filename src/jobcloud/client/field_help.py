"""Help texts that list the fields of a job."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand


class ListsJobFields(TyperCommand):
    """A command whose `--help` ends with the JSON names of a job's fields."""

    def format_help(self, *args: Any, **kwargs: Any) -> None:
        # Imported only for --help: config.py needs the cron library, which is slow to import.
        from jobcloud.config import Job
        from jobcloud.fields import names

        self.epilog = f"Fields of a job, described in docs/job-configuration.md: {', '.join(names(Job))}."
        super().format_help(*args, **kwargs)
