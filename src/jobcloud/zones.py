"""The time zone database: the same one for the scheduler and for its executors on agents.

The scheduler reads the package tzdata. The executor's zip contains a copy of the package's rules (see
executor/bundle.py). `zoneinfo.ZoneInfo(name)` would prefer the database of the machine, so the scheduler and an
executor could disagree about a fire time. The code of jobs is not affected: for this code, `zoneinfo` reads the
database of the agent, as usual. The module uses the standard library only, and runs on CPython 3.9 or newer.
"""

from __future__ import annotations

import base64
import importlib
import io
import json
import os
import pkgutil
import re
import zoneinfo
from functools import lru_cache
from typing import Any, Dict, FrozenSet, List, Optional

#: The copy in the executor's zip: `version`, `data` (base64 of TZif files) and `zones` (name → index in `data`).
FILE = "zones.json"
_VERSION = re.compile(r"(?:# version )?([0-9]{4}[a-z]{1,2})\s*")


@lru_cache(maxsize=1024)
def zone(name: str) -> zoneinfo.ZoneInfo:
    """A zone of the database. Raises LookupError if the database has no such zone."""
    return zoneinfo.ZoneInfo.from_file(io.BytesIO(_tzif(name)), key=name)


@lru_cache(maxsize=1)
def version() -> str:
    """The version of the database, such as 2026f."""
    copy = _copy()
    found = copy["version"] if copy is not None else importlib.import_module("tzdata").IANA_VERSION
    return str(found)


def names() -> List[str]:
    """The names of all zones, sorted."""
    copy = _copy()
    return sorted(copy["zones"] if copy is not None else _packaged("zones").decode().split())


def copy_for_executors() -> bytes:
    """The content of FILE. The same database gives the same bytes."""
    index: Dict[bytes, int] = {}
    zones = {name: index.setdefault(_tzif(name), len(index)) for name in names()}
    data = [base64.b64encode(one).decode() for one in index]
    return json.dumps({"version": version(), "data": data, "zones": zones}, separators=(",", ":")).encode()


def warning() -> str:
    """A text for operators if this machine's own database is newer than the one in use, otherwise ""."""
    newer = newer_on_this_machine()
    if not newer:
        return ""
    return (
        f"the time zone database is {version()}, and that of this machine is {newer}: upgrade the package tzdata"
        ' (docs/operations.md, "Time zone database")'
    )


def newer_on_this_machine() -> str:
    """The version of this machine's own database if it is newer than the one in use, otherwise ""."""
    for folder in zoneinfo.TZPATH:
        for file in ("tzdata.zi", "+VERSION"):
            try:
                with open(os.path.join(folder, file), encoding="ascii") as opened:
                    found = _VERSION.fullmatch(opened.readline(100))
            except (OSError, ValueError):
                continue
            if found is not None:
                return found[1] if found[1] > version() else ""
    return ""


@lru_cache(maxsize=1)
def _copy() -> Optional[Dict[str, Any]]:
    """The copy in the executor's zip. None if the package tzdata is used."""
    try:
        data = pkgutil.get_data("jobcloud", FILE)
    except OSError:
        return None
    return None if data is None else dict(json.loads(data))


@lru_cache(maxsize=1)
def _known() -> FrozenSet[str]:
    return frozenset(names())


@lru_cache(maxsize=None)
def _tzif(name: str) -> bytes:
    """The rules of a zone. They are cached for ever, because the package may be upgraded under a running scheduler."""
    if name not in _known():
        raise LookupError(f"no zone {name!r} in the time zone database {version()}")
    copy = _copy()
    if copy is not None:
        return base64.b64decode(copy["data"][copy["zones"][name]])
    return _packaged(f"zoneinfo/{name}")


def _packaged(path: str) -> bytes:
    data = pkgutil.get_data("tzdata", path)
    if data is None:
        raise ModuleNotFoundError("the package tzdata is not installed")
    return data
