"""Recognises requests for pages, and sends browsers without a session to the sign-in."""

from __future__ import annotations

from starlette.responses import RedirectResponse, Response
from starlette.types import Scope

from jobcloud.server.api.problems import Problem
from jobcloud.server.identity.sessions import SessionOptions, cookies, end_cookie

SIGN_IN = "/login"
#: pages and forms for somebody who has signed in
_INSIDE = frozenset({"/account", "/logout", "/logout/everywhere"})


def is_sign_in(path: str) -> bool:
    """Whether a path belongs to the sign-in, for which nobody can have an identity yet."""
    return path == SIGN_IN or path.startswith(SIGN_IN + "/")


def to_sign_in(scope: Scope, problem: Problem, sessions: SessionOptions) -> Response | None:
    """The answer that sends a browser to the sign-in; None if the problem has to be answered."""
    if problem.slug != "unauthenticated" or scope["path"] not in _INSIDE:
        return None
    ended = bool(cookies(scope, sessions.cookie))
    answer = RedirectResponse(f"{SIGN_IN}?ended=1" if ended else SIGN_IN, 303, {"Cache-Control": "no-store"})
    if ended:
        answer.headers["Set-Cookie"] = end_cookie(sessions)
    return answer
