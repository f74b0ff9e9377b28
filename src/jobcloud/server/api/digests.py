"""Digests of notices as server-sent events: consoles learn what has changed, and read it again.

All consoles share the work. Notices are grouped by team once for all, and each digest is rendered once for all consoles
with the same rights. While no console is there, nothing is done.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from jobcloud.errors import JobcloudError
from jobcloud.messages import Publish
from jobcloud.scheduler.queue import cached_team_of
from jobcloud.server.api.authorization import Rights
from jobcloud.server.api.events import PING, PING_S, Notices, wait
from jobcloud.server.api.overviews import Overviews
from jobcloud.server.api.streams import Places, opening
from jobcloud.server.api.threads import apart

log = logging.getLogger(__name__)

_MAX_CONSOLES = 200
#: the maximum number of names in each list of a digest
MAX_NAMES = 1_000
_RETRY_MS = 2_000


@dataclass(slots=True)
class Changes:
    """The subjects of the notices of one team. The dicts are sets in the order of the notices."""

    jobs: dict[str, None] = field(default_factory=dict)
    runs: dict[str, None] = field(default_factory=dict)
    apps: dict[str, None] = field(default_factory=dict)
    agents: dict[str, None] = field(default_factory=dict)
    topics: dict[str, None] = field(default_factory=dict)


def by_team(notices: Iterable[Publish]) -> dict[str, Changes]:
    """The subjects of notices, by team; "" stands for the cluster."""
    found: dict[str, Changes] = {}
    for notice in notices:
        key = notice.job or notice.app
        team = cached_team_of(key) if key else ""
        changes = found.get(team)
        if changes is None:
            changes = found[team] = Changes()
        changes.topics[notice.topic] = None
        if notice.job:
            changes.jobs[notice.job] = None
        if notice.firing_id:
            changes.runs[notice.firing_id] = None
        if notice.app:
            changes.apps[notice.app] = None
        if notice.hostname:
            changes.agents[notice.hostname] = None
    return found


def render(number: str, changes: Mapping[str, Changes], rights: Rights, *, more: bool) -> str:
    """The event with what a sender with these rights may see; "" if that is nothing.

    `number` is the id of the event. `more`: there are changes that `changes` lacks.
    """
    seen = [each for team, each in changes.items() if rights.sees(team)]
    if not seen and not more:
        return ""
    names = [
        _merged(each.jobs for each in seen),
        _merged(each.runs for each in seen),
        _merged(each.apps for each in seen),
        _merged((each.agents for each in seen) if rights.cluster else ()),
        _merged(each.topics for each in seen),
    ]
    content: dict[str, object] = {
        name: found[:MAX_NAMES] for name, found in zip(("jobs", "runs", "apps", "agents", "topics"), names, strict=True)
    }
    content["more"] = more or any(len(found) > MAX_NAMES for found in names)
    return f"id: {number}\nevent: changes\ndata: {json.dumps(content)}\n\n"


def _merged(parts: Iterable[Mapping[str, None]]) -> list[str]:
    """The names of all parts, at most one more than a digest has."""
    found: dict[str, None] = {}
    for part in parts:
        for name in part:
            found[name] = None
            if len(found) > MAX_NAMES:
                return list(found)
    return list(found)


@dataclass(eq=False, slots=True)
class _Console:
    """A receiver. `known`: its rights at the last digest.

    `waiting` and `numbers` are the events that it has not taken yet, or "". `told`: the last event with numbers.
    """

    rights: Callable[[], Rights]
    known: Rights
    waiting: str = ""
    numbers: str = ""
    told: str = ""
    ended: bool = False
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self) -> str:
        """The events that wait."""
        text = self.waiting + self.numbers
        self.waiting = self.numbers = ""
        return text


class Digests:
    """The consoles. Used by one event loop.

    Between two digests are at least `pause_s`. The first one after a quiet time waits `gather_s` for further notices.
    Without `overviews`, the consoles get no numbers. Numbers are computed every `numbers_s` while there are notices,
    otherwise every `quiet_s`, because some of them change with the time.
    """

    def __init__(
        self,
        notices: Notices,
        overviews: Overviews | None = None,
        *,
        pause_s: float = 0.5,
        gather_s: float = 0.05,
        numbers_s: float = 1.0,
        quiet_s: float = 5.0,
    ) -> None:
        self._notices, self._overviews = notices, overviews
        self._pause_s, self._gather_s = pause_s, gather_s
        self._numbers_s, self._quiet_s = numbers_s, quiet_s
        #: whether there were notices since the numbers were computed
        self._changed = False
        self._consoles: set[_Console] = set()
        self._work: asyncio.Task[None] | None = None
        self.places = Places(_MAX_CONSOLES, "watch for changes")

    async def stream(
        self, rights: Callable[[], Rights], last_id: str = "", recent: int = 0, *, follow: bool = True
    ) -> AsyncGenerator[str]:
        """Events in text/event-stream format, until the notices are closed. `rights` are asked for each event.

        `state` has the numbers of the overview, at the start and whenever they have changed. `changes` has what has
        changed since the event before. Behind `last_id`, or with the newest `recent` notices,
        the stream starts with what has changed since then. Without `follow`, it ends afterwards.
        """
        console = _Console(rights, rights())
        start = self._notices.start(last_id, recent, lambda notice: console.known.sees(notice.team))
        start = min(start, self._notices.newest())
        # The id may be one of another leader, whose notices are not known here.
        first = self._since(start, console.known, lost=bool(last_id) and not start)
        if follow:
            self._join(console)
        try:
            yield opening(_RETRY_MS, self._notices.id_of(start))
            await self._compute([console])
            if text := console.take():
                yield text
            if first:
                yield first
            if not follow:
                return
            clock = asyncio.get_running_loop().time
            while not console.ended:
                console.wake.clear()
                if text := console.take():
                    yield text
                else:
                    said = clock()
                    await wait(console.wake, said + PING_S)
                    if clock() >= said + PING_S:
                        yield PING
        finally:
            self._leave(console)

    def _since(self, start: int, rights: Rights, *, lost: bool) -> str:
        """The changes after the notice with a number, as far as a sender may see them. `lost`: there may be more."""
        notices = self._notices.kept(start)
        number = notices[-1][0] if notices else start
        lost = lost or (bool(notices) and notices[0][0] > start + 1)
        return render(self._notices.id_of(number), by_team(notice for _, notice in notices), rights, more=lost)

    def _join(self, console: _Console) -> None:
        self._consoles.add(console)
        if self._work is None:
            self._work = asyncio.create_task(self._run(self._notices.newest()))

    def _leave(self, console: _Console) -> None:
        self._consoles.discard(console)
        if not self._consoles and self._work is not None:
            self._work.cancel()
            self._work = None

    async def _run(self, seen: int) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                numbers = group.create_task(self._send_numbers())
                await self._send_digests(seen)
                numbers.cancel()
        except Exception:
            # The consoles come back and start over.
            log.exception("the digests of notices have failed")
        finally:
            # A cancelled task may end after the next console has started another one.
            if self._work is asyncio.current_task():
                self._work = None
                for console in self._consoles:
                    console.ended = True
                    console.wake.set()

    async def _send_digests(self, seen: int) -> None:
        """Give each console its digests, from those of the notices behind the number `seen`."""
        with self._notices.listening() as wake:
            while (fresh := self._notices.take(seen, wake)) is not None:
                if fresh:
                    self._give(fresh, lost=fresh[0][0] > seen + 1)
                    seen = fresh[-1][0]
                    await asyncio.sleep(self._pause_s)
                else:
                    await wake.wait()
                    await asyncio.sleep(self._gather_s)

    async def _send_numbers(self) -> None:
        clock = asyncio.get_running_loop().time
        due = clock() + self._quiet_s
        while self._overviews is not None:
            await asyncio.sleep(self._numbers_s)
            if self._changed or clock() >= due:
                self._changed, due = False, clock() + self._quiet_s
                await self._compute(self._consoles)

    async def _compute(self, consoles: Iterable[_Console]) -> None:
        """Give the consoles the present numbers, if they differ from those before. Without a leader, none."""
        if self._overviews is None:
            return
        rights = {console: console.rights() for console in consoles}
        try:
            rendered = await apart(partial(_rendered, self._overviews, set(rights.values())))
        except (JobcloudError, TimeoutError):
            return
        for console, its in rights.items():
            if rendered[its] != console.told:
                console.told = console.numbers = rendered[its]
                console.wake.set()

    def _give(self, fresh: list[tuple[int, Publish]], *, lost: bool) -> None:
        self._changed = True
        changes, number = by_team(notice for _, notice in fresh), self._notices.id_of(fresh[-1][0])
        rendered: dict[tuple[Rights, bool], str] = {}
        for console in self._consoles:
            rights = console.rights()
            # A console that has not taken the digest before, or that may see more than before, has to read all again.
            more = lost or bool(console.waiting) or rights != console.known
            text = rendered.get((rights, more))
            if text is None:
                text = rendered[rights, more] = render(number, changes, rights, more=more)
            console.known = rights
            if text:
                console.waiting = text
                console.wake.set()


def _rendered(overviews: Overviews, rights: Iterable[Rights]) -> dict[Rights, str]:
    """The event with the numbers for each set of rights. Raises the errors of `Loop.ask`."""
    return {one: f"event: state\ndata: {overviews.numbers(one).model_dump_json(by_alias=True)}\n\n" for one in rights}
