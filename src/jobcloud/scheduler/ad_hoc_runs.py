"""Ad-hoc runs: runs of jobs that are not registered.

The job of an ad-hoc run is a record of a kind of its own. It is written together with the run and deleted together with
it. Otherwise it is a job like any other, without fire times and with one firing. The ad-hoc runs of an app are bounded
like the runs of one job.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sized
from dataclasses import replace

from jobcloud.config import NEW_AD_HOC
from jobcloud.errors import Conflict, NotFound
from jobcloud.messages import RunAdHoc, Topic
from jobcloud.model import Cause, Firing
from jobcloud.scheduler import places
from jobcloud.scheduler.firings import MOST_ATTEMPTS, Firings
from jobcloud.scheduler.gangs import check_parallel
from jobcloud.scheduler.part import Hooks, Part
from jobcloud.scheduler.pools import Pools
from jobcloud.scheduler.quotas import Quotas, shards_of_run
from jobcloud.scheduler.refusals import no_app
from jobcloud.scheduler.state import State
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import ENABLE, OTHER_KEY, REGISTER_APP


class AdHocRuns(Part):
    def __init__(self, state: State, hooks: Hooks, quotas: Quotas, pools: Pools, firings: Firings) -> None:
        super().__init__(state)
        self._hooks = hooks
        self._quotas = quotas
        self._pools = pools
        self._firings = firings
        #: app → keys of the jobs of its ad-hoc runs
        self._by_app: dict[str, dict[str, None]] = {}

    def restore(self, at: int) -> None:
        for job in self._state.ad_hoc.values():
            self._by_app.setdefault(job.app_key, {})[job.key] = None
        for app in list(self._by_app):
            self._prune(app)

    def run(self, event: RunAdHoc) -> None:
        """Make a run, unless the app has one with the same key. Raises Conflict or NotFound."""
        job, app = event.job, event.job.app_key
        if app not in self._state.apps:
            raise NotFound(no_app(app), field="appName", fix=REGISTER_APP)
        if event.terms.key and (known := self._with_key(app, event.terms.key)) is not None:
            if not known.terms.same(event.terms) or replace(self._state.ad_hoc[known.job], ad_hoc=NEW_AD_HOC) != job:
                text = f"{known.id} was started with this key and another configuration"
                problem = Told(text, "key_used_otherwise", run=known.id)
                raise Conflict(problem, field="key", fix=OTHER_KEY)
            return
        if app in self._state.disabled_apps:
            raise Conflict(Told(f"app {app} is disabled", "app_off", app=app), field="appName", fix=ENABLE)
        waiting = sum(not firing.ended_ms for firing in self._runs(app))
        if waiting >= self._state.policy.max_waiting:
            problem = Told(
                f"{waiting} ad-hoc runs of app {app} have not ended", "ad_hoc_waiting", app=app, runs=waiting
            )
            raise Conflict(problem, field="appName", fix=Told("let them end", "let_end"))
        self._quotas.check_queue(job.team, shards_of_run(job, event.terms), "appName")
        self._state.rules.check([job])
        check_parallel(job, self._state.apps[app])
        self._pools.check(job)
        job = replace(job, ad_hoc=self._state.unique())
        self._state.put_ad_hoc(job)
        self._by_app.setdefault(app, {})[job.key] = None
        for hook in self._hooks.job_changed if job.pools or job.gang_start or places.own_where(job).neighbours else ():
            hook(job)
        firing = self._state.new_firing(job, Cause.TRIGGER, event.at, event.terms)
        self._firings.add(firing, event.at)
        text = f"{len(firing.work)} shards are due, an ad-hoc run"
        self._state.publish(event.at, Topic.FIRED, text, job=job.key, firing_id=firing.id)

    def run_ended(self, firing: Firing, at: int) -> None:
        if (job := self._state.ad_hoc.get(firing.job)) is not None:
            self._prune(job.app_key)

    def app_changed(self, name: str) -> None:
        """If the app was removed, the jobs of its ad-hoc runs were removed, too."""
        if name not in self._state.apps:
            self._by_app.pop(name, None)

    def _runs(self, app: str) -> Iterator[Firing]:
        """The ad-hoc runs of an app that have a record."""
        found = (next(self._firings.known(key), None) for key in self._by_app.get(app, ()))
        return (firing for firing in found if firing is not None)

    def _with_key(self, app: str, key: str) -> Firing | None:
        return next((firing for firing in self._runs(app) if firing.terms.key == key), None)

    def _prune(self, app: str) -> None:
        """Forget the oldest ended ad-hoc runs of an app beyond the limits. Runs with DEAD shards are counted apart."""
        policy = self._state.policy
        runs = [firing for firing in self._runs(app) if firing.ended_ms]
        ended = sorted(runs, key=lambda firing: (firing.ended_ms, firing.id))
        for dead, limit in ((False, policy.history), (True, policy.max_dead)):
            kept = [firing for firing in ended if dead == (firing.job in self._firings.dead)]
            shards = sum(len(firing.shards) for firing in kept)
            attempts = sum(map(self._attempts, kept))
            for index, firing in enumerate(kept):
                left = len(kept) - index
                too_large = shards > policy.max_ended_shards or attempts > MOST_ATTEMPTS
                if left <= limit and not (left > 1 and too_large):
                    break
                shards, attempts = shards - len(firing.shards), attempts - self._attempts(firing)
                self._forget(app, firing.job)
        # A limit of 0 deletes a run as soon as it ends.
        for key in [key for key in self._by_app.get(app, ()) if next(self._firings.known(key), None) is None]:
            self._forget(app, key)

    def _attempts(self, firing: Firing) -> int:
        found = self._state.attempts.get(firing.id)
        return found.total if found is not None else 0

    def _forget(self, app: str, key: str) -> None:
        """Delete the job of an ended ad-hoc run. The run is deleted with it, by the hook of `Firings`."""
        del self._by_app[app][key]
        if not self._by_app[app]:
            del self._by_app[app]
        self._state.delete_job(key)
        for hook in self._hooks.job_removed:
            hook(key)

    def indexes(self) -> Mapping[str, Sized]:
        return {"ad-hoc jobs": self._state.ad_hoc, "ad-hoc jobs by app": self._by_app}

    def validate(self) -> None:
        known = {key: app for app, keys in self._by_app.items() for key in keys}
        assert known == {key: job.app_key for key, job in self._state.ad_hoc.items()}, f"the ad-hoc jobs are {known}"
        for key, job in self._state.ad_hoc.items():
            assert self._state.jobs.get(key) is job, f"{key} is not among the jobs"
            assert any(self._firings.known(key)), f"{key} has no run"
