"""Rules for new configurations: everything that the executor checks, and the sizes that it can handle.

The rules apply when an app or a job is registered or changed. Stored configurations of older versions need not
obey them.
So the rules are not in config.py, which also checks stored records.

Sizes are in bytes of JSON in ASCII, the form in which tasks travel to the agent: `é` takes 6 bytes, a line feed 2.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from jobcloud.config import (
    MAX_TEXT,
    App,
    Job,
    JobKind,
    JobType,
    is_spring_xml,
    item_parameters,
    parse_items,
    parse_shard_parameters,
)
from jobcloud.errors import ConfigError
from jobcloud.executor import placeholders
from jobcloud.fields import fields_of
from jobcloud.model import Terms
from jobcloud.ranges import MAX_PART
from jobcloud.scheduler import places
from jobcloud.scheduler.sharding import nodes_named
from jobcloud.scheduler.slots import slots_of
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import at_most, not_valid, shorten, such_as, too_big, too_many
from jobcloud.server.api import parameters

MAX_TEXT_BYTES = MAX_TEXT
MAX_NAME_BYTES = 500
# The parameters of one run. They are in the record of the run, together with the messages and results of its shards.
MAX_TERMS_BYTES = 16_384
# Both parameters of an HTTP job's shard are in one line of the request's head. Apache takes lines of 8,190 bytes
# (LimitRequestFieldSize), nginx of 8 KiB (large_client_header_buffers). The other fields take less than 1,190 bytes.
MAX_HEADER_BYTES = 7_000

_NUL = Told("contains a NUL", "has_nul")
_REMOVE_NUL = Told("remove it", "remove_nul")
_IN_WORKER = frozenset({JobType.SIMPLE, JobType.DATAFLOW})
# A field of a job → the types of jobs that use the field.
_USED_BY = {
    "job_class": _IN_WORKER,
    "bean": _IN_WORKER,
    "context": _IN_WORKER,
    "streaming": frozenset({JobType.DATAFLOW}),
    "script": frozenset({JobType.SCRIPT}),
    "http_uri": frozenset({JobType.HTTP}),
    "http_method": frozenset({JobType.HTTP}),
    "http_data": frozenset({JobType.HTTP}),
    "http_content_type": frozenset({JobType.HTTP}),
    "http_connect_timeout_ms": frozenset({JobType.HTTP}),
    "http_read_timeout_ms": frozenset({JobType.HTTP}),
}


def unused_fields(body: Mapping[str, Any]) -> list[str]:
    """The fields of a job's JSON that have no meaning for its type, and do not have their defaults."""
    given = body.get("jobType")
    if not isinstance(given, str) or given not in JobType.__members__:
        return []
    return [
        field.spec.name
        for field in fields_of(Job)
        if field.name in _USED_BY
        and given not in _USED_BY[field.name]
        and body.get(field.spec.name, field.default) not in (field.default, field.json_default)
    ]


def check_app(app: App) -> None:
    """Raises ConfigError."""
    places.check(app)
    if app.bootstrap_script:
        _check_command("bootstrapScript", app.bootstrap_script)


def check_job(job: Job) -> None:
    """Raises ConfigError."""
    places.check(job)
    slots_of(job)
    parameters.check_schema(job)
    _check_size("jobParameter", widest(job, "jobParameter", job.parameter))
    _check_size("httpData", job.http_data)
    if (count := len(nodes_named(job))) > placeholders.MAX_RESULTS:
        raise ConfigError(
            too_many(count, "nodes in {result:NODE}"), field="placeholders", fix=at_most(placeholders.MAX_RESULTS)
        )
    _check_items(job)
    if job.type is JobType.SCRIPT:
        _check_command("scriptCommandLine", job.script)
        _check_words(job)
    elif job.type is JobType.HTTP:
        _check_header(job, job.parameter, _own_parameters(job))
    for name, text in (("jobClass", job.job_class), ("beanName", job.bean), ("applicationContext", job.context)):
        _check_size(name, text, MAX_NAME_BYTES)
    if "\0" in job.bean:
        raise ConfigError(_NUL, field="beanName", fix=_REMOVE_NUL)
    for name, path in objects_of(job):
        words = path.replace("$", "_").replace(":", ".").split(".")
        if not all(word.isidentifier() for word in words) and not is_spring_xml(path):
            problem = not_valid(path[:80], "contains a word that is no name")
            raise ConfigError(problem, field=name, fix=such_as("package.module:Name", ""))


