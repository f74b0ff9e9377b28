"""Limits of sign-ins: a flood is slowed down, and locks out nobody for longer than it lasts."""

from __future__ import annotations

from jobcloud.server.identity import sign_in_limits
from jobcloud.server.identity.sign_in_limits import IN_TOTAL, PER_ADDRESS, PER_USER, SignInLimits


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def admitted(limits: SignInLimits, user: str, address: str, tries: int) -> int:
    return sum(limits.admit(user, address) for _ in range(tries))


def test_tries_from_one_address_are_limited_and_return_over_time() -> None:
    limits = SignInLimits(clock := Clock())
    assert admitted(limits, "ann", "10.0.0.1", 50) == PER_ADDRESS.tries
    assert not limits.admit("bob", "10.0.0.1"), "another user is no way around"
    clock.now += PER_ADDRESS.refill_s
    assert admitted(limits, "ann", "10.0.0.1", 50) == 1
    clock.now += 86_400
    assert admitted(limits, "ann", "10.0.0.1", 50) == PER_ADDRESS.tries


def test_addresses_of_one_ipv6_network_count_together() -> None:
    limits = SignInLimits(Clock())
    assert sum(limits.admit("ann", f"2001:db8::{number:x}") for number in range(50)) == PER_ADDRESS.tries


def test_tries_for_one_user_from_many_addresses_are_limited() -> None:
    limits = SignInLimits(clock := Clock())
    found = 0
    for number in range(200):
        clock.now += IN_TOTAL.refill_s
        found += limits.admit("ann", f"10.0.{number}.1")
    assert abs(found - (PER_USER.tries + clock.now / PER_USER.refill_s)) <= 1


def test_flood_does_not_lock_a_person_out_of_the_address_that_the_person_uses() -> None:
    limits = SignInLimits(clock := Clock())
    assert limits.admit("ann", "10.9.9.9")
    limits.succeeded("ann", "10.9.9.9")
    for number in range(3_000):
        limits.admit("ann", f"10.0.{number // 250}.{number % 250}")
    assert not limits.admit("ann", "10.8.8.8")
    assert limits.admit("ann", "10.9.9.9")
    assert not limits.admit("bob", "10.8.8.8"), "all tries together are limited too"
    clock.now += IN_TOTAL.refill_s
    assert limits.admit("bob", "10.8.8.8"), "the flood has ended"


def test_tries_in_total_are_limited_to_a_rate() -> None:
    limits = SignInLimits(clock := Clock())
    found = 0
    for number in range(1_000):
        clock.now += 0.01
        found += limits.admit(f"user-{number}", f"10.{number // 250}.{number % 250}.1")
    assert abs(found - (IN_TOTAL.tries + clock.now / IN_TOTAL.refill_s)) <= 1


def test_known_pair_has_a_limit_too() -> None:
    limits = SignInLimits(Clock())
    limits.succeeded("ann", "10.9.9.9")
    assert admitted(limits, "ann", "10.9.9.9", 50) == PER_ADDRESS.tries


def test_memory_of_a_flood_is_bounded() -> None:
    limits = SignInLimits(clock := Clock())
    for number in range(3 * sign_in_limits.MAX_BUCKETS):
        clock.now += 1
        limits.admit(f"user-{number}", f"10.{number >> 16}.{(number >> 8) & 255}.{number & 255}")
        limits.succeeded(f"user-{number}", "10.9.9.9")
    for buckets in (limits._addresses, limits._users, limits._total, limits._pairs):
        assert len(buckets._buckets) <= sign_in_limits.MAX_BUCKETS
    assert len(limits._known) == sign_in_limits.MAX_BUCKETS
