"""Reads hosts and tasks from CSV files. Errors name file, line and column.

Fields are separated by commas, semicolons or tabs, as in the first line. The columns id (of tasks: or job), cpus and
mem_mb are required; common other names of columns are known. Columns disk_mb, net_mbps, gpus, ports or with any other
name give further resources, as numbers or with a unit (see `amounts`). A column count says how many equal hosts or
tasks a row stands for. Further columns of hosts: port_beg and port_end (instead of ports), attr_NAME (an attribute),
price (of one host). Further columns of tasks: job (by default the id), constraint (see `rules`), arrive_s, leave_s
(below 0: never). Amounts become int64 thousandths, the units of the matcher.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn, TextIO

from jobcloud.errors import ConfigError
from jobcloud.match.constraints import HOST, ConstraintError
from jobcloud.planning.amounts import HOST_COLUMNS, TASK_COLUMNS, Amount, BadAmount, column_of, parse
from jobcloud.planning.nodes import DIMENSIONS, MAX_CHARACTERS, read_nodes
from jobcloud.planning.rules import Rules, parse_rules

#: The maximum of rows in a table, and of tasks or hosts in total. Equal tasks or hosts may share a row with a count.
MAX_ROWS: Final = 2_000_000
MAX_COUNT: Final = 10_000_000

STDIN: Final = "-"

_REQUIRED: Final = ("id", "cpus", "mem_mb")
_MAX_FAULTS: Final = 10
_NOT_RESOURCES: Final = frozenset({
    "id", "job", "count", "constraint", "price", "port_beg", "port_end", "arrive_s", "leave_s",
})  # fmt: skip
_ATTRIBUTE: Final = "attr_"
_MB: Final = "_mb"
_IN_MB: Final = re.compile(r"mi?b\b", re.IGNORECASE)
_SEPARATORS: Final = ",;\t"
_MAX_COLUMNS: Final = 1_000
_MAX_HEADER: Final = 200
_MAX_ROW: Final = 1_000_000
_JSON: Final = ("{", "[")
_UNNAMED: Final = re.compile(r"(unnamed: [0-9]+)?", re.IGNORECASE)
_BINARY: Final = {
    b"\xff\xfe\x00\x00": ("UTF-32 text", "save it as UTF-8"),
    b"\xff\xfe": ("UTF-16 text", "save it as UTF-8"),
    b"\xfe\xff": ("UTF-16 text", "save it as UTF-8"),
    b"\x1f\x8b": ("compressed by gzip", "gunzip it"),
    b"PK": ("a workbook or a zip archive", "export the sheet as CSV"),
    b"\xd0\xcf\x11\xe0": ("a workbook", "export the sheet as CSV"),
    b"PAR1": ("a Parquet file", "export it as CSV"),
}
_NOT_ASCII: Final = re.compile(rb"[\x80-\xff]+")
_GB18030_PAIRS: Final = re.compile(rb"([\xa1-\xf7][\xa1-\xfe])+")


class HostRow(NamedTuple):
    """`copies` equal hosts. `amounts`: thousandths, in the order of the table's `dimensions`."""

    id: str
    amounts: tuple[int, ...]
    attributes: Mapping[str, str]
    copies: int
    price: float
    line: int

    def each(self) -> list[str]:
        """The names of the row's hosts."""
        return each_name(self.id, self.copies)


class TaskRow(NamedTuple):
    """`copies` equal tasks of a job that run from `arrive_s` until `leave_s` (None: forever)."""

    id: str
    job: str
    amounts: tuple[int, ...]
    rules: Rules
    copies: int
    arrive_s: float
    leave_s: float | None
    line: int

    def each(self) -> list[str]:
        """The names of the row's tasks."""
        return each_name(self.id, self.copies)


@dataclass(frozen=True, slots=True)
class HostTable:
    """`notes`: sentences about what was read differently from what the file says."""

    source: str
    dimensions: tuple[str, ...]
    rows: list[HostRow]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskTable:
    """`notes`: sentences about what was read differently from what the file says."""

    source: str
    dimensions: tuple[str, ...]
    rows: list[TaskRow]
    notes: tuple[str, ...] = ()


class BadTable(ConfigError):
    """A table is invalid. `field` names file, line and column. `others`: further errors in the file."""


