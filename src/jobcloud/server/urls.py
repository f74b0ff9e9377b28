"""The URLs that this server and HTTP jobs may call: allow-lists of schemes, hosts and networks."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from urllib.parse import SplitResult, urlsplit

from jobcloud.errors import ConfigError
from jobcloud.executor.http_job import differs_by_machine, inner_address
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import choose

ALLOW_PACKAGES = Told(
    "upload the package (POST /api/v1/packages), or list the host in the server's packages.hosts setting",
    "allow_packages",
)
_MAX_URL = 2048
_NO_URL = Told("is not a plain URL", "no_url")
# The only part of IPv6 with public hosts, and a part of it that is for documentation only. Old versions of Python count
# the addresses for documentation as public.
_UNICAST, _DOCUMENTATION = ipaddress.IPv6Network("2000::/3"), ipaddress.IPv6Network("3fff::/20")


@dataclass(frozen=True, slots=True)
class UrlPolicy:
    """The servers that packages may be fetched from, or that HTTP jobs may call.

    `hosts` are names or globs (`*.example.org`). A loopback or link-local address is allowed only if it is listed
    literally, never through a glob. `networks` (CIDR) are allowed in addition to public addresses when this server
    itself connects to a name.
    """

    hosts: tuple[str, ...] = ()
    schemes: tuple[str, ...] = ("https", "http")
    networks: tuple[str, ...] = ()

    def check(self, url: str, field: str, example: str, allow: str) -> SplitResult:
        """The parts of an allowed URL. Raises ConfigError; `example` or `allow` is the fix for the user."""
        printable = url.isascii() and all("!" <= char <= "~" for char in url) and not set(url) & set("\"'\\<>`$;|")
        if not url or len(url) > _MAX_URL or not printable:
            raise ConfigError(_NO_URL, field=field, fix=example)
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname or "", parts.port
        except ValueError:
            raise ConfigError(_NO_URL, field=field, fix=example) from None
        if parts.scheme not in self.schemes:
            problem = Told(
                f"the scheme {parts.scheme[:40]!r} is not allowed", "scheme_forbidden", scheme=parts.scheme[:40]
            )
            raise ConfigError(problem, field=field, fix=choose(" or ".join(self.schemes)))
        if parts.username is not None or parts.password is not None or parts.fragment:
            problem = Told("contains a user, a password or a fragment", "url_with_user")
            raise ConfigError(problem, field=field, fix=Told("leave them out", "leave_them_out"))
        if not _host_allowed(host, self.hosts):
            problem = Told(f"the host {host[:100]!r} is not allowed", "host_forbidden", host=host[:100])
            raise ConfigError(problem, field=field, fix=allow)
        return parts

    def may_connect(self, host: str, address: str) -> bool:
        """Whether an allowed host may resolve to this address.

        A host listed as an address, or as localhost, may. Any other host needs a public address or a listed network.
        """
        if host in _lowered(self.hosts) and (_is_address(host) or host == "localhost"):
            return True
        found = inner_address(address)
        if any(found in ipaddress.ip_network(network) for network in self.networks):
            return True
        if isinstance(found, ipaddress.IPv6Address) and (found not in _UNICAST or found in _DOCUMENTATION):
            return False
        return found.is_global and not found.is_multicast


def _host_allowed(host: str, allowed: Iterable[str]) -> bool:
    listed = _lowered(allowed)
    if not host:
        return False
    if host in listed:
        return True
    if _is_local(host):
        return False
    return any(fnmatchcase(host, pattern) for pattern in listed)


def _lowered(hosts: Iterable[str]) -> list[str]:
    return [host.lower() for host in hosts]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_local(host: str) -> bool:
    """Whether a host means a different machine on each agent, or may be resolved to an address that does."""
    if not _is_address(host):
        # The C library resolves 2130706433, 0x7f.1 and 127.1 as addresses.
        last = host.rstrip(".").rpartition(".")[2]
        return host.rstrip(".").endswith("localhost") or last.isdigit() or last.startswith("0x")
    return differs_by_machine(inner_address(host))
