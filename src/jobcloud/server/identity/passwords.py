"""Passwords of local users: their hashes by Argon2id, and the rules for new ones.

The parameters are the second recommended option of RFC 9106, section 4: 3 passes over 64 MiB in 4 lanes. A hash needs
its memory while it is computed, and its lanes are threads. So a process computes one at a time. The API asks in the
turns of `Services.password_checks`, so that a flood of sign-ins is refused and delays no other request.
"""

from __future__ import annotations

import threading
import unicodedata

from argon2 import PasswordHasher, Type, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.profiles import RFC_9106_LOW_MEMORY

from jobcloud.errors import ConfigError
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import LEAVE_OUT

MIN_CHARACTERS, MAX_BYTES = 12, 256
# Limits for stored hashes, which a restored backup may bring. They allow stronger parameters than ours.
_MAX_MEMORY_KIB, _MAX_PASSES, _MAX_LANES = 1 << 18, 16, 16
_HASHER = PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
# The hash of a random secret that nobody kept, with the present parameters. It stands for that of an unknown user.
_NOBODY = "$argon2id$v=19$m=65536,t=3,p=4$bu8z3cta+dYEKTFcwBqpDA$5hfBTQX+6AL4RVWX6jqIcthALaJWZh/lCXdR2CzSjHQ"
_turn = threading.Lock()


def check(text: str, name: str = "", field: str = "password") -> None:
    """Raises ConfigError if a text cannot be the new password of a user. The error does not repeat the text.

    There are no rules about kinds of characters: NIST SP 800-63B advises against them.
    """
    plain = _normal(text)
    if len(plain) < MIN_CHARACTERS:
        problem = Told(f"has fewer than {MIN_CHARACTERS} characters", "short_password", least=MIN_CHARACTERS)
        raise ConfigError(problem, field=field, fix=Told("use a longer password", "longer_password"))
    if len(plain.encode()) > MAX_BYTES:
        problem = Told(f"has more than {MAX_BYTES} bytes in UTF-8", "long_password", most=MAX_BYTES)
        raise ConfigError(problem, field=field, fix=Told("use a shorter password", "shorter_password"))
    if any(unicodedata.category(char) == "Cc" for char in plain):
        raise ConfigError(Told("contains a control character", "unprintable"), field=field, fix=LEAVE_OUT)
    if len({*plain}) < 4 or (name and plain.casefold().replace(name.casefold(), "") == ""):
        problem = Told("is too easy to guess", "easy_password")
        raise ConfigError(problem, field=field, fix=Told("use several words", "several_words"))


def hash_password(text: str) -> str:
    """The encoded hash of a password, for `User.password`. Blocks for its turn, and while it computes."""
    with _turn:
        return _HASHER.hash(_normal(text))


def verify(hash: str, text: str) -> bool:  # noqa: A002 - the name that callers use
    """Whether a text is the password with a hash. Blocks like `hash_password`.

    With the hash "", for an unknown user or one without a password, it takes as long and is False.
    """
    plain = _normal(text)
    if len(plain.encode()) > MAX_BYTES:
        return False
    known = hash if hash and _is_bearable(hash) else ""
    with _turn:
        try:
            return _HASHER.verify(known or _NOBODY, plain) and bool(known)
        except VerificationError:
            return False


def _is_bearable(hash: str) -> bool:  # noqa: A002
    """Whether a stored hash has a known form, and needs neither too much memory nor too much time."""
    try:
        found = extract_parameters(hash)
    except InvalidHashError:
        return False
    return (
        found.type is Type.ID
        and found.memory_cost <= _MAX_MEMORY_KIB
        and found.time_cost <= _MAX_PASSES
        and found.parallelism <= _MAX_LANES
    )


def _normal(text: str) -> str:
    """The text in the Unicode form NFC: keyboards differ in how they compose letters (RFC 8265, section 4.2)."""
    return unicodedata.normalize("NFC", text)
