"""Operations in Elastic-Job-Cloud's API: reconciliation, and the sandboxes of executors."""

from __future__ import annotations

import threading

from fastapi import Request, Response

from jobcloud.errors import ConfigError, Conflict
from jobcloud.messages import ReconcileTasks
from jobcloud.server.api.elastic_job.answers import done, is_own, shown
from jobcloud.server.api.services import Services, ServicesDep
from jobcloud.server.routes import Routes

_INTERVAL_MS = 10_000


class _Limit:
    """Allows one reconciliation in ten seconds. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: int | None = None

    def take(self, at: int) -> None:
        """Raises Conflict if `at` and the instant of the last reconciliation differ by less than ten seconds."""
        with self._lock:
            if self._last is not None and abs(at - self._last) < _INTERVAL_MS:
                raise Conflict("tasks were reconciled in the last 10 s", fix="wait, then repeat")
            self._last = at


def operations() -> Routes:
    """The routes, with a limit of their own."""
    router, limit = Routes(prefix="/operate"), _Limit()

    def reconcile(services: Services, *, explicit: bool) -> None:
        limit.take(services.clock())
        services.command(lambda at: ReconcileTasks(at, explicit))

    @router.post("/reconcile/explicit")
    def reconcile_explicitly(request: Request, services: ServicesDep) -> Response:
        """Ask Mesos about every known task."""
        reconcile(services, explicit=True)
        return done(request)

    @router.post("/reconcile/implicit")
    def reconcile_implicitly(request: Request, services: ServicesDep) -> Response:
        """Ask Mesos about all tasks that it knows."""
        reconcile(services, explicit=False)
        return done(request)

    router.get("/sandbox")(list_sandboxes)
    return router


def list_sandboxes(request: Request, services: ServicesDep, appName: str = "") -> Response:  # noqa: N803
    """The directories of an app's executors, below the work directory of their agents."""
    if not appName:
        raise ConfigError("is missing", field="appName", fix="name an app: ?appName=…")
    if not is_own(appName):
        return shown(request, [])
    framework = services.framework_id()
    hosts = {agent.id: agent.hostname for agent in services.agents()}
    executors = [executor for executor in services.snapshot().executors if executor.app == appName]
    return shown(
        request,
        [
            {
                "hostname": hosts.get(executor.agent_id, ""),
                "path": f"/slaves/{executor.agent_id}/frameworks/{framework}/executors/{executor.id}/runs/latest",
            }
            for executor in sorted(executors, key=lambda executor: (executor.agent_id, executor.id))
        ],
    )
