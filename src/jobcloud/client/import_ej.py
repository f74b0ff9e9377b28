"""Import the apps and jobs of an Elastic-Job-Cloud 2.1.5, and its marks of disabled apps and jobs.

The import registers them through the API. The report has one item for each node: the action, the changes to the
configuration, and the reason of a refusal. Names, fields and defaults of Elastic-Job-Cloud are those of its release
2.1.5. An import never overwrites an app or a job that is registered here already, so a second import changes nothing.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import httpx

from jobcloud.client.apps import upload
from jobcloud.client.http import ApiError, Client, Json, NotReachable
from jobcloud.client.pack import read_manifest
from jobcloud.elastic_job.conversion import java_code, short, translate_app, translate_job
from jobcloud.errors import ConfigError, JobcloudError

# A configuration has a few hundred bytes. A node of more bytes than this is not a configuration.
MAX_NODE_BYTES = 256 << 10
MAX_PACKAGE_BYTES = 2 << 30
_REFUSALS = frozenset({400, 404, 409, 413, 422})
_FETCH = httpx.Timeout(30.0)
_UNKNOWN_PACKAGE = "package:sha256:" + "0" * 64

_OWN_PACKAGE = ("appURL", "bootstrapScript")


class Action(StrEnum):
    """The action of the import on a node. In a dry run, the action that the import would take."""

    REGISTERED = "registered"
    UNCHANGED = "unchanged"  # registered here already with the same configuration
    KEPT = "kept"  # registered here already with another configuration, which is kept
    REFUSED = "refused"


@dataclass(slots=True)
class Item:
    """A node in the report.

    `changes`: the differences from Elastic-Job-Cloud. `reason`: the reason why the node is KEPT or REFUSED.
    """

    kind: str
    name: str
    path: str
    action: Action = Action.REGISTERED
    disabled: bool = False
    changes: list[str] = field(default_factory=list)
    reason: str = ""

    def refuse(self, reason: str) -> None:
        self.action, self.reason = Action.REFUSED, reason


@dataclass(slots=True)
class Report:
    namespace: str
    dry_run: bool
    notes: list[str] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)

    @property
    def refused(self) -> int:
        return sum(item.action is Action.REFUSED for item in self.items)

    def document(self) -> Json:
        counts = {action.value: sum(item.action is action for item in self.items) for action in Action}
        return {
            "namespace": self.namespace,
            "dryRun": self.dry_run,
            "summary": counts,
            "notes": self.notes,
            "items": [asdict(item) for item in self.items],
        }


class Node(Protocol):
    """A node that holds a configuration. `problem`: the reason why its data cannot be read, or ""."""

    @property
    def path(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def data(self) -> bytes: ...
    @property
    def problem(self) -> str: ...


class Tree(Protocol):
    """The content of the namespace. `left`: the number of nodes that are not imported, by folder."""

    @property
    def apps(self) -> Sequence[Node]: ...
    @property
    def jobs(self) -> Sequence[Node]: ...
    @property
    def disabled_apps(self) -> Collection[str]: ...
    @property
    def disabled_jobs(self) -> Collection[str]: ...
    @property
    def left(self) -> Mapping[str, int]: ...


Check = Callable[[str, bytes], None]
"""Check("app" or "job", JSON of a configuration) raises ConfigError if the server would refuse it."""


@dataclass(frozen=True, slots=True)
class Options:
    """`packages`: the directory or archive of an app, by the name of the app.

    `fetch`: for an app without an entry in `packages`, download the package from appURL. `disabled`: register every job
    as disabled. `zone`: the time zone of Elastic-Job-Cloud's scheduler. `app_names` and `job_names`: the names here of
    apps and jobs that get another name, by their names there. All other texts name apps and jobs as they are there.
    """

    zone: str = "UTC"
    packages: Mapping[str, Path] = field(default_factory=dict)
    fetch: bool = False
    disabled: bool = False
    dry_run: bool = False
    app_names: Mapping[str, str] = field(default_factory=dict)
    job_names: Mapping[str, str] = field(default_factory=dict)


def import_tree(client: Client, tree: Tree, namespace: str, options: Options, check: Check) -> Report:
    """Register the apps and jobs of `tree`, or only report them if `options.dry_run`.

    Raises ApiError if the server fails. A refusal is not a failure. The apps and jobs that were registered before the
    failure stay registered. Another import registers the rest. Raises ConfigError, and registers nothing, if a new name
    is for nothing there, or is the name of two.
    """
    _check_names("--rename-app", options.app_names, [node.name for node in tree.apps])
    _check_names("--rename-job", options.job_names, [node.name for node in tree.jobs])
    return _Import(client, tree, namespace, options, check).run()


def _check_names(option: str, names: Mapping[str, str], there: Sequence[str]) -> None:
    """Raises ConfigError if a renamed one does not exist, or if two would have the same name."""
    for old in names.keys() - set(there):
        raise ConfigError(
            f"{short(old)} is not in Elastic-Job-Cloud", field=option, fix="give the name that it has there"
        )
    for name, count in Counter(names.get(name, name) for name in there).items():
        if count > 1:
            raise ConfigError(f"{short(name)} would be the name of two", field=option, fix="choose another name")


class _Import:
    def __init__(self, client: Client, tree: Tree, namespace: str, options: Options, check: Check) -> None:
        self._client, self._tree, self._options, self._check = client, tree, options, check
        self._report = Report(namespace, options.dry_run)
        self._apps: dict[str, Json] = {}  # registered here, or a dry run would register it
        self._jobs: dict[str, Json] = {}
        self._switched_off: set[str] = set()  # apps that are disabled here

    def run(self) -> Report:
        self._add_notes()
        self._read_registered()
        for node in self._tree.apps:
            self._report.items.append(self._app(node))
        for node in self._tree.jobs:
            self._report.items.append(self._job(node))
        self._report_orphans("app", self._tree.disabled_apps, self._tree.apps)
        self._report_orphans("job", self._tree.disabled_jobs, self._tree.jobs)
        return self._report

    def _add_notes(self) -> None:
        """Note the differences that concern all jobs, and the nodes that are not imported."""
        note = self._report.notes.append
        note(
            f"cron expressions are read in the time zone {self._options.zone} (--zone); Elastic-Job-Cloud uses the "
            "time zone of its JVM"
        )
        note("a time that the clock skips in spring fires after the gap; Quartz leaves it out (see dstGap)")
        note("without misfire, a firing during the previous run is skipped; Elastic-Job-Cloud lets one firing wait")
        for folder, count in self._tree.left.items():
            note(f"{folder}: {count} nodes are not imported; Elastic-Job-Cloud has to finish this work itself")

    def _read_registered(self) -> None:
        """Ask the server for its apps and jobs. A dry run works without a server."""
        try:
            self._apps = {app["appName"]: app for app in self._client.apps()}
            self._jobs = {job["jobName"]: job["config"] for job in self._client.jobs()}
        except NotReachable as error:
            if not self._options.dry_run:
                raise
            self._report.notes.append(f"{error}; this dry run does not know the apps and jobs registered there")
        self._switched_off = {name for name, app in self._apps.items() if not app["enabled"]}

    # ---- apps ------------------------------------------------------------------------------------------------

    def _app(self, node: Node) -> Item:
        item = Item("app", node.name, node.path, disabled=node.name in self._tree.disabled_apps)
        try:
            given = _read(node, "appName")
            config = translate_app(given, item.changes)
            name = _rename(config, "appName", self._options.app_names, item.changes)
            if name in self._apps:
                # The app keeps the package that is registered here, so the fields of the package may differ.
                _compare(config, self._apps[name]["config"], item, without=_OWN_PACKAGE)
                if item.disabled != (name in self._switched_off):
                    item.changes.append(f"stays {'enabled' if item.disabled else 'disabled'} here")
                item.disabled = name in self._switched_off
                return item
            self._package(config, item)
            self._register_app(config, name, disabled=item.disabled)
        except (ConfigError, ApiError) as error:
            _refuse(item, error)
        return item

    def _register_app(self, config: Json, name: str, *, disabled: bool) -> None:
        if self._options.dry_run:
            self._check("app", json.dumps(config).encode())
            self._apps[name] = {"appName": name, "enabled": not disabled, "config": config}
        else:
            # The app has no jobs yet, so no job can fire before the app is disabled.
            self._apps[name] = self._client.create_app(config)
            if disabled:
                self._client.switch_app(name, enabled=False)
        if disabled:
            self._switched_off.add(name)

    def _package(self, config: Json, item: Item) -> None:
        """Set the app's package. Raises ConfigError if no option gives one, ApiError if the server refuses it."""
        script, url = config.pop("bootstrapScript", ""), config.pop("appURL", "")
        path = self._options.packages.get(item.name)
        if path is not None:
            manifest = read_manifest(path)
            if manifest.app.get("bootstrapScript"):
                config["bootstrapScript"] = manifest.app["bootstrapScript"]
            config["appURL"] = self._stored(path)
            item.changes.append(f"appURL: the package is {path}, not {short(url)}")
        elif self._options.fetch:
            config["appURL"] = self._fetched(url)
            item.changes.append(f"appURL: the package was downloaded from {short(url)} and is stored here")
        else:
            raise ConfigError(
                f"the content of {short(url)} is unverified: its hash is unknown",
                field="appURL",
                fix=f"give --package {item.name}=DIR with the app adapted to jobcloud, or --fetch to use the package "
                "unchanged, or register the app first with `jobcloud app add`",
            )
        if script and not config.get("bootstrapScript"):
            item.changes.append(f"bootstrapScript: {short(script)} starts Elastic-Job's own executor and is left out")

    def _stored(self, path: Path) -> str:
        return _UNKNOWN_PACKAGE if self._options.dry_run else f"package:sha256:{upload(self._client, path)}"

    def _fetched(self, url: Any) -> str:
        if not isinstance(url, str) or not url.lower().startswith(("http://", "https://")):
            raise ConfigError(f"{short(url)} is not an http(s) URL", field="appURL", fix="give --package APP=DIR")
        if self._options.dry_run:
            return _UNKNOWN_PACKAGE
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "package"
            _fetch(url, path)
            return self._stored(path)

    # ---- jobs ------------------------------------------------------------------------------------------------

    def _job(self, node: Node) -> Item:
        item = Item("job", node.name, node.path)
        try:
            config = translate_job(_read(node, "jobName"), self._options.zone, item.changes)
            item.disabled = self._options.disabled or node.name in self._tree.disabled_jobs
            there = config.get("appName")
            name = _rename(config, "jobName", self._options.job_names, item.changes)
            if isinstance(there, str):
                _rename(config, "appName", self._options.app_names, item.changes)
            if name in self._jobs:
                _compare(config, self._jobs[name], item)
                item.disabled = False
                return item
            app = config.get("appName")
            self._check_app(app, config)
            if there in self._tree.disabled_apps and app not in self._switched_off and not item.disabled:
                item.disabled = True
                item.changes.append(f"is registered disabled: its app {app} is disabled there, but enabled here")
            if self._options.dry_run:
                self._check("job", json.dumps(config).encode())
            else:
                self._client.create_job(config, enabled=not item.disabled)
                item.changes += self._client.warnings
                self._client.warnings.clear()
        except (ConfigError, ApiError) as error:
            item.disabled = False
            _refuse(item, error)
        return item

    def _check_app(self, app: Any, config: Json) -> None:
        """Raises ConfigError if the job's app is not registered here or cannot run the job."""
        if not isinstance(app, str) or app not in self._apps:
            problem = f"the app {short(app)} is not registered here and was not imported"
            raise ConfigError(problem, field="appName", fix="see the item of the app")
        java = java_code(config)
        if java is not None and not self._apps[app]["config"].get("bootstrapScript"):
            field, name = java
            raise ConfigError(
                f"{short(name)} is for Java, and the app {app} has no worker for Java",
                field=field,
                fix=f"give --package {app}=DIR with a worker, and its bootstrapScript in the manifest: "
                "docs/migration.md",
            )

    def _report_orphans(self, kind: str, marked: Iterable[str], nodes: Iterable[Node]) -> None:
        known = {node.name for node in nodes}
        for name in sorted(set(marked) - known):
            item = Item(f"disabled {kind}", name, f"/{self._report.namespace}/state/disable/{kind}/{name}")
            item.refuse(f"there is no {kind} of this name")
            self._report.items.append(item)


