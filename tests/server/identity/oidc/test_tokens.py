"""Tokens: signatures, keys, times, audiences, and the person or machine that a token names."""

from __future__ import annotations

import base64
import json
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import ECKey, Key, OctKey
from tests.oidc_kit import (
    AUDIENCE,
    CLIENT,
    EC_1,
    ISSUER,
    NOW_S,
    OKP_1,
    RSA_1,
    RSA_2,
    access_claims,
    public,
    rsa,
    short_rsa,
    sign,
    sign_with_public_key,
)

from jobcloud.server.identity.oidc.metadata import ProviderError, read_keys, read_metadata
from jobcloud.server.identity.oidc.tokens import (
    ALGORITHMS,
    MAX_GROUPS,
    MAX_TOKEN_BYTES,
    SKEW_S,
    BadSignature,
    Claims,
    KeyUnknown,
    TokenError,
    check,
    check_access_token,
    check_id_token,
    groups_of,
    looks_like_token,
    read_header,
    subject_of,
    verified,
)


def keys_of(*keys: Key, **members: Any) -> tuple[Key, ...]:
    return read_keys({"keys": [public(key, **members) for key in keys]})


def claims_of(text: str, *keys: Key) -> Claims:
    return verified(text, read_header(text, ALGORITHMS), keys_of(*keys))


def checked(**changes: Any) -> None:
    check(access_claims(**changes), issuer=ISSUER, audience=AUDIENCE, now_s=NOW_S)


def refusal(**changes: Any) -> str:
    with pytest.raises(TokenError) as caught:
        checked(**changes)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------- signatures and keys

_CURVES: dict[str, Key] = {
    "ES256": EC_1,
    "ES384": ECKey.generate_key("P-384", {"kid": "e2"}),
    "ES512": ECKey.generate_key("P-521", {"kid": "e3"}),
    "EdDSA": OKP_1,
    "Ed25519": OKP_1,
}


@pytest.mark.parametrize("alg", sorted(ALGORITHMS))
def test_token_of_each_algorithm_is_accepted_without_a_warning(alg: str) -> None:
    key = _CURVES.get(alg, RSA_1)
    text = sign({"sub": "alice"}, key, alg)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert claims_of(text, RSA_1, RSA_2, *_CURVES.values()) == {"sub": "alice"}


def test_token_with_another_payload_or_signature_is_refused() -> None:
    text, other = sign({"sub": "alice"}), sign({"sub": "admin"})
    head, payload, signature = text.split(".")
    for forged in (
        f"{head}.{other.split('.')[1]}.{signature}",
        f"{head}.{payload}.{signature[::-1]}",
        f"{head}.{payload}.",
    ):
        with pytest.raises(BadSignature):
            claims_of(forged, RSA_1)


def test_algorithm_none_and_secrets_are_refused_before_any_key_is_used() -> None:
    for text in (
        sign({"sub": "alice"}, None, "none"),
        sign_with_public_key({"sub": "alice"}, RSA_1),
        sign({"sub": "alice"}, OctKey.generate_key(256), "HS512", "k1"),
    ):
        with pytest.raises(TokenError, match="algorithm"):
            claims_of(text, RSA_1)


def test_algorithm_that_the_provider_does_not_name_is_refused() -> None:
    with pytest.raises(TokenError, match="'PS256' is not one of RS256"):
        read_header(sign({}, alg="PS256"), {"RS256"})
    with pytest.raises(TokenError):
        read_header(sign({}, None, "none"), {"RS256", "none"})


def test_key_of_another_kind_than_the_algorithm_is_not_used() -> None:
    with pytest.raises(KeyUnknown):
        claims_of(sign({}, RSA_1, kid="e1"), EC_1)
    with pytest.raises(KeyUnknown):
        claims_of(sign({}, EC_1, "ES256", kid="e2"), _CURVES["ES384"])
    bound = keys_of(RSA_1, alg="PS256")
    with pytest.raises(KeyUnknown):
        verified(sign({}), read_header(sign({}), ALGORITHMS), bound)


