"""Conversion of Elastic-Job-Cloud's apps and jobs to the JSON of this API.

The functions take a list `changes`. They append a text to it for each difference between the given configuration and
the result, so that users learn about the difference.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from decimal import ROUND_CEILING, Decimal
from typing import Any

from jobcloud.config import is_spring_xml, parse_items, stored_item_parameters
from jobcloud.errors import ConfigError

Json = dict[str, Any]

APP_FIELDS = frozenset(
    {"appName", "appURL", "bootstrapScript", "cpuCount", "memoryMB", "appCacheEnable", "eventTraceSamplingCount"}
)
_CORE_FIELDS = frozenset(
    {
        *("jobName", "appName", "description", "jobExecutionType", "cpuCount", "memoryMB"),
        *("cron", "shardingTotalCount", "shardingItemParameters", "jobParameter", "failover", "misfire"),
    }
)
JOB_FIELDS = _CORE_FIELDS | {
    *("jobProperties", "jobType", "jobClass", "beanName", "applicationContext"),
    *("scriptCommandLine", "streamingProcess"),
}
# The fields that name the code of a job.
_CODE = ("jobType", "jobClass", "beanName", "applicationContext")
# Fields of 3.0.x that Elastic-Job-Cloud stores and does not use.
_UNUSED_OF_3 = frozenset(
    {
        *("monitorExecution", "maxTimeDiffSeconds", "reconcileIntervalMinutes", "jobShardingStrategyType"),
        *("disabled", "overwrite"),
    }
)
_FIELDS_OF_3 = _CORE_FIELDS | _UNUSED_OF_3 | {"jobExecutorServiceHandlerType", "jobErrorHandlerType", "props"}
_HANDLERS_OF_3 = ("LOG", "THROW", "IGNORE")
# Keys of `props` in 3.0.x, and the fields of an HTTP job here.
HTTP_PROPS = {
    "http.uri": "httpUri",
    "http.method": "httpMethod",
    "http.data": "httpData",
    "http.content.type": "httpContentType",
    "http.connect.timeout.milliseconds": "httpConnectTimeoutMilliseconds",
    "http.read.timeout.milliseconds": "httpReadTimeoutMilliseconds",
}
SCRIPT_PROP, STREAMING_PROP = "script.command.line", "streaming.process"
DEFAULT_HANDLERS = {
    "job_exception_handler": "com.dangdang.ddframe.job.executor.handler.impl.DefaultJobExceptionHandler",
    "executor_service_handler": "com.dangdang.ddframe.job.executor.handler.impl.DefaultExecutorServiceHandler",
}
SCRIPT_MARKER = "com.dangdang.ddframe.job.api.script.ScriptJob"
#: Given in place of a zone, it means: the job has a time zone already and keeps it.
KEEP_ZONE = ""
_AMOUNTS = ("cpuCount", "memoryMB")
_WHOLE_NUMBERS = ("shardingTotalCount", "eventTraceSamplingCount")
_NUMBER = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,9})?")
_MILLISECONDS = re.compile(r"[0-9]{1,9}")
# A key as Java's Integer.parseInt reads it: digits of any script, of one UTF-16 code unit each.
_ITEM = re.compile(r"[+-]?\d{1,20}")
_MAX_INT = 2**31 - 1
_BASIC_PLANE = 0xFFFF
# The characters that Java's String.trim removes.
_TRIMMED = "".join(map(chr, range(ord(" ") + 1)))
_SHARDING = "shardingItemParameters"
_NO_WORD = re.compile(r"\W", re.ASCII)
_SHELL = re.compile(r"[|&;<>$`*?~()#]|\n")
# Larger amounts are refused later.
_MOST = 10**12
_MAX_NAMED = 20


def translate_app(given: Mapping[str, Any], changes: list[str]) -> Json:
    """The known fields of an app. The values of its package and its script stay as they are."""
    config = _kept(given, APP_FIELDS, changes)
    for name in _AMOUNTS:
        _round_up(config, name, changes)
    return config


def translate_job(given: Mapping[str, Any], zone: str, changes: list[str]) -> Json:
    """The configuration of a job of 2.1.5. `zone` is the time zone of its scheduler, or KEEP_ZONE."""
    config = _kept(given, JOB_FIELDS, changes)
    for name in _AMOUNTS:
        _round_up(config, name, changes)
    if zone not in ("UTC", KEEP_ZONE):
        config["timeZone"] = zone
    _read_items(config, changes)
    _name_other_days(config.get("cron"), changes)
    if config.get("jobType") == "SCRIPT":
        if config.pop("jobClass", SCRIPT_MARKER) not in ("", SCRIPT_MARKER):
            changes.append("jobClass: has no meaning for a SCRIPT job and is left out")
        script = config.get("scriptCommandLine")
        if isinstance(script, str) and _SHELL.search(script):
            changes.append(f"scriptCommandLine: {short(script)} runs without a shell; if it needs one: sh -c '…'")
        changes += [
            f"{name}: the script's last argument lacks it; see JOBCLOUD_SHARDING_CONTEXT_FILE"
            for name in ("jobParameter", "shardingItemParameters")
            if config.get(name)
        ]
        for name in ("beanName", "applicationContext"):
            _drop(config, name, changes)
    else:
        _drop(config, "scriptCommandLine", changes)
    if config.get("jobType") != "DATAFLOW":
        _drop(config, "streamingProcess", changes)
    _check_context(config, changes)
    _convert_handlers(config, changes)
    return config


def is_job_of_3(given: Mapping[str, Any]) -> bool:
    """Whether a job has the form of 3.0.x, which names neither a type nor a class."""
    return given.get("jobType") is None and given.get("jobClass") is None


def translate_job_of_3(given: Mapping[str, Any], zone: str, changes: list[str], known: Mapping[str, Any]) -> Json:
    """The configuration of a job of 3.0.x. `known` is its present configuration, or empty. Raises ConfigError.

    The `props` decide the type of the job. If they name no type, a known job keeps its type and class. A new job gets
    the type SIMPLE and a class named like the job, because in 3.0.x the app's main program decides which class runs.
    """
    core = _kept(given, _FIELDS_OF_3, changes)
    own: Json = {}
    changes += [
        f"{name}: Elastic-Job-Cloud does not use it either; it is left out"
        for name in sorted(_UNUSED_OF_3 & core.keys())
        if core.pop(name)
    ]
    pool = core.pop("jobExecutorServiceHandlerType", "CPU")
    if pool not in ("", "CPU"):
        changes.append(f"jobExecutorServiceHandlerType: {short(pool)} is left out; each shard has a thread of its own")
    handler = core.pop("jobErrorHandlerType", "LOG") or "LOG"
    if handler in _HANDLERS_OF_3:
        own["jobProperties"] = {"job_exception_handler": handler}
    else:
        changes.append(f"jobErrorHandlerType: {short(handler)} is left out; LOG, THROW and IGNORE are supported")
    props = core.pop("props", {})
    if not isinstance(props, dict):
        raise ConfigError(f"must be an object, not {short(props)}", field="props", fix="give keys and texts")
    _apply_props(core, own, props, known, changes)
    return translate_job(core, zone, changes) | own


def _apply_props(core: Json, own: Json, props: Json, known: Mapping[str, Any], changes: list[str]) -> None:
    """Add the fields that `props` stand for: those of 2.1.5 to `core`, the others to `own`."""
    used: Collection[str]
    if props.get("http.uri"):
        core["jobType"], used = "HTTP", HTTP_PROPS
        for key in HTTP_PROPS.keys() & props.keys():
            value = props[key]
            whole = key.endswith("milliseconds") and isinstance(value, str) and _MILLISECONDS.fullmatch(value)
            own[HTTP_PROPS[key]] = int(value) if whole else value
    elif SCRIPT_PROP in props:
        core["jobType"], core["scriptCommandLine"], used = "SCRIPT", props[SCRIPT_PROP], (SCRIPT_PROP,)
    else:
        used = (STREAMING_PROP,)
        if known:
            core |= {name: known[name] for name in _CODE if known.get(name)}
        else:
            core |= {"jobType": "SIMPLE", "jobClass": _class_named_like(core.get("jobName"))}
            changes.append("jobClass: the name of the job stands for it, because the request names no class")
        if STREAMING_PROP in props:
            core["jobType"], core["streamingProcess"] = "DATAFLOW", props[STREAMING_PROP] in (True, "true")
    _name_unknown("props.", props.keys() - set(used), "is left out", changes)


def _class_named_like(name: Any) -> str:
    """A valid class name made from a job's name; "" for a value that is not a text."""
    word = _NO_WORD.sub("_", name) if isinstance(name, str) else ""
    return f"_{word}" if word[:1].isdigit() else word


