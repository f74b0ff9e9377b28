"""The routes of Elastic-Job-Cloud's API."""

from __future__ import annotations

from jobcloud.server.api.elastic_job import apps, events, jobs, login, statistics, tasks
from jobcloud.server.api.elastic_job.operations import operations
from jobcloud.server.routes import Routes

PREFIX = "/api"


def routes() -> list[Routes]:
    """The routers, without their prefix."""
    return [apps.router, jobs.router, tasks.router, events.router, statistics.router, operations(), login.router]
