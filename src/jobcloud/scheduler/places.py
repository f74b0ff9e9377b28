"""The agents on which the shards of a job may run, as its configuration and that of its app say.

This module parses the texts, which docs/placement.md describes. `masks` decides which agents meet them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from jobcloud.config import MAX_SHARDS, App, Job, key_of, team_of
from jobcloud.errors import ConfigError
from jobcloud.match.constraints import HOST, Constraint, ConstraintError, Op, parse
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import at_most, between, not_valid, such_as, too_many

_MAX_WEIGHT: Final = 100
# In the matcher's units, 2**20 is the whole capacity of an agent. With 20 preferences of the largest weight, the sum
# stays below the largest penalty, 2**28.
_UNIT: Final = 1 << 17
_WEIGHTED: Final = re.compile(r"\s*([0-9]{1,9})\s*:(.*)", re.DOTALL)

_AT_MOST: Final = re.compile(r"at\s+most\s+([0-9]{1,9})\s+per\s+([^\s=!<>~]+)")
_EVENLY: Final = re.compile(r"evenly\s+over\s+([^\s=!<>~]+)")
EXCLUSIVE: Final = re.compile(r"exclusive\s+host")
_NEAR: Final = re.compile(r"near\s+([A-Za-z0-9_][A-Za-z0-9_.-]{0,99})(?:\s+per\s+([^\s=!<>~]+))?")
_FORMS: Final = such_as(
    "`zone == a`, `host !~ db-*`, `cores >= 16`, `at most 1 per host`, `near cache` or `exclusive host`"
)
_MAX_RULES: Final = 16  # of one class of the matcher
#: the attributes that the rules of all jobs may name together; the matcher counts shards by this number of attributes
MAX_ATTRIBUTES: Final = 64


class Limit(NamedTuple):
    """At most `number` shards of the job run on agents with the same value of an attribute, or on one agent (HOST)."""

    number: int
    attribute: str

    def __str__(self) -> str:
        return f"at most {self.number} per {self.attribute}"


class Even(NamedTuple):
    """A shard starts only on an agent whose value of the attribute has the fewest shards of the job.

    The values of all agents that the job may use are compared.
    """

    attribute: str

    def __str__(self) -> str:
        return f"evenly over {self.attribute}"


class Near(NamedTuple):
    """A shard of another job of the team runs on the same agent (HOST), or on an agent with the same value."""

    job: str
    attribute: str

    def __str__(self) -> str:
        return f"near {self.job}" + (f" per {self.attribute}" if self.attribute != HOST else "")


class Exclusive(NamedTuple):
    """No other shard runs on the agent of a shard of the job."""

    attribute: str = HOST

    def __str__(self) -> str:
        return f"exclusive {self.attribute}"


Rule = Limit | Even | Near | Exclusive
Weighted = tuple[tuple[Constraint, int], ...]


class Where:
    """The conditions for the agents of a job's shards. `hard`: each of them must hold.

    `away`: the ids of agents that are avoided.
    `soft`: an agent that fails one of these gets its penalty, in the matcher's units. `group`: the key of the job whose
    running shards are counted, or "". `rules`: the rules about the counted shards, each with its penalty; 0 if the rule
    must hold. `exclusive`: each shard needs an agent without any other shard.

    Equal conditions are equal objects. The hash is computed once, because a cycle looks up the request of each shard.
    """

    __slots__ = ("_hash", "away", "exclusive", "group", "hard", "rules", "soft")

    def __init__(
        self,
        hard: tuple[Constraint, ...],
        soft: Weighted = (),
        group: str = "",
        rules: tuple[tuple[Rule, int], ...] = (),
        away: tuple[str, ...] = (),
        exclusive: bool = False,
    ) -> None:
        self.hard = hard
        self.soft = soft
        self.group = group
        self.rules = rules
        self.away = away
        self.exclusive = exclusive
        self._hash = hash(self._all)

    @property
    def _all(self) -> tuple[tuple[Constraint, ...], Weighted, str, tuple[tuple[Rule, int], ...], tuple[str, ...], bool]:
        return self.hard, self.soft, self.group, self.rules, self.away, self.exclusive

    @property
    def must(self) -> tuple[Rule, ...]:
        """The rules that must hold."""
        exclusive: tuple[Rule, ...] = (Exclusive(),) if self.exclusive else ()
        return (*(rule for rule, weight in self.rules if not weight), *exclusive)

    @property
    def even(self) -> bool:
        """Whether shards are divided evenly over the values that usable agents have."""
        return any(isinstance(rule, Even) for rule, _ in self.rules)

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes of agents by which shards are counted."""
        return tuple(dict.fromkeys(rule.attribute for rule, _ in self.rules if rule.attribute != HOST))

    @property
    def neighbours(self) -> tuple[tuple[str, str], ...]:
        """The keys of the other jobs near which the shards run, each with the attribute."""
        return tuple((rule.job, rule.attribute) for rule, _ in self.rules if isinstance(rule, Near))

    @property
    def counted(self) -> Where:
        """Without any condition. The shards are counted all the same."""
        return Where((), (), self.group)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Where) and self._all == other._all

    def __reduce__(self) -> tuple[type[Where], tuple[object, ...]]:
        return Where, self._all  # the hash of a text differs between processes