def with_numbers(given: Mapping[str, Any]) -> Json:
    """A copy of JSON. Texts in place of numbers become numbers, as Elastic-Job's parser reads them.

    Elastic-Job's console sends `"shardingTotalCount": "3"`. A whole number may have the form 3.0.
    """
    found = dict(given)
    for name in (*_AMOUNTS, *_WHOLE_NUMBERS):
        value = found.get(name)
        if isinstance(value, str) and _NUMBER.fullmatch(value):
            value = Decimal(value)
        if name in _WHOLE_NUMBERS and isinstance(value, Decimal) and value == value.to_integral_value():
            value = int(value)
        if name in found:
            found[name] = value
    return found


def java_code(config: Mapping[str, Any]) -> tuple[str, str] | None:
    """The field and the name of code that can only be Java; None if there is none.

    The name of a Python class has a colon here.
    """
    if config.get("jobType") == "SCRIPT":
        return None
    name, context = config.get("jobClass"), config.get("applicationContext")
    if isinstance(context, str) and is_spring_xml(context):
        return "applicationContext", context
    return ("jobClass", name) if isinstance(name, str) and "." in name and ":" not in name else None


def elastic_job_items(text: str) -> dict[int, str]:
    """The parameters by item, as Elastic-Job 2.1.5 reads `shardingItemParameters`. Raises ConfigError if it fails.

    Of an item that is given twice, the last value counts. Text behind a second `=` fails, but an empty text does not.
    """
    found: dict[int, str] = {}
    for part in _java_split(text, ","):
        pair = _java_split(part.strip(_TRIMMED), "=")
        key = pair[0].strip(_TRIMMED) if pair else ""
        whole = _ITEM.fullmatch(key) is not None and max(map(ord, key)) <= _BASIC_PLANE
        if len(pair) != 2 or not whole or not -_MAX_INT - 1 <= int(key) <= _MAX_INT:
            fix = 'e.g. "0=Berlin,1=Paris"; each launch of this job fails in Elastic-Job-Cloud'
            raise ConfigError(f"{part[:80]!r} is not an item=value pair", field=_SHARDING, fix=fix)
        found[int(key)] = pair[1].strip(_TRIMMED)
    return found


