"""Quartz's XML files with jobs and triggers.

Source: job_scheduling_data_2_0.xsd and 1_8.xsd of Quartz 2.5.2, misfire instructions of its API documentation. A
document type declaration, and so every entity of its own, is refused before anything of it is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final
from xml.parsers import expat

from jobcloud.client.import_cron.intervals import fields_of
from jobcloud.client.import_cron.report import Item, Json, Kind

MAX_DEPTH: Final = 32
MAX_ELEMENTS: Final = 200_000
MAX_ENTRIES: Final = 1_000
_DEFAULT_GROUP: Final = "DEFAULT"
_NORMAL_PRIORITY: Final = "5"
_MISFIRES: Final = {
    "": "once",
    "MISFIRE_INSTRUCTION_SMART_POLICY": "once",
    "MISFIRE_INSTRUCTION_FIRE_ONCE_NOW": "once",
    "MISFIRE_INSTRUCTION_DO_NOTHING": "skip",
    "MISFIRE_INSTRUCTION_IGNORE_MISFIRE_POLICY": "all",
}
_LEFT_OUT_OF_JOBS: Final = {"durability": "false", "recover": "false"}
_DAY_MS: Final = 86_400_000
_LOCAL: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}", re.ASCII)


class XmlError(ValueError):
    """A file is not XML, or is refused. The text names the line."""


@dataclass(slots=True)
class _Node:
    """An element. `name` lacks its namespace."""

    name: str
    line: int
    text: list[str] = field(default_factory=list)
    children: list[_Node] = field(default_factory=list)

    def first(self, name: str) -> _Node | None:
        return next((child for child in self.children if child.name == name), None)

    def value(self, name: str) -> str:
        """The text of the first child of this name, or ""."""
        child = self.first(name)
        return "".join(child.text).strip() if child else ""


def read(data: bytes, source: str) -> Iterator[Item]:
    """One item for each trigger, and for each job that has none."""
    try:
        root = _parse(data)
    except XmlError as error:
        yield Item(Kind.FILE, source, 0, "").refuse(str(error))
        return
    if root.name != "job-scheduling-data":
        fix = "is no file of Quartz: its element is not job-scheduling-data"
        yield Item(Kind.FILE, source, root.line, root.name[:80]).refuse(f"it {fix}")
        return
    schedules = [child for child in root.children if child.name == "schedule"]
    jobs: dict[tuple[str, str], _Node] = {}
    used: set[tuple[str, str]] = set()
    for schedule in schedules:
        for job in schedule.children:
            if job.name == "job":
                jobs.setdefault(_key(job), job)
    for child in root.children:
        if child.name == "pre-processing-commands":
            yield Item(Kind.FILE, source, child.line, child.name).skip("commands that delete jobs are not carried out")
    for schedule in schedules:
        for element in schedule.children:
            if element.name == "trigger":
                kind = next(iter(element.children), None)
                if kind is None:
                    yield Item(Kind.TRIGGER, source, element.line, "trigger").refuse("it is empty")
                    continue
                key = kind.value("job-group") or _DEFAULT_GROUP, kind.value("job-name")
                used.add(key)
                yield _trigger(kind, jobs.get(key), source)
    for key, job in jobs.items():
        if key not in used:
            yield Item(Kind.JOB, source, job.line, job.value("name")).skip("a job without a trigger")


def _key(node: _Node) -> tuple[str, str]:
    return node.value("group") or _DEFAULT_GROUP, node.value("name")


def _trigger(trigger: _Node, job: _Node | None, source: str) -> Item:
    group, name = trigger.value("job-group") or _DEFAULT_GROUP, trigger.value("job-name")
    shown = f"{trigger.name} {trigger.value('name')} of {name}"
    item = Item(Kind.TRIGGER, source, trigger.line, shown, name=name if group == _DEFAULT_GROUP else f"{group}.{name}")
    reason = _refusal(trigger, job) or (_too_much(trigger, job) if job else "")
    if reason or job is None:
        return item.refuse(reason)
    times = _cron(trigger, item) if trigger.name == "cron" else _simple(trigger, item)
    if isinstance(times, str):
        return item.refuse(times)
    misfire = trigger.value("misfire-instruction")
    if trigger.name == "cron" and misfire not in _MISFIRES:
        return item.refuse(f"the misfire instruction {misfire[:80]!r} is unknown")
    catch_up = _MISFIRES.get(misfire, "once")
    if trigger.name != "cron" and misfire:
        item.changes.append(f"misfire-instruction: {misfire[:80]} becomes catchUp: once")
    item.job = {
        **times,
        **_period(trigger, item, once=any(text.startswith("@at ") for text in times.get("triggers", ()))),
        **({"catchUp": catch_up} if catch_up != "skip" else {}),
        **_job(trigger, job, item),
    }
    item.job["description"] = (trigger.value("description") or job.value("description") or f"from {source}")[:400]
    if trigger.value("start-time-seconds-in-future"):
        item.changes.append("start-time-seconds-in-future: it is left out; the job fires from its registration on")
    if (priority := trigger.value("priority")) and priority != _NORMAL_PRIORITY:
        item.changes.append(f"priority: {priority[:20]} is left out; see the field priority")
    return item


def _refusal(trigger: _Node, job: _Node | None) -> str:
    if trigger.name not in ("cron", "simple", "calendar-interval"):
        return f"triggers of the kind {trigger.name[:80]!r} are unknown"
    if not trigger.value("job-name"):
        return "it names no job"
    if job is None:
        return f"its job {trigger.value('job-name')[:80]!r} is not in the file"
    if calendar := trigger.value("calendar-name"):
        return f"it excludes the days of the calendar {calendar[:80]!r}, which is not in the file"
    for key in ("start-time", "end-time"):
        if (given := trigger.value(key)) and not _LOCAL.fullmatch(given):
            return f"its {key} {given[:40]!r} has no form such as 2026-12-24T18:00:00, in the zone of the job"
    if not job.value("job-class"):
        return "its job has no job-class"
    return ""


def _period(trigger: _Node, item: Item, *, once: bool) -> Json:
    """The first and the last time, which Quartz reads in the zone of its machine. `once`: the first is a trigger."""
    found: Json = {}
    if once:
        item.changes.append("start-time: it becomes a trigger @at, in the time zone of the job")
    for key, name in (("start-time", "startTime"), ("end-time", "endTime")):
        if (given := trigger.value(key)) and not (once and key == "start-time"):
            found[name] = given
            item.changes.append(f"{key}: it becomes {name}, in the time zone of the job")
    return found


def _too_much(*owners: _Node) -> str:
    if sum(len(getattr(owner.first("job-data-map"), "children", [])) for owner in owners) > MAX_ENTRIES:
        return f"its job-data-map has more than {MAX_ENTRIES:,} entries"
    return ""


def _cron(trigger: _Node, item: Item) -> Json:
    text = " ".join(trigger.value("cron-expression").split())
    zone = trigger.value("time-zone")
    fields = text.upper().split()
    if len(fields) > 3 and "," in fields[3] and "W" in fields[3]:
        item.changes.append("cron: it fires on each day of its list; Quartz before 2.5 uses only one of them")
    # Quartz skips times that the clock skips. Of two equal times it takes the second, which is not offered here.
    found: Json = {"cron": text, "dstGap": "skip", "dstFold": "once"}
    if zone:
        found["timeZone"] = zone
    return found


def _simple(trigger: _Node, item: Item) -> Json | str:
    """The times of a simple trigger or of a calendar interval, or the reason of a refusal."""
    interval = trigger.value("repeat-interval")
    if trigger.name == "simple" and (not interval or trigger.value("repeat-count") in ("", "0")):
        if start := trigger.value("start-time"):
            return {"triggers": [f"@at {start}"]}
        return "it fires once, after the start of the scheduler; trigger the job by hand, or give it a start-time"
    if not interval.isascii() or not interval.isdigit() or len(interval) > 15:
        return "its repeat-interval is no number"
    units = {"SECOND": 1_000, "MINUTE": 60_000, "HOUR": 3_600_000, "DAY": _DAY_MS, "WEEK": 7 * _DAY_MS}
    unit = 1
    if trigger.name == "calendar-interval":
        named = trigger.value("repeat-interval-unit")
        if named not in units:
            return f"it repeats by the {named[:20].lower() or 'unknown unit'}; firings here come at times of the clock"
        unit = units[named]
    elif trigger.value("repeat-count") != "-1":
        return f"it repeats {trigger.value('repeat-count')[:20] or '0'} times; a job here fires until it is disabled"
    every = int(interval) * unit
    if every < 1_000 or every % 1_000:
        return f"its interval of {every} ms is no whole number of seconds"
    if trigger.value("start-time"):
        return {"triggers": [f"@every {every // 1_000}s"]}
    fields = fields_of(every // 1_000)
    since = "full minutes, hours and midnight" if "cron" in fields else "1970-01-01 00:00 UTC"
    item.changes.append(f"repeat-interval: it counts from {since}, not from the start of the scheduler")
    return fields


def _job(trigger: _Node, job: _Node, item: Item) -> Json:
    """The fields of the job's code and its parameter."""
    name = job.value("job-class")
    item.changes.append("job-class: a class of Quartz's interface Job must be adapted to jobcloud: docs/executor.md")
    for key, usual in _LEFT_OUT_OF_JOBS.items():
        if job.value(key) not in ("", usual):
            item.changes.append(f"{key}: it is left out")
    found: Json = {"jobType": "SIMPLE", "jobExecutionType": "TRANSIENT", "jobClass": name}
    entries: dict[str, str] = {}
    for owner in (job, trigger):
        for entry in getattr(owner.first("job-data-map"), "children", []):
            entries[entry.value("key")] = entry.value("value")
    if entries:
        found["jobParameter"] = json.dumps(entries, ensure_ascii=False)
        item.changes.append("job-data-map: it becomes jobParameter, an object in JSON")
    return found


