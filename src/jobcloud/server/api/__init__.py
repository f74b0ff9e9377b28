"""The REST API under /api/v1, and the listener that agents fetch packages from."""

from jobcloud.server.api.app import create_api
from jobcloud.server.api.artifacts import create_artifacts
from jobcloud.server.api.events import Notices
from jobcloud.server.api.guard import Access, check_bind
from jobcloud.server.api.ports import LogChunk, LogReader, LogRequest, Loop
from jobcloud.server.api.services import ApiOptions, ElasticJobOptions, SignIn

__all__ = [
    "Access",
    "ApiOptions",
    "ElasticJobOptions",
    "LogChunk",
    "LogReader",
    "LogRequest",
    "Loop",
    "Notices",
    "SignIn",
    "check_bind",
    "create_api",
    "create_artifacts",
]