def _java_split(text: str, sign: str) -> list[str]:
    """As String.split: without the empty texts at the end. A text without the sign stays as it is."""
    parts = text.split(sign)
    while len(parts) > 1 and not parts[-1]:
        parts.pop()
    return parts if parts != [""] or sign not in text else []


def _read_items(config: Json, changes: list[str]) -> None:
    """Replace item parameters that only Elastic-Job accepts by the value that it uses. Raises ConfigError."""
    text, total = config.get(_SHARDING), config.get("shardingTotalCount")
    if not isinstance(text, str) or not text or text.lstrip().startswith("{") or not isinstance(total, int):
        return
    given = elastic_job_items(text)
    used = {item: value for item, value in sorted(given.items()) if 0 <= item < total}
    try:
        if parse_items(text, total) == used:
            return
    except ConfigError:
        pass
    plain = ",".join(f"{item}={value}" for item, value in used.items())
    same = plain and parse_items(plain, total) == used
    config[_SHARDING] = plain if same or not used else stored_item_parameters({str(i): v for i, v in used.items()})
    changes.append(f"{_SHARDING}: {short(text)} becomes {short(config[_SHARDING])}, the value that Elastic-Job uses")
    ignored = sorted(given.keys() - used.keys())
    if ignored:
        listed = ", ".join(map(str, ignored[:_MAX_NAMED]))
        changes.append(f"{_SHARDING}: there are {total} shards, so Elastic-Job ignores the items {listed}")


