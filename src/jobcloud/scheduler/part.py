"""The base class of the scheduler's parts, and the hooks by which the parts learn of events.

Every hook does nothing by default. A part announces an event, such as the end of a task, by calling the functions of a
hook in `Hooks`. So the part need not know which parts listen. core.py sets the order of the parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Sized

from jobcloud.config import Job
from jobcloud.messages import SendFailed
from jobcloud.model import Firing, Shard, Task, WorkflowRun
from jobcloud.scheduler.reason import Reason
from jobcloud.scheduler.state import State
from jobcloud.scheduler.status import Ending
from jobcloud.sentences import Told


class Part:
    """One concern of the scheduler: its own data, derived from the state, and its reaction to events."""

    def __init__(self, state: State) -> None:
        self._state = state

    # ------------------------------------------------------------------------------------------------- time

    def restore(self, at: int) -> None:
        """Build the part's data from the stored records. Called once, before the first event."""

    def begin(self, at: int) -> None:
        """A session with the Mesos master has begun. No task has been confirmed in it yet."""

    def on_tick(self, at: int) -> None:
        """Do the work that is due."""

    def next_wake(self, at: int) -> int | None:
        """The next instant at which `on_tick` has work. `at` or earlier means now, None means never."""
        return None

    def clock_set_back(self, at: int) -> None:
        """The clock was set back to `at`. Shorten each wait to the length that it would have if it began now."""

    def sweep(self, at: int) -> None:
        """Drop data that is no longer of use. Called once per `Policy.sweep_ms`."""

    # ------------------------------------------------------------------------------------------------- tasks

    def task_launched(self, task: Task, at: int) -> None:
        """A task was stored, and its launch is about to be sent."""

    def task_changed(self, before: Task, task: Task, at: int) -> None:
        """Mesos has sent an update for a live task. `task` is `before` if the update changed nothing in the record."""

    def task_killed(self, task: Task) -> None:
        """A task was asked to end for the first time."""

    def task_ended(self, task: Task, ending: Ending, at: int) -> None:
        """A task is over. Its record and its claim are gone, and its shard has its next state."""

    # ------------------------------------------------------------------------------------------------- runs

    def run_added(self, firing: Firing, at: int) -> None:
        """A new firing was queued."""

    def run_ended(self, firing: Firing, at: int) -> None:
        """All shards of a firing have ended. The firing may be deleted already, because of a limit."""

    def shards_changed(self, firing: Firing, changes: Mapping[int, Shard], at: int) -> None:
        """Shards of a firing in `Firings.followed` have changed. If it has ended, `run_ended` comes next."""

    def run_reopened(self, firing: Firing, at: int) -> None:
        """An operator has put shards of an ended firing into the queue again."""

    def firings_skipped(self, job: Job, text: Told, number: int, missed: bool, at: int) -> None:
        """Firings of a job are skipped. `missed`: they were not handled in time. `text` describes all of them."""

    def rollout_checked(self, job: str, stopped: Told | None, at: int) -> None:
        """A roll-out was checked, or has ended. `stopped`: why it does not go on, or None."""

    def workflow_ended(self, run: WorkflowRun, at: int) -> None:
        """A run of a workflow has ended."""

    def workflow_removed(self, workflow: str) -> None:
        """A workflow was removed. Runs of it may go on."""

    def workflow_late(self, run: WorkflowRun, text: Told, at: int) -> None:
        """A run of a workflow, or a node of it, has not ended in time. `text` tells which."""

    # ------------------------------------------------------------------------------------------------- the cluster

    def agent_lost(self, agent_id: str, at: int) -> None:
        """An agent is unreachable or gone. Its entry in the cluster is already marked as `lost`."""

    def framework_removed(self) -> None:
        """Mesos has removed the framework. All tasks have been ended here."""

    def send_failed(self, event: SendFailed) -> None:
        """A call was not sent, or may not have arrived."""

    # ------------------------------------------------------------------------------------------------- configuration

    def app_changed(self, name: str) -> None:
        """An app was registered, updated, enabled, disabled or removed."""

    def job_changed(self, job: Job) -> None:
        """A job was registered or updated."""

    def job_resumed(self, job: Job, at: int) -> None:
        """A job may fire again: a pause has ended, or the job or its app was enabled. Another pause may last."""

    def job_removed(self, name: str) -> None:
        """A job was removed. Its unfinished firings have been cancelled."""

    # ------------------------------------------------------------------------------------------------- reading

    def reasons(self, job: Job, head: Firing | None, at: int) -> Iterable[Reason]:
        """Why shards of the job do not run. `head` is the firing whose shards start next."""
        return ()

    def indexes(self) -> Mapping[str, Sized]:
        """The part's collections by name. If there are no jobs, apps and tasks, each collection is empty."""
        return {}

    def validate(self) -> None:
        """Check the part's invariants. Raises AssertionError, which names the broken one.

        The invariants hold only between two events.
        """


