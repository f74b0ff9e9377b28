"""Converts apps and jobs between JSON and the scheduler's values. An error lists all problems of a configuration."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from jobcloud.config import (
    NEW_AD_HOC,
    SHA256,
    App,
    Job,
    JobKind,
    JobType,
    Package,
    Resources,
    parse_items,
    split_key,
)
from jobcloud.cron import CronError, find_zone
from jobcloud.errors import ConfigError
from jobcloud.executor.plugins import handler_name
from jobcloud.fields import REQUIRED, Field, fields_of, values_of
from jobcloud.model import Terms
from jobcloud.scheduler import trace_context
from jobcloud.sentences import Told, text_of
from jobcloud.sentences.frequent import LEAVE_OUT, MISSING, UNPRINTABLE, choose, such_as
from jobcloud.server.api import parameters
from jobcloud.server.api.body import json_type, parse
from jobcloud.server.api.problems import MAX_ISSUES, Issue, Problem, invalid
from jobcloud.server.api.rules import check_app, check_job, check_terms, unused_fields
from jobcloud.server.api.schema import (
    NESTED,
    NOT_AD_HOC,
    AdHocConfig,
    AppConfig,
    Config,
    JobConfig,
    SilenceConfig,
    TriggerConfig,
)
from jobcloud.server.urls import ALLOW_PACKAGES, UrlPolicy

PACKAGE_SCHEME = "package:sha256:"
_MAX_NAME = 64
# The defaults of Elastic-Job 2.1.5 and 3.0. Here each shard then has a thread of its own.
_DEFAULT_POOLS = ("default", "CPU", "com.dangdang.ddframe.job.executor.handler.impl.DefaultExecutorServiceHandler")

# The names of types in errors of pydantic, and the words for users of JSON.
_TYPES = {
    "int_type": "whole number",
    "bool_type": "boolean",
    "model_type": "object",
    "dict_type": "object",
    "list_type": "array",
    "enum_type": "string",
}

_ALLOW_JOBS = Told("list the host in the server's http_jobs.hosts setting", "allow_jobs")
_URL_FORM = such_as("https://host/path", "")

V = TypeVar("V")
C = TypeVar("C", bound=Config)

# Replacements for invalid fields while the other fields are checked. They are never stored.
_HARMLESS: dict[str, Any] = {
    "appName": "a",
    "jobName": "j",
    "team": "t",
    "appURL": PACKAGE_SCHEME + "0" * 64,
    "jobType": "SIMPLE",
    "jobExecutionType": "TRANSIENT",
    "jobClass": "m:C",
    "cron": "0 0 0 * * ?",
    "cronDialect": "quartz",
    "shardingTotalCount": 10_000,
    "scriptCommandLine": "true",
    "applicationContext": "m:c",
    "beanName": "b",
    "cpuCount": 1,
    "memoryMB": 1,
}


def read_app(body: Mapping[str, Any], policy: UrlPolicy) -> App:
    """Raises Problem that lists all problems."""
    return _read(body, AppConfig, lambda config: _app(config, policy))


def read_job(body: Mapping[str, Any], policy: UrlPolicy) -> Job:
    """Raises Problem that lists all problems."""
    given, issues = _used(body)
    return _read(given, JobConfig, lambda config: _job(config, policy), issues)


def read_ad_hoc_run(body: Mapping[str, Any], policy: UrlPolicy, traceparent: str) -> tuple[Job, Terms]:
    """The job of an ad-hoc run, and the terms with its key. Raises Problem that lists all problems."""
    given, issues = _used(body)
    fixed = {"kind": JobKind.TRANSIENT, "cron": "", "ad_hoc": NEW_AD_HOC}

    def build(config: AdHocConfig) -> tuple[Job, Terms]:
        _check_key(config.key)
        return _job(config, policy, **fixed), Terms(key=config.key, trace=_trace(traceparent))

    names = [field.spec.name for field in fields_of(Job) if field.name in NOT_AD_HOC and field.spec.name in given]
    issues += [Issue(name, "has no meaning for an ad-hoc run", LEAVE_OUT) for name in names]
    return _read({name: value for name, value in given.items() if name not in names}, AdHocConfig, build, issues)


def _used(body: Mapping[str, Any]) -> tuple[dict[str, Any], list[Issue]]:
    """The fields of a job that have a meaning for its type, and the other fields as issues."""
    unused = unused_fields(body)
    problem = f"has no meaning for a job of type {body.get('jobType')}"
    issues = [Issue(name, problem, LEAVE_OUT) for name in unused]
    return {name: value for name, value in body.items() if name not in unused}, issues


def read_trigger(body: Mapping[str, Any], job: Job, traceparent: str) -> Terms:
    """The values that a run has in place of the job's own. Raises Problem that lists all problems."""
    return _read(body, TriggerConfig, lambda config: _terms(config, job, _trace(traceparent)))


