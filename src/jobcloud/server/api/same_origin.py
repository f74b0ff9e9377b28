"""Proof that a page of this server sent a change, and not the page of somebody else (cross-site request forgery).

A browser adds the cookie of a session to each request for this server, whichever page causes the request. So a change
with a cookie needs more:

* the browser says, by Sec-Fetch-Site or Origin, that a page of this server sends it;
* it has the header Jobcloud-Request, which a page of another origin cannot add: the browser would ask first (CORS
  preflight), and this server allows it to nobody. The forms of this server have a token in place of the header.

The forms of the sign-in need the first proof too, or a hostile page could sign a browser in as somebody else.

Sources: Fetch Metadata Request Headers (W3C), OWASP Cross-Site Request Forgery Prevention Cheat Sheet.
"""

from __future__ import annotations

from starlette.types import Scope

from jobcloud.server.api.forward import HOP_HEADER
from jobcloud.server.api.problems import Problem

#: marks the requests of a page's script. Any value counts.
REQUEST_HEADER = "Jobcloud-Request"
#: the forms of the sign-in
SIGN_IN_FORMS = frozenset({"/login", "/login/link"})
#: forms for somebody who has signed in. Each has a token.
SESSION_FORMS = frozenset({"/logout", "/logout/everywhere"})


def check_change(scope: Scope, *, has_cookie: bool, secure: bool = False) -> None:
    """Raises Problem (forbidden-origin) for a change that may come from the page of somebody else.

    The guard has checked host and port of the header Origin before, if there is one. `secure`: pages of this server are
    loaded over TLS only, so a page without TLS is somebody else's.
    """
    path, names = scope["path"], {name for name, _ in scope["headers"]}
    if not has_cookie and path not in SIGN_IN_FORMS:
        return
    sites = [value for name, value in scope["headers"] if name == b"sec-fetch-site"]
    if any(site != b"same-origin" for site in sites):
        raise _forged("The page of another site sent this request.")
    if secure and any(name == b"origin" and value.startswith(b"http:") for name, value in scope["headers"]):
        raise _forged("A page without TLS sent this request.")
    # A standby has checked the origin of a request that it passes on. A page of another origin cannot add its header.
    if not sites and b"origin" not in names and HOP_HEADER not in names:
        raise _forged("The request does not tell which page sent it.")
    if path not in SIGN_IN_FORMS | SESSION_FORMS and REQUEST_HEADER.lower().encode() not in names:
        raise _forged(f"The request lacks the header {REQUEST_HEADER}.")


def _forged(why: str) -> Problem:
    return Problem("forbidden-origin", f"{why} Programs send a token in place of the cookie of a session.")
