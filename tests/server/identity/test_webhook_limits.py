"""Limits of webhooks: a flood is cut off, and stops no sender that shares its address."""

from __future__ import annotations

from jobcloud.server.identity.sign_in_limits import MAX_BUCKETS
from jobcloud.server.identity.webhook_limits import LOGGED, PER_JOB, REFUSED_PER_ADDRESS, WebhookLimits


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_address_with_too_many_refused_deliveries_is_cut_off_for_a_while() -> None:
    limits = WebhookLimits(clock := Clock())
    assert [limits.refused("10.0.0.1") for _ in range(REFUSED_PER_ADDRESS.tries + 1)].count(True) == 20
    assert not limits.admits("10.0.0.1")
    assert limits.admits("10.0.0.2")
    clock.now += REFUSED_PER_ADDRESS.refill_s
    assert limits.admits("10.0.0.1")


def test_address_of_a_valid_delivery_is_never_cut_off() -> None:
    limits = WebhookLimits(Clock())
    assert limits.verified("10.0.0.1", "hello")
    for _ in range(100):
        limits.refused("10.0.0.1")
    assert limits.admits("10.0.0.1")
    assert not limits.refused("10.0.0.1")


def test_deliveries_of_one_job_are_limited() -> None:
    limits = WebhookLimits(clock := Clock())
    assert sum(limits.verified("10.0.0.1", "hello") for _ in range(100)) == PER_JOB.tries
    assert limits.verified("10.0.0.1", "other")
    clock.now += PER_JOB.refill_s
    assert limits.verified("10.0.0.1", "hello")


def test_lines_of_the_log_are_limited_over_all_addresses() -> None:
    limits = WebhookLimits(Clock())
    assert sum(limits.logs() for _ in range(100)) == LOGGED.tries


def test_remembered_addresses_are_bounded() -> None:
    limits = WebhookLimits(Clock())
    limits.verified("first", "hello")
    for number in range(MAX_BUCKETS):
        limits.verified(f"address-{number}", "hello")
    for _ in range(REFUSED_PER_ADDRESS.tries):
        limits.refused("first")
    assert not limits.admits("first")