def read_silence(body: Mapping[str, Any]) -> SilenceConfig:
    """Raises Problem that lists all problems."""
    return _read(body, SilenceConfig, _silence)


def read_config(body: Mapping[str, Any], model: type[C]) -> C:
    """A configuration without rules beyond its schema. Raises Problem that lists all problems."""
    return _read(body, model, lambda config: config)


def check(kind: str, body: bytes) -> None:
    """Check the JSON of an "app" or "job" as far as possible without the server's settings.

    Raises ConfigError for the first problem; `others` of this error has the further problems.
    """
    try:
        (read_app if kind == "app" else read_job)(parse(body), UrlPolicy(hosts=("*",)))
    except Problem as problem:
        faults = [ConfigError(one.problem, field=one.field, fix=one.fix) for one in problem.issues]
        first = faults[0] if faults else ConfigError(problem.detail, field="")
        first.others = tuple(faults[1:])
        raise first from problem


def app_config(app: App) -> AppConfig:
    """The JSON of an app. Registering it again changes nothing."""
    return AppConfig.model_construct(**_to_json(app, App))


def ad_hoc_config(job: Job, key: str) -> AdHocConfig:
    """The JSON of the job of an ad-hoc run. Another run with it does the same."""
    values = {name: value for name, value in _to_json(job, Job).items() if name not in NOT_AD_HOC}
    return AdHocConfig.model_construct(**values, key=key)


def job_config(job: Job) -> JobConfig:
    """The JSON of a job. Registering it again changes nothing."""
    return JobConfig.model_construct(**_to_json(job, Job))


def config_json(record: App | Job) -> str:
    """The JSON of an app or a job as text."""
    config: AppConfig | JobConfig = app_config(record) if isinstance(record, App) else job_config(record)
    return config.model_dump_json(by_alias=True)


def _to_json(record: App | Job, type_: type) -> dict[str, Any]:
    """The values of the schema's attributes."""
    names, converted = _plan(type_)
    values = dict(zip(names, values_of(type_)(record), strict=True))
    for field in converted:
        value = values.pop(field.name)
        if value == field.default:
            value = field.json_default
        target = values.setdefault(field.group, {}) if field.group else values
        target[field.name] = list(value) if isinstance(value, tuple) else value
    for group in NESTED.keys() & values.keys():
        # An object without its required member is null.
        members = values[group]
        values[group] = None if REQUIRED in members.values() else NESTED[group].model_construct(**members)
    return values


@lru_cache(maxsize=16)
def _plan(type_: type) -> tuple[tuple[str, ...], tuple[Field, ...]]:
    """The names of all fields, and the fields that the schema stores with another value or in a nested object."""
    described = fields_of(type_)
    converted = (
        field
        for field in described
        if field.group or field.default != field.json_default or isinstance(field.default, tuple)
    )
    return tuple(field.name for field in described), tuple(converted)


def _from_json(config: Config, type_: type) -> dict[str, Any]:
    """The attributes of a record; a nested record is a dict of its members. Null objects are left out."""
    given = dict(config)
    for group in NESTED:
        given |= dict(given.pop(group, None) or ())
    values: dict[str, Any] = {}
    for field in fields_of(type_):
        if field.name in given:
            value = given[field.name]
            if value == field.json_default and field.default is not REQUIRED:
                value = field.default
            target = values.setdefault(field.owner, {}) if field.owner else values
            target[field.name] = tuple(value) if isinstance(value, list) else value
    return values


def _read(body: Mapping[str, Any], model: type[C], build: Callable[[C], V], known: Iterable[Issue] = ()) -> V:
    """Check types, then values. Each invalid field is replaced by a harmless value, and the check is repeated.

    `known`: problems that were found before.
    """
    value, unknown = _known_part(body, model)
    issues = {issue.field: issue for issue in (*known, *unknown)}
    for _ in range(len(model.model_fields) + 2):
        try:
            built = build(model.model_validate(value))
        except ValidationError as error:
            found = list(_issues(error, model))
        except ConfigError as error:
            found = [Issue(fault.field, fault.problem, fault.fix) for fault in (error, *error.others)]
        else:
            if issues:
                break
            return built
        fresh = [issue for issue in found if _top(issue.field) not in map(_top, issues)]
        if not fresh:
            break
        issues.update((issue.field, issue) for issue in fresh)
        _make_harmless(value, model, {_top(issue.field) for issue in fresh})
    raise invalid(issues.values())


