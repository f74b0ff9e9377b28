"""The files of an import, and the reader for each of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final

from jobcloud.client.documents import bounded, read_bytes
from jobcloud.client.import_cron import crontab, quartz, timers
from jobcloud.client.import_cron.form import Form
from jobcloud.client.import_cron.report import Item, Kind
from jobcloud.errors import ConfigError

MAX_BYTES: Final = 4 << 20
MAX_FILES: Final = 2_000
STANDARD_INPUT: Final = "-"
_UNIT_SUFFIXES: Final = (".timer", ".service", ".conf")


def collect(paths: list[Path], form: Form, standard_input: BinaryIO) -> list[Item]:
    """The items of files and directories. Raises ConfigError if a file cannot be read, or if there are too many.

    Of a directory, all files in it are read, but not those in other directories in it, except drop-ins of units. The
    units of all given files belong together.
    """
    files: list[tuple[Path, bytes]] = []
    for path in paths:
        if str(path) == STANDARD_INPUT:
            files.append((Path(STANDARD_INPUT), bounded(standard_input.read(MAX_BYTES + 1), STANDARD_INPUT, MAX_BYTES)))
            continue
        for one in _files(path):
            if len(files) >= MAX_FILES:
                raise ConfigError(f"there are more than {MAX_FILES:,} files", field="FILE", fix="give fewer at once")
            files.append((one, read_bytes(one, MAX_BYTES)))
    units = {name: data for path, data in files if (name := _unit_name(path))}
    started = {timers.service_of(name, units) for name in units if name.endswith(".timer")}
    return [item for path, data in files for item in _items(path, data, form, units, started)]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = [one for one in sorted(path.iterdir()) if one.is_file()]
    for folder in sorted(path.glob("*.d")):
        if _is_drop_in_folder(folder):
            found += sorted(one for one in folder.glob("*.conf") if one.is_file())
    return found


def _is_drop_in_folder(path: Path) -> bool:
    return path.name.endswith((".timer.d", ".service.d"))


def _unit_name(path: Path) -> str:
    """The name of a unit file, with its folder if it is a drop-in; "" for other files."""
    if path.suffix not in _UNIT_SUFFIXES:
        return ""
    return f"{path.parent.name}/{path.name}" if path.suffix == ".conf" else path.name


def _form(path: Path) -> Form:
    if path.suffix in _UNIT_SUFFIXES:
        return Form.SYSTEMD
    if path.suffix == ".xml":
        return Form.QUARTZ
    place = path.absolute()
    system = place.parent.name == "cron.d" or place == Path("/etc/crontab")
    return Form.SYSTEM_CRONTAB if system else Form.CRONTAB


def _items(path: Path, data: bytes, form: Form, units: Mapping[str, bytes], started: Collection[str]) -> Iterator[Item]:
    source, chosen = str(path), _form(path) if form is Form.AUTO else form
    if chosen is Form.SYSTEMD:
        if path.suffix == ".timer":
            yield from timers.read(path.name, source, units)
        elif path.suffix == ".service" and path.name not in started:
            yield Item(Kind.FILE, source, 0, path.name).skip("no given timer starts it")
        elif path.suffix not in _UNIT_SUFFIXES:
            yield Item(Kind.FILE, source, 0, path.name).skip("it is no timer")
    elif chosen is Form.QUARTZ:
        yield from quartz.read(data, source)
    elif path.parent.name == "cron.d" and "." in path.name:
        yield Item(Kind.FILE, source, 0, path.name).skip("cron ignores files of cron.d with a dot in their names")
    else:
        yield from crontab.read(data, source, system=chosen is Form.SYSTEM_CRONTAB)
