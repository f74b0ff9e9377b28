"""The login of 3.0.x. Its token is the token of this server."""

from __future__ import annotations

import hmac

from fastapi import APIRouter, Request, Response

from jobcloud.server.api.elastic_job.answers import shown
from jobcloud.server.api.elastic_job.bodies import Given
from jobcloud.server.api.problems import Problem
from jobcloud.server.api.services import ServicesDep

router = APIRouter()

# The token for clients that need one although the server requires none.
_ANY_TOKEN = "none"  # noqa: S105 - no secret


@router.post("/login")
def log_in(request: Request, services: ServicesDep, given: Given) -> Response:
    """Hand the token to a client that knows it as its password. Any user name is accepted."""
    token, password = services.options.access.token, given.get("password")
    if token and not (isinstance(password, str) and hmac.compare_digest(password.encode(), token.encode())):
        raise Problem("unauthenticated", "Give the token of the server as the password.")
    return shown(request, {"accessToken": token or _ANY_TOKEN})