def _rename(config: Json, field: str, names: Mapping[str, str], changes: list[str]) -> str:
    """Give an app or a job its name here. Returns this name."""
    old = str(config[field])
    if old in names:
        config[field] = names[old]
        changes.append(f"{field}: {short(old)} is {short(names[old])} here")
    return str(config[field])


def _read(node: Node, name_field: str) -> Json:
    """The JSON object of a node. Raises ConfigError."""
    if node.problem:
        raise ConfigError(node.problem, field=node.path)
    if len(node.data) > MAX_NODE_BYTES:
        problem = f"holds {len(node.data)} bytes; a configuration has at most {MAX_NODE_BYTES}"
        raise ConfigError(problem, field=node.path)
    try:
        found = json.loads(node.data.decode(), object_pairs_hook=_once, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8 text", field=node.path) from error
    except RecursionError as error:
        raise ConfigError("is nested too deeply", field=node.path) from error
    except ValueError as error:
        hint = "only Elastic-Job-Cloud 2.1.5 is supported; version 3 stores YAML" if b"{" not in node.data[:1] else ""
        raise ConfigError(f"is not valid JSON: {str(error)[:200]}", field=node.path, fix=hint) from error
    if not isinstance(found, dict):
        raise ConfigError("is not a JSON object", field=node.path)
    inside = found.get(name_field, node.name)
    if inside != node.name:
        raise ConfigError(f"is {short(inside)}, but the node is named {short(node.name)}", field=name_field)
    return {name_field: node.name, **found}


def _once(pairs: list[tuple[str, Any]]) -> Json:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name in found if sum(name == other for other, _ in pairs) > 1)
        raise ValueError(f"{twice[:80]!r} is given twice")
    return found


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a number in JSON")


