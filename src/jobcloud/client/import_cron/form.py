"""The forms of files that `jobcloud import-cron` reads."""

from __future__ import annotations

from enum import StrEnum


class Form(StrEnum):
    """The form of the given files. AUTO: by name and place."""

    AUTO = "auto"
    CRONTAB = "crontab"
    SYSTEM_CRONTAB = "system-crontab"
    SYSTEMD = "systemd"
    QUARTZ = "quartz"