_NOTHING: Final = Where(())


def where_of_job(job: Job, app: App) -> Where | None:
    """The conditions for the shards of a job; None if it has none. Raises ConfigError."""
    if not (job.constraints or app.constraints or job.preferences):
        return None
    return _where((*app.constraints, *job.constraints), job.preferences, job.key)


@lru_cache(maxsize=65_536)
def counting(where: Where | None, job: str) -> Where:
    """The same conditions, but the shards of the job are counted, because another job runs near them."""
    if where is None:
        return Where((), (), job)
    return Where(where.hard, where.soft, job, where.rules, exclusive=where.exclusive)


@lru_cache(maxsize=1_024)
def away_from(where: Where | None, agents: tuple[str, ...]) -> Where:
    """The same conditions, without these agents."""
    if where is None:
        return Where((), away=agents)
    return Where(where.hard, where.soft, where.group, where.rules, agents, where.exclusive)


def own_where(job: Job) -> Where:
    """The conditions of a job, without those of its app. Damaged ones count as none."""
    if not (job.constraints or job.preferences):
        return _NOTHING
    try:
        return _where(job.constraints, job.preferences, job.key)
    except ConfigError:
        return _NOTHING


class Index:
    """The attributes and jobs that the rules of all jobs name. A change of a job costs as much as the job has rules."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        #: job → the jobs that run near its shards, each with the attributes of its rules about this
        self.near: dict[str, dict[str, tuple[str, ...]]] = {}
        #: job → its conditions, if it has rules
        self._ruled: dict[str, Where] = {}
        #: the jobs whose shards need agents of their own
        self._exclusive: set[str] = set()
        #: the number of rules that name an attribute
        self._attributes: Counter[str] = Counter()
        for job in jobs:
            self.put(job)

    def put(self, job: Job) -> None:
        """Take over the rules of a new or a changed job."""
        self.remove(job.key)
        where = own_where(job)
        if where.exclusive:
            self._exclusive.add(job.key)
        if not where.rules:
            return
        self._ruled[job.key] = where
        self._attributes += _attributes(where)
        for target, attribute in where.neighbours:
            others = self.near.setdefault(target, {})
            others[job.key] = (*others.get(job.key, ()), attribute)

    def remove(self, job: str) -> None:
        """Forget the rules of a job, if it has any."""
        self._exclusive.discard(job)
        where = self._ruled.pop(job, None)
        if where is None:
            return
        self._attributes -= _attributes(where)
        for target in {target for target, _ in where.neighbours}:
            del self.near[target][job]
            if not self.near[target]:
                del self.near[target]

    def check(self, jobs: Iterable[Job]) -> None:
        """Raises ConfigError if the rules of all jobs, with these new ones, contradict each other.

        Also raises it if they would name too many attributes.
        """
        found, new = self._attributes, {job.key: own_where(job) for job in jobs}
        if not any(where.rules or where.exclusive for where in new.values()):
            return
        self._check_neighbours(new)
        for key, where in new.items():
            found = found - _attributes(self._ruled.get(key, _NOTHING)) + _attributes(where)
        if len(found) > MAX_ATTRIBUTES:
            text = f"the rules of all jobs would count shards by {len(found)} attributes"
            problem = Told(text, "many_attributes", attributes=len(found))
            fix = at_most(MAX_ATTRIBUTES, ": use an attribute of other jobs")
            raise ConfigError(problem, field="constraints", fix=fix)

    def _check_neighbours(self, new: dict[str, Where]) -> None:
        """Raises ConfigError if a job would run on the agent of a job whose shards need agents of their own."""
        exclusive = self._exclusive - new.keys() | {key for key, where in new.items() if where.exclusive}
        near = [(key, where) for key, where in new.items() if where.neighbours]
        others = {other for key in new for other in self.near.get(key, {})} - new.keys()
        for key, where in (*near, *((other, self._ruled[other]) for other in sorted(others))):
            for rule in where.must:
                if isinstance(rule, Near) and rule.attribute == HOST and rule.job in exclusive:
                    text = f"{rule} of job {key} finds no agent, because {rule.job} has {Exclusive()}"
                    problem = Told(text, "near_exclusive", rule=str(rule), job=key, other=rule.job)
                    raise ConfigError(
                        problem,
                        field="constraints",
                        fix=Told("drop one of them, or use `near JOB per zone`", "near_per_zone"),
                    )


def _attributes(where: Where) -> Counter[str]:
    """The attributes that rules name, HOST among them."""
    return Counter(rule.attribute for rule, _ in where.rules)


def where_of_app(app: App) -> Where | None:
    """The conditions for the warm executors of an app; None if it has none. Raises ConfigError."""
    return _where(app.constraints) if app.constraints else None


def is_readable(app: App) -> bool:
    """Whether the conditions of an app are valid. An older version may not know those that a newer one has stored."""
    try:
        where_of_app(app)
    except ConfigError:
        return False
    return True


def check(record: App | Job) -> None:
    """Raises ConfigError, which names the invalid condition and its correct form."""
    where = _where(record.constraints, record.preferences if isinstance(record, Job) else (), record.key)
    if (where.rules or where.exclusive) and isinstance(record, App):
        rule = str(where.rules[0][0] if where.rules else Exclusive())
        problem = Told(f"{rule} counts the shards of one job", "rule_of_job", rule=rule)
        raise ConfigError(problem, field="constraints", fix=Told("give it to the jobs of the app", "give_to_jobs"))
    _check_rules(where)


def _check_rules(where: Where) -> None:
    rules = [rule for rule, _ in where.rules]
    if len(rules) > _MAX_RULES:
        problem = too_many(len(rules), "rules")
        raise ConfigError(problem, field="constraints", fix=at_most(_MAX_RULES, " with preferences"))
    for number, rule in enumerate(where.must):
        same = (other for other in where.must[:number] if type(other) is type(rule) and not isinstance(other, Near))
        if any(rule.attribute == other.attribute for other in same):
            text = f"{rule} is the second one for {rule.attribute}"
            problem = Told(text, "second_rule", rule=str(rule), attribute=rule.attribute)
            raise ConfigError(problem, field="constraints", fix=Told("keep one", "keep_one"))
    for rule in rules if where.exclusive else ():
        if rule.attribute == HOST:
            text = f"{rule} has no meaning with {Exclusive()}, which allows no other shard"
            problem = Told(text, "no_meaning_with", rule=str(rule), other=str(Exclusive()))
            raise ConfigError(problem, field="constraints", fix=Told("drop one of them", "drop_one"))
    for rule in rules:
        if isinstance(rule, Near) and rule.job == where.group:
            problem = Told(f"{rule} names the job itself", "names_itself", rule=str(rule))
            raise ConfigError(problem, field="constraints", fix=Told("name another job", "name_other_job"))
        fixed = next((one for one in where.hard if one.op is Op.EQUALS and one.attribute == rule.attribute), None)
        if fixed is not None and isinstance(rule, Even):
            text = f"{rule} has no meaning with {fixed}, which allows one value"
            problem = Told(text, "no_meaning_with", rule=str(rule), other=str(fixed))
            raise ConfigError(problem, field="constraints", fix=Told("drop one of them", "drop_one"))


@lru_cache(maxsize=65_536)
def _where(constraints: tuple[str, ...], preferences: tuple[str, ...] = (), group: str = "") -> Where:
    hard: dict[Constraint, None] = {}
    soft: list[tuple[Constraint, int]] = []
    rules: dict[tuple[Rule, int], None] = {}
    exclusive = False
    for one in (_parsed("constraints", text) for text in constraints):
        if isinstance(one, Constraint):
            hard[one] = None
        elif isinstance(one, Exclusive):
            exclusive = True
        else:
            rules[_of_team(one, group), 0] = None
    for one, weight in map(_weighted, preferences):
        if isinstance(one, Constraint):
            soft.append((one, weight))
        elif isinstance(one, Exclusive):
            problem = Told(f"{one} is no preference, because it also keeps others away", "no_preference", rule=str(one))
            raise ConfigError(problem, field="preferences", fix=Told("put it into `constraints`", "put_constraints"))
        else:
            rules[_of_team(one, group), weight] = None
    return Where(tuple(hard), tuple(soft), group if rules else "", tuple(rules), exclusive=exclusive)


def _of_team(rule: Rule, job: str) -> Rule:
    """The rule with the key of the other job, which belongs to the team of the job."""
    return rule._replace(job=key_of(team_of(job), rule.job)) if isinstance(rule, Near) else rule


def _weighted(text: str) -> tuple[Constraint | Rule, int]:
    """The condition of a preference, and its penalty."""
    found = _WEIGHTED.fullmatch(text)
    weight, text = (int(found[1]), found[2]) if found else (1, text)
    if not 1 <= weight <= _MAX_WEIGHT:
        problem = Told(f"{weight} is no weight", "out_of_range", value=str(weight))
        raise ConfigError(problem, field="preferences", fix=between("1", str(_MAX_WEIGHT)))
    return _parsed("preferences", text), weight * _UNIT


def _parsed(field: str, text: str) -> Constraint | Rule:
    text = text.strip()
    if limit := _AT_MOST.fullmatch(text):
        if not 1 <= int(limit[1]) <= MAX_SHARDS:
            raise ConfigError(not_valid(text, "has no valid number"), field=field, fix=between("1", str(MAX_SHARDS)))
        return Limit(int(limit[1]), limit[2])
    if near := _NEAR.fullmatch(text):
        return Near(near[1], near[2] or HOST)
    if even := _EVENLY.fullmatch(text):
        return Even(even[1])
    if EXCLUSIVE.fullmatch(text):
        return Exclusive()
    try:
        return parse(text)
    except ConstraintError as error:
        raise ConfigError(Told(str(error), "no_rule", rule=text[:200]), field=field, fix=_FORMS) from error
