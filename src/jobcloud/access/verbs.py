"""The verbs that a person or a program may have the right to, and the built-in roles: sets of verbs."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class Verb(StrEnum):
    """A permission, which each request needs.

    The first ones concern the apps, jobs and runs of a team, the others the installation.
    """

    VIEW = "view"  # apps, jobs, runs, their history, events and alerts
    READ_LOGS = "read-logs"
    TRIGGER = "trigger"  # start runs of registered jobs: trigger, backfill
    CONTROL_RUNS = "control-runs"  # retry, cancel, kill, forget
    PAUSE = "pause"  # pause, resume, enable, disable, silence alerts
    CONFIGURE = "configure"  # register, change and remove apps and jobs; upload packages
    RUN_AD_HOC = "run-ad-hoc"  # run what is not registered
    MANAGE_TEAM = "manage-team"  # members, service accounts and tokens of the team

    VIEW_CLUSTER = "view-cluster"  # agents, executors, offers
    OPERATE_CLUSTER = "operate-cluster"  # drain, reconcile, pause everything, test channels of alerts
    READ_METRICS = "read-metrics"
    MANAGE_ACCESS = "manage-access"  # users, teams, quotas, roles, the tokens and sessions of everybody
    READ_AUDIT = "read-audit"
    TEARDOWN = "teardown"  # remove the framework with all its tasks


#: verbs that only a role in the whole installation gives
OF_INSTALLATION = frozenset(
    {
        Verb.VIEW_CLUSTER, Verb.OPERATE_CLUSTER, Verb.READ_METRICS, Verb.MANAGE_ACCESS, Verb.READ_AUDIT, Verb.TEARDOWN,
    }
)  # fmt: skip
_VIEWER = frozenset({Verb.VIEW, Verb.READ_LOGS, Verb.VIEW_CLUSTER})
_OPERATOR = _VIEWER | {Verb.TRIGGER, Verb.CONTROL_RUNS, Verb.PAUSE, Verb.OPERATE_CLUSTER}
_AUTHOR = _VIEWER | {Verb.TRIGGER, Verb.CONTROL_RUNS, Verb.PAUSE, Verb.CONFIGURE, Verb.RUN_AD_HOC}

#: name → verbs. In one team, a role does not give the verbs of the installation.
ROLES: Mapping[str, frozenset[Verb]] = MappingProxyType(
    {
        "viewer": _VIEWER,
        "operator": _OPERATOR,
        "author": _AUTHOR,
        "admin": frozenset(Verb) - {Verb.TEARDOWN},
        "auditor": frozenset({Verb.READ_AUDIT}),
        "metrics": frozenset({Verb.READ_METRICS}),
        "teardown": frozenset({Verb.TEARDOWN}),
    }
)
