"""Would further shards of a job fit? An answer from a copy of the free resources, without any claim.

The shards of a job have equal requests, and agents do not depend on each other. So the number of shards that an agent
takes is the smallest quotient over the resources, and no trial placement is necessary. The work grows with the number
of agents, not with the number of shards. `Cluster.rooms` copies references of a limited number of agents on the
scheduler's thread; `answer` runs in any thread.

The answer is about this job alone. Other shards that wait may start first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from jobcloud.config import DIMENSIONS, NOTHING, Resources
from jobcloud.match import Nearest, Refusal
from jobcloud.scheduler.cluster import Counted, Request, Room, Rooms
from jobcloud.scheduler.quotas import LIMITED, Allowance, Lack
from jobcloud.scheduler.reason import Reason, condition_reasons, exclusive_reason, refusal_reasons
from jobcloud.sentences import Parameter

#: One question looks at most at this number of agents with offers, and at this number of agents without offers.
MAX_AGENTS: Final = 5_000
MAX_SILENT_AGENTS: Final = 500
# About a second of work.
_MOST_TRIALS: Final = 2_000_000
_UNLIMITED: Final = 1 << 62
_NO_ROOM: Final = Refusal(0, 0, 0, 0, 0, NOTHING, NOTHING, None, could_ever_fit=False)


@dataclass(frozen=True, slots=True)
class Question:
    """The input of `answer`, copied from the scheduler.

    `most`: how many of the `wanted` shards have slots in the pools of the job, and `short`: why not all.
    `held`: why the job starts nothing now, whatever is free. `role`: the Mesos role of its team, or "".
    """

    job: str
    wanted: int
    request: Request
    rooms: Rooms
    allowance: Allowance
    connected: bool
    held: tuple[Reason, ...]
    most: int = _UNLIMITED
    short: tuple[Reason, ...] = ()
    #: the number of known agents, and how many of them fail each condition of the job
    failing: tuple[int, Sequence[tuple[str, int]]] = (0, ())
    #: the running shards of the job, by each rule that must hold; `answer` adds those that fit
    counted: Sequence[Counted] = ()
    role: str = ""


@dataclass(frozen=True, slots=True)
class Share:
    """The shards that one agent would take. `executor`: it would start an executor for them."""

    agent_id: str
    hostname: str
    shards: int
    executor: bool


@dataclass(frozen=True, slots=True)
class Fit:
    """How many of the `wanted` shards fit now.

    `elsewhere`: how many more would fit on agents whose resources are not offered now, by what the agents had when they
    were last offered. `complete`: False if the cluster has more agents than one question looks at. `reasons`: why not
    all fit, the most important first.
    """

    job: str
    wanted: int
    fits: int
    shares: tuple[Share, ...]
    elsewhere: int
    complete: bool
    held: tuple[Reason, ...]
    reasons: tuple[Reason, ...]

    @property
    def waiting_helps(self) -> bool:
        """Whether all shards may fit later without a change of the job, its quota or the cluster."""
        return all(reason.waiting_helps for reason in (*self.held, *self.reasons))


@dataclass(slots=True)
class _Space:
    """A room that is being filled. `joins`: the executor of the request runs there, or starts with a shard."""

    room: Room
    free: list[Resources]
    joins: bool
    placed: int = 0


@dataclass(slots=True)
class _Filling:
    """The shards that have found room so far. `lack`: the limit of the quota that stopped some."""

    request: Request
    allowance: Allowance
    left: int
    shares: list[Share] = field(default_factory=list)
    #: what is left of each part of the rooms
    rests: list[tuple[Resources, Resources]] = field(default_factory=list)
    lack: Lack | None = None
    counted: Sequence[Counted] = ()
    #: how many agents cannot take one more shard because of each rule, by its text
    broken: Counter[str] = field(default_factory=Counter)
    complete: bool = True

    def fill(self, rooms: Sequence[Room]) -> None:
        """Fill the agents that run the executor already, then the others."""
        if self.counted:
            self._fill_by_rules(rooms)
            return
        for room in sorted(rooms, key=lambda room: not room.executor):
            self._fill_one(room)

    def _fill_one(self, room: Room) -> None:
        placed, joins = 0, room.executor
        for part in room.free:
            free = part
            executor = NOTHING if joins else self.request.executor
            number = min(self.left, _number(free, self.request.resources, executor))
            if number > 0:
                allowed, lack = self.allowance.most(self.request.resources, number, executor)
                self.lack = self.lack or lack
                number = allowed
            if number > 0:
                used = _times(self.request.resources, number).plus(executor)
                self.allowance.take(used, number)
                free = free.plus(_times(used, -1))
                placed, joins, self.left = placed + number, True, self.left - number
            self.rests.append((free, NOTHING if joins else self.request.executor))
        if placed:
            self.shares.append(Share(room.agent_id, room.hostname, placed, not room.executor))

    def _fill_by_rules(self, rooms: Sequence[Room]) -> None:
        """Place one shard after the other, each where the fewest shards are by the rules."""
        spaces = [_Space(room, list(room.free), room.executor) for room in rooms]
        waiting: dict[tuple[str, ...], list[_Space]] = {}
        for space in sorted(spaces, key=lambda space: space.joins):
            values = [each.value_of.get(space.room.agent_id) for each in self.counted]
            known = tuple(value for value in values if value is not None)
            if len(known) == len(values):
                waiting.setdefault(known, []).append(space)
            else:
                self.broken.update(str(e.rule) for e, value in zip(self.counted, values, strict=True) if value is None)
        trials = 0
        while self.left and waiting and self.lack is None:
            trials += len(waiting)
            admitted = [place for place in waiting if all(map(Counted.admits, self.counted, place))]
            if not admitted or trials > _MOST_TRIALS:
                self.complete = not admitted
                break
            best = min(admitted, key=self._shards_by)
            if self._place_one(waiting[best][-1]):
                for each, own in zip(self.counted, best, strict=True):
                    each.add(own)
            else:
                waiting[best].pop()
                if not waiting[best]:
                    del waiting[best]
        for place, left in waiting.items():
            for each, own in zip(self.counted, place, strict=True):
                self.broken[str(each.rule)] += 0 if each.admits(own) else len(left)
        for space in spaces:
            if space.placed:
                self.shares.append(
                    Share(space.room.agent_id, space.room.hostname, space.placed, not space.room.executor)
                )
            executor = NOTHING if space.joins else self.request.executor
            self.rests += [(free, executor) for free in space.free]

    def _shards_by(self, values: tuple[str, ...]) -> int:
        return sum(each.counts.get(value, 0) for each, value in zip(self.counted, values, strict=True))

    def _place_one(self, space: _Space) -> bool:
        """Place one shard on an agent. False if it has no room, or the quota has none."""
        executor = NOTHING if space.joins else self.request.executor
        for at, free in enumerate(space.free):
            if not _number(free, self.request.resources, executor):
                continue
            allowed, self.lack = self.allowance.most(self.request.resources, 1, executor)
            if not allowed:
                return False
            used = self.request.resources.plus(executor)
            self.allowance.take(used, 1)
            space.free[at] = free.plus(_times(used, -1))
            space.placed, space.joins, self.left = space.placed + 1, True, self.left - 1
            return True
        return False

    @property
    def placed(self) -> int:
        return sum(share.shards for share in self.shares)


def answer(question: Question) -> Fit:
    """How many shards fit, and why not all of them."""
    offered, silent = question.rooms.offered(), question.rooms.silent()
    most = min(question.wanted, question.most)
    now = _Filling(question.request, question.allowance, most, counted=question.counted)
    now.fill(offered)
    later = _Filling(question.request, question.allowance, now.left, counted=question.counted)
    if now.left:
        later.fill(silent)
    return Fit(
        job=question.job,
        wanted=question.wanted,
        fits=now.placed,
        shares=tuple(sorted(now.shares, key=lambda share: -share.shards)),
        elsewhere=later.placed,
        complete=question.rooms.complete and now.complete and later.complete,
        held=question.held,
        reasons=(*question.short, *(_reasons(question, [*offered, *silent], now, later) if now.left else ())),
    )


def _reasons(question: Question, rooms: Sequence[Room], now: _Filling, later: _Filling) -> Iterator[Reason]:
    lack = now.lack or later.lack
    if lack is not None:
        resource = lack.name if lack.name in LIMITED else ""
        free, helps = max(0, lack.limit - lack.used), lack.asked <= lack.limit
        text = f"{lack.text}; the shards that fit count as used here"
        yield Reason(
            "quota", text, resource, lack.asked, free, waiting_helps=helps, case=lack.case, parameters=lack.parameters
        )
    agents, failing = question.failing
    # No agent meets the conditions of the job.
    excluded = agents and sum(number for _, number in failing) == agents
    if not question.connected:
        yield Reason("disconnected", "there is no connection to a Mesos master", waiting_helps=True)
    elif later.placed:
        hosts = len(later.shares)
        text = f"{later.placed} more would fit on {hosts} agents whose resources are not offered now"
        given: dict[str, Parameter] = {"shards": later.placed, "agents": hosts}
        yield Reason("not_offered", text, hosts=hosts, waiting_helps=True, parameters=given)
    elif not now.rests and not excluded:
        of_role = f" of the Mesos role {question.role}" if question.role else ""
        text = f"no offer{of_role} is held; offers are requested when shards wait"
        of = {"role": question.role} if question.role else {}
        yield Reason("no_offers", text, waiting_helps=True, case="role" if of else "", parameters=of)
    if now.lack is None and (now.rests or excluded):
        refusal = _refusal(question.request, rooms, now.rests) if now.rests else _NO_ROOM
        yield from condition_reasons(*question.failing, list(now.broken.items()), refusal)
        yield from refusal_reasons(refusal)
    if exclusive := question.rooms.exclusive:
        yield exclusive_reason(exclusive)
    if cordoned := question.rooms.cordoned:
        text = f"{cordoned} agents are being drained and get no new tasks"
        yield Reason("drained", text, hosts=cordoned, waiting_helps=True, parameters={"agents": cordoned})


def _refusal(request: Request, rooms: Sequence[Room], rests: Sequence[tuple[Resources, Resources]]) -> Refusal:
    """Why one more shard has no room on what is left, in the form of the matcher's own answer."""
    needs = [request.resources.plus(executor) for _, executor in rests]
    frees = [free for free, _ in rests]
    missing = [_missing(need, free) for need, free in zip(needs, frees, strict=True)]
    # The nearest agent lacks the smallest part of what it is asked for.
    parts = [
        max(lack / asked if asked else 0.0 for lack, asked in zip(lacks, need, strict=True))
        for lacks, need in zip(missing, needs, strict=True)
    ]
    nearest = parts.index(min(parts))
    whole = request.resources.plus(request.executor)
    dimensions = range(len(DIMENSIONS))
    return Refusal(
        hosts=len(rests),
        disabled=0,
        disallowed=0,
        considered=len(rests),
        fitting=0,
        lacking=tuple(sum(lacks[d] > 0 for lacks in missing) for d in dimensions),
        best=tuple(max(free[d] for free in frees) for d in dimensions),
        nearest=Nearest(nearest, needs[nearest], frees[nearest], any(rests[nearest][1])),
        could_ever_fit=any(not any(_missing(whole, room.whole)) for room in rooms),
    )


def _number(free: Resources, each: Resources, executor: Resources) -> int:
    """How many shards of `each`, and one executor, have room in `free`."""
    rest = [have - first for have, first in zip(free, executor, strict=True)]
    if any(have < 0 for have in rest):
        return 0
    return min((have // need for have, need in zip(rest, each, strict=True) if need), default=_UNLIMITED)


def _missing(need: Resources, free: Resources) -> list[int]:
    return [max(0, wanted - have) for wanted, have in zip(need, free, strict=True)]


def _times(resources: Resources, number: int) -> Resources:
    return Resources(*(amount * number for amount in resources))
