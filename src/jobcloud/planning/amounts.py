"""Amounts and names of columns as people write them: 0.5, 500m, 512Mi, 2 GiB; vCPU, memory, RAM (GiB).

A unit of a column that ends with `_mb` is one of bytes. Ki, KiB, KB and so on are powers of 1024, and so is the MB of
the column, as in Mesos. k, M, G and T alone are powers of 1000, as in Kubernetes. All other columns know `m`, a
thousandth.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import MAX_EMAX, MIN_EMIN, ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from typing import Final, NamedTuple

#: The largest amount, in the unit of its column. Its thousandths and their sums stay within the matcher's limit.
MAX_NUMBER: Final = 2**42

_NUMBER: Final = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?) ?([A-Za-z]*)")
_WIDE: Final = Context(prec=60, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[InvalidOperation])
_MB: Final = "_mb"
_MIB: Final = 2**20
# The powers of 1024 by letter, and the bytes of each unit in lower case.
_POWERS: Final = {"k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_BYTES: Final = (
    {"b": 1}
    | {letter + end: 1024**power for letter, power in _POWERS.items() for end in ("i", "ib", "b")}
    | {letter: 1000**power for letter, power in _POWERS.items()}
)
# The units of Kubernetes' quantities.
_QUANTITIES: Final = (
    {"": Decimal(1), "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3")}
    | {unit: Decimal(1000**power) for power, unit in enumerate("kMGTPE", 1)}
    | {unit + "i": Decimal(1024**power) for power, unit in enumerate("KMGTPE", 1)}
)
# An amount this near to a thousandth differs from it only because a program computed it with floating-point numbers.
_NOISE: Final = Decimal("1e-7")
_MAX_NOISE: Final = Decimal("0.01")

_ALIASES: Final = {
    "job": ("job_name", "jobname"),
    "cpus": ("cpu", "vcpu", "vcpus", "cores", "ncpus", "cpu_cores"),
    "mem_mb": ("mem", "memory", "ram", "memory_mb"),
    "disk_mb": ("disk", "storage"),
    "net_mbps": ("net", "network_mbps"),
    "gpus": ("gpu", "ngpus"),
    "count": ("copies", "replicas"),
    "price": ("cost",),
    "constraint": ("constraints",),
    "arrive_s": ("arrive", "arrival_s"),
    "leave_s": ("leave", "departure_s"),
}
_CANONICAL: Final = {name: name for name in (*_ALIASES, "id", "ports", "port_beg", "port_end")} | {
    alias: name for name, aliases in _ALIASES.items() for alias in aliases
}
# The id of a host and the id of a task have different other names, because a table of tasks may also name hosts.
_HOST_IDS: Final = ("name", "hostname", "host", "host_id", "node", "node_id")
_TASK_IDS: Final = ("name", "task", "task_id")
HOST_COLUMNS: Final = _CANONICAL | dict.fromkeys(_HOST_IDS, "id")
TASK_COLUMNS: Final = _CANONICAL | dict.fromkeys(_TASK_IDS, "id")
_HEADER_UNITS: Final = {"mb": 1, "mib": 1, "gb": 1024, "gib": 1024, "tb": 1024**2, "tib": 1024**2}
_ATTRIBUTE: Final = "attr_"


class Amount(NamedTuple):
    """`thousandths` of the column's unit. `rounded`: the text has further decimals."""

    thousandths: int
    rounded: bool


class BadAmount(Exception):
    """`fix` is "" if it depends on the column."""

    def __init__(self, problem: str, fix: str = "") -> None:
        super().__init__(problem)
        self.problem, self.fix = problem, fix


def column_of(header: str, known: Mapping[str, str]) -> tuple[str, int]:
    """Returns (the column that a header names, the factor from the header's unit to the column's).

    `known`: HOST_COLUMNS or TASK_COLUMNS. `Memory (GiB)` is `mem_mb` with the factor 1024. A header that is not known
    is its own column, in lower case.
    """
    if header.lower().startswith(_ATTRIBUTE):
        return _ATTRIBUTE + header[len(_ATTRIBUTE) :], 1
    name = re.sub(r"[^0-9a-z]+", "_", header.lower()).strip("_")
    stem, _, unit = name.rpartition("_")
    column = known.get(stem, "")
    if "%" in header:  # a share of something, not an amount
        return header.lower(), 1
    if column.endswith(_MB) and unit in _HEADER_UNITS:
        return column, _HEADER_UNITS[unit]
    return known.get(name, header.lower()), 1


def parse(text: str, column: str = "", *, bare: int = 1, down: bool = False) -> Amount:
    """An amount in thousandths of the column's unit. Raises BadAmount if it is invalid.

    `column`: its units are allowed; "": no unit is. `bare`: the factor of a number without unit. Further decimals are
    rounded up, or `down`; noise of floating-point numbers is rounded to the nearest thousandth.
    """
    # Decimal itself also reads 1_000, digits of any script, and "Infinity".
    match = _NUMBER.fullmatch(text)
    if not match:
        raise BadAmount(f"{text!r:.60} is not a number")
    digits, unit = match.groups()
    return _amount(text, digits, _factor(text, unit, column) if unit else Decimal(bare), down=down)


def quantity(text: str, of: int = 1) -> Amount:
    """A quantity of Kubernetes in thousandths of `of` of its units, rounded down. Raises BadAmount if it is invalid.

    Source: k8s.io/apimachinery, pkg/api/resource/quantity.go.
    """
    match = _NUMBER.fullmatch(text)
    factor = _QUANTITIES.get(match[2]) if match else None
    if not match or factor is None:
        raise BadAmount(f"{text!r:.60} is not a quantity")
    return _amount(text, match[1], _WIDE.divide(factor, Decimal(of)), down=True)


def _amount(text: str, digits: str, factor: Decimal, *, down: bool) -> Amount:
    try:
        number = _WIDE.multiply(Decimal(digits), factor)
    except InvalidOperation:  # an exponent beyond what Decimal holds
        raise BadAmount(f"{text!r:.60} is out of range", f"at most {MAX_NUMBER:,}") from None
    if number < 0:
        raise BadAmount(f"{text!r:.60} is negative", "0 or more")
    if number > MAX_NUMBER:
        raise BadAmount(f"{text!r:.60} is out of range", f"at most {MAX_NUMBER:,}")
    scaled = _WIDE.multiply(number, Decimal(1_000))
    nearest = scaled.to_integral_value(ROUND_HALF_EVEN)
    off = _WIDE.subtract(scaled, nearest).copy_abs()
    if off > min(_MAX_NOISE, _WIDE.multiply(scaled, _NOISE)):
        nearest = scaled.to_integral_value(ROUND_FLOOR if down else ROUND_CEILING)
    return Amount(int(nearest), bool(off))


def _factor(text: str, unit: str, column: str) -> Decimal:
    """The factor from a unit to the column's."""
    if column.endswith(_MB):
        # In Kubernetes, 500m of memory is half a byte, which nobody means.
        size = None if unit == "m" else _BYTES.get(unit.lower())
        if size is None:
            raise BadAmount(f"{text!r:.60} has an unknown unit", "a number of MB, or a unit such as Mi, MiB, GB, G")
        return _WIDE.divide(Decimal(size), Decimal(_MIB))
    if unit != "m" or not column:
        raise BadAmount(f"{text!r:.60} is not a number")
    return Decimal("0.001")