def test_token_without_a_key_id_needs_exactly_one_key_for_its_algorithm() -> None:
    text = sign({"sub": "alice"}, RSA_1, kid=None)
    assert claims_of(text, RSA_1, EC_1) == {"sub": "alice"}
    with pytest.raises(KeyUnknown, match="no key id"):
        claims_of(text, RSA_1, RSA_2)


def test_two_keys_with_one_id_are_both_tried() -> None:
    twin = rsa("k1")
    assert claims_of(sign({"sub": "alice"}, twin), RSA_1, twin) == {"sub": "alice"}


def test_unknown_key_id_differs_from_a_wrong_signature() -> None:
    with pytest.raises(KeyUnknown):
        claims_of(sign({}, RSA_2), RSA_1)
    with pytest.raises(BadSignature):
        claims_of(sign({}, RSA_2, kid="k1"), RSA_1)


def test_keys_that_are_not_for_signatures_or_too_short_are_left_out() -> None:
    unusable = [
        public(RSA_1, use="enc"),
        public(RSA_1, key_ops=["encrypt"]),
        public(RSA_1, kid=7),
        public(RSA_1, kid="k" * 201),
        public(short_rsa()),
        {"kty": "oct", "kid": "k1", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"},
        {"kty": "AKP", "kid": "k1", "alg": "ML-DSA-44", "pub": "AAAA"},
        {"kty": "RSA", "kid": "k1"},
        {"kty": "RSA", "kid": "k1", "n": 5, "e": []},
        {"kty": "RSA", "kid": "k1", "n": "AQ", "e": "AQ"},
        {"kty": "EC", "kid": "k1", "crv": "P-256", "x": "AAAA", "y": "AAAA"},
        {"kty": "EC", "kid": "k1", "crv": "nothing", "x": "AAAA", "y": "AAAA"},
        {"kty": "OKP", "kid": "k1", "crv": "Ed25519", "x": "AA"},
        {"kty": ["RSA"]},
        "text",
        None,
    ]
    found = read_keys({"keys": [*unusable, public(RSA_2, use="sig", key_ops=["verify"], x5c=["certificate"])]})
    assert [key.kid for key in found] == ["k2"]


@pytest.mark.parametrize("document", [{}, {"keys": None}, {"keys": {}}, {"keys": [{}] * 101}])
def test_document_that_is_no_set_of_keys_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ProviderError):
        read_keys(document)


def _unsigned(header: dict[str, Any]) -> str:
    return f"{base64.urlsafe_b64encode(json.dumps(header).encode()).decode().rstrip('=')}.e30."


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "..", "a.b", "eyJ..", "eyJhbGciOiJSUzI1NiJ9", "eyJhbGciOiJSUzI1NiJ9..", "é.é.é", "W10.e30.",
        sign({}, crit=["exp"]), _unsigned({"alg": "RS256", "b64": False}), sign({}, kid="k" * 201), sign({}, typ=7),
        sign({}, x5c=["a" * 5_000]), sign({}) + ".more", "eyJ" + "a" * MAX_TOKEN_BYTES,
    ],
)  # fmt: skip
def test_malformed_token_is_refused(text: str) -> None:
    with pytest.raises(TokenError):
        claims_of(text, RSA_1)


