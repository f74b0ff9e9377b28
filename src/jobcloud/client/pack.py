"""Pack an app's directory, and read its manifest. The same content always becomes the same package.

The manifest is in the app's directory and uses the field names of the API. It is `jobcloud.toml`:

    [app]
    appName = "reports"
    cpuCount = 0.5

    [[jobs]]
    jobName = "nightly"
    timeoutSeconds = "1h"
    ...

or the same in `jobcloud.yaml`, `jobcloud.yml` or `jobcloud.json`. A duration may be a text, such as "1h".

The package does not contain the manifest: a new cron of a job does not make a new version of the app.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from jobcloud.client import documents
from jobcloud.client.documents import Document
from jobcloud.config import DEFAULT_TEAM
from jobcloud.durations import in_numbers
from jobcloud.errors import ConfigError

MANIFEST = "jobcloud.toml"
MANIFESTS = (MANIFEST, "jobcloud.yaml", "jobcloud.yml", "jobcloud.json")
SKIPPED_FOLDERS = frozenset({".git", ".hg", ".svn", "__pycache__", ".venv", "venv", ".mypy_cache", ".pytest_cache"})
SKIPPED_SUFFIXES = (".pyc", ".pyo", ".swp")
_LAYOUT = "write [app] once, and [[jobs]] for each job, [[pools]], [[calendars]] and [[workflows]]"
#: the sections of a manifest that are lists
LISTS = ("pools", "calendars", "jobs", "workflows")
# The earliest time that a zip can hold. The real time would change the hash.
_NO_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of a manifest: the fields of the app, and those of each entry of its lists, by their JSON names.

    `document` is None if there is no manifest.
    """

    app: dict[str, Any] = field(default_factory=dict)
    jobs: tuple[dict[str, Any], ...] = ()
    pools: tuple[dict[str, Any], ...] = ()
    calendars: tuple[dict[str, Any], ...] = ()
    workflows: tuple[dict[str, Any], ...] = ()
    document: Document | None = None


def pack(directory: Path, out: Path) -> str:
    """Write the zip of a directory. Returns the SHA-256 of the zip. Raises ConfigError if a file cannot be packed."""
    files = sorted(_files(directory, directory))
    if not files:
        raise ConfigError(f"{directory} holds no files", field="package", fix="give the directory with the code")
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, path in files:
            _check_name(name)
            entry = zipfile.ZipInfo(name, _NO_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o100755 if os.access(path, os.X_OK) else 0o100644) << 16
            entry.file_size = path.stat().st_size
            with path.open("rb") as source, archive.open(entry, "w") as target:
                while chunk := source.read(1 << 16):
                    target.write(chunk)
    return sha256_of(out)


def _check_name(name: str) -> None:
    """Raises ConfigError if the name of a file is not UTF-8. Python then represents some of its bytes by surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"the name {name!r} is not UTF-8", field="package", fix="rename the file") from None


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(app: Path) -> Manifest:
    """The manifest of an app's directory or archive; empty if there is none. Raises ConfigError if it is invalid."""
    document = _manifest(app)
    if document is None:
        return Manifest()
    if not isinstance(document.value, dict):
        raise ConfigError("has the wrong layout", field=document.name, fix=_LAYOUT)
    unknown = sorted(set(document.value) - {"app", *LISTS})
    if unknown:
        problem = f"{unknown[0]!r:.80} is not a known section"
        raise ConfigError(
            problem,
            field=document.where(unknown[0]),
            fix="use [app], [[jobs]], [[pools]], [[calendars]] and [[workflows]]",
        )
    table = document.value.get("app", {})
    lists = {name: document.value.get(name, []) for name in LISTS}
    if not isinstance(table, dict) or not all(
        isinstance(given, list) and all(isinstance(one, dict) for one in given) for given in lists.values()
    ):
        raise ConfigError("has the wrong layout", field=document.name, fix=_LAYOUT)
    return Manifest(
        app_fields(document, ("app",), table),
        tuple(fields_at(document, ("jobs", index), job) for index, job in enumerate(lists["jobs"])),
        tuple(lists["pools"]),
        tuple(lists["calendars"]),
        tuple(lists["workflows"]),
        document,
    )


