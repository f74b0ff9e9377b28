"""The documents of a provider: its metadata (OpenID Connect Discovery 1.0) and its keys (RFC 7517). No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, Key, RSAKey

from jobcloud.server.identity.oidc.tokens import ALGORITHMS, MAX_NAME
from jobcloud.server.settings import is_safe_url

WELL_KNOWN = "/.well-known/openid-configuration"
MAX_KEYS = 100
# In bits, and in characters of the modulus in base64: the library warns of a short key when it reads it.
_RSA_BITS, _RSA_TEXT = range(2_048, 8_193), range(342, 1_368)
# Secret keys have no place in a public document: with one, everybody could sign.
_KEY_TYPES = frozenset({"RSA", "EC", "OKP"})


class ProviderError(Exception):
    """The provider is away, or it answers falsely. The text is for an administrator."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """The part of the metadata that this program uses. Addresses that the provider does not have are ""."""

    issuer: str
    keys_url: str
    authorization_url: str
    token_url: str
    userinfo_url: str
    sign_out_url: str
    algorithms: frozenset[str]
    auth_methods: frozenset[str]


def read_metadata(found: Mapping[str, Any], issuer: str) -> Metadata:
    """Raises ProviderError if the document is that of another issuer, or lacks something."""
    if found.get("issuer") != issuer:
        named = str(found.get("issuer"))[:200]
        raise ProviderError(
            f"the provider calls itself {named!r}; set identity.oidc_issuer to exactly this text if it is right"
        )
    plain = urlsplit(issuer).scheme == "http"

    def url(name: str, *, required: bool = False) -> str:
        value = found.get(name)
        if value is None and not required:
            return ""
        if not isinstance(value, str) or not is_safe_url(value) or (value.startswith("http:") and not plain):
            raise ProviderError(f"the provider's {name} is not an https URL")
        return value

    named = found.get("id_token_signing_alg_values_supported", ["RS256"])
    algorithms = ALGORITHMS & _words(named)
    if not algorithms:
        raise ProviderError(f"the provider signs with none of the algorithms {', '.join(sorted(ALGORITHMS))}")
    return Metadata(
        issuer,
        url("jwks_uri", required=True),
        url("authorization_endpoint", required=True),
        url("token_endpoint", required=True),
        url("userinfo_endpoint"),
        url("end_session_endpoint"),
        algorithms,
        _words(found.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])),
    )


def read_keys(found: Mapping[str, Any]) -> tuple[Key, ...]:
    """The usable keys of a set. Others are left out: other kinds, too short, not for signatures.

    Raises ProviderError if the document is no set of keys.
    """
    listed = found.get("keys")
    if not isinstance(listed, list):
        raise ProviderError("the provider's keys are not a list")
    if len(listed) > MAX_KEYS:
        raise ProviderError(f"the provider has more than {MAX_KEYS} keys")
    return tuple(key for key in map(_key, listed) if key is not None)


def _key(found: object) -> Key | None:
    if not isinstance(found, dict) or str(found.get("kty")) not in _KEY_TYPES or found.get("use", "sig") != "sig":
        return None
    kid, operations = found.get("kid", ""), found.get("key_ops", ["verify"])
    if not isinstance(kid, str) or len(kid) > MAX_NAME or "verify" not in _words(operations):
        return None
    if found["kty"] == "RSA" and len(str(found.get("n", ""))) not in _RSA_TEXT:
        return None
    try:
        # Certificates and unknown members are not used.
        kept = {name: found[name] for name in ("kty", "kid", "alg", "n", "e", "crv", "x", "y") if name in found}
        key = JWKRegistry.import_key(kept)
        if isinstance(key, RSAKey) and key.public_key.key_size not in _RSA_BITS:
            return None
    except (JoseError, ValueError, TypeError, KeyError, OverflowError):
        return None
    return key


def _words(found: object) -> frozenset[str]:
    return frozenset(word for word in found if isinstance(word, str)) if isinstance(found, list) else frozenset()