def _known_part(body: Mapping[str, Any], model: type[BaseModel]) -> tuple[dict[str, Any], list[Issue]]:
    """The known fields of an object and of the objects in it, and the other fields as issues."""
    known: dict[str, Any] = {}
    unknown: list[tuple[str, list[str]]] = []
    names = _names(model)
    for name, value in body.items():
        if name not in names:
            unknown.append((name, names))
        elif name in NESTED and isinstance(value, dict):
            inner = _names(NESTED[name])
            known[name] = {key: item for key, item in value.items() if key in inner}
            unknown += ((f"{name}.{key}", inner) for key in value.keys() - known[name].keys())
        else:
            known[name] = value
    return known, list(_unknown(unknown))


def _names(model: type[BaseModel]) -> list[str]:
    return [info.alias or key for key, info in model.model_fields.items()]


def _unknown(found: list[tuple[str, list[str]]]) -> Iterable[Issue]:
    """One issue for each of the first unknown fields. `found`: each unknown field with the known fields of its object.

    The known fields of an object are listed once.
    """
    listed: list[list[str]] = []
    for name, known in found[:MAX_ISSUES]:
        # Comparing a long name is slow, and a long name resembles no field.
        last = name.rpartition(".")[2].lower()[:_MAX_NAME]
        lowered = {key.lower(): key for key in known}
        near = difflib.get_close_matches(last, lowered, n=1, cutoff=0.6)
        fix = _meant(lowered[near[0]]) if near else LEAVE_OUT
        if not near and known not in listed:
            listed.append(known)
            fix = choose(", ".join(known), begin="known fields: ")
        yield Issue(name[:200], Told("is not a known field", "unknown_field"), fix)
    if len(found) > MAX_ISSUES:
        yield Issue(
            "", f"{len(found) - MAX_ISSUES} more fields are not known", Told("leave them out", "leave_them_out")
        )


def _meant(name: str) -> Told:
    return Told(f"did you mean {name!r}?", "did_you_mean", name=name)


def _top(name: str) -> str:
    return name.partition(".")[0]


def _make_harmless(value: dict[str, Any], model: type[Config], names: Iterable[str]) -> None:
    known = {info.alias or name for name, info in model.model_fields.items()}
    for name in names:
        value.pop(name, None)
        if name in known and name in _HARMLESS:
            value[name] = _HARMLESS[name]
        if name == "httpUri":
            # No URI is harmless, because the policy may refuse any. So the job gets a type that needs none.
            value.update(jobType="SCRIPT", scriptCommandLine=_HARMLESS["scriptCommandLine"])
        if name == "triggers":
            # A job whose only triggers are wrong does not lack a cron expression.
            value.setdefault("cron", _HARMLESS["cron"])


def _issues(error: ValidationError, model: type[BaseModel]) -> Iterable[Issue]:
    for fault in error.errors(include_url=False, include_context=True):
        name = ".".join(str(part) for part in fault["loc"])[:200]
        kind = fault["type"]
        if kind == "missing":
            yield Issue(name, Told("is missing", "value_missing"), _description(model, name))
        elif kind == "enum":
            value = repr(str(fault["input"])[:80])
            problem = Told(f"{value} is not a valid value", "value_unknown", value=value)
            yield Issue(name, problem, choose(fault["ctx"]["expected"]))
        elif kind.endswith("_type") and kind not in ("amount_type", "executors_type"):
            wanted = _TYPES.get(kind, kind.removesuffix("_type"))
            article = "an" if wanted[0] in "aeiou" else "a"
            kind = json_type(fault["input"])
            problem = Told(f"must be {article} {wanted}, not {kind}", "value_type", wanted=wanted, found=kind)
            yield Issue(name, problem, _description(model, name))
        else:
            yield Issue(name, _told(kind, fault["msg"], fault.get("ctx", {})))


def _told(kind: str, text: str, about: Mapping[str, Any]) -> str:
    """A fault that the schema found, with its code if it has one."""
    match kind:
        case "string_too_long" | "too_long":
            return Told(text, "too_long", most=about["max_length"])
        case "string_too_short" | "too_short":
            return Told(text, "too_short", least=about["min_length"])
        case "string_pattern_mismatch":
            return Told(text, "wrong_form", pattern=about["pattern"])
        case "greater_than_equal":
            return Told(text, "too_small", least=about["ge"])
        case "less_than_equal":
            return Told(text, "too_large", most=about["le"])
        case "amount_type" | "items_form" | "files_form" | "parameter_form":
            return Told(text, "wrong_type", found=about["given"])
        case "amount_digits":
            return Told(text, "too_precise")
        case "executors_type":
            return Told(text, "executors_form")
        case "executors_range":
            return Told(text, "executors_negative")
    return text


