"""Timers of systemd, with the commands of their services.

Source: systemd.timer(5), systemd.service(5), systemd.exec(5) of systemd 252.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from jobcloud.client.import_cron import on_calendar, units
from jobcloud.client.import_cron.intervals import fields_of
from jobcloud.client.import_cron.report import Item, Json, Kind
from jobcloud.client.import_cron.units import Unit, UnitError
from jobcloud.triggers import MAX_TRIGGERS

_UNITS_OF_TIME: Final = {
    **dict.fromkeys(("seconds", "second", "sec", "s"), 1),
    **dict.fromkeys(("minutes", "minute", "min", "m"), 60),
    **dict.fromkeys(("hours", "hour", "hr", "h"), 3_600),
    **dict.fromkeys(("days", "day", "d"), 86_400),
    **dict.fromkeys(("weeks", "week", "w"), 604_800),
}
_SPAN: Final = re.compile(r"(\d{1,9})\s*([a-z]*)\s*")
_TRUE: Final = frozenset({"1", "yes", "y", "true", "t", "on"})
_BOOT: Final = ("OnBootSec", "OnStartupSec", "OnActiveSec")
_INTERVALS: Final = ("OnUnitActiveSec", "OnUnitInactiveSec")
_KNOWN_OF_TIMER: Final = frozenset(
    {"OnCalendar", *_BOOT, *_INTERVALS, "Persistent", "RandomizedDelaySec", "AccuracySec", "Unit", "RemainAfterElapse"}
    | {"FixedRandomDelay", "WakeSystem", "OnClockChange", "OnTimezoneChange"}
)
_COMMANDS_AROUND: Final = ("ExecCondition", "ExecStartPre", "ExecStartPost", "ExecStop", "ExecStopPost")
_OWN_KEYS: Final = frozenset(
    {"ExecStart", "Type", "Environment", "WorkingDirectory", "TimeoutStartSec", *_COMMANDS_AROUND}
)
_DAY: Final = 86_400
MAX_SCHEDULES: Final = 100


def read(name: str, source: str, files: Mapping[str, bytes]) -> Iterator[Item]:
    """The items of the timer `name`. `files`: the given unit files and drop-ins, by their names.

    All OnCalendar of one time zone become one job with several triggers.
    """
    item = Item(Kind.TIMER, source, 0, name)
    stem = name.removesuffix(".timer")
    item.name = stem
    if stem.endswith("@"):
        yield item.refuse("it is a template; import its instances by hand")
        return
    try:
        timer = units.parse(_texts(name, files))
        service_name = timer.last("Timer", "Unit") or f"{stem}.service"
        command = _service(item, service_name, files)
        schedules = list(_schedules(timer))
        common = _common(item, timer)
    except UnitError as error:
        yield item.refuse(str(error))
        return
    if len(schedules) > MAX_SCHEDULES:
        yield item.refuse(f"it has {len(schedules):,} schedules, more than {MAX_SCHEDULES}")
        return
    if not schedules:
        boot = next((key for key in _BOOT if timer.all("Timer", key)), "")
        yield item.refuse(f"{boot} fires after a start of the machine" if boot else "it has no OnCalendar")
        return
    schedules = list(_joined(schedules))
    jobs = sum("reason" not in fields for _, fields, _ in schedules)
    for text, fields, changes in schedules:
        one = Item(Kind.TIMER, source, 0, f"{name}: {text}", name=stem, changes=[*item.changes, *changes])
        if jobs > 1:
            one.changes.append(f"the timer becomes {jobs} jobs, which may overlap")
        if "reason" in fields:
            yield one.refuse(str(fields["reason"]))
            continue
        one.job = {**fields, **common, **command, "description": f"from {source}"[:400]}
        yield one


def service_of(name: str, files: Mapping[str, bytes]) -> str:
    """The name of the unit that a timer starts; "" if the timer cannot be read."""
    try:
        return units.parse(_texts(name, files)).last("Timer", "Unit") or f"{name.removesuffix('.timer')}.service"
    except UnitError:
        return ""


def _texts(name: str, files: Mapping[str, bytes]) -> list[bytes]:
    if name not in files:
        raise UnitError(f"{name} is not among the given files")
    return [
        files[name],
        *(files[one] for one in sorted(files) if one.startswith(f"{name}.d/") and one.endswith(".conf")),
    ]


def _schedules(timer: Unit) -> Iterator[tuple[str, Json, list[str]]]:
    """The text, the fields and the differences of each schedule. The fields have `reason` if it is refused."""
    for text in timer.all("Timer", "OnCalendar"):
        try:
            found = on_calendar.convert(units.without_specifiers(text))
        except (on_calendar.CalendarError, UnitError) as error:
            yield f"OnCalendar={text}", {"reason": str(error)}, []
            continue
        # systemd skips times that the clock skips, and fires once at times that it repeats.
        fields: Json = {"cron": found.cron, "dstGap": "skip", "dstFold": "once"}
        if found.zone:
            fields["timeZone"] = found.zone
        yield f"OnCalendar={text}", fields, []
    for key in _INTERVALS:
        for text in timer.all("Timer", key):
            yield f"{key}={text}", *_interval(key, text)


def _joined(schedules: Iterable[tuple[str, Json, list[str]]]) -> Iterator[tuple[str, Json, list[str]]]:
    """The schedules, with all OnCalendar of one time zone as one. A further one begins when a job has no room left."""
    groups: dict[tuple[str, int], list[tuple[str, Json, list[str]]]] = {}
    for number, schedule in enumerate(schedules):
        text, fields, _ = schedule
        is_calendar = text.startswith("OnCalendar=") and "cron" in fields
        alike = (fields.get("timeZone", ""), -1) if is_calendar else ("", number)
        groups.setdefault(alike, []).append(schedule)
    for group in groups.values():
        for begin in range(0, len(group), 1 + MAX_TRIGGERS):
            part = group[begin : begin + 1 + MAX_TRIGGERS]
            text, fields, changes = part[0]
            if more := list(dict.fromkeys(one[1]["cron"] for one in part[1:] if one[1]["cron"] != fields["cron"])):
                text = "; ".join(one[0] for one in part)
                fields = {**fields, "triggers": more}
            yield text, fields, changes


def _interval(key: str, text: str) -> tuple[Json, list[str]]:
    seconds = seconds_of(text)
    if not seconds:
        return {"reason": f"{text[:40]!r} is no whole number of seconds"}, []
    if key == "OnUnitInactiveSec":
        return {"triggers": [f"@after {seconds}s"]}, [f"{key}: the first run fires when the job is registered"]
    fields = fields_of(seconds)
    since = "full minutes, hours and midnight" if "cron" in fields else "1970-01-01 00:00 UTC"
    return fields, [f"{key}: it counts from {since}, not from the last start"]


def seconds_of(text: str) -> int:
    """The seconds of a span such as `1h 30min`; a bare number counts seconds. 0 for a text that is no whole number."""
    given, total, index = text.strip().lower(), 0, 0
    while index < len(given):
        part = _SPAN.match(given, index)
        if not part or (part[2] and part[2] not in _UNITS_OF_TIME):
            return 0
        total += int(part[1]) * _UNITS_OF_TIME.get(part[2], 1)
        index = part.end()
    return total


def _common(item: Item, timer: Unit) -> Json:
    """The fields that all schedules of a timer share. Adds the differences to `item`."""
    for key in _BOOT:
        if timer.all("Timer", key):
            item.changes.append(f"{key}: it is left out; no job fires when a machine starts")
    common: Json = {"catchUp": "once"} if timer.last("Timer", "Persistent").lower() in _TRUE else {}
    if delay := min(seconds_of(timer.last("Timer", "RandomizedDelaySec")), _DAY):
        common["jitterSeconds"] = delay
        item.changes.append(f"RandomizedDelaySec: it becomes jitterSeconds: {delay}")
    for key in ("AccuracySec", "FixedRandomDelay"):
        if timer.last("Timer", key):
            item.changes.append(f"{key}: it is left out")
    for key in ("WakeSystem", "OnClockChange", "OnTimezoneChange"):
        if timer.last("Timer", key).lower() in _TRUE:
            item.changes.append(f"{key}: it is left out")
    for key in timer.keys("Timer"):
        if key not in _KNOWN_OF_TIMER:
            item.changes.append(f"{key[:80]}: it is unknown and left out")
    return common


def _service(item: Item, name: str, files: Mapping[str, bytes]) -> Json:
    """The fields of the job with the command of the service. Raises UnitError."""
    if not name.endswith(".service"):
        raise UnitError(f"it starts {name[:80]!r}, which is no service")
    service = units.parse(_texts(name, files))
    around = next((key for key in _COMMANDS_AROUND if service.all("Service", key)), "")
    if around:
        raise UnitError(f"{name} has {around}; write one script of its commands")
    lines = service.all("Service", "ExecStart")
    if not lines:
        raise UnitError(f"{name} has no ExecStart")
    if service.all("Service", "EnvironmentFile"):
        raise UnitError(f"{name} has an EnvironmentFile, which is on its machine only")
    commands = [_command(item, line) for line in lines]
    variables = _variables(service)
    folder = units.without_specifiers(service.last("Service", "WorkingDirectory"))
    job: Json = {"jobType": "SCRIPT", "jobExecutionType": "TRANSIENT"}
    job["scriptCommandLine"] = _line(commands, variables, folder)
    for key in service.keys("Service"):
        if key in ("User", "Group", "DynamicUser"):
            item.changes.append(f"{key}: the job runs as the user of the executor")
        elif key not in _OWN_KEYS:
            item.changes.append(f"{key[:80]}: it is left out")
    if service.last("Service", "Type") not in ("", "oneshot", "simple", "exec"):
        item.changes.append(f"Type: {service.last('Service', 'Type')[:40]}: the run ends when the command ends")
    if seconds := seconds_of(service.last("Service", "TimeoutStartSec")):
        job["timeoutSeconds"] = seconds
    return job


def _line(commands: list[tuple[list[str], bool]], variables: list[str], folder: str) -> str:
    """One command line. `commands`: the words of each command, and whether its failure is ignored."""
    if len(commands) == 1 and not folder and not commands[0][1]:
        return shlex.join([*(["env", *variables] if variables else []), *commands[0][0]])
    steps = [f"export {name}={shlex.quote(value)}" for name, _, value in (one.partition("=") for one in variables)]
    if folder:
        steps.append(f"cd {shlex.quote(folder.removeprefix('-'))}" + (" || true" if folder.startswith("-") else ""))
    steps += [shlex.join(words) + (" || true" if ignored else "") for words, ignored in commands]
    return shlex.join(("/bin/sh", "-ec", "\n".join(steps)))


def _command(item: Item, line: str) -> tuple[list[str], bool]:
    """The words of an ExecStart, and whether its failure is ignored. Raises UnitError."""
    signs = re.match(r"[-@:+!|]*", line)
    prefix = signs[0] if signs else ""
    words = units.words(line[len(prefix) :])
    if ";" in words:
        raise UnitError("an ExecStart with several commands is not supported; write one a line")
    if ":" not in prefix and any("$" in word.replace("$$", "") for word in words):
        raise UnitError(f"systemd replaces variables in {line[:80]!r}; write a script, or sh -c")
    if "@" in prefix:
        if len(words) < 2:
            raise UnitError(f"{line[:80]!r} lacks the name of its program")
        item.changes.append("ExecStart: the program gets its own name, not the one behind @")
        words = [words[0], *words[2:]]
    if set(prefix) & set("+!"):
        item.changes.append("ExecStart: it runs with the rights of the executor")
    if not words:
        raise UnitError("an ExecStart is empty")
    found = [units.without_specifiers(word).replace("$$", "$") for word in words]
    return found, "-" in prefix


def _variables(service: Unit) -> list[str]:
    found: list[str] = []
    for line in service.all("Service", "Environment"):
        for word in units.words(line):
            name, sign, _ = word.partition("=")
            if not sign or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise UnitError(f"{word[:80]!r} in Environment is no variable")
            found.append(units.without_specifiers(word))
    return found
