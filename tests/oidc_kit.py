"""OpenID providers for tests: a fake one in memory that can lie, and a real one (npm's oidc-provider) as a process."""

from __future__ import annotations

import base64
import hashlib
import hmac
import html
import json
import re
import secrets
import shutil
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
from joserfc import jws
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from tests.npm_kit import install
from tests.process_kit import ServerProcess

from jobcloud.server.identity.oidc.options import OidcOptions
from jobcloud.server.identity.oidc.provider import Provider
from jobcloud.server.identity.oidc.tokens import ALGORITHMS

ISSUER = "https://id.example.org"
CLIENT = "jobcloud-console"
AUDIENCE = "urn:jobcloud"
#: the wall clock of tests, in seconds
NOW_S = 1_700_000_000


def rsa(kid: str) -> RSAKey:
    return RSAKey.generate_key(2_048, {"kid": kid})


def short_rsa() -> RSAKey:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)
        return RSAKey.generate_key(1_024, {"kid": "k1"})


#: keys are costly to make
RSA_1, RSA_2 = rsa("k1"), rsa("k2")
EC_1, OKP_1 = ECKey.generate_key("P-256", {"kid": "e1"}), OKPKey.generate_key("Ed25519", {"kid": "o1"})


class _Registry(JWSRegistry):
    """Signs with every algorithm and header."""

    max_header_length = 1 << 20

    def __init__(self) -> None:
        super().__init__(strict_check_header=False)

    def check_header(self, header: Any) -> None: ...

    def get_alg(self, name: str) -> Any:
        return self.algorithms[name]


def sign(
    claims: dict[str, Any], key: Key | None = RSA_1, alg: str = "RS256", kid: str | None = "", **header: Any
) -> str:
    """A token. `kid` "" is that of the key, None leaves it out."""
    head = {"alg": alg, **header}
    name = key.kid if kid == "" and key is not None else kid
    if name:
        head["kid"] = name
    payload = json.dumps(claims, separators=(",", ":")).encode()
    if key is None:
        parts = (json.dumps(head).encode(), payload)
        return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts) + "."
    return jws.serialize_compact(head, payload, _as_signer(key), registry=_Registry())


def _as_signer(key: Key) -> Key:
    """The key without a use, so that it signs with each algorithm."""
    kept = {name: value for name, value in key.as_dict(private=True).items() if name not in ("use", "alg", "key_ops")}
    return type(key).import_key(kept)


def access_claims(**changes: Any) -> dict[str, Any]:
    """The claims of an access token. None leaves a claim out."""
    claims = {
        "iss": ISSUER, "sub": "alice", "aud": AUDIENCE, "exp": NOW_S + 300, "iat": NOW_S, "groups": ["dev"],
    } | changes  # fmt: skip
    return {name: value for name, value in claims.items() if value is not None}


def public(key: Key, **members: Any) -> dict[str, Any]:
    return {**key.as_dict(private=False), **members}