def _compare(config: Json, here: Mapping[str, Any], item: Item, without: Collection[str] = ()) -> None:
    differ = sorted(name for name, value in config.items() if name not in without and here.get(name) != value)
    item.action, item.changes = Action.UNCHANGED, []
    if differ:
        item.action = Action.KEPT
        item.reason = f"is registered here with other values of {', '.join(differ)}; the values here stay"


def _refuse(item: Item, error: JobcloudError) -> None:
    """Mark the item as refused if `error` is a refusal by the server or by a check. Raises any other error."""
    if isinstance(error, NotReachable) or (isinstance(error, ApiError) and error.status not in _REFUSALS):
        raise error
    if isinstance(error, ApiError):
        faults = [
            f"{issue.get('field')}: {issue.get('problem')}" + (f" ({issue['fix']})" if issue.get("fix") else "")
            for issue in error.errors
        ]
        item.refuse("; ".join(faults) or str(error))
    else:
        others = error.others if isinstance(error, ConfigError) else ()
        item.refuse("; ".join(map(str, (error, *others))))


def _fetch(url: str, path: Path) -> None:
    """Download a package of at most MAX_PACKAGE_BYTES. Raises ConfigError."""
    size = 0
    try:
        with httpx.stream("GET", url, timeout=_FETCH, follow_redirects=False) as response, path.open("wb") as file:
            if response.status_code != 200:
                raise ConfigError(f"{short(url)} answers with {response.status_code}", field="appURL")
            for piece in response.iter_bytes():
                size += len(piece)
                if size > MAX_PACKAGE_BYTES:
                    raise ConfigError(f"{short(url)} is larger than {MAX_PACKAGE_BYTES} bytes", field="appURL")
                file.write(piece)
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        raise ConfigError(
            f"{short(url)} cannot be downloaded: {error or type(error).__name__}", field="appURL"
        ) from error
