"""The identity that a client's certificate proves.

The listener has checked the certificate: its CA, its dates at the time of the handshake, and whether it is
revoked. One part of the certificate names the client. If a certificate has several such parts, none counts.

Source: RFC 5280, section 4.2.1.6 (Subject Alternative Name).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from starlette.types import Scope

from jobcloud.access.directory import Directory, Principal
from jobcloud.config import is_label
from jobcloud.server.api.forward import HOP_HEADER
from jobcloud.server.api.identities import unauthenticated
from jobcloud.server.tls import CERTIFICATE

if TYPE_CHECKING:
    from cryptography import x509

NameOf = Literal["cn", "email", "dns", "uri"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")
_URI = re.compile(r"urn:jobcloud:(user|service):(.+)")
# A request with such a header has another credential, and the certificate then proves nothing.
_CREDENTIALS = frozenset({b"authorization", b"accesstoken"})


class Certificates:
    """A source of identities. `name_of` is the part of a certificate that names the client."""

    def __init__(self, name_of: NameOf, now_ms: Callable[[], int]) -> None:
        self._name_of = name_of
        self._now_ms = now_ms

    async def identify(self, scope: Scope, directory: Directory) -> Principal | None:
        """Raises Problem (unauthenticated) if the certificate names nobody, or somebody who may not use it."""
        # A standby that passes a request on has a certificate too. It is not that of the client.
        if not has_certificate_only(scope) or any(name == HOP_HEADER for name, _ in scope["headers"]):
            return None
        subject, serial, expires_ms = _read(scope[CERTIFICATE], self._name_of)
        if expires_ms <= self._now_ms():
            raise unauthenticated("The certificate has expired.")
        if directory.is_disabled(subject):
            raise unauthenticated("The user of the certificate is disabled.")
        return Principal(subject, f"certificate {serial}")


def has_certificate_only(scope: Scope) -> bool:
    """Whether a request has a certificate and no token."""
    return CERTIFICATE in scope and not any(name in _CREDENTIALS for name, _ in scope["headers"])


@functools.lru_cache(maxsize=1_000)
def _read(content: bytes, name_of: NameOf) -> tuple[str, str, int]:
    """Subject, serial number and end of a certificate in DER. Raises Problem."""
    from cryptography import x509

    try:
        certificate = x509.load_der_x509_certificate(content)
        names = _names(certificate, name_of)
        end = int(certificate.not_valid_after_utc.timestamp() * 1_000)
    except (ValueError, x509.DuplicateExtension):
        raise unauthenticated("The certificate is malformed.") from None
    if len(names) != 1:
        raise unauthenticated(f"The certificate has {len(names)} names of the kind {name_of}, and must have one.")
    return _subject(names[0], name_of), f"{certificate.serial_number:x}", end


def _names(certificate: x509.Certificate, name_of: NameOf) -> list[str]:
    from cryptography import x509

    if name_of == "cn":
        return [str(part.value) for part in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    if name_of == "email":
        return found.get_values_for_type(x509.RFC822Name)
    kind = x509.DNSName if name_of == "dns" else x509.UniformResourceIdentifier
    return found.get_values_for_type(kind)


def _subject(name: str, name_of: NameOf) -> str:
    """The subject that a name stands for. Raises Problem."""
    kind = "user"
    if name_of == "uri":
        found = _URI.fullmatch(name)
        if found is None:
            raise unauthenticated("The URI in the certificate is not urn:jobcloud:user:NAME or :service:TEAM/NAME.")
        kind, name = found.groups()
    elif name_of == "dns":
        name = name.lower()
    team, slash, service = name.partition("/")
    valid = _NAME.fullmatch(name) if kind == "user" else slash and is_label(team) and _NAME.fullmatch(service)
    if not valid:
        raise unauthenticated(f"The certificate names {name[:80]!r}, which is not the name of a {kind}.")
    return f"{kind}:{name}"
