"""Signatures of webhooks: published values, and what is not taken for a signature."""

from __future__ import annotations

import base64
import re

import pytest

from jobcloud.config import WebhookScheme
from jobcloud.webhooks.signatures import MAX_SIGNATURES, Claim, claim_of, holds, key_of, signed

STANDARD, GITHUB, STRIPE = WebhookScheme
KEY = b"k" * 32
BODY = b'{"id": "evt_1"}'
AT = 1_700_000_000


def made(scheme: WebhookScheme, body: bytes = BODY, key: bytes = KEY) -> dict[str, str]:
    return signed(scheme, key, body, delivery="d-1", at_s=AT)


def claim(scheme: WebhookScheme, headers: dict[str, str]) -> Claim:
    return claim_of(scheme, [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()])


def test_value_that_github_publishes_is_accepted() -> None:
    """Source: GitHub's documentation "Validating webhook deliveries", its values for tests."""
    digest = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    headers = {"X-Hub-Signature-256": f"sha256={digest}", "X-GitHub-Delivery": "d"}
    key = key_of(GITHUB, b"It's a Secret to Everybody")
    assert holds(claim(GITHUB, headers), [key], b"Hello, World!")
    assert not holds(claim(GITHUB, headers), [key], b"Hello, World?")


def test_value_that_standard_webhooks_publishes_is_accepted() -> None:
    """Source: the specification Standard Webhooks, its example of a signature."""
    secret, delivery, body = (
        b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        b'{"test": 2432232314}',
    )
    key = key_of(STANDARD, secret)
    assert len(key) == 24
    headers = signed(STANDARD, key, body, delivery=delivery, at_s=1_614_265_330)
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert holds(claim(STANDARD, headers), [key], body)


@pytest.mark.parametrize("scheme", WebhookScheme)
def test_signature_counts_for_its_key_its_body_and_its_headers_only(scheme: WebhookScheme) -> None:
    headers = made(scheme)
    assert holds(claim(scheme, headers), [b"o" * 32, KEY], BODY)
    assert not holds(claim(scheme, headers), [b"o" * 32], BODY)
    assert not holds(claim(scheme, headers), [], BODY)
    assert not holds(claim(scheme, headers), [KEY], BODY + b" ")
    for name, value in headers.items():
        changed = value.replace("d-1", "d-2").replace(str(AT), str(AT + 1)) if name != "X-GitHub-Delivery" else value
        if changed != value:
            assert not holds(claim(scheme, headers | {name: changed}), [KEY], BODY), name


@pytest.mark.parametrize(
    ("scheme", "header", "wrong"),
    [
        (STANDARD, "webhook-signature", "v1,"),
        (STANDARD, "webhook-signature", "v1," + "A" * 43),
        (STANDARD, "webhook-signature", "v1," + "A" * 87 + "="),
        (STANDARD, "webhook-signature", "v1a,{}"),
        (STANDARD, "webhook-id", ""),
        (STANDARD, "webhook-id", "x" * 201),
        (STANDARD, "webhook-id", "a.b"),
        (STANDARD, "webhook-id", "d-1\xe9"),
        (STANDARD, "webhook-timestamp", "-1"),
        (STANDARD, "webhook-timestamp", "1e9"),
        (STANDARD, "webhook-timestamp", "9" * 13),
        (STANDARD, "webhook-timestamp", "\xb2"),
        (GITHUB, "X-Hub-Signature-256", "sha256="),
        (GITHUB, "X-Hub-Signature-256", "sha1={}"),
        (GITHUB, "X-Hub-Signature-256", "sha256=" + "a" * 63),
        (GITHUB, "X-Hub-Signature-256", "sha256=" + "a" * 65),
        (GITHUB, "X-Hub-Signature-256", "sha256=" + "\xe9" * 64),
        (GITHUB, "X-GitHub-Delivery", ""),
        (STRIPE, "Stripe-Signature", "v1={}"),
        (STRIPE, "Stripe-Signature", f"t={AT},t={AT},v1={{}}"),
        (STRIPE, "Stripe-Signature", f"t={AT},v0={{}}"),
        (STRIPE, "Stripe-Signature", f"t={AT},v1=" + "x" * 3_000),
    ],
)
def test_malformed_header_is_no_signature(scheme: WebhookScheme, header: str, wrong: str) -> None:
    headers = made(scheme)
    digest = re.findall(r"[0-9a-f]{64}|(?<=v1,).*", " ".join(headers.values()))[0]
    assert claim(scheme, headers | {header: wrong.format(digest)}).signatures == ()


@pytest.mark.parametrize("scheme", WebhookScheme)
def test_header_that_is_given_twice_is_no_signature(scheme: WebhookScheme) -> None:
    pairs = [(name.lower().encode(), value.encode()) for name, value in made(scheme).items()]
    for pair in pairs:
        assert claim_of(scheme, [*pairs, pair]).signatures == ()


def test_one_of_several_signatures_is_enough_and_their_number_is_bounded() -> None:
    other = base64.b64encode(b"x" * 32).decode()
    right = made(STANDARD)["webhook-signature"]
    for several in (f"v1,{other} {right}", f"{right} v1,{other}", f"v1a,{other} {right}"):
        assert holds(claim(STANDARD, made(STANDARD) | {"webhook-signature": several}), [KEY], BODY)
    hex_right = made(STRIPE)["Stripe-Signature"]
    assert holds(claim(STRIPE, {"Stripe-Signature": f"{hex_right},v1={'a' * 64}"}), [KEY], BODY)
    many = " ".join([f"v1,{other}"] * MAX_SIGNATURES + [right])
    found = claim(STANDARD, made(STANDARD) | {"webhook-signature": many})
    assert len(found.signatures) == MAX_SIGNATURES
    assert not holds(found, [KEY], BODY)


@pytest.mark.parametrize(
    ("scheme", "secret", "key"),
    [
        (STANDARD, b"plain text\n", b"plain text"),
        (STANDARD, b"plain text\r\n", b"plain text"),
        (STANDARD, b"whsec_" + base64.b64encode(b"0123456789abcdef"), b"0123456789abcdef"),
        (STANDARD, b"whsec_not base64", b"whsec_not base64"),
        (STRIPE, b"whsec_" + base64.b64encode(b"0123456789abcdef"), b"whsec_MDEyMzQ1Njc4OWFiY2RlZg=="),
        (GITHUB, b"\xff\xfe\n\n", b"\xff\xfe\n"),
    ],
)
def test_key_is_made_from_the_secret_as_the_scheme_wants(scheme: WebhookScheme, secret: bytes, key: bytes) -> None:
    assert key_of(scheme, secret) == key
