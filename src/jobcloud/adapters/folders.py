"""Folders that other users of the machine must not read or write."""

from __future__ import annotations

import stat
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)


def make_private(folder: Path, name: str) -> None:
    """Create a folder, or take the rights of other users from an existing one. `name` is for the log.

    The folder may belong to another user. For example, a volume of Kubernetes belongs to root, and this process writes
    to it as a member of its group. Raises OSError if the folder cannot be used, or if other users can write to it and
    this process cannot change that.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    mode = stat.S_IMODE(folder.stat().st_mode)
    if not mode & 0o007:
        return
    try:
        folder.chmod(mode & ~0o007)
    except PermissionError:
        if mode & 0o002:
            raise
        log.warning(f"all users can read the {name}, and only its owner can change this", folder=str(folder))
    else:
        log.warning(f"the {name} was open to all users; their rights were removed", folder=str(folder))