def _name_other_days(cron: Any, changes: list[str]) -> None:
    """Name lists of days that the Quartz of Elastic-Job reads in another way."""
    fields = cron.upper().split() if isinstance(cron, str) else []
    if len(fields) > 3 and "," in fields[3] and "W" in fields[3]:
        changes.append(
            f"cron: {short(cron)} fires on each day of its list; the Quartz of Elastic-Job-Cloud uses only the workday "
            "nearest to the first of them"
        )


def _check_context(config: Json, changes: list[str]) -> None:
    """Drop the bean and its context unless both are given, as Elastic-Job does."""
    if not (config.get("beanName") and config.get("applicationContext")):
        _drop(config, "beanName", changes)
        _drop(config, "applicationContext", changes)


def _convert_handlers(config: Json, changes: list[str]) -> None:
    """Keep the handlers of a Java job. Those of other jobs are unknown here, and the defaults need not be given."""
    handlers = config.get("jobProperties")
    if not isinstance(handlers, dict):
        return
    del config["jobProperties"]
    given = {name: value for name, value in handlers.items() if value and value != DEFAULT_HANDLERS.get(name)}
    if java_code(config) is None:
        changes += [
            f"jobProperties.{name[:80]}: {short(value)} is left out; only the default is supported"
            for name, value in given.items()
        ]
    elif given:
        config["jobProperties"] = given
        changes += [
            f"jobProperties.{name[:80]}: {short(value)} is used here; Elastic-Job-Cloud never used it"
            for name, value in given.items()
        ]


def _drop(config: Json, name: str, changes: list[str]) -> None:
    if config.pop(name, None):
        changes.append(f"{name}: had no effect on this job and is left out")


def _kept(given: Mapping[str, Any], known: frozenset[str], changes: list[str]) -> Json:
    """The known fields with a value. Elastic-Job treats a null field as absent."""
    _name_unknown("", given.keys() - known, "is unknown to Elastic-Job-Cloud and is left out", changes)
    return {name: value for name, value in given.items() if name in known and value is not None}


def _name_unknown(before: str, unknown: Collection[str], what: str, changes: list[str]) -> None:
    """Name the first unknown fields, and count the others."""
    changes += [f"{before}{name[:80]}: {what}" for name in sorted(unknown)[:_MAX_NAMED]]
    if len(unknown) > _MAX_NAMED:
        changes.append(f"{len(unknown) - _MAX_NAMED} more unknown fields are left out")


def _round_up(config: Json, name: str, changes: list[str]) -> None:
    """Round up to thousandths, the precision of Mesos."""
    value = config.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return
    exact = Decimal(str(value))
    if abs(exact) > _MOST:
        return
    rounded = exact.quantize(Decimal("0.001"), ROUND_CEILING)
    if rounded != exact:
        changes.append(f"{name}: {value} is rounded up to {rounded}")
    if rounded == rounded.to_integral_value():
        config[name] = int(rounded)
    else:
        config[name] = rounded if isinstance(value, Decimal) else float(rounded)


def short(value: object) -> str:
    """A value in a text for users, of at most 100 characters."""
    return repr(value)[:100]