def _parse(data: bytes) -> _Node:
    """The root element. Raises XmlError for text that is not XML, declares a type, is too deep, or has too much."""
    parser = expat.ParserCreate(namespace_separator=" ")
    root = _Node("", 0)
    path = [root]
    count = 0

    def begin(name: str, attributes: dict[str, str]) -> None:
        nonlocal count
        count += 1
        if count > MAX_ELEMENTS:
            raise XmlError(f"it has more than {MAX_ELEMENTS:,} elements; split it")
        if len(path) > MAX_DEPTH:
            raise XmlError(f"line {parser.CurrentLineNumber}: elements are nested more than {MAX_DEPTH} deep")
        node = _Node(name.rpartition(" ")[2], parser.CurrentLineNumber)
        path[-1].children.append(node)
        path.append(node)

    def end(name: str) -> None:
        path.pop()

    def text(piece: str) -> None:
        path[-1].text.append(piece)

    def refuse(*_: object) -> None:
        raise XmlError(f"line {parser.CurrentLineNumber}: a document type declaration is refused; remove it")

    parser.StartElementHandler, parser.EndElementHandler = begin, end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise XmlError(f"line {error.lineno}: it is not XML: {expat.ErrorString(error.code)}") from error
    except XmlError:
        raise
    except (ValueError, LookupError) as error:  # an encoding that Python does not know, or cannot use
        raise XmlError(f"it is not XML: {str(error)[:80]}") from error
    return root.children[0]
