"""`jobcloud job`: register, change, run and remove jobs."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from jobcloud.client import render
from jobcloud.client.commands.connection import connect
from jobcloud.client.commands.exit_codes import Exit
from jobcloud.client.commands.field_help import ListsJobFields
from jobcloud.client.commands.options import AsJson, JobName, Limit, Watch, Wide, grouped, key_of, team_of
from jobcloud.errors import ConfigError, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobcloud.client.http import Client, Json

commands = typer.Typer(no_args_is_help=True)
# More than the server keeps of a job, also just before its clean-up every ten minutes.
_KEPT = 1_000
_NO_JOBS = "no jobs yet; register one: jobcloud job add FILE"

JobFile = Annotated[
    str,
    typer.Argument(
        metavar="FILE|-",
        help="File with a job, a list of jobs or a manifest, in YAML, TOML or JSON; -: standard input.",
    ),
]
JobNames = Annotated[
    list[str], typer.Argument(metavar="JOB…", help="Jobs, as [TEAM:]NAME or as a pattern, such as 'report-*'.")
]
Fields = Annotated[
    list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Set a field by its JSON name. Repeatable.")
]


@commands.command("add", cls=ListsJobFields)
def add(
    ctx: typer.Context,
    file: JobFile = "",
    fields: Fields = None,
    disabled: Annotated[
        bool,
        typer.Option("--disabled", help="Register the jobs as disabled. To enable a job, use `jobcloud job enable`."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Register jobs from a file, from --set fields, or from both: all of them, or none if one is refused.

    See docs/job-configuration.md for the fields.
    """
    from jobcloud.client.apps import Entry, check_no_duplicates, send

    if not file and not fields:
        raise ConfigError("there is no job to add", field="FILE", fix="name a file, or give --set jobName=… etc.")
    configs = [one.config for one in read_jobs(file)] if file else [{}]
    with connect(ctx) as client:
        given = [Entry("job", with_team(config | assignments(fields), team_of(ctx))) for config in configs]
        check_no_duplicates(given)
        send(client, given, create=True, enabled=not disabled)
        added = [client.job(entry.key) for entry in given]
    if as_json:
        render.show_json(added if len(added) > 1 else added[0])
    else:
        render.jobs(added)


@commands.command("update", cls=ListsJobFields)
def update(
    ctx: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="JOB… [FILE|-]",
            help="Jobs, as [TEAM:]NAME or as a pattern; then a file with their configurations in YAML, TOML "
            "or JSON: a manifest, or the output of `job show --json`.",
        ),
    ],
    fields: Fields = None,
    as_json: AsJson = False,
) -> None:
    """Replace the configurations of jobs with those in FILE, change single fields with --set, or both.

    Prints each field that changes, and what happens to running work. Refused if someone else changes the job meanwhile.
    """
    patterns, file = _split_file(names)
    if not file and not fields:
        raise ConfigError("there is nothing to change", field="FILE", fix="name a file, or give --set FIELD=VALUE")
    changes = assignments(fields)
    configs = read_jobs(file) if file else []
    with connect(ctx) as client:
        before = _matching(ctx, client, patterns)
        given = {key: _given_for(key, configs, file) for key in before} if file else {}
        updated = []
        for key, job in before.items():
            killing = _killing(client, job)
            if file:
                config, revision = given[key]
                updated.append(client.update_job(key, _set(config, changes), revision or job["revision"]))
            else:
                updated.append(client.patch_job(key, changes, job["revision"]))
            if not as_json:
                _report_update(before[key], updated[-1], _killing(client, updated[-1]) - killing)
    _show_json(updated, patterns, as_json=as_json)


@commands.command("diff", cls=ListsJobFields)
def diff(
    ctx: typer.Context,
    job: JobName,
    file: JobFile = "",
    fields: Fields = None,
    as_json: AsJson = False,
) -> None:
    """Show what `jobcloud job update` would change. Exits with 1 if anything differs."""
    if not file and not fields:
        raise ConfigError("there is nothing to compare", field="FILE", fix="name a file, or give --set FIELD=VALUE")
    key, configs = key_of(ctx, job), read_jobs(file) if file else []
    with connect(ctx) as client:
        config = _given_for(key, configs, file).config if file else client.job(key)["config"]
        found = client.apply([], [_set(config, assignments(fields))], dryRun=True)["items"][0]
    if as_json:
        render.show_json(found)
    elif found["changes"]:
        render.changed_fields(found["changes"])
    else:
        render.say(f"job {key}: no difference")
    if found["action"] != "unchanged":
        raise typer.Exit(Exit.REFUSED)


