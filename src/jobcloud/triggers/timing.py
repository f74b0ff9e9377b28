"""Several triggers, the period in which they count, and blackouts, merged into one sequence of fire times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from jobcloud.cron import END, CronError, Dialect, Fold, Gap, Schedule, between, find_zone
from jobcloud.durations import parse_ms
from jobcloud.errors import ConfigError
from jobcloud.sentences import Told, text_of
from jobcloud.sentences.frequent import MISSING, at_most, not_valid, such_as, too_many
from jobcloud.triggers import blackouts, wall
from jobcloud.triggers.days import Days, Inside, Outside
from jobcloud.triggers.shifts import Shifted

MAX_TRIGGERS: Final = 20
MAX_BLACKOUTS: Final = 50
_MAX_TEXT: Final = 300
_MAX_PERIOD_MS: Final = 366 * 86_400_000
# The search for the next fire time ends after this number of steps. Each step finds a fire time in a blackout.
MAX_EXCLUDED: Final = 1_000
# Up to this number, fire times are counted one by one.
MAX_COUNTED: Final = 1_000
_EVERY, _AT, _AFTER = "@every ", "@at ", "@after "


class Times(Protocol):
    """An ascending sequence of instants in ms."""

    def next_after(self, after_ms: int) -> int | None:
        """The first instant after `after_ms`; None if there is none."""

    def between(self, after_ms: int, until_ms: int, limit: int) -> tuple[int, ...]:
        """The first `limit` instants with after < instant ≤ until."""

    def count(self, after_ms: int, until_ms: int) -> int:
        """The number of instants with after < instant ≤ until."""


class _Blackout(Protocol):
    def until(self, second: int, zone: ZoneInfo) -> int: ...


class _Trigger(Protocol):
    def next_after(self, after_ms: int) -> int | None: ...

    def count(self, after_ms: int, until_ms: int) -> int: ...


@dataclass(frozen=True, slots=True)
class Once:
    """One instant. `text`: the wall time, as people write it."""

    at_ms: int
    text: str

    def next_after(self, after_ms: int) -> int | None:
        return self.at_ms if self.at_ms > after_ms else None

    def count(self, after_ms: int, until_ms: int) -> int:
        return int(after_ms < self.at_ms <= until_ms)


@dataclass(frozen=True, slots=True)
class Every:
    """An instant at `first_ms`, and one at the end of each `period_ms`. `text`: the period, as people write it."""

    period_ms: int
    first_ms: int
    text: str

    def next_after(self, after_ms: int) -> int | None:
        return self.first_ms + max(0, (after_ms - self.first_ms) // self.period_ms + 1) * self.period_ms

    def count(self, after_ms: int, until_ms: int) -> int:
        return max(0, self._up_to(until_ms) - self._up_to(after_ms))

    def _up_to(self, until_ms: int) -> int:
        return max(0, (until_ms - self.first_ms) // self.period_ms + 1)


@dataclass(frozen=True, slots=True)
class After:
    """`delay_ms` after the end of each run. The ends are not known here, so it has no instants of its own.

    `text`: the delay, as people write it.
    """

    delay_ms: int
    text: str

    def next_after(self, after_ms: int) -> int | None:
        return None

    def count(self, after_ms: int, until_ms: int) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class Timing:
    """The instants of all `triggers` from `first_ms` to `last_ms`, without those in `blackouts`.

    An instant of two triggers occurs once. The search for a fire time ends after `MAX_EXCLUDED` blackouts in a row.
    """

    triggers: tuple[_Trigger, ...]
    first_ms: int
    last_ms: int
    blackouts: tuple[_Blackout, ...]
    _zone: ZoneInfo = field(repr=False)

    @property
    def after_run(self) -> bool:
        """Whether a trigger counts from the ends of runs, so that its fire times are not known in advance."""
        return any(isinstance(trigger, After) for trigger in self.triggers)

    def on_days(self, skipped: Sequence[Days], only: Sequence[Days] | None) -> Timing:
        """Leave out fire times on days of `skipped`, and on days that no set of `only` has, unless `only` is None."""
        more: list[_Blackout] = [*map(Inside, skipped)]
        if only is not None:
            more.append(Outside(tuple(only)))
        return replace(self, blackouts=(*self.blackouts, *more))

    def shifted(self, skipped: Sequence[Days], only: Sequence[Days] | None, *, forward: bool) -> Shifted:
        """As `on_days`, with the fire times of excluded days moved to the next open day, or to the previous one."""
        sets = None if only is None else tuple(only)
        return Shifted(self, self.on_days(skipped, only), tuple(skipped), sets, forward, self._zone)

    def by_calendars(self, skipped: Sequence[Days], only: Sequence[Days] | None, excluded: str) -> Timing | Shifted:
        """`on_days` or `shifted`. `excluded`: the rule for fire times on excluded days: skip, next or previous."""
        if excluded == "skip":
            return self.on_days(skipped, only)
        return self.shifted(skipped, only, forward=excluded == "next")

    def next_after(self, after_ms: int, steps: Iterator[int] | None = None) -> int | None:
        """The first fire time after an instant (ms); None if there is none.

        `steps`: an iterator with one item for each step that the search may take; by default `MAX_EXCLUDED`.
        """
        after_ms = max(after_ms, self.first_ms - 1)
        for _ in steps if steps is not None else range(MAX_EXCLUDED):
            found = min(
                (at for trigger in self.triggers if (at := trigger.next_after(after_ms)) is not None), default=None
            )
            if found is None or found > self.last_ms:
                return None
            if not (end := self._blacked_out_until(found)):
                return found
            after_ms = max(found, end - 1)
        return None

    def between(self, after_ms: int, until_ms: int, limit: int) -> tuple[int, ...]:
        """The first `limit` fire times with after < fire time ≤ until (ms), ascending."""
        return between(self.next_after, after_ms, until_ms, limit)

    def count(self, after_ms: int, until_ms: int) -> int:
        """The number of fire times with after < fire time ≤ until (ms).

        Beyond the first `MAX_COUNTED`, fire times in blackouts are counted too, and an instant once for each trigger.
        """
        first = self.between(after_ms, until_ms, MAX_COUNTED)
        if len(first) < MAX_COUNTED:
            return len(first)
        after_ms, until_ms = max(first[-1], self.first_ms - 1), min(until_ms, self.last_ms)
        return len(first) + sum(trigger.count(after_ms, until_ms) for trigger in self.triggers)

    def free_from(self, at_ms: int, steps: Iterator[int] | None = None) -> int:
        """The first instant at or after `at_ms` that is in no blackout (ms). Skips at most `MAX_EXCLUDED` blackouts."""
        for _ in steps if steps is not None else range(MAX_EXCLUDED):
            if not (end := self._blacked_out_until(at_ms)):
                break
            at_ms = end
        return at_ms

    def first_free(self, at_ms: int) -> int | None:
        """The first instant at or after `at_ms` (ms) in the period and in no blackout; None if there is none."""
        found = self.free_from(max(at_ms, self.first_ms))
        return None if found > self.last_ms or self._blacked_out_until(found) else found

    def _blacked_out_until(self, at_ms: int) -> int:
        """An instant (ms) up to which a blackout around `at_ms` lasts at least; 0 if `at_ms` is in no blackout."""
        second = at_ms // 1_000
        return max((one.until(second, self._zone) for one in self.blackouts), default=0) * 1_000


def timing(
    cron: str,
    triggers: Sequence[str],
    start: str,
    end: str,
    excluded: Sequence[str],
    *,
    zone: str,
    dialect: Dialect,
    gap: Gap,
    fold: Fold,
) -> Timing:
    """The fire times of a job. Raises ConfigError, which names the field.

    `cron`: a cron expression, or "". `triggers`: further triggers, such as `0 0 8 ? * MON`, `@every 90m`, `@after 10m`
    and `@at 2026-12-24T18:00`. `start` and `end`: wall times of `zone`, or "". `excluded`: the texts of blackouts.
    """
    for name, texts, most in (("triggers", triggers, MAX_TRIGGERS), ("blackouts", excluded, MAX_BLACKOUTS)):
        if len(texts) > most:
            raise ConfigError(too_many(len(texts), "entries"), field=name, fix=at_most(most))
        if any(len(text) > _MAX_TEXT for text in texts):
            problem = Told("has an entry that is too long", "long_entry")
            raise ConfigError(problem, field=name, fix=at_most(_MAX_TEXT, " characters each"))
    return _parse(cron, tuple(triggers), start, end, tuple(excluded), zone, dialect, gap, fold)


@lru_cache(maxsize=16_384)
def _parse(
    cron: str,
    triggers: tuple[str, ...],
    start: str,
    end: str,
    excluded: tuple[str, ...],
    zone: str,
    dialect: Dialect,
    gap: Gap,
    fold: Fold,
) -> Timing:
    def of_cron(text: str, field: str) -> Schedule:
        if field == "cron" and text.startswith((_EVERY, _AT, _AFTER)):
            fix = Told("write it in `triggers` (--trigger)", "write_in_triggers")
            raise ConfigError(Told(f"{text[:80]!r} is a trigger", "is_trigger", value=text[:80]), field=field, fix=fix)
        try:
            return Schedule.parse(text, zone=zone, dialect=dialect, gap=gap, fold=fold)
        except CronError as error:
            raise ConfigError(text_of(error), field=field) from error

    def of_text(text: str) -> _Trigger:
        if text.startswith(_AT):
            wanted = text.removeprefix(_AT).strip()
            return Once(local("triggers", wanted), wanted)
        if text.startswith(_EVERY):
            wanted = text.removeprefix(_EVERY).strip()
            return Every(_period(wanted, _EVERY), first_ms, wanted)
        if text.startswith(_AFTER):
            wanted = text.removeprefix(_AFTER).strip()
            return After(_period(wanted, _AFTER), wanted)
        return of_cron(text, "triggers")

    def local(field: str, text: str) -> int:
        try:
            return wall.instant_ms(wall.parse_local(text), clock)
        except ValueError as error:
            raise ConfigError(text_of(error), field=field) from None

    try:
        clock = find_zone(zone)
    except CronError as error:
        raise ConfigError(text_of(error), field="timeZone") from error
    first_ms = local("startTime", start) if start else 0
    last_ms = local("endTime", end) if end else (END - 1) * 1_000
    if last_ms < first_ms:
        fix = Told("put the earlier time first", "earlier_first")
        raise ConfigError(Told("is before startTime", "before_start"), field="endTime", fix=fix)
    found: list[_Trigger] = [of_cron(cron, "cron")] if cron else []
    found += [of_text(text) for text in triggers]
    if sum(isinstance(trigger, After) for trigger in found) > 1:
        fix = Told("keep the one with the shorter delay", "shorter_delay")
        raise ConfigError(Told("has @after twice", "after_twice"), field="triggers", fix=fix)
    if not found:
        fix = such_as("0 0 8 * * ?, or `triggers`", "give an expression, such as ")
        raise ConfigError(MISSING, field="cron", fix=fix)
    try:
        windows = tuple(blackouts.parse(text, clock) for text in excluded)
    except ValueError as error:
        raise ConfigError(text_of(error), field="blackouts") from None
    return Timing(tuple(found), first_ms, last_ms, windows, clock)


@lru_cache(maxsize=16_384)
def delay_ms(triggers: tuple[str, ...]) -> int:
    """The delay of the trigger `@after` (ms); 0 without one. Raises ConfigError."""
    delays = (text.removeprefix(_AFTER).strip() for text in triggers if text.startswith(_AFTER))
    return next((_period(text, _AFTER) for text in delays), 0)


def _period(text: str, kind: str) -> int:
    period = parse_ms(text, "triggers", bare=False)
    if not 1_000 <= period <= _MAX_PERIOD_MS or period % 1_000:
        what = "delay" if kind == _AFTER else "period"
        fix = Told(f"whole seconds, from 1s to 366d, such as {kind}90m", "period_form", example=f"{kind}90m")
        raise ConfigError(not_valid(text[:80], f"is not the {what} of a trigger"), field="triggers", fix=fix)
    return period
