"""Crontabs of users, and of the system, which name a user in each line.

Source: crontab(5) of Debian's cron 3.0pl1-162; quotes, `%` and backslashes as observed in its daemon. CRON_TZ and
RANDOM_DELAY are those of crontab(5) of cronie 1.6.
"""

from __future__ import annotations

import calendar
import re
import shlex
from collections.abc import Iterator
from typing import Final

from jobcloud import cron
from jobcloud.client.import_cron.report import Action, Item, Json, Kind

MAX_LINES: Final = 20_000
#: Of `sh`, cron's own.
_SHELL: Final = "/bin/sh"
_VARIABLE: Final = re.compile(r"""(?:"([^"]*)"|'([^']*)'|([^\s="']+))\s*=\s*""")
MAX_VARIABLES: Final = 100
MAX_VALUE: Final = 4_096
# The indexes of the day fields.
_DAY, _WEEKDAY = 2, 4
_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLAIN: Final = re.compile(r"[\w./:@%+,= -]+", re.ASCII)
_ENTRY: Final = re.compile(r"(@\S+|\S+[ \t]+\S+[ \t]+\S+[ \t]+\S+[ \t]+\S+)(?:[ \t]+(.*))?", re.DOTALL)
_COMMENTED: Final = re.compile(r"#\s*(@[a-z]+|[\d*][\d*/,-]*(\s+[\w*/,-]+){4})\s+\S")
_RANGE: Final = re.compile(r"([A-Z]{3}|\d{1,9})-([A-Z]{3}|\d{1,9})(/\d+)?")
_STEP_OF_ONE: Final = re.compile(r"(\d{1,9}|[A-Z]{3})/\d+")
_NAMES: Final = {
    **{name: number for number, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"))},
    **{name: number for number, name in enumerate(map(str.upper, calendar.month_abbr)) if name},
}
# Words of a command before its program.
_MAX_DELAY_MIN: Final = 1_440
_WRAPPERS: Final = frozenset(
    {"cd", "env", "exec", "ionice", "nice", "nohup", "sudo", "test", "[", "time", "timeout", "flock"}
)
_INTERPRETERS: Final = frozenset(
    {"sh", "bash", "dash", "zsh", "python", "python3", "perl", "php", "ruby", "node", "java"}
)
_UNUSED: Final = {
    "MAILTO": "nobody gets mail; the output is in the log of the task, and alerts tell of failures",
    "MAILFROM": "nobody gets mail",
    "CONTENT_TYPE": "nobody gets mail",
    "CONTENT_TRANSFER_ENCODING": "nobody gets mail",
    "START_HOURS_RANGE": "it belongs to anacron; the jobs below fire at their own times",
    "LOGNAME": "cron does not take it either",
}


def read(data: bytes, source: str, *, system: bool) -> Iterator[Item]:
    """One item for each line. `system`: the sixth field is a user. Only `SHELL`, `HOME` and variables are kept."""
    lines = data.split(b"\n")
    complete = lines and not lines[-1]
    if complete:
        lines.pop()
    if len(lines) > MAX_LINES:
        yield Item(Kind.FILE, source, 0, "").refuse(f"it has {len(lines)} lines, more than {MAX_LINES}; split it")
        return
    reader = _Reader(source, system=system)
    for number, line in enumerate(lines, 1):
        item = reader.line(number, line)
        if number == len(lines) and not complete and item.action is not Action.REFUSED:
            item.changes.append("cron refuses a file whose last line has no newline")
            if item.action is Action.TAKEN:
                item.action = Action.CHANGED
        yield item


class _Reader:
    def __init__(self, source: str, *, system: bool) -> None:
        self._source, self._system = source, system
        self._variables: dict[str, str] = {}
        #: seconds, from RANDOM_DELAY
        self._jitter = 0

    def line(self, number: int, data: bytes) -> Item:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            shown = data.decode(errors="replace")
            return Item(Kind.LINE, self._source, number, shown).refuse("it is not UTF-8 text; convert the file")
        item = Item(Kind.LINE, self._source, number, text.strip())
        stripped = text.lstrip(" \t")
        if not stripped or stripped.startswith("#"):
            item.kind = Kind.COMMENT
            looks = _COMMENTED.match(stripped)
            return item.skip(
                "a comment; it looks like a disabled line, which is not imported" if looks else "a comment"
            )
        if "\r" in text or "\0" in text:
            return item.refuse("it holds a carriage return or NUL, which cron passes to the command; convert the file")
        found = _VARIABLE.match(stripped)
        value = _unquoted(stripped[found.end() :].rstrip()) if found else None
        if found and value is not None:
            return self._variable(item, found[1] or found[2] or found[3] or "", value)
        return self._entry(item, stripped)

    def _variable(self, item: Item, name: str, value: str) -> Item:
        item.kind, item.text = Kind.VARIABLE, f"{name}={value}"
        if len(value) > MAX_VALUE or len(self._variables) >= MAX_VARIABLES:
            return item.refuse(
                f"there are at most {MAX_VARIABLES} variables, with at most {MAX_VALUE:,} characters each"
            )
        if name in _UNUSED:
            item.action, item.changes = Action.CHANGED, [f"{name}: {_UNUSED[name]}"]
            return item
        if name == "RANDOM_DELAY":
            if not value.isascii() or not value.isdigit() or len(value) > 4 or int(value) > _MAX_DELAY_MIN:
                return item.refuse(f"{value[:40]!r} is no delay in minutes, from 0 to {_MAX_DELAY_MIN}")
            self._jitter = 60 * int(value)
            item.action = Action.CHANGED
            item.changes.append(
                f"RANDOM_DELAY: it is jitterSeconds: {self._jitter} below, as in cronie; Debian's cron ignores it"
            )
            return item
        if name == "CRON_TZ":
            item.action = Action.CHANGED
            item.changes.append(
                "CRON_TZ: it is the time zone of the lines below, as in cronie; Debian's cron ignores it"
            )
        elif not _IDENTIFIER.fullmatch(name):
            return item.refuse(f"{name[:80]!r} cannot be the name of a variable of a shell")
        elif name.startswith(("JOBCLOUD_", "MESOS_")):
            return item.refuse(f"{name[:80]!r} is reserved")
        elif name == "TZ":
            item.action = Action.CHANGED
            item.changes.append(
                "TZ: the commands below get it; fire times follow --zone, as in cron that of the machine"
            )
        self._variables[name] = value
        return item

    def _entry(self, item: Item, text: str) -> Item:
        parts = _ENTRY.fullmatch(text)
        if not parts:
            return item.refuse("it is neither a variable, nor five fields and a command")
        when, rest = parts[1], parts[2] or ""
        if when.lower() == "@reboot":
            return item.refuse("@reboot fires when a machine starts; a DAEMON job keeps running on some agent")
        if self._system:
            user, _, rest = rest.partition(" ") if "\t" not in rest.split(" ", 1)[0] else rest.partition("\t")
            rest = rest.lstrip(" \t")
            if user and user != "-":
                item.changes.append(f"it runs as the user of the executor, not as {user[:40]!r}")
        elif re.match(r"root[ \t]+\S", rest):
            return item.refuse(
                "its command is 'root', so it seems to be a line of a system crontab: --from system-crontab"
            )
        if not rest.strip():
            return item.refuse("it has no command")
        try:
            item.job = {**self._schedule(item, when), **self._command(item, rest)}
        except cron.CronError as error:
            return item.refuse(str(error))
        item.job["description"] = f"from {self._source}:{item.line}"[:400]
        return item

    def _schedule(self, item: Item, when: str) -> Json:
        """The fields of the job with its times. Raises CronError."""
        expression = when if when.startswith("@") else " ".join(_usable_fields(item, when.split()))
        cron.Schedule.parse(expression, dialect=cron.Dialect.UNIX)
        zone = self._variables.get("CRON_TZ")
        found: Json = {"cron": expression, "cronDialect": "unix"}
        if zone:
            found["timeZone"] = zone
        if self._jitter:
            found["jitterSeconds"] = self._jitter
        return found

    def _command(self, item: Item, text: str) -> Json:
        """The fields of the job with its command."""
        command, data = _split(text)
        item.name = _name(command)
        shell, script = self._variables.get("SHELL", _SHELL), []
        for name, value in self._variables.items():
            if name not in ("SHELL", "CRON_TZ"):
                script.append(f"export {name}={shlex.quote(value)}")
        if "HOME" in self._variables:
            script.append('cd "$HOME" || exit')
        if data is not None:
            script.append(f"printf %s {shlex.quote(data)} | {shlex.quote(shell)} -c {shlex.quote(command)}")
        elif not script and shell == _SHELL and command.startswith("/") and _PLAIN.fullmatch(command):
            return _script(command.strip())
        else:
            script.append(command)
        return _script(shlex.join((shell, "-c", "\n".join(script))))


def _unquoted(text: str) -> str | None:
    """The value of a variable without its quotes; None if the text is no value."""
    if text[:1] in ("'", '"'):
        # Debian's cron also cuts the blanks at the end of a value in quotes.
        whole = len(text) > 1 and text.find(text[0], 1) == len(text) - 1
        return text[1:-1].rstrip(" \t") if whole else None
    return text or None


def _script(line: str) -> Json:
    return {"jobType": "SCRIPT", "jobExecutionType": "TRANSIENT", "scriptCommandLine": line}


def _usable_fields(item: Item, given: list[str]) -> list[str]:
    """The five fields without the parts that select nothing in Debian's cron.

    Raises CronError if a field selects nothing, unless it is a day field and the other one alone decides.
    """
    used = [_usable(item, field) for field in given]
    for one, other in ((_DAY, _WEEKDAY), (_WEEKDAY, _DAY)):
        if not used[one] and used[other] and not given[other].startswith("*"):
            used[one] = "*"
            item.changes.append(f"{given[one]}: it selects nothing in cron, so only {given[other]} counts")
    for field, left in zip(given, used, strict=True):
        if not left:
            raise cron.CronError(f"{field!r} runs backwards; cron accepts it and never fires the line")
    return used


def _usable(item: Item, field: str) -> str:
    """A field without the parts that select nothing in Debian's cron; "" if nothing is left."""
    upper = field.upper()
    kept = []
    for part in upper.split(","):
        ends = _RANGE.fullmatch(part)
        if ends and _number(ends[1]) > _number(ends[2]):
            continue
        kept.append(part)
        if _STEP_OF_ONE.fullmatch(part):
            item.changes.append(
                f"{field}: Debian's cron refuses {part}; it is taken as a step up to the end of the field"
            )
    if kept and len(kept) < len(upper.split(",")):
        item.changes.append(f"{field}: ranges that run backwards select nothing in cron and are left out")
    return field if len(kept) == len(upper.split(",")) else ",".join(kept)


def _number(text: str) -> int:
    return _NAMES.get(text, -1) if text.isalpha() else int(text)


def _split(text: str) -> tuple[str, str | None]:
    """The command, and the data for its standard input; None without a `%`.

    In the command, a backslash escapes `%` and itself. In the data, it escapes `%`, and other `%` are newlines.
    """
    command: list[str] = []
    letters = iter(enumerate(text))
    for index, letter in letters:
        following = text[index + 1 : index + 2]
        if letter == "\\" and following in ("%", "\\") and following:
            command.append(following)
            next(letters)
        elif letter == "%":
            data = re.sub(r"\\%|%", lambda sign: "%" if len(sign[0]) > 1 else "\n", text[index + 1 :])
            return "".join(command), data if not data or data.endswith("\n") else f"{data}\n"
        else:
            command.append(letter)
    return "".join(command), None


def _name(command: str) -> str:
    """The name of the program or script, without its directory and the end of its name."""
    words = [word for word in re.split(r"[\s;&|()<>'\"]+", command[:2000]) if word]
    chosen = ""
    for word in words:
        base = word.rpartition("/")[2]
        if not base or base.startswith(("-", "$", "!")) or "=" in base or base in _WRAPPERS or base[0].isdigit():
            continue
        chosen = chosen or base
        if base not in _INTERPRETERS:
            chosen = base
            break
    return re.sub(r"\.(sh|py|pl|php|rb|js|jar)$", "", chosen)