@commands.command("list")
def list_jobs(
    ctx: typer.Context,
    app: Annotated[str, typer.Option(help="Only jobs of this app.")] = "",
    search: Annotated[
        str, typer.Option(metavar="TEXT", help="Only jobs with this text in the key, the description or the owner.")
    ] = "",
    labels: Annotated[
        list[str] | None, typer.Option("--label", metavar="NAME[=VALUE]", help="Only jobs with this label. Repeatable.")
    ] = None,
    owner: Annotated[str, typer.Option(help="Only jobs whose label `owner` has this value.")] = "",
    state: Annotated[
        str, typer.Option(help="Only enabled, disabled, paused, running, waiting, failed or dead jobs.")
    ] = "",
    sort: Annotated[
        str, typer.Option(help="Sort by name, next or last firing. A minus reverses the order: -last.")
    ] = "",
    wide: Wide = False,
    watch: Watch = False,
    as_json: AsJson = False,
) -> None:
    """List jobs."""
    with connect(ctx) as client:
        if app:
            client.app(key_of(ctx, app, "app"))  # raises if the app does not exist
        filters = {"app": key_of(ctx, app, "app")} if app else {"team": team_of(ctx)}
        given = {"--app": app, "--team": "" if app else team_of(ctx)}
        given |= {"--search": search, "--label": ", ".join(labels or ()), "--owner": owner, "--state": state}
        table = partial(render.jobs, wide=wide, empty=render.nothing("job", given, _NO_JOBS))

        def found() -> list[Json]:
            return client.jobs(**filters, q=search, label=labels or (), owner=owner, state=state, sort=sort)

        render.watched(found, table, watch=watch, as_json=as_json)


@commands.command("show")
def show(ctx: typer.Context, job: JobName, as_json: AsJson = False) -> None:
    """Show a job and its configuration."""
    with connect(ctx) as client:
        render.show(client.job(key_of(ctx, job)), render.job, as_json=as_json)


