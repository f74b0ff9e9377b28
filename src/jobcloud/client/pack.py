"""Pack an app's directory, and read its manifest. The same content always becomes the same package.

The manifest `jobcloud.toml` is in the app's directory. It uses the field names of the API, and `name` for `appName`:

    [app]
    name = "reports"
    cpuCount = 0.5

    [[jobs]]
    jobName = "nightly"
    ...

The package does not contain the manifest. So a new cron of a job does not make a new version of the app.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobcloud.config import DEFAULT_TEAM
from jobcloud.errors import ConfigError

MANIFEST = "jobcloud.toml"
SKIPPED_FOLDERS = frozenset({".git", ".hg", ".svn", "__pycache__", ".venv", "venv", ".mypy_cache", ".pytest_cache"})
SKIPPED_SUFFIXES = (".pyc", ".pyo", ".swp")
_MAX_MANIFEST = 1 << 20
# The earliest time that a zip can hold. The real time would change the hash.
_NO_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of a manifest: the fields of the app, and the fields of each job, by their JSON names."""

    app: dict[str, Any] = field(default_factory=dict)
    jobs: tuple[dict[str, Any], ...] = ()


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
    """The manifest of an app's directory or archive. Empty if there is none. Raises ConfigError if it is invalid."""
    text = _manifest_text(app)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"is not valid TOML: {error}", field=MANIFEST) from error
    unknown = sorted(set(document) - {"app", "jobs"})
    if unknown:
        raise ConfigError(f"{unknown[0]!r} is not a known section", field=MANIFEST, fix="use [app] and [[jobs]]")
    table, jobs = document.get("app", {}), document.get("jobs", [])
    if not isinstance(table, dict) or not isinstance(jobs, list) or not all(isinstance(job, dict) for job in jobs):
        raise ConfigError("has the wrong layout", field=MANIFEST, fix="write [app] once, and [[jobs]] for each job")
    fields = dict(table)
    if "name" in fields:
        fields.setdefault("appName", fields.pop("name"))
    return Manifest(fields, tuple(jobs))


def check_team_of(job: Mapping[str, Any], app: Mapping[str, Any]) -> None:
    """Raises ConfigError if a job of a manifest names another team than the team of its app."""
    team = app.get("team", DEFAULT_TEAM)
    if job.get("team", team) != team:
        problem = f"is {job['team']!r:.80} in job {job.get('jobName')!r:.120}, but the app belongs to {team!r:.80}"
        raise ConfigError(problem, field="team", fix="name the team once, under [app]")


def _files(root: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    for path in list(folder.iterdir()):
        name = path.relative_to(root).as_posix()
        if path.name in SKIPPED_FOLDERS or path.name.endswith(SKIPPED_SUFFIXES) or name == MANIFEST:
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


def _manifest_text(app: Path) -> str:
    try:
        if app.is_dir():
            path = app / MANIFEST
            return path.read_text(encoding="utf-8-sig") if path.exists() else ""
        return _from_archive(app).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", field=MANIFEST) from error


def _from_archive(archive: Path) -> bytes:
    """The manifest at the top of an archive, or b"" if there is none.

    The result is b"" for a damaged archive, too: the server refuses such an archive.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened, opened.open(MANIFEST) as file:
                return file.read(_MAX_MANIFEST)
        with tarfile.open(archive) as tar:
            member = tar.extractfile(MANIFEST)
            return member.read(_MAX_MANIFEST) if member else b""
    except (KeyError, zipfile.BadZipFile, tarfile.TarError, EOFError):
        return b""
