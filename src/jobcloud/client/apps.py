"""Apps and jobs that are registered together, with pools and calendars: manifests, packing, uploading, one request.

`jobcloud apply`, `app add` and `app update` do the same: a dry run of the server checks every app and job before a
package is uploaded. Then one request registers all of them, or none.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jobcloud.client import documents, workflow_python
from jobcloud.client.documents import Document, Place
from jobcloud.client.http import ApiError, Client, Json, NotReachable
from jobcloud.client.ical_files import read_text
from jobcloud.client.pack import (
    LISTS,
    MANIFESTS,
    app_fields,
    check_manifest,
    check_team_of,
    fields_at,
    pack,
    read_manifest,
    sha256_of,
)
from jobcloud.config import DEFAULT_TEAM, SEPARATOR, check_team, key_of, split_key
from jobcloud.errors import ConfigError
from jobcloud.executor.package import WHEELS, PackageError, inspect
from jobcloud.executor.wheels import distribution

_ARCHIVE = re.compile(r"\.(zip|tar|tgz|tar\.\w+)$")
_WHEEL = ".whl"
_PLACE = re.compile(r"(pools|calendars|apps|jobs|workflows)\.(\d+)(?:\.(.*))?")
_LAYOUT = "write one app as `app`, or several as `apps`; and `jobs`, `pools`, `calendars` and `workflows`"

Sent = Callable[[str, int, int], None]
"""Is told of an upload: the file, the bytes sent so far, all bytes."""


def _silent(*_: object) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Entry:
    """An app or a job to register, or a pool, a calendar or a workflow to set, and its place in a file.

    `package`: the directory or archive with the app's code.
    """

    kind: Literal["pool", "calendar", "app", "job", "workflow"]
    config: Json
    document: Document | None = None
    place: Place = ()
    package: Path | None = None

    @property
    def key(self) -> str:
        return key_of(str(self.config.get("team") or DEFAULT_TEAM), str(self.config.get(f"{self.kind}Name", "")))

    def where(self, *inner: str | int) -> str:
        """The file and line, and the name of the app or job."""
        file = f"{self.document.where(*self.place, *inner)}: " if self.document else ""
        return f"{file}{self.kind} {self.key[:160] or '(without a name)'}"


@dataclass(frozen=True, slots=True)
class Added:
    """The app and its jobs as the server shows them now. `items` is the answer to the request, see `Client.apply`."""

    app: Json
    jobs: tuple[Json, ...]
    items: list[Json] = field(default_factory=list)


def add_app(
    client: Client,
    path: Path,
    *,
    name: str = "",
    team: str = "",
    jobs: bool = True,
    job_fields: Mapping[str, Any] | None = None,
    known: bool = False,
    sent: Sent = _silent,
) -> Added:
    """Upload the app at `path` (a directory or an archive), and register or update it and its jobs, all or none.

    The configuration comes from the manifest; `job_fields` override it in every job. `name` is `[TEAM:]NAME`. `team` is
    the team if neither `name` nor the manifest has one. A second call changes only what differs from the registered
    state. `known`: the app must be registered already. A manifest is required only for a directory, and only if `jobs`
    is true. Raises ConfigError for a bad or missing manifest and for a bad package, ApiError if the server refuses.
    """
    entries = of_app(path, name=name, team=team, jobs=jobs, job_fields=job_fields or {})
    (app,) = (entry for entry in entries if entry.kind == "app")
    if known:
        client.app(app.key)  # raises if it is not registered
    done = apply(client, entries, sent=sent)
    registered = tuple(client.job(entry.key) for entry in entries if entry.kind == "job")
    return Added(client.app(app.key), registered, done["items"])


def of_app(
    path: Path, *, name: str = "", team: str = "", jobs: bool = True, job_fields: Mapping[str, Any] | None = None
) -> list[Entry]:
    """The app of a directory or an archive, then its jobs, and the other lists of its manifest. See `add_app`.

    Without `jobs`, only the app.
    """
    manifest = read_manifest(path)
    if jobs and path.is_dir():
        check_manifest(manifest, path)
    config = _named(manifest.app, name or str(manifest.app.get("appName") or _name_of(path.resolve())), team)
    package = None if "appURL" in config else path
    entries = [Entry("app", config, manifest.document, ("app",), package)]
    for index, job in enumerate(manifest.jobs if jobs else ()):
        entries.append(_job_of(manifest.app, config, job, manifest.document, index, job_fields or {}))
    if jobs and manifest.document is not None:
        lists = {"pools": manifest.pools, "calendars": manifest.calendars, "workflows": manifest.workflows}
        entries += _others_of(manifest.document, lists, str(config.get("team", "")))
    return entries


def _others_of(document: Document, lists: Mapping[str, Sequence[Json]], team: str) -> Iterator[Entry]:
    """The pools, calendars and workflows of a file. Raises ConfigError."""
    for index, table in enumerate(lists["pools"]):
        yield Entry("pool", _with_team(dict(table), team), document, ("pools", index))
    for index, table in enumerate(lists["calendars"]):
        entry = Entry("calendar", _with_team(dict(table), team), document, ("calendars", index))
        file = entry.config.pop("icalFile", None)
        if file is not None:
            entry.config["ical"] = _ical_text(entry, document, file)
        yield entry
    for index, table in enumerate(lists["workflows"]):
        yield workflow_entry(document, ("workflows", index), _with_team(dict(table), team))


def workflow_entry(document: Document, place: Place, config: Json) -> Entry:
    """A workflow at a place of a document. Raises ConfigError for a team, or conditions of a node, of another type."""
    entry = Entry("workflow", config, document, place)
    team, nodes = config.get("team", ""), config.get("nodes")
    if not isinstance(team, str):
        raise ConfigError(f"{team!r:.60} is not a text", field=f"{entry.where('team')}: team", fix="write it in quotes")
    for number, node in enumerate(nodes if isinstance(nodes, list) else ()):
        after = node.get("after") if isinstance(node, dict) else None
        if isinstance(after, str | dict):
            field = f"{entry.where('nodes', number, 'after')}: nodes.{number}.after"
            fix = f'write ["{after[:80]}"]' if isinstance(after, str) else "write the condition in brackets: [ ]"
            raise ConfigError("is not a list", field=field, fix=fix)
    return entry


def _ical_text(entry: Entry, document: Document, file: object) -> str:
    """The text of the iCalendar file of a calendar, whose name counts from the folder of the document."""
    field = f"{entry.where('icalFile')}: icalFile"
    if not isinstance(file, str) or "ical" in entry.config:
        raise ConfigError("is no name of a file, or `ical` is given too", field=field, fix="give one of them")
    return read_text(Path(document.name).parent / file, field)


def _job_of(
    given: Json, app: Json, job: Json, document: Document | None, index: int, job_fields: Mapping[str, Any]
) -> Entry:
    check_team_of(job, app)
    if job.get("appName", app["appName"]) not in (app["appName"], given.get("appName", app["appName"])):
        problem = f"names the app {job['appName']!r:.80}, but stands under the app {app['appName']!r:.80}"
        where = Entry("job", job, document, ("jobs", index)).where("appName")
        raise ConfigError(problem, field=f"{where}: appName", fix="leave it out, or use `apps`")
    of_team = {"team": app["team"]} if "team" in app else {}
    return Entry("job", {**job, **job_fields, "appName": app["appName"], **of_team}, document, ("jobs", index))


def collect(path: Path, team: str = "") -> list[Entry]:
    """The apps and jobs of a file, of an app's directory, or of a directory of such files and directories.

    A directory with a manifest is one app, with its code. Any other directory may hold such directories, and files in
    YAML, TOML and JSON. A file has `app` and its `jobs`, or `apps` and `jobs` that name their apps. A Python file with
    workflows runs only if `path` names it. Raises ConfigError.
    """
    if not path.is_dir():
        if path.name in MANIFESTS:
            return of_app(path.parent, team=team)
        python = path.suffix == workflow_python.SUFFIX
        return _of_document(workflow_python.read(path) if python else documents.read(path), team)
    if _has_manifest(path):
        return of_app(path, team=team)
    entries: list[Entry] = []
    for inner in sorted(path.iterdir()):
        if inner.is_dir() and _has_manifest(inner):
            entries += of_app(inner, team=team)
        elif inner.is_file() and inner.suffix in documents.SUFFIXES and not inner.name.startswith("."):
            entries += _of_document(documents.read(inner), team)
    if not entries:
        fix = f"give a file, the directory of an app (with {' or '.join(MANIFESTS)}), or a directory that holds such"
        raise ConfigError(f"{path} holds no apps and no jobs", field="--file", fix=fix)
    return entries


def _has_manifest(path: Path) -> bool:
    return any((path / name).is_file() for name in MANIFESTS)


def _of_document(document: Document, team: str) -> list[Entry]:
    value = document.value
    names = set(value) if isinstance(value, dict) else set()
    if not names or names - {"app", "apps", *LISTS} or {"app", "apps"} <= names:
        raise ConfigError("has the wrong layout", field=document.name, fix=_LAYOUT)
    given, jobs = value.get("app"), _tables(document, "jobs")
    if "app" in value:
        if not isinstance(given, dict) or not given.get("appName", given.get("name")):
            raise ConfigError("has no appName", field=f"{document.where('app')}: app", fix=_LAYOUT)
        fields = app_fields(document, ("app",), given)
        config = _named(fields, str(fields["appName"]), team)
        of_jobs = [
            _job_of(fields, config, fields_at(document, ("jobs", index), job), document, index, {})
            for index, job in enumerate(jobs)
        ]
        entries = [Entry("app", config, document, ("app",)), *of_jobs]
    else:
        entries = []
        for index, table in enumerate(_tables(document, "apps")):
            place: Place = ("apps", index)
            fields = app_fields(document, place, table)
            entries.append(Entry("app", _named(fields, str(fields.get("appName", "")), team), document, place))
        for index, table in enumerate(jobs):
            place = ("jobs", index)
            config = _with_team(fields_at(document, place, table), team)
            entries.append(Entry("job", config, document, place))
    of_app = str(config.get("team", "")) if "app" in value else team
    others = {name: _tables(document, name) for name in ("pools", "calendars", "workflows")}
    entries += _others_of(document, others, of_app)
    for entry in entries:
        if entry.kind == "app" and "appURL" not in entry.config:
            fix = f"name the package, or put the app into {MANIFESTS[0]} in the directory with its code"
            raise ConfigError("is missing", field=f"{entry.where()}: appURL", fix=fix)
    return entries


def _tables(document: Document, name: str) -> list[Json]:
    tables = document.value.get(name, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"{name} is no list of objects", field=document.where(name), fix=_LAYOUT)
    return tables


def apply(
    client: Client, entries: Sequence[Entry], *, dry_run: bool = False, prune: bool = False, sent: Sent = _silent
) -> Json:
    """Check all apps and jobs, upload the packages that the server lacks, and register all apps and jobs, or none.

    A dry run uploads nothing. Returns the answer of the server: `{dryRun, items}`, see docs/api.md. Raises ConfigError
    for a bad package, ApiError if the server refuses. Both name the file, the line if it is known, and the app or job.
    """
    check_no_duplicates(entries)
    with tempfile.TemporaryDirectory() as folder:
        packed = list(_packed(entries, Path(folder)))
        given = [entry for entry, _, _ in packed]
        done = send(client, given, dryRun=True, prune=prune)
        if dry_run:
            return done
        for _, archive, sha256 in packed:
            if archive is not None and not client.has_package(sha256):
                _upload(client, archive, sha256, sent)
        return send(client, given, dryRun=False, prune=prune)


def check_no_duplicates(entries: Sequence[Entry]) -> None:
    """Raises ConfigError if an app or a job is given twice."""
    found: dict[tuple[str, str], Entry] = {}
    for entry in entries:
        if (before := found.get((entry.kind, entry.key))) is not None and entry.key:
            place = before.document.where(*before.place) if before.document else "before"
            raise ConfigError(f"is given twice, also in {place}", field=entry.where(), fix="remove one")
        found[entry.kind, entry.key] = entry


def _packed(entries: Sequence[Entry], folder: Path) -> Iterator[tuple[Entry, Path | None, str]]:
    """Each entry with its archive, if it has one, and its hash. Apps that were packed get the archive's `appURL`."""
    for number, entry in enumerate(entries):
        if entry.package is None:
            yield entry, None, ""
            continue
        archive = _archive(entry.package, folder / f"{number}.zip")
        sha256 = sha256_of(archive)
        config = {**entry.config, "appURL": f"package:sha256:{sha256}"}
        yield Entry(entry.kind, config, entry.document, entry.place), archive, sha256