class FakeProvider:
    """Answers the requests of a Provider, and counts them by path. `answers` replaces the answers of paths."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = [public(RSA_1)]
        self.algorithms: list[str] = sorted(ALGORITHMS)
        self.calls: Counter[str] = Counter()
        self.answers: dict[str, httpx.Response | Exception] = {}
        self.changes: dict[str, Any] = {}
        self.userinfo: dict[str, Any] = {"sub": "alice", "groups": ["dev", "ops"]}
        #: code → the parameters of the request for it
        self.codes: dict[str, dict[str, str]] = {}
        self.used: set[str] = set()
        self.id_claims: dict[str, Any] = {}
        self.signer: Key = RSA_1
        self.forms: list[dict[str, str]] = []
        self.now = 0.0

    def metadata(self) -> dict[str, Any]:
        return {
            "issuer": ISSUER,
            "jwks_uri": f"{ISSUER}/jwks",
            "authorization_endpoint": f"{ISSUER}/auth",
            "token_endpoint": f"{ISSUER}/token",
            "userinfo_endpoint": f"{ISSUER}/userinfo",
            "end_session_endpoint": f"{ISSUER}/session/end",
            "id_token_signing_alg_values_supported": self.algorithms,
        } | self.changes

    def provider(self, **changes: Any) -> Provider:
        options = {"issuer": ISSUER, "client_id": CLIENT, "audience": AUDIENCE, "cli_client": "jobcloud-cli"} | changes
        return Provider(OidcOptions(**options), monotonic=lambda: self.now, transport=httpx.MockTransport(self.handle))

    def handle(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.calls[path] += 1
        false = self.answers.get(path)
        if isinstance(false, Exception):
            raise false
        if false is not None:
            return false
        if path == "/jwks":
            return answer_json({"keys": self.keys})
        if path == "/token":
            return self._token(request)
        if path == "/userinfo":
            return answer_json(self.userinfo)
        return answer_json(self.metadata())

    def sign_in(self, address: str) -> dict[str, str]:
        """Sign a person in at the address to which a browser was sent. Returns the parameters of the callback."""
        asked = dict(parse_qsl(urlsplit(address).query))
        assert address.startswith(f"{ISSUER}/auth?")
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(8)
        self.codes[code] = asked
        return {"code": code, "state": asked["state"], "iss": ISSUER}

    def _token(self, request: httpx.Request) -> httpx.Response:
        form = {name: values[0] for name, values in parse_qs(request.content.decode()).items()}
        self.forms.append(form | {"authorization": request.headers.get("authorization", "")})
        asked = self.codes.get(form["code"])
        if asked is None or form["code"] in self.used:
            return answer_json({"error": "invalid_grant"}, 400)
        self.used.add(form["code"])
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        assert asked["code_challenge"] == base64.urlsafe_b64encode(digest).decode().rstrip("=")
        assert asked["redirect_uri"] == form["redirect_uri"]
        claims = {
            "iss": ISSUER, "sub": "alice", "aud": CLIENT, "exp": NOW_S + 300, "iat": NOW_S, "nonce": asked["nonce"],
        } | self.id_claims  # fmt: skip
        id_token = sign({name: value for name, value in claims.items() if value is not None}, self.signer)
        return answer_json({"access_token": "opaque", "token_type": "Bearer", "id_token": id_token})


def answer(status: int = 200, content: bytes = b"{}", **headers: str) -> httpx.Response:
    """An answer that can be read once, as from a server."""

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 4_096):
            yield content[start : start + 4_096]

    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return httpx.Response(status, content=pieces(), headers=named)


def answer_json(document: Mapping[str, Any], status: int = 200) -> httpx.Response:
    return answer(status, json.dumps(document).encode(), content_type="application/json")


def sign_with_public_key(claims: dict[str, Any], key: RSAKey) -> str:
    """A token whose HMAC has the public key as its secret: the attack on libraries that trust the token's algorithm."""
    parts = (json.dumps({"alg": "HS256", "kid": key.kid}).encode(), json.dumps(claims).encode())
    signed = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
    code = hmac.digest(key.as_pem(private=False), signed.encode(), "sha256")
    return f"{signed}.{base64.urlsafe_b64encode(code).decode().rstrip('=')}"


# ------------------------------------------------------------------------------------------------------- real provider

_SOURCE = Path(__file__).parent / "oidc_provider"
_INSTALLED = Path(__file__).parents[1] / "build" / _SOURCE.name
CONSOLE_SECRET, MACHINE_SECRET = "a secret of the tests", "a secret of a machine"


@cache
def missing() -> str:
    """Why no real provider is available for tests, or "". Installs it at the first call."""
    try:
        install(_SOURCE)
    except RuntimeError as error:
        return str(error)
    return ""


class RealProvider(ServerProcess):
    """npm's oidc-provider. `scripted`: its pages submit themselves in a browser."""

    def __init__(self, folder: Path, port: int, key: Key, *, scripted: bool = False) -> None:
        super().__init__(folder)
        self.port = port
        self.issuer = f"http://127.0.0.1:{port}"
        shutil.copy(_SOURCE / "server.mjs", _INSTALLED)
        keys = json.dumps({"keys": [{**key.as_dict(private=True), "use": "sig", "alg": "RS256"}]})
        self.argv = [
            "env", f"PORT={port}", f"KEYS={keys}", f"SCRIPT={'1' if scripted else ''}",
            "node", str(_INSTALLED / "server.mjs"),
        ]  # fmt: skip

    def serves(self) -> bool:
        try:
            return httpx.get(f"{self.issuer}/jwks", timeout=5, trust_env=False).is_success
        except httpx.TransportError:
            return False


class Person:
    """Somebody with a browser without scripts, who fills in every form of the provider."""

    def __init__(self) -> None:
        self._browser = httpx.Client(trust_env=False, timeout=20)

    def open(self, url: str) -> httpx.Response:
        """Open a page, and send its forms until a page has none. Returns the last page."""
        answer = self._browser.get(url)
        for _ in range(20):
            where = answer.headers.get("location")
            if where is not None:
                answer = self._browser.get(answer.url.join(where))
            elif form := _FORM.search(answer.text):
                fields = dict(_FIELD.findall(form[2]))
                answer = self._browser.post(answer.url.join(html.unescape(form[1])), data=fields)
            else:
                return answer
        raise AssertionError(f"no end: {answer.url}")

    def close(self) -> None:
        self._browser.close()


_FORM = re.compile(r'<form[^>]* action="([^"]*)"[^>]*>(.*?)</form>', re.DOTALL)
_FIELD = re.compile(r'<input[^>]* name="([^"]*)"[^>]* value="([^"]*)"')
