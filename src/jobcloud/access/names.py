"""The forms of subjects and of the names of users, roles, service accounts and tokens."""

from __future__ import annotations

import re

from jobcloud.config import LABEL_FORM, LABEL_RULE, MAX_LABEL, check_team, is_label
from jobcloud.errors import ConfigError
from jobcloud.model import EVERY_TEAM
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import not_valid

MAX_NAME_BYTES = 200
MAX_TOKEN_NAME = 64
# A person or a machine of an identity provider has a prefix, so it is never a local user.
_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}|oidc(-client)?:[A-Za-z0-9._@+|:=-]{1,180}")
USER_FORM = f"^({_USER.pattern})$"
PLACE_FORM = rf"^\*$|{LABEL_FORM}"
_USER_RULE = Told(
    "use 1 to 100 letters, digits, '.', '_', '@', '+' or '-', the first a letter or a digit; oidc:NAME is a person of "
    "the identity provider",
    "user_rule",
)
_SUBJECT_RULE = Told("use user:NAME, group:NAME or service:TEAM/NAME", "subject_rule")


def user_subject(name: str) -> str:
    return f"user:{name}"


def service_subject(team: str, name: str) -> str:
    return f"service:{team}/{name}"


def service_of(subject: str) -> tuple[str, str] | None:
    """The team and the name of a service account; None for another subject."""
    kind, _, rest = subject.partition(":")
    team, slash, name = rest.partition("/")
    return (team, name) if kind == "service" and slash else None


def check_user(name: str, field: str = "name") -> None:
    """Raises ConfigError if a user cannot have a name: a local one, or one of the identity provider."""
    if not _USER.fullmatch(name):
        raise ConfigError(not_valid(name[:80], "is not a valid name of a user"), field=field, fix=_USER_RULE)


def is_local_user(name: str) -> bool:
    """Whether the name of a user is not one of the identity provider."""
    return ":" not in name


def check_role(name: str, field: str = "name") -> None:
    """Raises ConfigError if a role cannot have a name."""
    if not is_label(name):
        fix = Told(f"use {LABEL_RULE}", "label_rule", most=MAX_LABEL)
        raise ConfigError(not_valid(name[:80], "is not a valid name of a role"), field=field, fix=fix)


def check_place(team: str, field: str = "team") -> None:
    """Raises ConfigError unless a text is the name of a team or EVERY_TEAM."""
    if team != EVERY_TEAM:
        check_team(field, team)


def check_service(subject: str, field: str = "subject") -> None:
    """Raises ConfigError unless a text is the subject of a service account."""
    found = service_of(subject)
    if found is None or not (found[0] == EVERY_TEAM or is_label(found[0])) or not is_label(found[1]):
        fix = Told(f"use service:TEAM/NAME; both names have {LABEL_RULE}", "service_rule", most=MAX_LABEL)
        raise ConfigError(not_valid(subject[:80], "is not a service account"), field=field, fix=fix)


def check_subject(subject: str, field: str = "subject") -> None:
    """Raises ConfigError unless a text is a subject that may be a member of a team.

    The names of users and groups may come from an identity provider.
    """
    kind, _, name = subject.partition(":")
    if kind == "service":
        check_service(subject, field)
    elif kind not in ("user", "group") or not _is_name(name):
        raise ConfigError(not_valid(subject[:80], "is not a subject"), field=field, fix=_SUBJECT_RULE)


def check_token_name(name: str) -> None:
    """Raises ConfigError if a token cannot have a name."""
    if not name.isprintable() or not 1 <= len(name.strip()) <= MAX_TOKEN_NAME or name != name.strip():
        text = f"use 1 to {MAX_TOKEN_NAME} printable characters, without spaces at the ends"
        fix = Told(text, "token_name_rule", most=MAX_TOKEN_NAME)
        raise ConfigError(not_valid(name[:80], "is not a valid name of a token"), field="name", fix=fix)


def _is_name(name: str) -> bool:
    return bool(name) and name == name.strip() and name.isprintable() and len(name.encode()) <= MAX_NAME_BYTES