def check_terms(job: Job, terms: Terms) -> None:
    """Raises ConfigError if a run of the job cannot have these values in place of the job's own."""
    given = dict(terms.item_parameters)
    of_items = {item: widest(job, "shardingItemParameters", text) for item, text in given.items()}
    sizes = {
        "jobParameter": _json_bytes(widest(job, "jobParameter", terms.parameter or "")),
        "shardingItemParameters": len(json.dumps(of_items)),
    }
    if sum(sizes.values()) > MAX_TERMS_BYTES:
        field = max(sizes, key=lambda name: sizes[name])
        fix = shorten(MAX_TERMS_BYTES, "the parameters of the run", " together")
        raise ConfigError(too_big(sizes[field]), field=field, fix=fix)
    for field, texts in (("jobParameter", [terms.parameter or ""]), ("shardingItemParameters", given.values())):
        if any("\0" in text for text in texts):
            raise ConfigError(_NUL, field=field, fix=_REMOVE_NUL)
    if job.type is JobType.HTTP:
        own = _own_parameters(job)
        parameter = job.parameter if terms.parameter is None else terms.parameter
        _check_header(job, parameter, [given.get(item, text) for item, text in enumerate(own)])


def widest(job: Job, field: str, text: str) -> str:
    """A text that is as long as what becomes of the text of a field at most, when placeholders are replaced.

    Raises ConfigError if the job has placeholders in the field, and the text has an invalid one.
    """
    if field not in job.placeholders:
        return text
    names = set(placeholders.NAMES)
    if field == "jobParameter":
        names.discard("item")  # the parameter is that of all shards
    if job.kind is JobKind.DAEMON or job.ad_hoc:
        names -= {"previous_success", placeholders.RESULT}  # such a job has one run, and is no node of a workflow
    try:
        placeholders.check(text, names)
    except ValueError as error:
        problem = Told(str(error), "bad_placeholder", problem=str(error))
        fix = Told("see docs/executor.md#placeholders", "see_placeholders")
        raise ConfigError(problem, field=field, fix=fix) from error
    return placeholders.widest(text)


def objects_of(job: Job) -> list[tuple[str, str]]:
    """(field, name) of the objects that a worker loads by their module for the job."""
    named = [("applicationContext", job.context)] if job.bean else [("jobClass", job.job_class)]
    plugins = [("listener", name) for name in job.listeners]
    plugins += [
        ("distributedListener.class", job.firing_listener),
        ("jobProperties.job_exception_handler", job.error_handler),
    ]
    # A plug-in without a colon is an entry point.
    return [one for one in named if one[1]] + [one for one in plugins if ":" in one[1]]


def _check_size(field: str, text: str, limit: int = MAX_TEXT_BYTES) -> None:
    _check_bytes(field, _json_bytes(text), limit)


def _check_bytes(field: str, size: int, limit: int = MAX_TEXT_BYTES) -> None:
    if size > limit:
        fix = shorten(limit, "it", "; characters that are not ASCII take 6 or 12 bytes each")
        raise ConfigError(too_big(size), field=field, fix=fix)


def _json_bytes(text: str) -> int:
    return len(json.dumps(text)) - 2


def _check_items(job: Job) -> None:
    given: str | Mapping[Any, str] = item_parameters(job.shard_parameters)
    if "shardingItemParameters" in job.placeholders:
        items = parse_items(job.shard_parameters, job.shard_count).items()
        given = {item: widest(job, "shardingItemParameters", text) for item, text in items}
    size = _json_bytes(given) if isinstance(given, str) else len(json.dumps(given))
    _check_bytes("shardingItemParameters", size)


def _own_parameters(job: Job) -> tuple[str, ...]:
    """The parameters of the job's shards; texts of the greatest length in place of the parts of a range."""
    if job.item_range:
        return ("9" * MAX_PART,) * job.shard_count
    return parse_shard_parameters(job.shard_parameters, job.shard_count)


def _check_command(field: str, line: str) -> None:
    _check_size(field, line)
    try:
        words = shlex.split(line)
    except ValueError as error:
        problem = Told(f"cannot be split into words: {error}", "no_words", problem=str(error))
        raise ConfigError(problem, field=field, fix=Told("close the quotes", "close_quotes")) from error
    if not words or not words[0]:
        fix = Told("begin it with a program, such as bin/report.sh", "name_program")
        raise ConfigError(Told("names no program", "no_program"), field=field, fix=fix)


def _check_words(job: Job) -> None:
    """Placeholders are replaced in each word of the command, so their values cannot make words."""
    if "scriptCommandLine" in job.placeholders:
        words = shlex.split(job.script)
        _check_size("scriptCommandLine", " ".join(widest(job, "scriptCommandLine", word) for word in words))


def _check_header(job: Job, parameter: str, of_shards: Iterable[str]) -> None:
    of_all = _json_bytes(widest(job, "jobParameter", parameter))
    of_one = max(_json_bytes(widest(job, "shardingItemParameters", text)) for text in set(of_shards))
    if of_all + of_one > MAX_HEADER_BYTES:
        raise ConfigError(
            Told(
                f"takes {of_all + of_one:,} bytes in the header shardingContext, with the other parameter of a shard",
                "large_header",
                size=of_all + of_one,
            ),
            field="jobParameter" if of_all >= of_one else "shardingItemParameters",
            fix=shorten(MAX_HEADER_BYTES, "both", " together, or send the data as httpData"),
        )