def app_fields(document: Document, place: documents.Place, table: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an app in a document, where `name` stands for `appName`. Raises ConfigError."""
    fields = dict(table)
    if "name" in fields:
        fields.setdefault("appName", fields.pop("name"))
    return fields_at(document, place, fields)


def fields_at(document: Document, place: documents.Place, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an app or a job with durations as numbers. Raises ConfigError with the place of a wrong one."""
    try:
        return in_numbers(fields)
    except ConfigError as error:
        name = str(fields.get("jobName") or fields.get("appName") or "")[:120]
        error.field = f"{document.where(*place, error.field)}: {f'{name}: ' if name else ''}{error.field}"
        raise


def check_manifest(manifest: Manifest, app: Path) -> Document:
    """The document of a manifest. Raises ConfigError if there is none; the error names a file with a similar name."""
    if manifest.document is not None:
        return manifest.document
    names = [path.name for path in app.iterdir()] if app.is_dir() else []
    near = [name for known in MANIFESTS for name in difflib.get_close_matches(known, names, n=1, cutoff=0.8)]
    fix = f"rename {near[0]} to {MANIFEST}" if near else f"write {MANIFEST}, or give --no-jobs"
    if near and PurePath(near[0]).suffix in documents.SUFFIXES:
        fix = f"rename {near[0]} to jobcloud{PurePath(near[0]).suffix}"
    raise ConfigError(f"{app} has no manifest", field=MANIFEST, fix=fix)


def check_team_of(job: Mapping[str, Any], app: Mapping[str, Any]) -> None:
    """Raises ConfigError if a job of a manifest names another team than the team of its app."""
    team = app.get("team", DEFAULT_TEAM)
    if job.get("team", team) != team:
        problem = f"is {job['team']!r:.80} in job {job.get('jobName')!r:.120}, but the app belongs to {team!r:.80}"
        raise ConfigError(problem, field="team", fix="name the team once, under [app]")


def _files(root: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    for path in list(folder.iterdir()):
        name = path.relative_to(root).as_posix()
        if path.name in SKIPPED_FOLDERS or path.name.endswith(SKIPPED_SUFFIXES) or name in MANIFESTS:
            continue
        if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
            raise ConfigError(
                f"{name} links to a file outside of the app", field="package", fix="copy that file into the app"
            )
        if path.is_file():
            yield name, path
        elif path.is_dir() and not path.is_symlink():
            yield from _files(root, path)
        else:
            raise ConfigError(
                f"{name} is neither a file nor a directory", field="package", fix="remove it from the app"
            )


def _manifest(app: Path) -> Document | None:
    if app.is_dir():
        found = [name for name in MANIFESTS if (app / name).exists()]
        if len(found) > 1:
            raise ConfigError(f"{app} has {' and '.join(found)}", field=found[1], fix="keep one manifest")
        return documents.read(app / found[0]) if found else None
    try:
        contents = {name: data for name in MANIFESTS if (data := _from_archive(app, name)) is not None}
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {error}", field=str(app), fix="check the path and its permissions"
        ) from error
    if len(contents) > 1:
        raise ConfigError(f"{app} has {' and '.join(contents)}", field=str(app), fix="keep one manifest")
    return next((documents.parse(data, f"{app}/{name}") for name, data in contents.items()), None)


def _from_archive(archive: Path, name: str) -> bytes | None:
    """A file at the top of an archive; None if there is none. A damaged archive is left to the server's check."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened, opened.open(name) as file:
                return file.read(documents.MAX_BYTES + 1)
        with tarfile.open(archive) as tar:
            member = tar.extractfile(name)
            return member.read(documents.MAX_BYTES + 1) if member else None
    except (KeyError, zipfile.BadZipFile, tarfile.TarError, EOFError):
        return None