def send(client: Client, entries: Sequence[Entry], **options: bool) -> Json:
    """One request for all entries, see `Client.apply`. Errors name the place of the app or job."""
    kinds = ("pool", "calendar", "app", "job", "workflow")
    groups = {f"{kind}s": [entry for entry in entries if entry.kind == kind] for kind in kinds}
    pools, calendars, apps, jobs, workflows = ([entry.config for entry in group] for group in groups.values())
    try:
        return client.apply(apps, jobs, pools=pools, calendars=calendars, workflows=workflows, **options)
    except NotReachable:
        raise
    except ApiError as error:
        raise ApiError(error.status, _located(error, groups)) from error


def _located(error: ApiError, groups: Mapping[str, Sequence[Entry]]) -> Json:
    """The problem document with the file, the line and the name of the app or job before each field."""

    def place(field: str) -> tuple[Entry, str] | None:
        found = _PLACE.fullmatch(field)
        if found is None or int(found[2]) >= len(groups[found[1]]):
            return None
        return groups[found[1]][int(found[2])], found[3] or ""

    return located(error, place)


def located(error: ApiError, place: Callable[[str], tuple[Entry, str] | None]) -> Json:
    """The problem document with the place of the entry before each field.

    `place` returns the entry of a field, and the name of the field in this entry.
    """
    errors = []
    for issue in error.errors:
        found = place(str(issue.get("field", "")))
        if found is None:
            errors.append(issue)
            continue
        entry, name = found
        where = entry.where(*documents.place_of(name))
        errors.append({**issue, "field": f"{where}: {name}" if name else where})
    problem = {**error.problem, "errors": errors}
    if errors:
        first = errors[0]
        fix = f" ({first['fix']})" if first.get("fix") else ""
        more = f"; and {len(errors) - 1} more" if len(errors) > 1 else ""
        problem["detail"] = f"{first['field']}: {first.get('problem')}{fix}{more}"
    return problem


