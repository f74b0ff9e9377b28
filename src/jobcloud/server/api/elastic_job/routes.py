"""The routes of Elastic-Job-Cloud's API."""

from __future__ import annotations

from fastapi import APIRouter

from jobcloud.server.api.elastic_job import apps, events, jobs, login, statistics, tasks
from jobcloud.server.api.elastic_job.operations import operations

PREFIX = "/api"


def routes() -> list[APIRouter]:
    """The routers, without their prefix."""
    return [apps.router, jobs.router, tasks.router, events.router, statistics.router, operations(), login.router]
