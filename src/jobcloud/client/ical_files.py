"""Read the iCalendar files that commands and manifests name."""

from __future__ import annotations

from pathlib import Path

from jobcloud.errors import ConfigError

_MAX_BYTES = 512 << 10


def read_text(path: Path, field: str) -> str:
    """The text of a file. Raises ConfigError, which names `field`, if it cannot be read or is too large."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", field=field, fix="name a file in UTF-8") from error
    if len(content) > _MAX_BYTES:
        raise ConfigError(f"{path} is too large", field=field, fix=f"at most {_MAX_BYTES >> 10} KiB")
    return text