def _description(model: type[BaseModel], name: str) -> str:
    for key, info in model.model_fields.items():
        if (info.alias or key) == name and info.description:
            return Told(info.description, "meaning", field=name)
    return ""


def _app(config: AppConfig, policy: UrlPolicy) -> App:
    values = _from_json(config, App)
    values["package"] = _package(policy, **values["package"])
    values["resources"] = Resources(**values["resources"])
    app = App(**values)
    check_app(app)
    return app


def _package(policy: UrlPolicy, url: str, sha256: str) -> Package:
    if url.startswith(PACKAGE_SCHEME):
        uploaded = url.removeprefix(PACKAGE_SCHEME)
        if not SHA256.fullmatch(uploaded):
            raise ConfigError(
                Told("does not name a SHA-256", "no_sha256"),
                field="appURL",
                fix=Told("64 lower-case hex digits follow package:sha256:", "sha256_form"),
            )
        if sha256 not in ("", uploaded):
            problem = Told("differs from the hash in appURL", "two_hashes")
            raise ConfigError(problem, field="packageSha256", fix=LEAVE_OUT)
        return Package(url, uploaded)
    form = Told(f"{PACKAGE_SCHEME}<hex>, or an http(s) URL", "package_url")
    policy.check(url, "appURL", form, ALLOW_PACKAGES)
    if not sha256:
        fix = Told("give the SHA-256 of the package, so that the fetched file can be verified", "give_sha256")
        raise ConfigError(MISSING, field="packageSha256", fix=fix)
    return Package(url, sha256)


def _job(config: JobConfig | AdHocConfig, policy: UrlPolicy, **fixed: Any) -> Job:
    """The job of a configuration. `fixed` has attributes that the configuration lacks."""
    values = _from_json(config, Job) | fixed
    values["resources"] = Resources(**values["resources"])
    values["error_handler"] = handler_name(values["error_handler"])
    values["thread_pool"] = "" if values["thread_pool"] in _DEFAULT_POOLS else values["thread_pool"]
    if values["error_webhook"]:
        policy.check(values["error_webhook"], "jobProperties.job_exception_webhook", _URL_FORM, _ALLOW_JOBS)
    if values["type"] is JobType.HTTP:
        policy.check(values["http_uri"], "httpUri", _URL_FORM, _ALLOW_JOBS)
    if "zone" in values:
        _check_zone(values["zone"])
    job = Job(**values)
    check_job(job)
    return job


def _trace(traceparent: str) -> str:
    """The header in its stored form; "" for a malformed one, which the standard says to ignore."""
    return str(trace_context.parse(traceparent) or "")


def _terms(config: TriggerConfig, job: Job, trace: str) -> Terms:
    _check_key(config.key)
    items = tuple(sorted(config.shards or ()))
    if len(set(items)) < len(items) or (items and items[0] < 0):
        problem = Told("are not different numbers from 0", "shards_form")
        raise ConfigError(problem, field="shards", fix=such_as("[0, 3]"))
    pairs = parse_items(config.item_parameters or "", job.shard_count)
    parameter = config.parameter
    if job.parameter_schema and parameter is not None:
        parameter = parameters.completed(job, parameter)
    terms = Terms(parameter, tuple(sorted(pairs.items())), items, config.priority, config.key, trace=trace)
    check_terms(job, terms)
    return terms


def _check_key(key: str) -> None:
    if not key.isprintable():
        raise ConfigError(
            UNPRINTABLE,
            field="key",
            fix=Told("use letters and digits", "letters_digits"),
        )


def _silence(config: SilenceConfig) -> SilenceConfig:
    for field, text in (("subject", config.subject), ("owner", config.owner), ("comment", config.comment)):
        check_printable(field, text)
    return config


def check_printable(field: str, text: str) -> None:
    """Raises ConfigError if a text for people has control characters."""
    if not text.isprintable():
        raise ConfigError(UNPRINTABLE, field=field, fix=Told("use plain text", "plain_text"))


def check_same_name(field: str, path: str, given: App | Job) -> None:
    """Raises Problem if the path and the body have different keys. `field`: the field of the body that has the name."""
    team, name = split_key(path)
    for one, body, wanted in ((field, given.name, name), ("team", given.team, team)):
        if body != wanted:
            problem = f"is {body[:100]!r}, but the path has {wanted[:100]!r}"
            what = "team" if one == "team" else "name"
            raise invalid([Issue(one, problem, f"a {what} cannot change; register a new app or job instead")])


def _check_zone(zone: str) -> None:
    try:
        find_zone(zone)
    except CronError as error:
        raise ConfigError(text_of(error), field="timeZone") from error