def read_hosts(path: Path) -> HostTable:
    """The hosts of a file: CSV, or JSON (see `nodes`). "-": standard input. Raises BadTable or BadNodes."""
    table = _Table(path, aliases=True)
    with table.opened() as file:
        if (start := table.json(file)) is not None:
            found, left_out = read_nodes(start, table.name)
            return HostTable(table.name, DIMENSIONS, [HostRow(*n, 1, 0.0, 1) for n in found], left_out)
        rows = [row for cells in table.cells(file) if (row := table.host(cells))]
    table.finish(sum(row.copies for row in rows), "hosts")
    return HostTable(table.name, table.dimensions, rows, tuple(table.notes("down")))


def read_tasks(path: Path) -> TaskTable:
    """The tasks of a CSV file ("-": standard input). Raises BadTable if the file is invalid."""
    table = _Table(path, aliases=True, by_job=True)
    with table.opened() as file:
        rows = [row for cells in table.cells(file) if (row := table.task(cells))]
    table.finish(sum(row.copies for row in rows), "tasks")
    return TaskTable(table.name, table.dimensions, rows, tuple(table.notes("up")))


def read_table(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """The lines of any CSV file as (line, text by column). Raises BadTable if it is invalid or lacks a column."""
    table = _Table(path, columns)
    with table.opened() as file:
        for cells in table.cells(file):
            yield table.line, {name: cells[at].strip() for name, at in table.columns.items()}
    table.finish(1, "")


def parse_amount(text: str, field: str, column: str = "") -> int:
    """A number, or an amount with a unit of the column, as int thousandths. Raises BadTable if it is invalid."""
    try:
        amount = parse(text, column)
    except BadAmount as error:
        raise BadTable(error.problem, field=field, fix=error.fix or "digits, with a point before decimals") from error
    if amount.rounded:
        raise BadTable(f"{text!r:.60} has too many decimals", field=field, fix="at most three decimals")
    return amount.thousandths


class _Fault(Exception):
    """A cell is invalid. The reader skips the row."""


class _Table:
    """A file that is being read. Rows often repeat in such files, so equal cells are parsed once."""

    def __init__(
        self, path: Path, required: tuple[str, ...] = _REQUIRED, *, aliases: bool = False, by_job: bool = False
    ) -> None:
        """`aliases`: common other names of columns are known. `by_job`: the ids may come from the column job."""
        self.path = path
        self._required = required
        self._aliases = aliases
        self._by_job = by_job
        self.name = "standard input" if str(path) == STDIN else str(path)
        self.dimensions: tuple[str, ...] = ()
        self.line = 1
        self.columns: dict[str, int] = {}
        self._attributes: dict[str, int] = {}
        self._seen: set[str] = set()
        self._first = ""
        self._of_row = 0
        self._rows_of_job: Counter[str] = Counter()
        self._numbers: dict[tuple[str, str, int], Amount] = {}
        self._bare: dict[str, int] = {}
        self._without_unit: dict[str, str] = {}
        self._in_mb: set[str] = set()
        self._rounded = 0
        self._instant_tasks = 0
        self._all_but_names: Callable[[list[str]], Any] = tuple
        self._known: dict[Any, tuple[tuple[tuple[int, ...], Rules, int, float, float | None], int]] = {}
        self._faults: list[BadTable] = []

    def opened(self) -> TextIO:
        if str(self.path) == STDIN:
            data = getattr(sys.stdin, "buffer", None)
            return io.TextIOWrapper(data, encoding="utf-8-sig", newline="") if data else sys.stdin
        try:
            return self.path.open(newline="", encoding="utf-8-sig")
        except OSError as error:
            raise BadTable(f"cannot be read: {error.strerror}", field=self.name, fix="name a CSV file") from error

    def json(self, file: TextIO) -> str | None:
        """The whole text if it begins as JSON, otherwise None."""
        try:
            self._first = self._head(file)
            return self._first + file.read(MAX_CHARACTERS) if self._first.lstrip()[:1] in _JSON else None
        except UnicodeDecodeError as error:
            raise self._not_utf_8(error) from error

    def _head(self, file: TextIO) -> str:
        """The first line that is not blank."""
        line = next((line for line in self._lines(file) if line.strip(_SEPARATORS + " \r\n")), "")
        if "\0" in line[:4]:
            raise BadTable("is UTF-16 or UTF-32 text, or binary", field=self.name, fix="save it as text in UTF-8")
        return line

    def _lines(self, file: TextIO) -> Iterator[str]:
        """The lines of the file. Raises BadTable if a row is too long."""
        while line := file.readline(_MAX_ROW + 1):
            self._of_row += len(line)
            # JSON may be one long line.
            if self._of_row > _MAX_ROW and (self._of_row > len(line) or line[:1] not in _JSON):
                problem = f"the row has more than {_MAX_ROW:,} characters"
                fix = "end each row with a line break, and each double quote with another one"
                raise BadTable(problem, field=f"{self.name}, after line {self.line}", fix=fix)
            yield line

    def cells(self, file: TextIO) -> Iterator[list[str]]:
        """The cells of each row. Rows with a wrong number of cells are noted as errors and left out."""
        reader = csv.reader(file, strict=True)
        try:
            first = self._first or self._head(file)
            separator = max(_SEPARATORS, key=first.count)
            reader = csv.reader(chain((first,), self._lines(file)), strict=True, delimiter=separator)
            self._header([name.strip() for name in next(reader, [])])
            for rows, cells in enumerate(reader):
                self.line, self._of_row = reader.line_num, 0
                if rows >= MAX_ROWS:
                    fix = "give equal tasks or hosts one row with a count"
                    raise BadTable(f"there are more than {MAX_ROWS:,} rows", field=self._where(""), fix=fix)
                if not any(map(str.strip, cells)):
                    continue
                if len(cells) == len(self.columns):
                    yield cells
                else:
                    problem = f"has {len(cells)} fields; the first line has {len(self.columns)}"
                    fix = f"write one field per column, and texts with {separator!r} in double quotes"
                    self._note(problem, "", fix)
        except UnicodeDecodeError as error:
            raise self._not_utf_8(error) from error
        except csv.Error as error:
            raise BadTable(f"is not CSV: {error}", field=f"{self.name}, line {reader.line_num}") from error

    def _not_utf_8(self, error: UnicodeDecodeError) -> BadTable:
        if self.line == 1:
            for start, (what, fix) in _BINARY.items():
                if error.object.startswith(start):
                    return BadTable(f"is {what}", field=self.name, fix=fix)
        guess = _encoding_of(error.object)
        return BadTable(
            "is not UTF-8 text" + (f", perhaps it is {guess}" if guess else ""),
            field=f"{self.name}, after line {self.line}",
            fix="save it as UTF-8" + (f", for example with iconv -f {guess} -t UTF-8" if guess else ""),
        )

    def notes(self, way: str) -> Iterator[str]:
        """What was read differently from what the file says. `way`: how amounts were rounded, up or down."""
        if self._rounded:
            numbers = "1 number has" if self._rounded == 1 else f"{self._rounded:,} numbers have"
            yield f"{self.name}: {numbers} more than three decimals; amounts are rounded {way} to thousandths"
        if self._instant_tasks == 1:
            yield f"{self.name}: 1 task leaves when it arrives, so it does not count"
        elif self._instant_tasks:
            yield f"{self.name}: {self._instant_tasks:,} tasks leave when they arrive, so they do not count"
        for header in sorted(self._in_mb):
            yield f"{self.name}: numbers without a unit in the column {header} are MB"

    def host(self, cells: list[str]) -> HostRow | None:
        try:
            ident = self._ident(cells)
            attributes = {name: text for name in self._attributes if (text := self._text(cells, _ATTRIBUTE + name))}
            attributes[HOST] = ident
            price = self._number(cells, "price", 1_000) / 1_000
            return HostRow(ident, self._amounts(cells), attributes, self._count(cells), price, self.line)
        except _Fault:
            return None

    def task(self, cells: list[str]) -> TaskRow | None:
        try:
            ident, key = self._ident(cells), self._all_but_names(cells)
            known = self._known.get(key)
            if known is None:
                before = self._rounded
                rest = self._task_but_names(cells)
                self._known[key] = rest, self._rounded - before
            else:
                rest, rounded = known
                self._rounded += rounded
            row = TaskRow(ident, self._text(cells, "job") or ident, *rest, self.line)
        except _Fault:
            return None
        if row.leave_s == row.arrive_s:
            self._instant_tasks += row.copies
            return None
        return row

    def _task_but_names(self, cells: list[str]) -> tuple[tuple[int, ...], Rules, int, float, float | None]:
        arrive, leave = self._instant(cells, "arrive_s") or 0.0, self._instant(cells, "leave_s")
        if leave is not None and leave < arrive:
            problem = f"it leaves at {_digits(leave)} but arrives at {_digits(arrive)}"
            self._fault(problem, "leave_s", "a later time, or -1 for never")
        return self._amounts(cells), self._rules(cells), self._count(cells), arrive, leave

    def finish(self, count: int, what: str) -> None:
        """Raises BadTable with all noted errors, if there are any."""
        if not self._faults and not count and self._instant_tasks:
            self._note("contains only tasks that leave when they arrive", "leave_s", "a later time, or -1 for never")
        elif not self._faults and not count:
            self._note(f"contains no {what}", "", f"write a line for each of the {what} below the line of column names")
        if not self._faults and count > MAX_COUNT:
            self._note(f"{count:,} {what} are more than {MAX_COUNT:,}", "count", "plan in parts")
        if self._faults:
            first = self._faults[0]
            raise BadTable(first.problem, field=first.field, fix=first.fix, others=tuple(self._faults[1:]))

    def _header(self, names: list[str]) -> None:
        if len(names) > _MAX_COLUMNS:
            fix = f"at most {_MAX_COLUMNS:,}"
            raise BadTable(f"there are {len(names):,} columns", field=f"{self.name}, line 1", fix=fix)
        for at, name in enumerate(names, 1):
            if _UNNAMED.fullmatch(name) or name == _ATTRIBUTE:
                fix = "name or remove it; pandas writes such a column without index=False"
                raise BadTable("has no name", field=f"{self.name}, line 1, column {at}", fix=fix)
            if len(name) > _MAX_HEADER:
                problem, fix = f"its name has {len(name):,} characters", f"at most {_MAX_HEADER}"
                raise BadTable(problem, field=f"{self.name}, line 1, column {at}", fix=fix)
        if self._aliases:
            names = self._canonical(names)
        double = [name for name in names if names.count(name) > 1]
        missing = [name for name in self._required if name not in names]
        if self._by_job and "job" in names:
            missing = [name for name in missing if name != "id"]
        if double:
            raise BadTable("is given twice", field=f"{self.name}, line 1, column {double[0]}", fix="remove one")
        if missing:
            fix = f"the first line names the columns: {','.join(self._required)} and any further ones"
            problem = f"{'is' if len(missing) == 1 else 'are'} missing"
            raise BadTable(problem, field=f"{self.name}, line 1, column {', '.join(missing)}", fix=fix)
        if f"{_ATTRIBUTE}{HOST}" in names:
            fix = "remove it: the attribute host of every host is its id"
            raise BadTable("cannot be given", field=f"{self.name}, line 1, column {_ATTRIBUTE}{HOST}", fix=fix)
        for at, name in enumerate(names, 1):
            if not name.isprintable():
                fix = "letters and digits"
                raise BadTable(f"{name!r:.60} cannot be printed", field=f"{self.name}, line 1, column {at}", fix=fix)
        self.columns = {name: at for at, name in enumerate(names)}
        self._attributes = {
            name.removeprefix(_ATTRIBUTE): at for name, at in self.columns.items() if name.startswith(_ATTRIBUTE)
        }
        dimensions = [name for name in names if name not in _NOT_RESOURCES and not name.startswith(_ATTRIBUTE)]
        if "port_beg" in names and "port_end" in names and "ports" not in names:
            dimensions.append("ports")
        self.dimensions = tuple(dimensions)
        self._all_but_names = itemgetter(*(at for name, at in self.columns.items() if name not in ("id", "job")))

    def _canonical(self, names: list[str]) -> list[str]:
        """The names that this module uses. Raises BadTable if two columns mean the same."""
        headers: dict[str, str] = {}
        for header in names:
            column, bare = column_of(header, TASK_COLUMNS if self._by_job else HOST_COLUMNS)
            if column in headers and header != headers[column]:
                fix = f"keep one of them; attr_{header} is an attribute of hosts"
                problem = f"the columns {headers[column]:.60} and {header:.60} mean the same"
                raise BadTable(problem, field=f"{self.name}, line 1, column {column}", fix=fix)
            headers[column] = header
            self._bare[column] = bare
            if column.endswith(_MB) and bare == 1 and not _IN_MB.search(header):
                self._without_unit[column] = header
        return [column_of(header, TASK_COLUMNS if self._by_job else HOST_COLUMNS)[0] for header in names]

    def _amounts(self, cells: list[str]) -> tuple[int, ...]:
        return tuple(
            self._amount(cells, name) if name in self.columns else self._port_range(cells) for name in self.dimensions
        )

    def _port_range(self, cells: list[str]) -> int:
        if not self._cell(cells, "port_beg") or not self._cell(cells, "port_end"):
            return 0
        first, last = self._number(cells, "port_beg", 1), self._number(cells, "port_end", 1)
        if last < first:
            self._fault(f"{last} is below port_beg {first}", "port_end", "the last port of the range, included")
        return (last - first + 1) * 1_000

    def _ident(self, cells: list[str]) -> str:
        if "id" not in self.columns:
            job = self._text(cells, "job")
            if not job:
                self._fault("is empty", "job", "every row has a job, because there is no column id")
            self._rows_of_job[job] += 1
            return f"{job}/{self._rows_of_job[job]}"
        ident = self._text(cells, "id")
        if not ident:
            self._fault("is empty", "id", "every row has an id of its own")
        if ident in self._seen:
            self._fault(
                f"{ident!r:.60} is given twice", "id", "ids are unique; equal rows may share a row with a count"
            )
        self._seen.add(ident)
        return ident

    def _text(self, cells: list[str], name: str) -> str:
        """The text of a cell. Control characters are an error, because the text is printed later."""
        text = self._cell(cells, name)
        if not text.isprintable():
            self._fault(f"{text!r:.60} contains a character that cannot be printed", name, "remove it")
        return text

    def _count(self, cells: list[str]) -> int:
        if not self._cell(cells, "count"):
            return 1
        number = self._number(cells, "count", 1)
        if number < 1 or number > MAX_COUNT:
            self._fault(f"{number} is out of range", "count", f"1 to {MAX_COUNT:,}; remove rows with count 0")
        return number

    def _rules(self, cells: list[str]) -> Rules:
        try:
            return parse_rules(self._cell(cells, "constraint"))
        except ConstraintError as error:
            self._fault(str(error), "constraint", "docs/planning.md lists the constraints")

    def _instant(self, cells: list[str], name: str) -> float | None:
        """Seconds; None if the cell is empty or below 0."""
        text = self._cell(cells, name)
        seconds = self._number_of(text.removeprefix("-") or "0", name, 1_000) / 1_000
        return None if not text or text.startswith("-") else seconds

    def _number(self, cells: list[str], name: str, scale: int) -> int:
        text = self._cell(cells, name)
        return self._number_of(text, name, scale) if text else 0

    def _number_of(self, text: str, name: str, scale: int) -> int:
        """The number in whole `scale`-ths."""
        number = self._parsed(text, "", name, 1)
        if scale == 1 and (number.rounded or number.thousandths % 1_000):
            self._fault(f"{text!r:.60} has too many decimals", name, "a whole number")
        return number.thousandths * scale // 1_000

    def _amount(self, cells: list[str], name: str) -> int:
        """An amount of a resource, in thousandths."""
        text = self._cell(cells, name)
        if not text and name in _REQUIRED:
            self._fault("is empty", name, "write 0 for nothing")
        if text[-1:].isdigit() and name in self._without_unit:
            self._in_mb.add(self._without_unit[name])
        return self._parsed(text, name, name, self._bare.get(name, 1)).thousandths if text else 0

    def _parsed(self, text: str, units: str, name: str, bare: int) -> Amount:
        """`units`: the column whose units the text may have. `bare`: the factor of a number without unit."""
        amount = self._numbers.get((text, units, bare))
        if amount is None:
            try:
                amount = parse(text, units, bare=bare, down=bool(units) and not self._by_job)
            except BadAmount as error:
                self._fault(error.problem, name, error.fix or self._fix_for(name))
            self._numbers[text, units, bare] = amount
        self._rounded += amount.rounded
        return amount

    @staticmethod
    def _fix_for(name: str) -> str:
        if name in _REQUIRED or name in _NOT_RESOURCES:
            return "digits, with a point before decimals"
        return f"a resource is a number; name the column attr_{name} if it is a host attribute, otherwise remove it"

    def _cell(self, cells: list[str], name: str) -> str:
        at = self.columns.get(name)
        return "" if at is None else cells[at].strip()

    def _fault(self, problem: str, column: str, fix: str) -> NoReturn:
        self._note(problem, column, fix)
        raise _Fault

    def _note(self, problem: str, column: str, fix: str) -> None:
        self._faults.append(BadTable(problem, field=self._where(column), fix=fix))
        if len(self._faults) >= _MAX_FAULTS:
            self.finish(1, "")

    def _where(self, column: str) -> str:
        return f"{self.name}, line {self.line}" + (f", column {column}" if column else "")


def _encoding_of(data: bytes) -> str:
    """The encoding that text other than UTF-8 perhaps has; "" if there is no guess."""
    # The last run of other bytes may be cut off.
    runs = _NOT_ASCII.findall(data)[:1_000]
    if all(map(_GB18030_PAIRS.fullmatch, runs[:-1] or runs)):
        return "GB18030"
    try:
        data.decode("cp1252")
    except UnicodeDecodeError:
        return ""
    return "Windows-1252"


def each_name(ident: str, count: int) -> list[str]:
    """The names of `count` equal hosts or tasks."""
    return [ident] if count == 1 else [f"{ident}#{i}" for i in range(count)]


def _digits(seconds: float) -> str:
    return f"{seconds:.3f}".rstrip("0").rstrip(".")
