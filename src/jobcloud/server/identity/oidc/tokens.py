"""Checks of a signed token (JWT, RFC 7519), and the person or machine that it names. No I/O.

A token counts until SKEW_S after its `exp`, and from SKEW_S before its `nbf` and `iat`: clocks may differ so much.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from joserfc import jws
from joserfc.errors import BadSignatureError, ExpiredTokenError, JoseError, MissingClaimError
from joserfc.jwk import Key
from joserfc.jws import JWSRegistry
from joserfc.jwt import JWTClaimsRegistry

Claims = Mapping[str, Any]

#: the signatures that are accepted, if the provider names them too: with public keys only
ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
)
#: the beginnings of subjects
PERSON, MACHINE = "user:oidc:", "user:oidc-client:"
SKEW_S = 30
MAX_TOKEN_BYTES = 16 << 10
MAX_GROUPS = 500
#: in bytes
MAX_NAME = 200
_MAX_HEADER_BYTES = 4 << 10
_TYPES_OF_ACCESS_TOKENS = frozenset({"", "jwt", "at+jwt", "application/at+jwt"})
_TIMES = ("exp", "nbf", "iat")
# NumericDate (RFC 7519, section 2) up to the year 9999.
_MAX_TIME = 253_402_300_799


class TokenError(Exception):
    """A token is refused. The text tells the reason without the token."""


class KeyUnknown(TokenError):
    """No known key fits. A newer set of keys may have one."""


class BadSignature(TokenError):
    """The signature is not that of the known key. A newer set of keys may have another key with the same id."""


@dataclass(frozen=True, slots=True)
class Header:
    """The unverified header of a token. `kid` is "" without one, `typ` is in lower case."""

    algorithm: str
    kid: str
    typ: str


class _Registry(JWSRegistry):
    """The algorithms of `ALGORITHMS`. The library warns of EdDSA, because RFC 9864 has a narrower name for it."""

    max_header_length = _MAX_HEADER_BYTES

    def __init__(self, algorithm: str) -> None:
        # Headers may have other members, such as x5t, which are not used.
        super().__init__(algorithms=[algorithm], strict_check_header=False)

    def get_alg(self, name: str) -> Any:
        if name not in (self.allowed or ()) or name not in ALGORITHMS:
            raise TokenError("Its signature has another algorithm than its header.")
        return self.algorithms[name]


def looks_like_token(text: str) -> bool:
    """Whether a text has the form of a signed token: three parts, of which the first is a JSON object."""
    return text.count(".") == 2 and text.startswith("eyJ")


def read_header(text: str, algorithms: Collection[str]) -> Header:
    """The header of a token. Raises TokenError unless the header names one of the algorithms."""
    if len(text) > MAX_TOKEN_BYTES:
        raise TokenError(f"It is longer than {MAX_TOKEN_BYTES} bytes.")
    found = _object(text.partition(".")[0], "header")
    algorithm, kid, typ = found.get("alg"), found.get("kid", ""), found.get("typ", "")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS or algorithm not in algorithms:
        raise TokenError(f"Its algorithm {str(algorithm)[:20]!r} is not one of {', '.join(sorted(algorithms))}.")
    if "crit" in found or "b64" in found:
        raise TokenError("Its header has an extension that is not supported.")
    if not isinstance(kid, str) or len(kid) > MAX_NAME or not isinstance(typ, str):
        raise TokenError("Its header is malformed.")
    return Header(algorithm, kid, typ.lower())


def verified(text: str, header: Header, keys: Sequence[Key]) -> Claims:
    """The claims of a token with the signature of one of the keys.

    The header's key id selects the keys. A token without a key id is accepted if exactly one key fits its algorithm.
    Raises KeyUnknown, BadSignature or TokenError.
    """
    fitting = [key for key in keys if _fits(key, header)]
    if header.kid:
        fitting = [key for key in fitting if key.kid == header.kid]
    elif len(fitting) > 1:
        raise KeyUnknown("It has no key id (kid), and the provider has several keys for its algorithm.")
    if not fitting:
        raise KeyUnknown("The provider has no key for it.")
    for key in fitting:
        try:
            payload = jws.deserialize_compact(text, key, registry=_Registry(header.algorithm)).payload
        except BadSignatureError:
            continue
        except (JoseError, ValueError, TypeError) as error:
            raise TokenError("It is malformed.") from error
        return _json_object(payload or b"", "payload")
    raise BadSignature("Its signature is wrong.")


def check(claims: Claims, *, issuer: str, audience: str, now_s: int) -> None:
    """Check issuer, audience and times. Raises TokenError. `exp` is required, and times are whole seconds."""
    for name in _TIMES:
        value = claims.get(name)
        if value is not None and (type(value) is not int or not 0 <= value <= _MAX_TIME):
            raise TokenError(f"Its claim {name!r} is not a whole number of seconds.")
    rules = JWTClaimsRegistry(
        now=now_s,
        leeway=SKEW_S,
        iss={"essential": True, "value": issuer},
        sub={"essential": True},
        aud={"essential": True, "value": audience},
        exp={"essential": True},
    )
    try:
        rules.validate(dict(claims))
    except ExpiredTokenError:
        raise TokenError("It has expired.") from None
    except MissingClaimError as error:
        raise TokenError(f"It lacks the claim {error.claim!r}.") from None
    except JoseError as error:
        claim = getattr(error, "claim", "")
        reason = {"iss": "It is of another issuer.", "aud": "It is for another audience."}.get(claim)
        raise TokenError(reason or f"Its claim {claim!r} is wrong: {error.description or 'refused'}.") from None


def check_access_token(header: Header, claims: Claims) -> None:
    """Refuse tokens that are no bearer tokens for an API. Raises TokenError."""
    if header.typ not in _TYPES_OF_ACCESS_TOKENS:
        raise TokenError(f"Its type {header.typ[:30]!r} is not that of an access token.")
    # Keycloak tells the kind of a token in a claim.
    if str(claims.get("typ", "Bearer")) != "Bearer" or "events" in claims:
        raise TokenError("It is not an access token.")
    if "cnf" in claims:
        raise TokenError("It is bound to a key of its client (DPoP or mTLS), which is not supported.")


def check_id_token(claims: Claims, *, client_id: str, nonce: str) -> None:
    """The rules for an ID token (OpenID Connect Core 1.0, section 3.1.3.7). Raises TokenError."""
    several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
    if claims.get("azp", None if several else client_id) != client_id:
        raise TokenError("Its claim 'azp' is not this client.")
    if "iat" not in claims:
        raise TokenError("It lacks the claim 'iat'.")
    if claims.get("nonce") != nonce:
        raise TokenError("It is the answer to another sign-in.")


def subject_of(claims: Claims, name_claim: str) -> str:
    """The subject that a token names: `user:oidc:NAME`, or `user:oidc-client:ID` for a machine. Raises TokenError.

    The names of local users have no ":", so a provider cannot name one of them. A token of the client credentials
    grant names its client as its subject (RFC 9068, section 2.2); Auth0 writes `ID@clients`.
    """
    sub = claims.get("sub")
    client = claims.get("client_id") or claims.get("azp")
    if client is not None and sub in (client, f"{client}@clients"):
        return f"{MACHINE}{_name(client, 'client_id')}"
    if name_claim == "email" and claims.get("email_verified") is not True:
        raise TokenError("Its claim 'email_verified' is not true.")
    return f"{PERSON}{_name(claims.get(name_claim), name_claim)}"


def groups_of(claims: Claims, groups_claim: str) -> tuple[str, ...]:
    """The groups in a claim: a list, or one name. At most MAX_GROUPS; others and malformed ones are left out."""
    found = claims.get(groups_claim) if groups_claim else None
    names = [found] if isinstance(found, str) else found if isinstance(found, list) else []
    return tuple(dict.fromkeys(name for name in names if _is_name(name)))[:MAX_GROUPS]


def _name(value: object, claim: str) -> str:
    if not isinstance(value, str) or not _is_name(value):
        raise TokenError(f"Its claim {claim!r} is not a name of 1 to {MAX_NAME} printable bytes.")
    return value


def _is_name(value: object) -> bool:
    if not isinstance(value, str) or not value.isprintable() or value != value.strip():
        return False
    return 0 < len(value.encode()) <= MAX_NAME


def _fits(key: Key, header: Header) -> bool:
    try:
        key.check_alg(header.algorithm)
        _Registry(header.algorithm).get_alg(header.algorithm).check_key(key)
    except JoseError:
        return False
    return True


def _object(part: str, what: str) -> dict[str, Any]:
    try:
        return _json_object(base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True), what)
    except (binascii.Error, ValueError):
        raise TokenError(f"Its {what} is malformed.") from None


def _json_object(content: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise TokenError(f"Its {what} is malformed.")
    return found
