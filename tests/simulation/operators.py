"""Operators: their commands, the answers, and the state that must be stored as a consequence."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any

from jobcloud.config import (
    EVERY_AGENT,
    NEW_AD_HOC,
    App,
    CatchUp,
    Concurrency,
    Job,
    JobKind,
    JobType,
    Package,
    PartitionPolicy,
    Resources,
    UpdateStrategy,
    key_of,
    split_key,
)
from jobcloud.errors import Refused, Unavailable
from jobcloud.messages import (
    AnswerNode,
    Apply,
    BackfillJob,
    CancelBackfill,
    CancelRun,
    Command,
    DrainAgent,
    EndSessions,
    ForgetTask,
    KillTask,
    Kind,
    NoteSessions,
    PutAccess,
    PutApp,
    PutCalendar,
    PutJob,
    PutPool,
    PutSilence,
    ReconcileTasks,
    RemoveAccess,
    RemoveApp,
    RemoveCalendar,
    RemoveJob,
    RemovePool,
    RemoveService,
    RemoveSilence,
    ReportProblem,
    Retry,
    RevokeServerToken,
    RevokeToken,
    RunAdHoc,
    SetAppEnabled,
    SetJobEnabled,
    SetPaused,
    Trigger,
    UndrainAgent,
    UseSecrets,
)
from jobcloud.model import (
    EVERY_TEAM,
    AccessToken,
    Calendar,
    Cause,
    Condition,
    Member,
    Pool,
    Quota,
    Role,
    Session,
    ShardState,
    Silence,
    TaskState,
    Team,
    Terms,
    User,
    changed,
    pause_key,
)
from jobcloud.scheduler.status import NOT_BEGUN
from jobcloud.triggers import parse_days, wall

from .extremes import PARAMETER_BYTES, RECORD_BYTES, SHARDS

if TYPE_CHECKING:
    from .schedulers import Process
    from .world import World

# The concurrency policy of some jobs, by number. Firings of other jobs must not overlap. Jobs 1 and 4 are residents.
WIDE = "j6"
EXCLUSIVE = "exclusive host"
ROOMY = 1_000  # slots that are enough for all work
TOO_LARGE = "too-large"
CONCURRENCY = {0: Concurrency.REPLACE, 3: Concurrency.ALLOW}
TEAM = "billing"
# A calendar of each team with jobs.
CLOSED = "closed"
# The third team has no jobs of its own, but ad-hoc runs.
TEAMS = ("default", TEAM, "ops")
AT_ONCE = {"j3": 2, f"{TEAM}:j2": 2}
REPLACING = {"j0"}
_CRONS = ("0/3 * * * * ?", "0/5 * * * * ?", "0/7 * * * * ?", "0 * * * * ?", "0/10 * * * * ?")
LIMIT_MS = 3_000
EXPECTED_BY = "00:01"
BEFORE_EXPECTED_MS = 55_000  # the clock at the start of a history with such jobs; many have no success by then
ABSENT: Any = None
# Commands after which nothing has a value that can be expected of a later leader.
_WITHOUT_MARK = frozenset({"trigger", "task", "backfill", "ad_hoc", "silence", "problem", "right", "calendar", "flow"})
_RIGHTS = {
    Kind.TEAM: "teams", Kind.ROLE: "roles", Kind.USER: "users", Kind.ACCESS_TOKEN: "access_tokens",
    Kind.SESSION: "sessions",
}  # fmt: skip
_PUT_BACK = {ShardState.FAILED, ShardState.DEAD, ShardState.KILLED}


@dataclass(slots=True)
class _Asked:
    """A command without an answer yet, the thing that it changes, and the value of that thing afterwards."""

    process: Process
    key: tuple[str, str]
    after: Any
    reply: Future[None]
    command: Command | None = None


@dataclass(frozen=True, slots=True)
class Expectations:
    """`may_be`: thing → its possible values. `triggered`: job → answered triggers. `to_end`: tasks to be killed."""

    may_be: dict[tuple[str, str], list[Any]]
    triggered: dict[str, int]
    to_end: set[str]


def _seconds(at: int, b: int) -> tuple[int, ...]:
    """One to three seconds before an instant or right after it, in some order."""
    found = [(at // 1_000 + 1 - (b % 7) * number) * 1_000 for number in range(1 + b % 3)]
    return tuple(found if b % 2 else reversed(found))


def _set_paused(at: int, key: str, *, paused: bool) -> SetPaused:
    what, _, name = key.partition("/")
    return SetPaused(at, paused, name if what == "job" else "", name if what == "app" else "")


def _terms(b: int) -> Terms:
    """The terms of a trigger: one in three has some. A key names one run, so the same trigger may come again."""
    if b % 3:
        return Terms()
    items = ((), (0,), (0, 1))[b // 3 % 3]
    parameter, priority, key = ("given", None)[b % 2], (None, 2)[b // 9 % 2], ("", f"k{b % 4}")[b // 18 % 2]
    return Terms(parameter, ((0, f"i{b % 5}"),), items, priority, key)


def _quota(a: int, b: int) -> Quota:
    """Some limits. None is so low that a single shard with its executor never fits."""
    limits: dict[str, int] = {}
    for number, (name, low, step) in enumerate(
        (("cpus", 600, 400), ("mem", 90_000, 60_000), ("shards", 1, 1), ("jobs", 1, 1), ("queue", 2, 3))
    ):
        if (a >> number) % 2:
            limits[name] = low + step * (b // (number + 1) % 4)
    return Quota(**limits)


class Operators:
    def __init__(self, world: World) -> None:
        self._world = world
        self._asked: list[_Asked] = []
        #: thing → its possible values; several if a command had no definite answer
        self._may_be: dict[tuple[str, str], list[Any]] = {}
        self.triggered: dict[str, int] = {}
        self.executors: dict[str, Resources] = {}  # hash of a package → resources of its executor
        self.killed: set[str] = set()  # tasks that a scheduler or an operator asked to end
        self.by_hand: set[str] = set()  # tasks that an operator asked to end
        self.to_end: set[str] = set()  # those whose kill was answered as stored
        self._given: set[str] = set()  # those whose secrets may have been handed over
        self.forgotten: set[str] = set()  # tasks declared lost
        self.retried: set[str] = set()  # runs put back
        self.cancelled: set[str] = set()  # runs that an operator asked to end
        self.replacing: set[str] = set()  # jobs whose unreachable shards may be replaced
        self.calendars_removed = False  # at the end of a history
        self.done = self.doubtful = 0

    @property
    def waiting(self) -> bool:
        """True if a command has no answer yet."""
        return bool(self._asked)

    # ---- commands -------------------------------------------------------------------------------------------

    def set_up(self, jobs: int, *, wide: bool = False) -> None:
        for number, key in enumerate(self.pools) if self._world.plan.pools else ():
            self._world.later(1, self.put_pool, key, 3 + number)
        for app in self.apps:
            self._world.later(1, self._put_app, app, 1, False)
        for team in TEAMS[:2]:
            self._world.later(1, self._put_calendar, key_of(team, CLOSED), -1)
        for number in range(jobs):
            self._world.later(100 + number, self.put_job, number, number * 7_919, False)
        if wide:
            self._world.later(100 + jobs, self._put_wide)

    @property
    def apps(self) -> tuple[str, ...]:
        """The keys of the apps."""
        others = (f"{TEAMS[2]}:a0",) if self._world.plan.teams else ()
        return self._key("a", 0), self._key("a", 1), *others

    def _key(self, kind: str, number: int) -> str:
        """The key of an app or a job. With teams, odd ones have the names of the even ones before them."""
        return f"{TEAM}:{kind}{number - 1}" if number % 2 and self._world.plan.teams else f"{kind}{number}"

    def act(self, kind: str, a: int, b: int) -> None:
        app, job = self._key("a", a % 2), self._key("j", a % 6)
        if kind == "put_app":
            self._put_app(app, 1 + b % 3, b % 4 > 0)
        elif kind == "put_job":
            self.put_job(a, b, b % 5 > 1)
        elif kind == "update":
            self.put_job(1 + a % 2 * 3, b, replace=True)
        elif kind == "remove_job":
            self.ask(("job", job), ABSENT, lambda at: RemoveJob(at, job))
        elif kind == "remove_app":
            self.remove_app(app)
        elif kind == "app_mark":
            self._mark(("app_mark", app), lambda at, on: SetAppEnabled(at, app, on), b)
        elif kind == "job_mark":
            self._mark(("job_mark", job), lambda at, on: SetJobEnabled(at, job, on), b)
        elif kind == "pause_mark":
            key = (pause_key(job=job), pause_key(job=job), pause_key(app=app), pause_key())[b % 4]
            self.ask(("pause_mark", key), True, lambda at: _set_paused(at, key, paused=True))
            self._close(a, b)
            if b % 5:  # most pauses end by themselves
                self._world.later(500 + b % 9_000, self.resume, key)
        elif kind == "backfill":
            self._backfill(job, b)
        elif kind == "trigger":
            self._trigger(job, _terms(b))
            if _terms(b).key:  # clients repeat such a trigger until it is answered
                self._world.later(1 + b % 3_000, self._trigger, job, _terms(b))
        elif kind == "ad_hoc":
            self._run_ad_hoc(app, a, b)
            if b % 3 == 0:  # clients repeat a request with a key until it is answered
                self._world.later(1 + b % 3_000, self._run_ad_hoc, app, a, b)
        elif kind == "silence":
            self._silence(a, b)
            self._close(a, b)
        elif kind == "pool":
            self._change_pool(a, b)
        elif kind == "workflow":
            numbers = (0, 2, 3, 5) if not self._world.plan.teams else ((0, 2), (3, 5))[a % 2]
            jobs = [self._key("j", number) for number in numbers]
            self._world.promise.flows.act([*jobs[a % len(jobs) :], *jobs[: a % len(jobs)]], a, b)
        elif kind == "quota":
            self._put_team(a, b)
        elif kind == "burst":
            for number in range(1 + b % 3):
                self._run_ad_hoc(app, 1_000_000 + 10 * a + number, b, shards=4 + b % 9)
        elif kind == "contest":
            self._contest(a, b)
        elif kind == "access":
            self._change_rights(a, b)
        elif kind == "drain":
            hosts = [host.agent.agent_id for host in self._world.cluster.hosts if host.agent.agent_id]
            if hosts:
                self.drain(hosts[a % len(hosts)], 1 + b % 9_000)
                self._world.later(500 + b % 12_000, self.undrain, hosts[a % len(hosts)])
                self._world.later(500 + b % 12_000, self.reconcile, b % 2 == 0)
        elif kind == "forget":
            self.forget(a, b)
        elif kind == "retry":
            self.retry(a, b)
        elif kind == "cancel":
            self.cancel(a)
        elif kind == "kill_task":
            tasks = sorted(task.task_id for runs in self._world.truth.running.values() for task in runs)
            if b % 3 == 0:
                tasks = self._repeating() or tasks
            if b % 3 == 2:
                self._use_secrets(a)
            elif tasks:
                task_id = tasks[a % len(tasks)]
                self.killed.add(task_id)
                self.by_hand.add(task_id)
                self.ask(("task", task_id), ABSENT, lambda at: KillTask(at, task_id))

    def _use_secrets(self, a: int) -> None:
        """The executor of a task that is about to start asks for its secrets, and somebody else too, a while later."""
        leader = self._world.someone()
        tasks = [task for task in leader.core.tasks.values() if task.state in NOT_BEGUN] if leader is not None else []
        if tasks:
            task = tasks[a % len(tasks)]
            for later in (0, 1 + a % 3_000):
                key = ("task", f"{task.id} {later}")
                self._world.later(later, self.ask, key, ABSENT, lambda at: UseSecrets(at, task.id, task.agent_id))

    def _backfill(self, job: str, b: int) -> None:
        """Fill in the fire times of some seconds before and after the start of the history."""
        if b % 4 == 0:
            self.ask(("backfill", job), ABSENT, lambda at: CancelBackfill(at, job))
            return
        self.ask(("backfill", job), ABSENT, lambda at: BackfillJob(at, job, _seconds(at, b), 1 + b % 2))
        if b % 3 == 0:
            self._world.later(300, self._backfill, job, 0)

    def trigger(self, job: str) -> None:
        self._trigger(job, Terms())

    def _trigger(self, job: str, terms: Terms) -> None:
        self.ask(("trigger", job), ABSENT, lambda at: Trigger(at, job, terms))

    def pools_of(self, team: str, a: int, b: int) -> tuple[str, ...]:
        """The pools of a job: none, one or two, and sometimes several slots."""
        if not self._world.plan.pools:
            return ()
        some = ((), ("*:p0",), ("2 of *:p0",), ("own",), ("*:p1", "own"), ("3 of *:p1",), ("*:p0", "2 of own"))
        return some[(a + b) % len(some)]

    @property
    def pools(self) -> tuple[str, ...]:
        """The keys of the pools."""
        teams = TEAMS if self._world.plan.teams else TEAMS[:1]
        return ("*:p0", "*:p1", *(key_of(team, "own") for team in teams))

    def put_pool(self, key: str, slots: int) -> None:
        self.ask(("pool", key), Pool(slots), lambda at: PutPool(at, key, Pool(slots)))

    def _change_pool(self, a: int, b: int) -> None:
        """Give a pool few slots, or try to remove it, which is refused if it is used. Later, give it many slots."""
        key = self.pools[a % len(self.pools)]
        if b % 6 == 5:
            self.ask(("pool", key), ABSENT, lambda at: RemovePool(at, key))
        else:
            self.put_pool(key, (0, 1, 2, 3, 5)[b % 5])
        self._world.later(2_000 + b % 8_000, self.put_pool, key, ROOMY)

    def narrow_pools(self, leader: Process) -> list[str]:
        """The pools that may have too few slots for all work."""
        found = leader.core.pools
        wanted = self.pools if self._world.plan.pools else found
        return [key for key in wanted if found.get(key, Pool(0)).slots < ROOMY]

    def _put_team(self, a: int, b: int) -> None:
        """Give a team a quota and a weight. Most quotas are removed after a while."""
        name = ("default", TEAM)[a % 2]
        team = Team(name, (), _quota(a // 2, b), 1 + b % 4)
        self._put(team)
        if b % 3:
            self._world.later(2_000 + b % 15_000, self.remove_right, Kind.TEAM, name)

    def _contest(self, a: int, b: int) -> None:
        """A team wants more than the whole cluster. A moment later, others want some of it, or as much.

        Each team has shards of one size, or of two, of which some need more than most agents have. Some teams get a
        weight, or a quota that is changed. In some contests, another scheduler takes over in between.
        """
        apps = [*self.apps[a % 3 :], *self.apps[: a % 3]]
        cpus = [1_000 * host.cpus for host in self._world.cluster.hosts]
        total, large = sum(cpus), min(1_500, max(cpus) // (4 if self._world.plan.team_roles else 2))
        dice = b + (b % 7 == 2)  # no listener
        for number, app in enumerate(apps[: 2 + a // 3 % 2]):
            size = (250, 400, 700, large)[(a // 6 + b * number) % 4]
            most = min(40, total * (5 if number else 7) // 4 // size)
            shards = (most, 1 + b % 4, most)[(b // 5 + number) % 3] if number else most
            start, name = number * (b % 3_000), 20_000_000 + 10 * a + number
            self._world.later(start, self._run_ad_hoc, app, name, dice + 7 * number, max(2, shards), size)
            if b // 7 % 2:
                self._world.later(start, self._run_ad_hoc, app, name + 5, dice + 14, 2 + b % 4, large)
            if (a // 12 + number) % 3 == 0:
                weighted = Team(split_key(app)[0], weight=1 + (a + number) % 4)
                limited = changed(weighted, quota=Quota(cpus=total // (2 + b % 3), shards=(None, 3 + b % 9)[b % 2]))
                self._world.later(start + b % 500, self._put, weighted)
                self._world.later(1_500 + b % 2_000, self._put, limited)
        if b // 11 % 3 == 0:
            self._world.later(b % 4_000, self._world.start_process)

    def _put(self, team: Team) -> None:
        self.ask(("right", team.name), ABSENT, lambda at: PutAccess(at, team))

    def _change_rights(self, a: int, b: int) -> None:
        """Add a role, a user with a token and a session, a service account with a token, and sometimes an admin.

        Revoke the tokens, sometimes with the server's own. Sign the user out. Remove the user and the service account.
        """
        name, until = f"u{a % 3}", 1 + b % 20_000
        subject, service = f"user:{name}", f"service:default/{name}"

        def put(at: int, number: int) -> PutAccess:
            made = (
                Role(f"r{a % 2}", ("view",)),
                User(name, at),
                AccessToken(f"t{name}", "ci", "h" * 64, subject, at),
                Session(f"s{name}", "h" * 64, subject, "password", at, at, at + until),
                AccessToken(f"b{name}", "bot", "h" * 64, service, at),
                Team(EVERY_TEAM, (Member(subject, "admin"),)),
            )
            return PutAccess(at, made[number])

        for number in range(5 + b % 2):
            self._world.later(number, self.ask, ("right", f"{name}{number}"), ABSENT, lambda at, n=number: put(at, n))
        changes: list[tuple[int, Callable[[int], Command]]] = [
            (b % 1_000, lambda at: NoteSessions(at, (f"s{name}",))),
            (b % 3_000, lambda at: EndSessions(at, subject)),
            (b % 5_000, lambda at: RevokeToken(at, f"t{name}")),
            (b % 7_000, lambda at: RemoveService(at, service)),
            (b % 4_000, lambda at: RevokeServerToken(at, str(b % 3) * 64)),
            (1 + b % 9_000, lambda at: RemoveAccess(at, Kind.USER, name)),
        ]
        for later, make in changes:
            self._world.later(10 + later, self.ask, ("right", f"{name}-"), ABSENT, make)

    def rights(self, leader: Process) -> list[tuple[Kind, str]]:
        """The records about rights of a leader. A team without limits and members is none."""
        state = leader.core._state
        found = [(kind, key) for kind, table in _RIGHTS.items() for key in getattr(state, table)]
        return [(kind, key) for kind, key in found if kind is not Kind.TEAM or state.teams[key] != Team(key)]

    def remove_right(self, kind: Kind, key: str) -> None:
        """Remove a record, or the limits and members of a team: a team that has apps cannot be removed."""

        def made(at: int) -> PutAccess | RemoveAccess:
            return PutAccess(at, Team(key)) if kind is Kind.TEAM else RemoveAccess(at, kind, key)

        leader = self._world.leader()
        if leader is not None and (kind, key) in self.rights(leader):
            self.ask(("right", key), ABSENT, made)

    def remove_team(self, name: str) -> None:
        self.ask(("right", name), ABSENT, lambda at: RemoveAccess(at, Kind.TEAM, name))

    def _run_ad_hoc(self, app: str, a: int, b: int, shards: int = 0, cpus: int = 200) -> None:
        """Start an ad-hoc run of an app. One in three has a key."""
        team, name = split_key(app)
        job = Job(
            f"once{a}", name, JobKind.TRANSIENT, JobType.SIMPLE, "", shards or 1 + b % 3, Resources(cpus, 32_000),
            "shop:Job", team=team, context="shop:beans", failover=b % 5 != 0, failover_attempts=30, retry_count=b % 4,
            retry_delay_ms=1_000, kill_grace_ms=1_000, firing_listener="shop:Stage" if b % 7 == 2 else "",
            priority=b % 3, ad_hoc=NEW_AD_HOC, pools=self.pools_of(team, a, b),
            gang_start=self._world.plan.gangs and not shards and (a + b) % 4 > 0,
        )  # fmt: skip
        terms = Terms(key=f"k{a}" if b % 3 == 0 else "")
        self.ask(("ad_hoc", job.name), ABSENT, lambda at: RunAdHoc(at, job, terms))

    def _silence(self, a: int, b: int) -> None:
        """Silence alerts that no promise is about, and end the silence. Report a problem of the clock, and its end."""
        key, until = f"s{a % 3}", 1 + b % 20_000
        silence = ("silence", key)
        self.ask(
            silence, ABSENT, lambda at: PutSilence(at, key, Silence(at, at + until, Condition.STORE, comment="known"))
        )
        self._world.later(1 + b % 9_000, self.end_silence, key)
        for later, text in ((0, "the clock is wrong"), (1 + b % 7_000, "")):
            report = functools.partial(self._report_clock, text)
            self._world.later(later, self.ask, ("problem", "clock"), ABSENT, report)

    def _close(self, a: int, b: int) -> None:
        """Close this day for the jobs of a team that name its calendar, and open it again after a while."""
        key = key_of(TEAMS[a % 2], CLOSED)
        self._put_calendar(key, 0)
        self._world.later(2_000 + b % 8_000, self._put_calendar, key, -1)
        spare = key_of(TEAMS[a % 2], "spare")
        self._put_calendar(spare, b % 3)
        self._world.later(1 + b % 5_000, self.remove_calendar, spare)

    def end_silence(self, key: str) -> None:
        self.ask(("silence", key), ABSENT, lambda at: RemoveSilence(at, key))

    def remove_calendar(self, key: str) -> None:
        self.ask(("calendar", key), ABSENT, lambda at: RemoveCalendar(at, key))

    def _put_calendar(self, key: str, day: int) -> None:
        """Set a calendar of one day: 0 is this one."""
        if self.calendars_removed:
            return
        name = (wall.local_time(self._world.now // 1_000, UTC) + timedelta(day)).date().isoformat()
        made = Calendar(key, (name,), "2099-12-31")
        self.ask(("calendar", key), ABSENT, lambda at: PutCalendar(at, made, parse_days((name,))))

    @staticmethod
    def _report_clock(text: str, at: int) -> ReportProblem:
        return ReportProblem(at, Condition.CLOCK, text)

    def hold(self, job: str, ms: int) -> None:
        """Pause a job for a while."""
        key = pause_key(job=job)
        self.ask(("pause_mark", key), True, lambda at: _set_paused(at, key, paused=True))
        self._world.later(ms, self.resume, key)

    def resume(self, key: str) -> None:
        self.ask(("pause_mark", key), False, lambda at: _set_paused(at, key, paused=False))

    def drain(self, agent_id: str, ms: int) -> None:
        self.ask(("drain_mark", agent_id), True, lambda at: DrainAgent(at, agent_id, at + ms))

    def undrain(self, agent_id: str) -> None:
        self.ask(("drain_mark", agent_id), False, lambda at: UndrainAgent(at, agent_id))

    def reconcile(self, explicit: bool) -> None:
        self.ask(("task", "all"), ABSENT, lambda at: ReconcileTasks(at, explicit))

    def forget(self, a: int, b: int) -> None:
        """Declare a task dead: an unreachable one, or by mistake any other."""
        leader = self._world.leader()
        tasks = sorted(leader.core.tasks.values(), key=lambda task: task.id) if leader is not None else []
        away = [task for task in tasks if task.state is TaskState.UNREACHABLE]
        if found := away or tasks:
            task_id = found[a % len(found)].id
            self.forgotten.add(task_id)
            self.ask(("task", task_id), ABSENT, lambda at: ForgetTask(at, task_id, force=b % 4 == 0))

    def retry(self, a: int, b: int) -> None:
        """Retry the failed shards of a run, all or one; by mistake any run."""
        leader = self._world.leader()
        runs = sorted(leader.core.firings.values(), key=lambda firing: firing.id) if leader is not None else []
        failed = [run for run in runs if any(shard.state in _PUT_BACK for shard in run.work)]
        if found := failed or runs:
            run = found[a % len(found)]
            self.retried |= {run.id} | self._world.promise.flows.joined_with(run.id)
            self._widen_range(run.job)
            item = None if b % 2 else b % len(run.work)
            self.ask(("retry", run.id), ABSENT, lambda at: Retry(at, run.id, item))

    def _widen_range(self, key: str) -> None:
        """Change the range of a job, so that a run that is put back was made with another one."""
        leader = self._world.leader()
        job = leader.core.jobs.get(key) if leader is not None else None
        if job is not None and job.item_range:
            wider = replace(job, item_range=f"1..{int(job.item_range.rpartition('.')[2]) + 4}")
            self.ask(("job", key), wider, lambda at: PutJob(at, wider, replace=True))

    def cancel(self, a: int) -> None:
        """Cancel a run, most often one that has not ended."""
        leader = self._world.leader()
        runs = sorted(leader.core.firings.values(), key=lambda firing: firing.id) if leader is not None else []
        if found := [run for run in runs if not run.ended_ms and run.cause is not Cause.DAEMON] or runs:
            run = found[a % len(found)].id
            self.cancelled.add(run)
            self.ask(("cancel", run), ABSENT, lambda at: CancelRun(at, run))

    def _repeating(self) -> list[str]:
        """The last tasks of shards that wait for another attempt."""
        leader = self._world.leader()
        firings = leader.core.firings.values() if leader is not None else ()
        shards = (shard for firing in firings for shard in firing.shards)
        return sorted(shard.task_id for shard in shards if shard.task_id and shard.state is ShardState.WAITING)

    def _put_app(self, key: str, version: int, replace: bool) -> None:
        team, name = split_key(key)
        package, need = f"{version:064x}", Resources(100 + 25 * version, 16_000 * (1 + version))
        self.executors[package] = need
        app = App(name, Package("http://h/p.zip", package), team=team, resources=need, idle_timeout_ms=5_000,
                  executors=(0, 0, 1, EVERY_AGENT)[version],
                  constraints=("zone != c",) if self._world.plan.places and version == 3 else ())  # fmt: skip
        self.ask(("app", key), app, lambda at: PutApp(at, app, replace))

    def put_job(self, a: int, b: int, replace: bool) -> None:
        daemon = a % 6 in (1, 4)
        key = self._key("j", a % 6)
        team, name = split_key(key)
        # In some histories, jobs fire after the ends of their runs, with a cron expression or without one.
        delays = self._world.plan.delays and not daemon and b % 3 > 0
        cron = "" if delays and b % 3 == 2 else _CRONS[b % len(_CRONS)]
        job = Job(
            name, split_key(self._key("a", a % 2))[1], JobKind.DAEMON if daemon else JobKind.TRANSIENT, JobType.SIMPLE,
            cron, resources=Resources(200 + 50 * (b % 4), 32_000), job_class="shop:Job",
            context="shop:beans" if b % 3 else "shop:others", bean="job" if b % 4 == 0 else "",
            failover=b % 5 != 0, misfire=b % 2 == 0, catch_up=tuple(CatchUp)[b % 3],
            concurrency=CONCURRENCY.get(a % 6, Concurrency.FORBID), concurrency_limit=AT_ONCE.get(key, 1), team=team,
            priority=b % 3, firing_listener="shop:Stage" if not daemon and b % 7 in (2, 5) else "",
            timeout_ms=LIMIT_MS if not daemon and b % 4 == 1 else 0, kill_grace_ms=1_000,
            failover_attempts=30, retry_count=b % 4, retry_delay_ms=1_000,
            partition=PartitionPolicy.REPLACE if b % 7 < 3 else PartitionPolicy.WAIT,
            replace_after_ms=b % 3 * 2_000, catch_up_limit=2 if self._world.plan.extreme else 10,
            constraints=self._constraints_of(a % 6, b) if self._world.plan.places else (),
            preferences=("9: zone == a", "3: evenly over zone")[: b % 3] if self._world.plan.places else (),
            pools=self.pools_of(team, a, b),
            **self._update_of(b) if daemon else {"shard_count": 1 + b % 3} | self._times_of(b)
            | ({"gang_start": True} if self._world.plan.gangs and b % 5 < 4 else {})
            | ({"triggers": (f"@after {1 + b % 5}s",)} if delays else {})
            | ({"expected_by": EXPECTED_BY} if self._world.plan.expected and b % 3 else {}),
        )  # fmt: skip
        if job.partition is PartitionPolicy.REPLACE:
            self.replacing.add(key)
        whole = b % 11 == 10
        self.ask(("job", key), job, lambda at: Apply(at, (), (job,)) if whole else PutJob(at, job, replace))

    def _times_of(self, b: int) -> dict[str, Any]:
        """Further triggers, a blackout of some seconds, a calendar, a jitter or a deadline."""
        now = self._world.now
        begin = wall.local_time((now + b % 5 * 3_000) // 1_000, UTC)
        window = f"{begin:%Y-%m-%dT%H:%M:%S}/{begin + timedelta(seconds=10):%Y-%m-%dT%H:%M:%S}"
        return {
            "triggers": ("@every 4s", f"@at {begin:%Y-%m-%dT%H:%M:%S}") if b % 9 == 1 else (),
            "blackouts": (window,) if b % 9 in (1, 4) else (),
            "skip_on": (CLOSED,) if b % 9 in (0, 2, 4, 6, 7) else (),
            "jitter_ms": b % 3 * 1_500 if b % 9 in (4, 7) else 0,
            "start_deadline_ms": 5_000 if b % 9 in (5, 7) else 0,
            **_parameters_of(b),
        }

    def _constraints_of(self, number: int, b: int) -> tuple[str, ...]:
        """Constraints that some agents meet in every history. The zones a and b have agents."""
        if number == 3 and b % 4 < 2:
            return (f"near {split_key(self._key('j', 1))[1]} per zone",)
        if number in (0, 2) and b % 4 < 3:
            return (EXCLUSIVE,)
        most = 2 if number in (1, 4) else 1  # residents have up to four shards, and others up to three
        rules = (f"at most {most} per zone",), (f"at most {most} per host",)
        return (rules[b // 4 % 2], ("zone == a",), ("zone in b, c",), ("host != nowhere", "zone != b"))[b % 4]

    def _put_wide(self) -> None:
        """A job of many shards with large parameters, which fires when it is triggered."""
        job = Job(
            WIDE, "a0", JobKind.TRANSIENT, JobType.SIMPLE, "0 0 5 1 1 ?", resources=Resources(20, 4_000),
            job_class="shop:Job", context="shop:beans", shard_count=SHARDS, parameter="p" * PARAMETER_BYTES,
            failover_attempts=30, retry_count=1, retry_delay_ms=1_000, kill_grace_ms=1_000,
        )  # fmt: skip
        self.ask(("job", WIDE), job, lambda at: PutJob(at, job))

    def trigger_wide(self) -> None:
        self.ask(("trigger", WIDE), ABSENT, lambda at: Trigger(at, WIDE))

    def put_too_large(self) -> None:
        job = Job(
            TOO_LARGE, "a0", JobKind.TRANSIENT, JobType.SIMPLE, "0 0 5 1 1 ?", resources=Resources(20, 4_000),
            job_class="shop:Job", shard_count=1, parameter="p" * (RECORD_BYTES + 1_000),
        )  # fmt: skip
        self.ask(("job", TOO_LARGE), job, lambda at: PutJob(at, job))

    def _update_of(self, b: int) -> dict[str, Any]:
        """The fields that make another version of a resident, and its update strategy."""
        return {
            "shard_count": 1 + b % 4, "parameter": f"v{b % 5}", "max_unavailable": 1 + (b % 7 == 0),
            "update_strategy": UpdateStrategy.RECREATE if b % 11 == 0 else UpdateStrategy.ROLLING,
            "independent_shards": b % 3 == 1,
        }  # fmt: skip

    def remove_app(self, name: str) -> None:
        if not self._pending_on(name):
            self.ask(("app", name), ABSENT, lambda at: RemoveApp(at, name, jobs=True))

    def _pending_on(self, app: str) -> bool:
        """Remove jobs and their app one at a time, so that the expected state is known."""
        return any(asked.key[0] in ("job", "job_mark", "app_mark", "app") for asked in self._asked)

    def _mark(self, key: tuple[str, str], make: Any, b: int) -> None:
        self.ask(key, b % 2 == 0, lambda at: make(at, b % 2 == 1))
        if b % 2 == 0:  # most disabled things are enabled again
            self._world.later(500 + b % 9_000, lambda: self.ask(key, False, lambda at: make(at, True)))

    def enable(self, job: str) -> None:
        self.ask(("job_mark", job), False, lambda at: SetJobEnabled(at, job, True))

    def ask(self, key: tuple[str, str], after: Any, make: Any) -> None:
        process = self._world.someone()
        if process is None or any(asked.key == key for asked in self._asked):
            return
        if key[0] != "trigger" and any(asked.after is ABSENT and asked.key[0] == "app" for asked in self._asked):
            return
        made: list[Command] = []

        def remembered(at: int) -> Command:
            made.append(make(at))
            return made[0]

        reply = process.order(remembered)
        asked = _Asked(process, key, after, reply)
        self._asked.append(asked)
        reply.add_done_callback(lambda done: self._answered(asked, done, made))

    # ---- answers -------------------------------------------------------------------------------------------

    def _answered(self, asked: _Asked, reply: Future[None], made: list[Command]) -> None:
        if asked not in self._asked:
            return
        self._asked.remove(asked)
        if self._world.extremes.deleted(asked.process):
            return
        error = reply.exception()
        if error is None:
            self.done += 1
            self._world.note(f"operator is told: done {made[0]!r}"[:200])
            if asked.key[0] == "trigger":
                self._triggered(made[0])
            elif isinstance(made[0], RunAdHoc):
                self._ran_ad_hoc(made[0])
            elif isinstance(made[0], KillTask):
                self.to_end.add(made[0].task_id)
            elif isinstance(made[0], AnswerNode):
                self._world.promise.flows.told(made[0])
            elif isinstance(made[0], UseSecrets):
                if made[0].task_id in self._given:
                    self._world.violation(f"23: the secrets of {made[0].task_id} were handed over twice")
                self._given.add(made[0].task_id)
            if asked.process.leader.epoch == self._world.server.epoch:
                self._settle(asked, [asked.after])
                self._check_stored(asked)
            else:
                # A late answer. A later leader may have removed the app or the job since.
                self._doubt(asked)
        elif isinstance(error, Refused) and not isinstance(error, Unavailable):
            # Nothing changed.
            if TOO_LARGE in str(error) and asked.key != ("job", TOO_LARGE):
                self._world.violation(f"14: {asked.key} is refused for the size of another record: {error}")
        else:
            self._doubt(asked)

    def _triggered(self, command: Any) -> None:
        if (Kind.JOB, command.job) not in self._world.server.entries:
            return  # removed together with the firing, in the same write
        found = [f for f in self._world.promise.firings.values() if f.job == command.job and f.cause is Cause.TRIGGER]
        found = [f for f in found if f.terms.key == command.terms.key]
        if command.terms.key:  # any number of triggers make one firing
            if not found:
                self._world.violation(f"7: {command.job} was triggered with {command.terms.key}, no firing is stored")
            return
        count = self.triggered[command.job] = self.triggered.get(command.job, 0) + 1
        if len(found) < count:
            self._world.violation(f"7: {command.job} was triggered {count} times, {len(found)} firings are stored")

    def _ran_ad_hoc(self, command: RunAdHoc) -> None:
        """Each operator names the job of a run differently, so one name belongs to one run."""
        if (Kind.APP, command.job.app_key) not in self._world.server.entries:
            return  # removed together with the run, in the same write
        name = command.job.key.partition("~")[0]
        found = [firing.id for firing in self._world.promise.firings.values() if firing.job.startswith(f"{name}~")]
        if len(found) != 1:
            self._world.violation(f"19: {name} was started as an ad-hoc run, and its runs are {found}")

    def _settle(self, asked: _Asked, values: list[Any]) -> None:
        kind, name = asked.key
        if kind in _WITHOUT_MARK:
            return
        before = self._may_be.get(asked.key, [ABSENT])
        self._may_be[asked.key] = values
        removed = ABSENT in values and kind in ("app", "job")
        if kind == "app" and removed:
            jobs = [k for k, v in self._may_be.items() if k[0] == "job" and any(j and j.app_key == name for j in v)]
            for key in jobs:
                # If the last command on the job is uncertain, so is its app.
                sure = len(values) == 1 and all(j and j.app_key == name for j in self._may_be[key])
                self._may_be[key] = [ABSENT] if sure else [*self._may_be[key], ABSENT]
                self._forget_mark(("job_mark", key[1]), sure)
                self._forget_mark(("pause_mark", pause_key(job=key[1])), sure)
            self._forget_mark(("app_mark", name), len(values) == 1)
            self._forget_mark(("pause_mark", pause_key(app=name)), len(values) == 1)
        elif kind == "job" and removed:
            self._forget_mark(("job_mark", name), len(values) == 1)
            self._forget_mark(("pause_mark", pause_key(job=name)), len(values) == 1)
        elif kind == "job" and ABSENT in before and len(values) == 1:
            self._may_be.setdefault(("job_mark", name), [False])

    def _forget_mark(self, key: tuple[str, str], sure: bool) -> None:
        if sure:
            self._may_be.pop(key, None)
        else:
            self._may_be[key] = [False, True]

    def _doubt(self, asked: _Asked) -> None:
        self.doubtful += 1
        if asked.key[0] not in _WITHOUT_MARK:
            unset = False if asked.key[0].endswith("mark") else ABSENT
            self._settle(asked, [*self._may_be.get(asked.key, [unset]), asked.after])

    def process_ended(self, process: Process) -> None:
        """The callers get no answer."""
        for asked in [one for one in self._asked if one.process is process]:
            self._asked.remove(asked)
            self._doubt(asked)

    # ---- expectations ---------------------------------------------------------------------------------------

    def expectations(self) -> Expectations:
        """The expectations of the present state, in case it comes back."""
        before = {key: list(values) for key, values in self._may_be.items()}
        for asked in self._asked:
            self._doubt(asked)
        found, self._may_be = self._may_be, before
        return Expectations(found, dict(self.triggered), set(self.to_end))

    def expect(self, expected: Expectations) -> None:
        """A former state has come back."""
        self._may_be = {key: list(values) for key, values in expected.may_be.items()}
        self.triggered, self.to_end = dict(expected.triggered), set(expected.to_end)
        self._given = set()

    def _check_stored(self, asked: _Asked) -> None:
        kind, key = asked.key
        if kind == "cancel" and key not in self.retried and (Kind.FIRING, key) in self._world.server.entries:
            run = self._world.promise.firings[key]
            goes_on = [
                shard for shard in run.shards
                if not shard.state.ended and not self._world.promise.is_ending(shard.task_id)
            ]  # fmt: skip
            if goes_on:
                self._world.violation(f"7: {key} was answered as cancelled, and goes on: {goes_on}")
        if asked.key[0] in ("app", "job"):
            stored = asked.key in self._world.server.entries
            if stored != (asked.after is not ABSENT):
                self._world.violation(f"7: {asked.key} was answered as done, and is{'' if stored else ' not'} stored")

    def check(self, process: Process) -> None:
        """Check a leader that has loaded: everything promised is there."""
        core = process.core
        pending = {asked.key for asked in self._asked}
        if any(kind == "app" for kind, _ in pending):
            return
        for (kind, name), values in self._may_be.items():
            if (kind, name) in pending or (kind == "job_mark" and ("job", name) in pending):
                continue
            if kind == "pause_mark" and ("job", name.removeprefix("job/")) in pending:
                continue
            if kind == "app":
                found: Any = core.apps.get(name)
            elif kind == "job":
                found = core.jobs.get(name)
            elif kind == "pool":
                found = core.pools.get(name)
            elif kind == "drain_mark":
                found = name in core.drains
            elif kind == "pause_mark":
                found = name in core.pauses
            elif kind == "app_mark":
                found = name in core.disabled_apps
            elif name in core.job_states:
                found = core.job_states[name].disabled
            else:
                continue
            if kind == "drain_mark" and not found and self._world.history.happened["clock_far"]:
                continue  # the drain of an agent that is gone is deleted after a month
            if found not in values:
                self._world.violation(f"7: {kind} {name} is {found}, was answered as {values}")


def _parameters_of(b: int) -> dict[str, Any]:
    """A range that the shards divide, or a placeholder in their parameters.

    Jobs with a range have three shards, so that an operator can put back runs from before a change of the range.
    """
    if b % 2:
        return {"item_range": f"1..{10 + b}", "shard_count": 3}
    return {"placeholders": ("shardingItemParameters",), "shard_parameters": "0={previous_success}"}
