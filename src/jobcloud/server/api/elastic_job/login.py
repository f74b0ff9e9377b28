"""The login of 3.0.x. Its token is the password: the token of this server, or a token for its API."""

from __future__ import annotations

from fastapi import Request, Response

from jobcloud.server.api.elastic_job.answers import shown
from jobcloud.server.api.elastic_job.bodies import Given
from jobcloud.server.api.identities import Identities
from jobcloud.server.api.problems import Problem
from jobcloud.server.api.services import ServicesDep
from jobcloud.server.routes import Routes

router = Routes()

# The token for clients that need one although the server requires none.
_ANY_TOKEN = "none"  # noqa: S105 - no secret


@router.post("/login")
async def log_in(request: Request, services: ServicesDep, given: Given) -> Response:
    """Hand a token to a client that knows it as its password. Any user name is accepted."""
    password = given.get("password")
    if not services.options.access.token:
        return shown(request, {"accessToken": _ANY_TOKEN})
    identities: Identities = request.app.state.identities
    if not isinstance(password, str) or not await identities.knows(password):
        raise Problem("unauthenticated", "Give the token of the server, or a token of your own, as the password.")
    return shown(request, {"accessToken": password})