class Hooks:
    """For each hook, the functions of those parts that override it, in the order of the parts.

    Only few parts override a hook. The others are not called, so that a status update stays cheap.
    """

    def __init__(self) -> None:
        self.restore: tuple[Callable[[int], None], ...] = ()
        self.begin: tuple[Callable[[int], None], ...] = ()
        self.on_tick: tuple[Callable[[int], None], ...] = ()
        self.next_wake: tuple[Callable[[int], int | None], ...] = ()
        self.clock_set_back: tuple[Callable[[int], None], ...] = ()
        self.sweep: tuple[Callable[[int], None], ...] = ()
        self.task_launched: tuple[Callable[[Task, int], None], ...] = ()
        self.task_changed: tuple[Callable[[Task, Task, int], None], ...] = ()
        self.task_killed: tuple[Callable[[Task], None], ...] = ()
        self.task_ended: tuple[Callable[[Task, Ending, int], None], ...] = ()
        self.run_added: tuple[Callable[[Firing, int], None], ...] = ()
        self.run_ended: tuple[Callable[[Firing, int], None], ...] = ()
        self.shards_changed: tuple[Callable[[Firing, Mapping[int, Shard], int], None], ...] = ()
        self.run_reopened: tuple[Callable[[Firing, int], None], ...] = ()
        self.firings_skipped: tuple[Callable[[Job, Told, int, bool, int], None], ...] = ()
        self.rollout_checked: tuple[Callable[[str, Told | None, int], None], ...] = ()
        self.workflow_ended: tuple[Callable[[WorkflowRun, int], None], ...] = ()
        self.workflow_removed: tuple[Callable[[str], None], ...] = ()
        self.workflow_late: tuple[Callable[[WorkflowRun, Told, int], None], ...] = ()
        self.agent_lost: tuple[Callable[[str, int], None], ...] = ()
        self.framework_removed: tuple[Callable[[], None], ...] = ()
        self.send_failed: tuple[Callable[[SendFailed], None], ...] = ()
        self.app_changed: tuple[Callable[[str], None], ...] = ()
        self.job_changed: tuple[Callable[[Job], None], ...] = ()
        self.job_resumed: tuple[Callable[[Job, int], None], ...] = ()
        self.job_removed: tuple[Callable[[str], None], ...] = ()
        self.reasons: tuple[Callable[[Job, Firing | None, int], Iterable[Reason]], ...] = ()
        self.indexes: tuple[Callable[[], Mapping[str, Sized]], ...] = ()
        self.validate: tuple[Callable[[], None], ...] = ()

    def install(self, parts: Sequence[Part]) -> None:
        for hook in vars(self):
            overriding = (part for part in parts if getattr(type(part), hook) is not getattr(Part, hook))
            setattr(self, hook, tuple(getattr(part, hook) for part in overriding))
