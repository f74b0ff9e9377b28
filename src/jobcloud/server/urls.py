"""Which URLs this server, or a job, may call: an allow-list of schemes and hosts, and of the networks names lead to."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from urllib.parse import SplitResult, urlsplit

from jobcloud.errors import ConfigError
from jobcloud.executor.http_job import differs_by_machine, inner_address

ALLOW_PACKAGES = "upload the package (POST /api/v1/packages), or list the host in the server's packages.hosts setting"
_MAX_URL = 2048


@dataclass(frozen=True, slots=True)
class UrlPolicy:
    """Where packages may come from besides the package store, or what HTTP jobs may call.

    `hosts` are names or globs (`*.example.org`) of http(s) servers; an address of loopback or link-local counts only
    where it is listed as it stands, never through a glob. `networks` (CIDR) are those that a name may lead to besides
    what is public, where this server itself calls it.
    """

    hosts: tuple[str, ...] = ()
    schemes: tuple[str, ...] = ("https", "http")
    networks: tuple[str, ...] = ()

    def check(self, url: str, field: str, example: str, allow: str) -> SplitResult:
        """The parts of a plain URL of a scheme and host that are allowed. Raises ConfigError; `allow` is the fix."""
        printable = url.isascii() and all("!" <= char <= "~" for char in url) and not set(url) & set("\"'\\<>`$;|")
        if not url or len(url) > _MAX_URL or not printable:
            raise ConfigError("is no plain URL", field=field, fix=example)
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname or "", parts.port
        except ValueError:
            raise ConfigError("is no valid URL", field=field, fix=example) from None
        if parts.scheme not in self.schemes:
            fix = f"{allow.partition(', or ')[0]}, or use {' or '.join(self.schemes)}"
            raise ConfigError(f"the scheme {parts.scheme[:40]!r} is not allowed", field=field, fix=fix)
        if parts.username is not None or parts.password is not None or parts.fragment:
            raise ConfigError("holds a user, a password or a fragment", field=field, fix="leave them out")
        if not _host_allowed(host, self.hosts):
            raise ConfigError(f"the host {host[:100]!r} is not allowed", field=field, fix=allow)
        return parts

    def may_connect(self, host: str, address: str) -> bool:
        """Whether a host that is allowed may be at this address: one that is listed as an address, or as localhost,
        may; any other only where that is public or of a network that is listed."""
        if host in _lowered(self.hosts) and (_is_address(host) or host == "localhost"):
            return True
        found = inner_address(address)
        if any(found in ipaddress.ip_network(network) for network in self.networks):
            return True
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
    """Whether a host is, or could be read as, an address that means another machine on each agent."""
    if not _is_address(host):
        # 2130706433, 0x7f.1 and 127.1 are addresses to the C library that looks names up.
        last = host.rstrip(".").rpartition(".")[2]
        return host.rstrip(".").endswith("localhost") or last.isdigit() or last.startswith("0x")
    return differs_by_machine(inner_address(host))