def test_payload_that_is_no_object_is_refused() -> None:
    deep = "[" * 5_000 + "]" * 5_000
    for payload in ("[]", "7", "", "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), deep):
        text = _signed_text(payload)
        with pytest.raises(TokenError, match="payload is malformed"):
            claims_of(text, RSA_1)


def _signed_text(payload: str) -> str:
    return jws.serialize_compact({"alg": "RS256", "kid": "k1"}, payload.encode("latin-1"), RSA_1)


@given(
    st.text(max_size=300)
    | st.from_regex(r"eyJ[A-Za-z0-9_-]{0,60}\.[A-Za-z0-9_-]{0,20}\.[A-Za-z0-9_-]{0,20}", fullmatch=True)
)
def test_any_text_is_refused_and_never_fails_otherwise(text: str) -> None:
    with pytest.raises(TokenError):
        claims_of(text, RSA_1)


def test_api_tokens_do_not_look_like_signed_tokens() -> None:
    assert looks_like_token(sign({}))
    assert not looks_like_token("jct_0123456789ab_" + "A" * 43)
    assert not looks_like_token("opaque")


# -------------------------------------------------------------------------------------------------- claims and times


@pytest.mark.parametrize(
    ("claim", "offset", "accepted"),
    [
        ("exp", -SKEW_S + 1, True),
        ("exp", -SKEW_S, False),
        ("nbf", SKEW_S, True),
        ("nbf", SKEW_S + 1, False),
        ("iat", SKEW_S, True),
        ("iat", SKEW_S + 1, False),
    ],
)
def test_time_counts_up_to_the_skew_and_not_a_second_more(claim: str, offset: int, accepted: bool) -> None:
    if accepted:
        checked(**{claim: NOW_S + offset})
    else:
        assert refusal(**{claim: NOW_S + offset})


def test_skew_is_at_most_a_minute() -> None:
    assert SKEW_S <= 60


@pytest.mark.parametrize(
    "value", [NOW_S + 0.5, str(NOW_S + 300), True, "NaN", float("nan"), float("inf"), [], 10**20, -1]
)
@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
def test_time_that_is_no_whole_number_is_refused(claim: str, value: object) -> None:
    assert f"'{claim}' is not a whole number" in refusal(**{claim: value})


@pytest.mark.parametrize("claim", ["iss", "sub", "aud", "exp"])
def test_missing_claim_is_named(claim: str) -> None:
    assert f"lacks the claim '{claim}'" in refusal(**{claim: None})


@pytest.mark.parametrize(
    "audience", ["other", CLIENT, f"{AUDIENCE}/", [CLIENT], [], "", [AUDIENCE, 7], {AUDIENCE: 1}, 7]
)
def test_other_audience_is_refused(audience: object) -> None:
    assert refusal(aud=audience)


def test_audience_may_be_one_of_several() -> None:
    checked(aud=["other", AUDIENCE])


@pytest.mark.parametrize("issuer", ["https://other.example.org", f"{ISSUER}/", ISSUER.upper(), [ISSUER], 7, ""])
def test_other_issuer_is_refused(issuer: object) -> None:
    assert refusal(iss=issuer)


@pytest.mark.parametrize("sub", ["", 7, [], ["alice"]])
def test_subject_that_is_no_text_is_refused(sub: object) -> None:
    assert refusal(sub=sub)


@pytest.mark.parametrize("typ", ["at+jwt", "application/at+jwt", "AT+JWT", "JWT", None])
def test_type_of_an_access_token_is_accepted(typ: str | None) -> None:
    text = sign({}, typ=typ) if typ else sign({})
    check_access_token(read_header(text, ALGORITHMS), {})


@pytest.mark.parametrize("typ", ["logout+jwt", "secevent+jwt", "dpop+jwt", "id+jwt", "at+jwt;v=1"])
def test_token_of_another_type_is_refused(typ: str) -> None:
    with pytest.raises(TokenError, match="type"):
        check_access_token(read_header(sign({}, typ=typ), ALGORITHMS), {})


@pytest.mark.parametrize("claims", [{"typ": "ID"}, {"typ": "Refresh"}, {"events": {}}, {"cnf": {"jkt": "x"}}])
def test_token_that_is_no_bearer_token_is_refused(claims: dict[str, Any]) -> None:
    header = read_header(sign({}), ALGORITHMS)
    with pytest.raises(TokenError):
        check_access_token(header, claims)
    check_access_token(header, {"typ": "Bearer"})


def id_token(**changes: Any) -> None:
    claims = {"aud": CLIENT, "iat": NOW_S, "nonce": "n"} | changes
    check_id_token({name: value for name, value in claims.items() if value is not None}, client_id=CLIENT, nonce="n")


def test_id_token_must_be_for_this_client_and_this_sign_in() -> None:
    id_token()
    id_token(azp=CLIENT)
    id_token(aud=[CLIENT, "other"], azp=CLIENT)
    for changes in (
        {"azp": "other"}, {"aud": [CLIENT, "other"]}, {"aud": [CLIENT, "other"], "azp": "other"}, {"iat": None},
        {"nonce": "other"}, {"nonce": None}, {"azp": 7},
    ):  # fmt: skip
        with pytest.raises(TokenError):
            id_token(**changes)


# ---------------------------------------------------------------------------------------------------- names and groups


def test_person_is_named_by_the_claim_of_the_settings() -> None:
    assert subject_of({"sub": "248289761001"}, "sub") == "user:oidc:248289761001"
    assert subject_of({"sub": "1", "preferred_username": "alice"}, "preferred_username") == "user:oidc:alice"
    assert subject_of({"sub": "1", "azp": "cli"}, "sub") == "user:oidc:1"


def test_email_names_a_person_only_if_the_provider_has_verified_it() -> None:
    claims = {"sub": "1", "email": "alice@example.org"}
    assert subject_of(claims | {"email_verified": True}, "email") == "user:oidc:alice@example.org"
    for verified_by in ({}, {"email_verified": False}, {"email_verified": "true"}):
        with pytest.raises(TokenError, match="email_verified"):
            subject_of(claims | verified_by, "email")


@pytest.mark.parametrize("claims", [{"client_id": "batch", "sub": "batch"}, {"azp": "batch", "sub": "batch@clients"}])
def test_machine_is_named_by_its_client(claims: dict[str, Any]) -> None:
    assert subject_of(claims, "preferred_username") == "user:oidc-client:batch"


@pytest.mark.parametrize(
    "name", [None, "", " ", " alice", "alice\n", "a\x00b", "a\u202eb", "a" * 201, "ä" * 101, "\ud800", 7, ["alice"], {}]
)
def test_name_that_could_mislead_is_refused(name: object) -> None:
    with pytest.raises(TokenError, match="'nick'"):
        subject_of({"sub": "1", "nick": name}, "nick")


def test_groups_are_a_list_or_one_name() -> None:
    assert groups_of({"groups": ["dev", "ops", "dev"]}, "groups") == ("dev", "ops")
    assert groups_of({"groups": "dev"}, "groups") == ("dev",)
    assert groups_of({"groups": ["dev"]}, "") == ()
    assert groups_of({}, "groups") == ()
    assert groups_of({"groups": ["dev", 7, None, "", "a\nb", ["ops"], "x" * 201]}, "groups") == ("dev",)
    assert len(groups_of({"groups": [str(number) for number in range(9_999)]}, "groups")) == MAX_GROUPS
    for malformed in (7, True, {"dev": 1}, None):
        assert groups_of({"groups": malformed}, "groups") == ()


# ---------------------------------------------------------------------------------------------------------- metadata

_METADATA = {
    "issuer": ISSUER,
    "jwks_uri": f"{ISSUER}/jwks",
    "authorization_endpoint": f"{ISSUER}/auth",
    "token_endpoint": f"{ISSUER}/token",
}


def test_metadata_without_optional_parts_is_accepted() -> None:
    found = read_metadata(_METADATA, ISSUER)
    assert (found.algorithms, found.userinfo_url, found.sign_out_url) == (frozenset({"RS256"}), "", "")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"issuer": f"{ISSUER}/"}, "set identity.oidc_issuer to exactly this text"),
        ({"issuer": None}, "calls itself 'None'"),
        ({"jwks_uri": None}, "jwks_uri is not"),
        ({"jwks_uri": "http://id.example.org/jwks"}, "jwks_uri is not"),
        ({"jwks_uri": "http://127.0.0.1/jwks"}, "jwks_uri is not"),
        ({"token_endpoint": "file:///etc/passwd"}, "token_endpoint is not"),
        ({"token_endpoint": "https://user:secret@id.example.org/"}, "token_endpoint is not"),
        ({"userinfo_endpoint": ["https://id.example.org/"]}, "userinfo_endpoint is not"),
        ({"authorization_endpoint": "https://id.example.org/\r\nSet-Cookie: a=b"}, "authorization_endpoint is not"),
        ({"id_token_signing_alg_values_supported": ["none", "HS256"]}, "none of the algorithms"),
        ({"id_token_signing_alg_values_supported": "RS256"}, "none of the algorithms"),
    ],
)
def test_metadata_that_lies_is_refused_with_a_reason(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ProviderError, match=text):
        read_metadata(_METADATA | changes, ISSUER)
