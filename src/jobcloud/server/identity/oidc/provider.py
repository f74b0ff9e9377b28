"""The provider over HTTP: its metadata and keys, kept for a while, and the calls of a sign-in.

The keys are fetched again for a token with an unknown key id or a bad signature, because the provider may have rotated
its keys. Anybody can send such tokens, so this happens at most once in RETRY_S, and all tokens wait for the same fetch.
Everything here runs on the event loop of the API and computes little.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, TypeVar
from urllib.parse import quote_plus, urlsplit

import httpx
import structlog
from joserfc.jwk import Key

from jobcloud.sentences import Told
from jobcloud.server.identity.oidc import tokens
from jobcloud.server.identity.oidc.metadata import WELL_KNOWN, Metadata, ProviderError, read_keys, read_metadata
from jobcloud.server.identity.oidc.options import OidcOptions
from jobcloud.server.identity.oidc.tokens import BadSignature, Claims, Header, KeyUnknown
from jobcloud.server.settings import is_loopback

log = structlog.get_logger(__name__)
T = TypeVar("T")

#: a document is fetched at most once in this time, whatever the last answer was
RETRY_S = 10.0
#: a document is fetched again when it is this old
FRESH_S = 300.0
#: a document counts for this long if the provider is away
LASTS_S = 24 * 3600.0
#: the time limit of one answer of the provider, from the connection to the last byte
ANSWER_S = 5.0
MAX_ANSWER_BYTES = 256 << 10


class Provider:
    """For one event loop. `monotonic` is in seconds."""

    def __init__(
        self,
        options: OidcOptions,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.options = options
        self._transport = transport
        self._client: httpx.AsyncClient | None = None
        self._metadata = _Kept("metadata", self._fetch_metadata, monotonic)
        self._keys = _Kept("keys", self._fetch_keys, monotonic)

    async def metadata(self) -> Metadata:
        """Raises ProviderError."""
        return await self._metadata.get()

    async def claims(self, text: str) -> tuple[Header, Claims]:
        """The header and the claims of a token with a valid signature. Raises TokenError or ProviderError."""
        header = tokens.read_header(text, (await self.metadata()).algorithms)
        keys = await self._keys.get()
        try:
            return header, tokens.verified(text, header, keys)
        except (KeyUnknown, BadSignature):
            newer = await self._keys.newer(keys)
            if newer is None and self._keys.problem:
                raise ProviderError(self._keys.problem) from None
            if newer is None:
                raise
        return header, tokens.verified(text, header, newer)

    async def exchange(self, form: Mapping[str, str]) -> Mapping[str, Any]:
        """Send a request to the token endpoint (RFC 6749, section 3.2). Raises ProviderError."""
        metadata, options = await self.metadata(), self.options
        headers: dict[str, str] = {}
        own = {"client_id": options.client_id}
        if options.secret and "client_secret_basic" in metadata.auth_methods:
            # RFC 6749, section 2.3.1: both are encoded as in a form.
            pair = f"{quote_plus(options.client_id)}:{quote_plus(options.secret)}"
            headers, own = {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}, {}
        elif options.secret:
            own["client_secret"] = options.secret
        request = httpx.Request("POST", metadata.token_url, data={**form, **own}, headers=headers)
        return await self._json(request, "the token endpoint")

    async def userinfo(self, access_token: str) -> Mapping[str, Any]:
        """The claims of the userinfo endpoint. Raises ProviderError."""
        headers = {"Authorization": f"Bearer {access_token}"}
        request = httpx.Request("GET", (await self.metadata()).userinfo_url, headers=headers)
        return await self._json(request, "the userinfo endpoint")

    async def describe(self) -> str:
        """Ask the provider now: the number of keys, and the algorithms. Raises ProviderError. Logs nothing."""
        metadata = await self._fetch_metadata()
        keys = read_keys(await self._json(httpx.Request("GET", metadata.keys_url), metadata.keys_url))
        if not keys:
            raise ProviderError("the provider has no key for signatures")
        return f"keys: {len(keys)}, algorithms: {', '.join(sorted(metadata.algorithms))}"

    def warnings(self) -> tuple[Told, ...]:
        """The present problems of the provider. Read on any thread."""
        issuer = self.options.issuer
        return tuple(
            Told(f"the identity provider {issuer}: {problem}", "identity_provider", issuer=issuer, problem=problem)
            for kept in (self._metadata, self._keys)
            if (problem := kept.problem)
        )

    async def _fetch_metadata(self) -> Metadata:
        url = self.options.issuer.rstrip("/") + WELL_KNOWN
        return read_metadata(await self._json(httpx.Request("GET", url), url), self.options.issuer)

    async def _fetch_keys(self) -> tuple[Key, ...]:
        url = (await self.metadata()).keys_url
        return read_keys(await self._json(httpx.Request("GET", url), url))

    async def _json(self, request: httpx.Request, what: str) -> Mapping[str, Any]:
        """The JSON object of an answer. Raises ProviderError; its text has no secret."""
        # A compressed answer could be small here and huge in memory.
        request.headers.update({"Accept": "application/json", "Accept-Encoding": "identity"})
        try:
            async with asyncio.timeout(ANSWER_S):
                status, content = await self._read(request)
        except TimeoutError:
            raise ProviderError(f"{what} did not answer within {ANSWER_S:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ssl.SSLError) as error:
            raise ProviderError(f"{what} cannot be reached: {error or type(error).__name__}") from None
        try:
            found = json.loads(content)
        except (ValueError, RecursionError):
            found = None
        if status != 200:
            reason = found.get("error") if isinstance(found, dict) else None
            raise ProviderError(f"{what} answered {status}{f' {str(reason)[:60]!r}' if reason else ''}")
        if not isinstance(found, dict):
            raise ProviderError(f"{what} did not answer with a JSON object")
        return found

    async def _read(self, request: httpx.Request) -> tuple[int, bytes]:
        content = bytearray()
        answer = await self._open().send(request, stream=True)
        try:
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise ProviderError("the answer is compressed")
            async for chunk in answer.aiter_raw():
                content += chunk
                if len(content) > MAX_ANSWER_BYTES:
                    raise ProviderError(f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
        finally:
            await answer.aclose()
        return answer.status_code, bytes(content)

    def _open(self) -> httpx.AsyncClient:
        """The client, made by the first call: it belongs to the event loop of the API."""
        if self._client is None:
            options = self.options
            verify: ssl.SSLContext | bool = True
            if options.ca_file is not None:
                verify = ssl.create_default_context(cafile=str(options.ca_file))
            # A proxy cannot reach this machine's loopback.
            trust_env = not is_loopback(urlsplit(options.issuer).hostname or "")
            # The calls are rare, and the provider may close an idle connection while a request is sent.
            limits = httpx.Limits(max_connections=20, max_keepalive_connections=0)
            self._client = httpx.AsyncClient(
                verify=verify, trust_env=trust_env, limits=limits, timeout=ANSWER_S, transport=self._transport
            )
        return self._client


class _Kept(Generic[T]):
    """One document. All who need it wait for the same fetch, which ends even if they leave."""

    def __init__(self, name: str, fetch: Callable[[], Awaitable[T]], monotonic: Callable[[], float]) -> None:
        self._name = name
        self._fetch = fetch
        self._monotonic = monotonic
        self._value: T | None = None
        self._fetched_at = self._tried_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None
        #: why the last fetch failed, or ""
        self.problem = ""

    async def get(self) -> T:
        """The document. Raises ProviderError if there is none that counts.

        After a failed fetch, the document of before counts for LASTS_S, and nobody waits for the next fetch.
        """
        age = self._monotonic() - self._fetched_at
        if age > FRESH_S:
            fetching = self._start()
            if fetching is not None and (not self.problem or age > LASTS_S):
                await asyncio.shield(fetching)
        if self._value is None or self._monotonic() - self._fetched_at > LASTS_S:
            raise ProviderError(self.problem or "it did not answer yet")
        return self._value

    async def newer(self, known: T) -> T | None:
        """A document that was fetched after `known`; None if there is none, or if it is too early to fetch one."""
        if self._value is known and (fetching := self._start()) is not None:
            await asyncio.shield(fetching)
        return self._value if self._value is not known else None

    def _start(self) -> asyncio.Task[None] | None:
        """The fetch under way or a new one; None if it is too early for one."""
        if self._fetching is None and self._monotonic() - self._tried_at >= RETRY_S:
            self._tried_at = self._monotonic()
            self._fetching = asyncio.create_task(self._run())
        return self._fetching

    async def _run(self) -> None:
        before = self.problem
        try:
            self._value = await self._fetch()
            self._fetched_at, self.problem = self._monotonic(), ""
            if before:
                log.info("the identity provider answers again", document=self._name)
        except ProviderError as error:
            self.problem = str(error)
            if self.problem != before:
                log.warning("the identity provider does not answer as it should", problem=self.problem)
        except Exception:
            self.problem = "its answer cannot be read; the log has the reason"
            log.exception("an answer of the identity provider cannot be read", document=self._name)
        finally:
            self._fetching = None
