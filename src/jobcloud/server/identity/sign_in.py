"""The check of a user's password."""

from __future__ import annotations

from jobcloud.model import User
from jobcloud.server.identity.passwords import verify


def password_holds(user: User | None, password: str) -> bool:
    """Whether a user may sign in with a password.

    It takes the same time for an unknown user, for one without a password, and for one who is disabled.
    """
    known = user.password if user is not None and not user.disabled else ""
    return verify(known, password) and known != ""
