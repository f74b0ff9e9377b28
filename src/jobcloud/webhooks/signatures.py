"""Signatures of webhooks: check a delivery, or sign one, as `jobcloud job webhook` and tests do.

Each scheme is an HMAC-SHA256 (RFC 2104) of the raw body, or of a prefix (id, time stamp) and the body:

* standard: Standard Webhooks 1.0.0, sections "Webhook headers" and "Signature scheme": the headers `webhook-id`,
  `webhook-timestamp` and `webhook-signature`, which is `v1,BASE64`, several of them separated by spaces. The signed
  text is `ID.TIMESTAMP.BODY`. A key that begins with `whsec_` is base64.
* github: GitHub's documentation "Validating webhook deliveries", which has no version: `X-Hub-Signature-256:
  sha256=HEX`. The id, `X-GitHub-Delivery`, is not signed. There is no time stamp.
* stripe: Stripe's library for Python, `stripe/_webhook.py` of commit 016aa9f: `Stripe-Signature: t=TIMESTAMP,v1=HEX`,
  or with several `v1`. The signed text is `TIMESTAMP.BODY`. The id is the field `id` of the body. The key is the
  whole secret, including `whsec_`.

Signatures of other versions (`v0`, `v1a`) are ignored. Time stamps are seconds of Unix time.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from jobcloud.config import WebhookScheme

#: minimum length of a key in bytes: somebody might guess a shorter one
MIN_KEY = 16
#: maximum distance of a time stamp from the clock of the receiver, in seconds: the tolerance of Stripe's library
TOLERANCE_S = 300
#: maximum number of signatures of one delivery that are compared
MAX_SIGNATURES = 10
_MAX_HEADER = 2_000
_ID = re.compile(r"[!-~]{1,200}")
# A dot ends the id in the signed text, so the id has none.
_SIGNED_ID = re.compile(r"(?!.*\.)[!-~]{1,200}")
_TIME = re.compile(r"[0-9]{1,12}")
_HEX = re.compile(r"[0-9a-f]{64}")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{43}=")

Headers = Iterable[tuple[bytes, bytes]]


class Claim(NamedTuple):
    """The claims of a delivery, from its headers. Trust none of them before `holds` has proved the signature.

    `signatures` are digests; if there are none, the headers are missing or malformed. `signed_before` precedes the body
    in the signed text. `id` is "" and `at_s` is None if the scheme does not have them in headers.
    """

    signatures: tuple[bytes, ...] = ()
    signed_before: bytes = b""
    id: str = ""
    at_s: int | None = None


def claim_of(scheme: WebhookScheme, headers: Headers) -> Claim:
    """Read the claims in the headers. A header that occurs twice, is too long or is not ASCII counts as missing."""
    return _READERS[scheme](_Read(headers))


def holds(claim: Claim, keys: Sequence[bytes], body: bytes) -> bool:
    """Whether one of the keys has made one of the signatures of a delivery.

    The time depends only on the number of keys, the number of signatures and the length of the body.
    """
    found = False
    for key in keys:
        digest = _mac(key, claim.signed_before, body)
        for signature in claim.signatures:
            found |= hmac.compare_digest(digest, signature)
    return found


def key_of(scheme: WebhookScheme, secret: bytes) -> bytes:
    """The key in a secret. A line end after the key is removed."""
    text = secret.removesuffix(b"\n").removesuffix(b"\r")
    if scheme is WebhookScheme.STANDARD:
        return standard_key(text.decode("latin-1")) if text.startswith(b"whsec_") else text
    return text


def standard_key(secret: str) -> bytes:
    """The key of a secret of Standard Webhooks: the decoded base64 after `whsec_`, or else the text itself."""
    if secret.startswith("whsec_"):
        try:
            return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except (binascii.Error, ValueError):
            pass
    return secret.encode()


def signed(scheme: WebhookScheme, key: bytes, body: bytes, *, delivery: str, at_s: int) -> dict[str, str]:
    """The headers of a delivery with an id. The scheme stripe has no id in the headers: it is in the body."""
    if scheme is WebhookScheme.STANDARD:
        mac = base64.b64encode(_mac(key, f"{delivery}.{at_s}.".encode(), body)).decode()
        return {"webhook-id": delivery, "webhook-timestamp": str(at_s), "webhook-signature": f"v1,{mac}"}
    if scheme is WebhookScheme.GITHUB:
        return {"X-GitHub-Delivery": delivery, "X-Hub-Signature-256": f"sha256={_mac(key, b'', body).hex()}"}
    return {"Stripe-Signature": f"t={at_s},v1={_mac(key, f'{at_s}.'.encode(), body).hex()}"}


def _mac(key: bytes, before: bytes, body: bytes) -> bytes:
    found = hmac.new(key, before, hashlib.sha256)
    found.update(body)
    return found.digest()


class _Read:
    """Headers by name in lower case."""

    def __init__(self, headers: Headers) -> None:
        self._headers = [(name.lower(), value) for name, value in headers]

    def __getitem__(self, name: bytes) -> str:
        values = [value for known, value in self._headers if known == name]
        if len(values) != 1 or len(values[0]) > _MAX_HEADER or not values[0].isascii():
            return ""
        return values[0].decode("ascii").strip(" \t")


def _standard(headers: _Read) -> Claim:
    delivery, time = headers[b"webhook-id"], headers[b"webhook-timestamp"]
    if not _SIGNED_ID.fullmatch(delivery) or not _TIME.fullmatch(time):
        return Claim()
    given = (each.partition(",") for each in headers[b"webhook-signature"].split(" "))
    found = [base64.b64decode(text) for version, _, text in given if version == "v1" and _BASE64.fullmatch(text)]
    return Claim(tuple(found[:MAX_SIGNATURES]), f"{delivery}.{time}.".encode(), delivery, int(time))


def _github(headers: _Read) -> Claim:
    name, _, text = headers[b"x-hub-signature-256"].partition("=")
    delivery = headers[b"x-github-delivery"]
    if name != "sha256" or not _HEX.fullmatch(text) or not _ID.fullmatch(delivery):
        return Claim()
    return Claim((bytes.fromhex(text),), b"", delivery)


def _stripe(headers: _Read) -> Claim:
    given = [each.partition("=") for each in headers[b"stripe-signature"].split(",")]
    times = [text for name, _, text in given if name == "t"]
    if len(times) != 1 or not _TIME.fullmatch(times[0]):
        return Claim()
    found = [bytes.fromhex(text) for name, _, text in given if name == "v1" and _HEX.fullmatch(text)]
    return Claim(tuple(found[:MAX_SIGNATURES]), f"{times[0]}.".encode(), "", int(times[0]))


_READERS: dict[WebhookScheme, Callable[[_Read], Claim]] = {
    WebhookScheme.STANDARD: _standard,
    WebhookScheme.GITHUB: _github,
    WebhookScheme.STRIPE: _stripe,
}