def _named(fields: Mapping[str, Any], name: str, team: str) -> Json:
    """The configuration of an app, with the name and the team in `name`. `team` counts if no other team is given."""
    config = {**fields, "appName": name}
    if SEPARATOR in name:
        config["team"], config["appName"] = split_key(name)
    elif team not in ("", DEFAULT_TEAM):
        config.setdefault("team", team)
    check_team("team", str(config.get("team", DEFAULT_TEAM)))
    return config


def _with_team(config: Json, team: str) -> Json:
    return config if team in ("", DEFAULT_TEAM) else {"team": team, **config}


def _name_of(path: Path) -> str:
    return distribution(path.name) or _ARCHIVE.sub("", path.name)


def upload(client: Client, path: Path, sent: Sent = _silent) -> str:
    """Upload the app's package unless the server has it; returns its SHA-256. Raises ConfigError for a bad wheel."""
    with tempfile.TemporaryDirectory() as folder:
        archive = _archive(path, Path(folder) / "package.zip")
        sha256 = sha256_of(archive)
        if not client.has_package(sha256):
            _upload(client, archive, sha256, sent)
        return sha256


def _upload(client: Client, archive: Path, sha256: str, sent: Sent) -> None:
    client.upload(archive, sha256, lambda done, size: sent(archive.name, done, size))


def _archive(path: Path, target: Path) -> Path:
    """The archive itself, or the directory packed as `target`. Raises ConfigError for a bad wheel."""
    for wheel in sorted((path / WHEELS).glob("*" + _WHEEL)) if path.is_dir() else [path] * (path.suffix == _WHEEL):
        try:
            inspect(wheel, wheel=True)
        except PackageError as error:
            raise ConfigError(f"{wheel.name}: {error}", field="package", fix="build the wheel again") from error
    if not path.is_dir():
        return path
    pack(path, target)
    return target
