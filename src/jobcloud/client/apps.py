"""Pack, upload and register an app with its jobs. `jobcloud app add` uses this module."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobcloud.client.http import Client, Json
from jobcloud.client.pack import check_team_of, pack, read_manifest, sha256_of
from jobcloud.config import DEFAULT_TEAM, SEPARATOR, check_team, key_of, split_key
from jobcloud.errors import ConfigError
from jobcloud.executor.package import WHEELS, PackageError, inspect
from jobcloud.executor.wheels import distribution

_ARCHIVE = re.compile(r"\.(zip|tar|tgz|tar\.\w+)$")
_WHEEL = ".whl"


@dataclass(frozen=True, slots=True)
class Added:
    """The app and its jobs as the server now shows them. `new` names those that were not registered before.

    Examples of such names are "app a" and "job b".
    """

    app: Json
    jobs: tuple[Json, ...]
    new: frozenset[str]


def add_app(
    client: Client,
    path: Path,
    *,
    name: str = "",
    team: str = "",
    jobs: bool = True,
    job_fields: Mapping[str, Any] | None = None,
    known: bool = False,
) -> Added:
    """Upload the app at `path` (a directory or an archive), and register or update it and its jobs.

    The configuration comes from the manifest. `job_fields` override the fields of every job. `name` is `[TEAM:]NAME`.
    `team` is the team if neither `name` nor the manifest names one. `known`: the app must be registered already. A
    second call with the same content changes nothing. Raises ConfigError if the manifest or the package is invalid,
    ApiError if the server refuses a request.
    """
    manifest = read_manifest(path)
    config = _named(manifest.app, name or str(manifest.app.get("appName") or _name_of(path.resolve())), team)
    of_team = {"team": config["team"]} if "team" in config else {}
    for job in manifest.jobs:
        check_team_of(job, config)
    if known:
        client.app(key_of(str(config.get("team", DEFAULT_TEAM)), config["appName"]))  # raises if it is not registered
    if "appURL" not in config:
        config["appURL"] = f"package:sha256:{upload(client, path)}"
    app, app_is_new = client.put_app(config)
    new = {"app " + app["appName"]} if app_is_new else set()
    done = []
    for job in manifest.jobs if jobs else ():
        registered, job_is_new = client.put_job({**job, **(job_fields or {}), "appName": config["appName"], **of_team})
        done.append(registered)
        new |= {"job " + registered["jobName"]} if job_is_new else set()
    return Added(app, tuple(done), frozenset(new))


def _named(fields: Mapping[str, Any], name: str, team: str) -> Json:
    """The configuration of an app, with the name and the team in `name`. `team` counts if no other team is given."""
    config = {**fields, "appName": name}
    if SEPARATOR in name:
        config["team"], config["appName"] = split_key(name)
    elif team not in ("", DEFAULT_TEAM):
        config.setdefault("team", team)
    check_team("team", str(config.get("team", DEFAULT_TEAM)))
    return config


def _name_of(path: Path) -> str:
    return distribution(path.name) or _ARCHIVE.sub("", path.name)


def upload(client: Client, path: Path) -> str:
    """Upload the app's package if the server lacks it. Returns its SHA-256. Raises ConfigError for a bad wheel."""
    for wheel in sorted((path / WHEELS).glob("*" + _WHEEL)) if path.is_dir() else [path] * (path.suffix == _WHEEL):
        try:
            inspect(wheel, wheel=True)
        except PackageError as error:
            raise ConfigError(f"{wheel.name}: {error}", field="package", fix="build the wheel again") from error
    with tempfile.TemporaryDirectory() as folder:
        archive = path
        if path.is_dir():
            archive = Path(folder) / "package.zip"
            pack(path, archive)
        sha256 = sha256_of(archive)
        if not client.has_package(sha256):
            client.upload(archive, sha256)
        return sha256
