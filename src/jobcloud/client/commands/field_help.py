"""Help texts that list the fields of a job."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand


class ListsJobFields(TyperCommand):
    """A command whose `--help` ends with the fields of a job."""

    def format_help(self, *args: Any, **kwargs: Any) -> None:
        # These imports are only for --help: config.py needs the cron library, which is slow to import.
        from jobcloud.config import Job
        from jobcloud.fields import names

        listed = ", ".join(dict.fromkeys(name.partition(".")[0] for name in names(Job)))
        self.epilog = f"Fields of a job, described in docs/job-configuration.md: {listed}."
        super().format_help(*args, **kwargs)
