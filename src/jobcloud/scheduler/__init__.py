"""The scheduler's decisions, without side effects: events in, effects out."""

from jobcloud.scheduler.core import Policy, Scheduler, Stored

__all__ = ["Policy", "Scheduler", "Stored"]