@commands.command("fit")
def fit(
    ctx: typer.Context,
    job: JobName,
    shards: Annotated[
        int, typer.Option(min=0, max=10_000, help="Number of further shards. Default: as many as a run has.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Tell how many further shards of a job would fit on the cluster now. This reserves nothing."""
    with connect(ctx) as client:
        render.show(client.fit(key_of(ctx, job), shards), render.fit, as_json=as_json)


@commands.command("history")
def show_history(
    ctx: typer.Context,
    job: JobName,
    revision: Annotated[
        str,
        typer.Option(
            "--diff", metavar="REVISION", help="Show the fields that differ from the configuration before REVISION."
        ),
    ] = "",
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """List the configurations that a job has had: when, who, and which fields changed. Works for removed jobs too."""
    key = key_of(ctx, job)
    with connect(ctx) as client:
        # One more than is shown: the oldest row is compared with it.
        found = client.past("configurations", _KEPT if revision else limit + 1, job=key)
    if revision:
        place = _place(found, revision, key)
        before = found[place + 1] if place + 1 < len(found) else None
        if as_json:
            render.show_json([found[place], before])
        else:
            _show_change(found[place], before)
        return
    befores = [*found[1:], None] if len(found) <= limit else found[1:]
    rows = [(one, _told(one, before)) for one, before in zip(found, befores, strict=False)]
    render.show(found[:limit], lambda _: render.configurations(rows[:limit]), as_json=as_json)


@commands.command("revert")
def revert(
    ctx: typer.Context,
    job: JobName,
    revision: Annotated[
        str, typer.Argument(metavar="REVISION", help="The revision, from `jobcloud job history`, or its beginning.")
    ],
    as_json: AsJson = False,
) -> None:
    """Give a job an earlier configuration again. Refused if someone else changes the job meanwhile."""
    key = key_of(ctx, job)
    with connect(ctx) as client:
        found = client.past("configurations", _KEPT, job=key)
        config = found[_place(found, revision, key)]["config"]
        if config is None:
            raise ConfigError(
                f"the configuration {revision} was too large to be kept", field="REVISION", fix="choose another one"
            )
        before = client.job(key)
        killing = _killing(client, before)
        after = client.update_job(key, config, before["revision"])
        if not as_json:
            _report_update(before, after, _killing(client, after) - killing)
    if as_json:
        render.show_json(after)


def _place(found: list[Json], revision: str, key: str) -> int:
    """The place of the newest configuration with this revision, or whose revision begins so. Raises."""
    fits = list(dict.fromkeys(one["revision"] for one in found if revision and one["revision"].startswith(revision)))
    if not fits:
        fix = f"`jobcloud job history {key}` lists them"
        raise NotFound(f"the history has no configuration {revision!r} of job {key}", field="REVISION", fix=fix)
    if len(fits) > 1:
        raise ConfigError(f"{revision!r} fits {', '.join(fits[:5])}", field="REVISION", fix="give more of it")
    return next(place for place, one in enumerate(found) if one["revision"] == fits[0] and not one["removed"])


def _told(one: Json, before: Json | None) -> str:
    """The changes by a configuration of the history, in a few words."""
    from jobcloud.fields import differences

    if one["removed"]:
        return "removed"
    if before is None or before["removed"]:
        return "registered"
    if one["config"] is None or before["config"] is None:
        return "changed"
    return ", ".join(name for name, _, _ in differences(before["config"], one["config"])) or "-"


def _show_change(one: Json, before: Json | None) -> None:
    from jobcloud.fields import differences

    render.say(f"{one['revision']}, {render.moment(one['at'])}, by {one['by'] or 'unknown'}")
    if _told(one, before) == "registered":
        render.say("the job was registered, or the history has no earlier configuration")
    elif before and one["config"] and before["config"]:
        render.compared_fields(differences(before["config"], one["config"]))
    else:
        render.say("a configuration was too large to be kept")


@commands.command("remove")
def remove(ctx: typer.Context, job: JobName, as_json: AsJson = False) -> None:
    """Remove a job and kill its tasks."""
    key = key_of(ctx, job)
    with connect(ctx) as client:
        client.remove_job(key)
    render.answer({"jobName": key, "removed": True}, f"job {key} is removed", as_json=as_json)


class _Terms(NamedTuple):
    """The values that the run has in place of the job's own."""

    parameter: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Parameter of all shards, in place of jobParameter.")
    ] = None
    item_parameter: Annotated[
        list[str] | None, typer.Option(metavar="N=TEXT", help="Parameter of shard N. Repeatable.")
    ] = None
    shard: Annotated[
        list[int] | None, typer.Option(min=0, help="Run only this shard. Repeatable. Default: all shards.")
    ] = None
    priority: Annotated[
        int | None, typer.Option(min=-1000, max=1000, help="Priority of the run. Default: that of the job.")
    ] = None
    key: Annotated[
        str, typer.Option(help="A name for the run. If the job has a run with this key, none is started.")
    ] = ""


class Waiting(NamedTuple):
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the end of the run. Exit with 1 if it is not FINISHED.")
    ] = False
    follow: Annotated[bool, typer.Option("--follow", "-f", help="As --wait, and print the output of its shards.")] = (
        False
    )
    timeout: Annotated[
        str, typer.Option(metavar="DURATION", help="Maximum time of --wait and --follow, such as 10m; 0: no limit.")
    ] = "0"


@commands.command("trigger")
@grouped
def trigger(ctx: typer.Context, job: JobName, terms: _Terms, waiting: Waiting, as_json: AsJson = False) -> None:
    """Run a job now. Options set other parameters, or choose some of its shards."""
    started(ctx, lambda client: client.trigger(key_of(ctx, job), _terms(terms)), waiting, as_json=as_json)


def started(ctx: typer.Context, start: Callable[[Client], Json], waiting: Waiting, *, as_json: bool) -> None:
    """Start a run and print it, after its end if the command waits.

    Raises ConfigError, and Exit if the run did not finish in time.
    """
    from jobcloud.durations import parse_s

    within_s = parse_s(waiting.timeout, "--timeout") or float("inf")
    if waiting.follow and as_json:
        raise ConfigError("--follow prints text", field="--json", fix="use --wait with --json")
    with connect(ctx) as client:
        run = start(client)
        text = f"run {run['id']} is {run['state']}" + (", and was started before" if run["existed"] else "")
        if not (waiting.wait or waiting.follow):
            render.answer(run, text, as_json=as_json)
            return
        if not as_json:
            render.say(text)
        ended = _wait(client, run["id"], within_s, follow=waiting.follow)
    if ended["endedAt"]:
        render.answer(ended, f"run {ended['id']} is {ended['state']}", as_json=as_json)
    else:
        render.answer(ended, f"run {ended['id']} continues after {within_s:g} s", as_json=as_json)
    if ended["state"] != "FINISHED":
        raise typer.Exit(Exit.REFUSED)


def _terms(given: _Terms) -> Json:
    """The body of a trigger. Raises ConfigError."""
    items: Json = {}
    for pair in given.item_parameter or ():
        item, sign, text = pair.partition("=")
        if not sign:
            raise ConfigError(f"{pair!r} is not N=TEXT", field="--item-parameter", fix="such as 0=Berlin")
        if item in items:
            raise ConfigError(f"shard {item} is given twice", field="--item-parameter", fix="give it once")
        items[item] = text
    body = {
        "jobParameter": given.parameter,
        "shardingItemParameters": items or None,
        "shards": given.shard or None,
        "priority": given.priority,
        "key": given.key or None,
    }
    return {name: value for name, value in body.items() if value is not None}


def _wait(client: Client, run_id: str, within_s: float, *, follow: bool) -> Json:
    """The run after its end or after the time limit. Prints its output if it is followed."""
    from jobcloud.client.following import MAX_FOLLOWED, Prefixed, wait_for_run

    if not follow:
        return wait_for_run(client, run_id, within_s)
    shown = client.run_state(run_id)
    count = len(shown["terms"]["shards"] if shown["terms"] else ()) or shown["shardCount"]
    if count > MAX_FOLLOWED:
        sys.stderr.write(f"(only the output of the first {MAX_FOLLOWED} shards is printed)\n")
    printed = Prefixed(_print, several=count > 1)
    try:
        return wait_for_run(client, run_id, within_s, printed.show)
    finally:
        printed.end()


def _print(stream: str, text: str) -> None:
    file = sys.stderr if stream == "stderr" else sys.stdout
    file.write(text)
    file.flush()


@commands.command("webhook")
def webhook(
    ctx: typer.Context,
    job: JobName,
    key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Sign a delivery with the key in this file, and send it to the webhook."),
    ] = None,
    body: Annotated[
        Path | None, typer.Option(metavar="FILE|-", help="Body of the delivery; -: standard input. Default: {}.")
    ] = None,
    delivery: Annotated[
        str,
        typer.Option(
            "--id", metavar="ID", help="Id of the delivery. A second one with this id starts nothing. Default: new."
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Show the URL of the webhook of a job. With --key-file, send a signed delivery: it fires the job."""
    key = key_of(ctx, job)
    if key_file is None and (body is not None or delivery):
        raise ConfigError("a delivery needs a key", field="--key-file", fix="name a file with the key of the webhook")
    with connect(ctx) as client:
        config = client.job(key)["config"]
        if not config["webhookSecrets"]:
            fix = f"jobcloud job update {key} --set 'webhookSecrets=[\"NAME\"]', where NAME is a secret of the team"
            raise ConfigError(f"job {key} has no webhook", field="webhookSecrets", fix=fix)
        if key_file is None:
            shown = {name: config[name] for name in ("webhookScheme", "webhookSecrets", "webhookParameters")}
            found = {"jobName": key, "url": client.webhook_url(key), **shown}
            render.show(found, render.webhook, as_json=as_json)
            return
        content, headers = _delivery(config["webhookScheme"], key_file, body, delivery)
        started_ = client.deliver(key, content, headers)
    text = f"run {started_['runId']} " + ("was started before" if started_["existed"] else "is started")
    render.answer(started_, text, as_json=as_json)


def _delivery(scheme: str, key_file: Path, body: Path | None, delivery: str) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of a signed delivery. Raises ConfigError."""
    import json
    import time
    import uuid

    from jobcloud.config import WebhookScheme
    from jobcloud.webhooks.signatures import key_of as signing_key
    from jobcloud.webhooks.signatures import signed

    wanted, delivery = WebhookScheme(scheme), delivery or str(uuid.uuid4())
    try:
        key = signing_key(wanted, key_file.read_bytes())
        if body is None:
            content = json.dumps({"id": delivery} if wanted is WebhookScheme.STRIPE else {}).encode()
        else:
            content = sys.stdin.buffer.read() if str(body) == "-" else body.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {error.filename}: {error.strerror}", field="FILE", fix="check it") from error
    own = {"Content-Type": "application/json"}
    return content, own | signed(wanted, key, content, delivery=delivery, at_s=int(time.time()))


@commands.command("enable")
def enable(ctx: typer.Context, jobs: JobNames, as_json: AsJson = False) -> None:
    """Enable jobs. They fire again, unless their app is disabled."""
    _switch(ctx, jobs, enabled=True, as_json=as_json)


@commands.command("disable")
def disable(ctx: typer.Context, jobs: JobNames, as_json: AsJson = False) -> None:
    """Disable jobs. They do not fire, and their tasks are killed."""
    _switch(ctx, jobs, enabled=False, as_json=as_json)


def _switch(ctx: typer.Context, patterns: list[str], *, enabled: bool, as_json: bool) -> None:
    with connect(ctx) as client:
        switched = []
        for key, before in _matching(ctx, client, patterns).items():
            killing = _killing(client, before)
            switched.append(client.switch_job(key, enabled=enabled))
            if not as_json:
                _report_switch(before, switched[-1], _killing(client, switched[-1]) - killing)
    _show_json(switched, patterns, as_json=as_json)


def _report_switch(before: Json, after: Json, killed: int) -> None:
    name, state = f"job {after['jobName']}", "disabled" if after["disabled"] else "enabled"
    if before["disabled"] == after["disabled"]:
        text = f"{name} was {state} already"
    else:
        text = f"{name} is {state}{_ended(before, after, killed)}"
    if not after["disabled"]:
        text += f"; next run {render.moment(after['nextFiring'])}" if after["enabled"] else "; its app is disabled"
    render.say(text)


def _report_update(before: Json, after: Json, killed: int) -> None:
    from jobcloud.fields import differences

    found = differences(before["config"], after["config"])
    if not found:
        render.say(f"job {after['jobName']}: nothing to change")
        return
    render.say(f"job {after['jobName']} is updated{_ended(before, after, killed) or '; running work continues'}")
    render.changed_fields({"field": name, "before": old, "after": new} for name, old, new in found)


def _ended(before: Json, after: Json, killed: int) -> str:
    """The attempts and the waiting shards that a command has ended."""
    waiting = before["waitingShards"] - after["waitingShards"]
    counts = ((killed, "attempts are being killed"), (waiting, "waiting shards are cancelled"))
    told = [f"{count} {what}" for count, what in counts if count > 0]
    return "; " + ", ".join(told) if told else ""


def _killing(client: Client, job: Json) -> int:
    """The number of attempts of a job that are being killed."""
    if not job["activeShards"]:
        return 0
    tasks = client.tasks(10_000, job=job["jobName"], state="active")
    return sum(task["killAskedAt"] is not None for task in tasks)


def _show_json(jobs: list[Json], patterns: list[str], *, as_json: bool) -> None:
    """One job for one name, otherwise a list."""
    if as_json:
        render.show_json(jobs[0] if len(patterns) == 1 and not _is_pattern(patterns[0]) else jobs)


def _is_pattern(text: str) -> bool:
    return any(char in text for char in "*?[")


def _matching(ctx: typer.Context, client: Client, patterns: list[str]) -> dict[str, Json]:
    """The jobs that names and patterns mean, by key. Raises if one of them means no job."""
    from fnmatch import fnmatchcase

    from jobcloud.config import split_key

    found: dict[str, Json] = {}
    for pattern in patterns:
        key = key_of(ctx, pattern)
        if not _is_pattern(pattern):
            found[key] = client.job(key)
            continue
        team, name = split_key(key)
        jobs = [
            job
            for job in client.jobs()
            if fnmatchcase(job["team"], team) and fnmatchcase(split_key(job["jobName"])[1], name)
        ]
        if not jobs:
            raise NotFound(f"no job matches {pattern!r}", field="JOB", fix="`jobcloud job list` shows all jobs")
        found |= {job["jobName"]: job for job in jobs}
    return found


def _split_file(names: list[str]) -> tuple[list[str], str]:
    """The jobs, and the file if the last argument is one: `-`, a path, or a name that ends as that of a file."""
    from jobcloud.client.documents import SUFFIXES

    last = names[-1]
    if len(names) > 1 and (last == "-" or "/" in last or last.endswith(SUFFIXES) or Path(last).is_file()):
        return names[:-1], last
    return names, ""


class Given(NamedTuple):
    """The configuration of a job in a file. `revision` is the one that `job show --json` printed, or ""."""

    config: Json
    revision: str = ""

    @classmethod
    def of(cls, document: Json) -> Given:
        config = document.get("config")
        return cls(config, str(document.get("revision", ""))) if isinstance(config, dict) else cls(document)


def _given_for(key: str, given: list[Given], file: str) -> Given:
    """The configuration for a job among those of a file. Raises ConfigError."""
    from jobcloud.config import DEFAULT_TEAM, split_key
    from jobcloud.config import key_of as joined

    team, _ = split_key(key)
    if len(given) == 1 and "jobName" not in given[0].config:
        return given[0]._replace(config=with_team(given[0].config, team))
    of = {joined(str(one.config.get("team", team)), str(one.config.get("jobName"))): one for one in given}
    if key not in of:
        known = ", ".join(list(of)[:5])
        raise ConfigError(f"{file} has no job {key}", field="FILE", fix=f"its jobs: {known}")
    return of[key]._replace(config={**of[key].config, "team": team}) if team != DEFAULT_TEAM else of[key]


def with_team(config: Json, team: str) -> Json:
    """The configuration with this team, unless it names one. The default is left out."""
    from jobcloud.config import DEFAULT_TEAM

    return config if team in ("", DEFAULT_TEAM) else {"team": team, **config}


def read_jobs(file: str) -> list[Given]:
    """The configurations in a file: a job, a list of jobs, a manifest, or what `job show --json` prints.

    Raises ConfigError if the file cannot be read or holds no job.
    """
    from jobcloud.client import documents
    from jobcloud.client.pack import fields_at

    if file == "-":
        document = documents.parse(sys.stdin.read().encode("utf-8", "surrogateescape"), "standard input")
    else:
        document = documents.read(Path(file))
    value, common = document.value, {}
    place: documents.Place = ()
    if isinstance(value, dict) and "jobs" in value:
        given = value.get("app")
        app: Json = given if isinstance(given, dict) else {}
        names = (("team", "team"), ("appName", "name"), ("appName", "appName"))
        common = {name: app[key] for name, key in names if key in app}
        value, place = value["jobs"], ("jobs",)
    jobs = value if isinstance(value, list) else [value]
    if not jobs or not all(isinstance(job, dict) for job in jobs):
        fix = "write the fields of a job, or a list of jobs"
        raise ConfigError(f"{file} holds no job", field="FILE", fix=fix)
    found = [Given.of(job) for job in jobs]
    return [
        one._replace(config=common | fields_at(document, (*place, index), one.config))
        for index, one in enumerate(found)
    ]


def _set(config: Json, changes: Json) -> Json:
    """The configuration with other fields. A field that is set to null gets its default, as in a PATCH."""
    return {name: value for name, value in (config | changes).items() if value is not None}


def assignments(fields: list[str] | None) -> Json:
    """`cpuCount=0.5` → {"cpuCount": 0.5}. A value that is not JSON counts as text. Raises ConfigError."""
    import json

    from jobcloud.durations import in_numbers

    found: Json = {}
    for field in fields or ():
        name, sign, text = field.partition("=")
        if not sign or not name:
            raise ConfigError(f"{field!r} is not FIELD=VALUE", field="--set", fix="such as --set cpuCount=0.5")
        try:
            found[name] = json.loads(text)
        except (ValueError, RecursionError):
            found[name] = text
    return in_numbers(found)
