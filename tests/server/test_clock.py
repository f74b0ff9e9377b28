"""The scheduler's clock under jumps of the wall clock, suspended machines and other machines' clocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobcloud.server.clock import Clock, _span, running_ms, wall_ms

START = 1_790_000_000_000
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


class Machine:
    """A machine whose wall clock can be set."""

    def __init__(self) -> None:
        self.running, self.distance = 5_000, START - 5_000
        self.clock = Clock(lambda: self.running + self.distance, lambda: self.running)

    def after(self, ms: int, *, set_by: int = 0, every: int = 1_000) -> int:
        """The scheduler's time after `ms`, in which it asked regularly. Before, the wall clock is set."""
        self.distance += set_by
        end = self.running + ms
        while self.running < end:
            self.running = min(end, self.running + every)
            self.clock.now_ms()
        return self.clock.now_ms() - START


def test_clock_is_the_wall_clock() -> None:
    machine = Machine()
    assert machine.after(HOUR) == HOUR
    assert machine.clock.warnings() == ()


def test_jump_of_180_days_for_six_seconds_has_no_effect() -> None:
    machine = Machine()
    assert machine.after(6_000, set_by=180 * DAY) == 6_000
    (warning,) = machine.clock.warnings()
    assert "has jumped 180 d ahead" in warning
    assert "2026-09-21 14:13:26 UTC" in warning
    assert machine.after(6_000, set_by=-180 * DAY) == 12_000
    assert machine.clock.warnings() == ()


@pytest.mark.parametrize(
    ("jump", "hold"), [(6_000, 10_000), (MINUTE, 10_000), (HOUR, 36_000), (DAY, 864_000), (180 * DAY, 155_520_000)]
)
def test_jump_ahead_is_followed_after_a_hundredth_of_its_length(jump: int, hold: int) -> None:
    machine = Machine()
    every = max(1_000, hold // 100)
    machine.after(every, set_by=jump, every=every)
    assert machine.after(hold - 2 * every, every=every) == hold - every
    assert machine.after(2 * every, every=every) == hold + every + jump
    assert machine.clock.warnings() == ()


def test_readings_count_each_jump_once_and_show_the_offset() -> None:
    machine = Machine()
    machine.after(6_000, set_by=DAY)
    assert machine.clock.readings() == (DAY, 1, {})
    machine.after(6_000, set_by=-DAY)
    machine.after(6_000, set_by=-HOUR)
    assert machine.clock.readings() == (0, 2, {})
    machine.after(10 * MINUTE, set_by=6_000)
    assert machine.clock.readings() == (0, 3, {})
    machine.clock.compare(machine.running + machine.distance - 500, "etcd")
    assert machine.clock.readings() == (0, 3, {"etcd": 500})


def test_step_within_the_misfire_threshold_is_followed_at_once() -> None:
    assert Machine().after(1, set_by=4_990) == 4_991


def test_clock_that_is_set_back_is_followed_at_once_and_its_return_too() -> None:
    machine = Machine()
    assert machine.after(6_000, set_by=-180 * DAY) == 6_000 - 180 * DAY
    assert machine.after(1_000, set_by=180 * DAY) == 7_000
    assert machine.clock.warnings() == ()


def test_clock_that_keeps_jumping_is_not_followed() -> None:
    machine = Machine()
    for number in range(20):
        assert machine.after(9_000, set_by=HOUR) == 9_000 * (number + 1)


@given(
    st.lists(st.tuples(st.integers(-200 * DAY, 200 * DAY), st.integers(0, 9), st.integers(1, 3_600)), max_size=8),
    st.sampled_from([100, 1_000, 5_000]),
)
def test_short_jumps_leave_the_scheduler_less_than_six_seconds_ahead(
    jumps: list[tuple[int, int, int]], every: int
) -> None:
    """Each jump ends within 9 s. The true time is that of the running clock."""
    machine = Machine()
    for jump, lasts, pause in jumps:
        begun = machine.running
        assert machine.after(lasts * 1_000, set_by=jump, every=every) <= machine.running - 5_000 + 5_000
        assert machine.after(pause * 1_000, set_by=-jump, every=every) == machine.running - 5_000
        assert machine.clock.warnings() == ()
        assert machine.running == begun + (lasts + pause) * 1_000


def test_slow_drift_is_followed() -> None:
    machine = Machine()
    for _ in range(100):
        machine.after(1_000, set_by=500)
    assert machine.after(0) == 150_000
    assert machine.clock.warnings() == ()


def test_suspended_machine_wakes_up_at_the_right_time() -> None:
    """CLOCK_BOOTTIME goes on while the machine is suspended, so that is no jump."""
    machine = Machine()
    assert machine.after(3 * DAY, every=3 * DAY) == 3 * DAY


def test_virtual_machine_that_was_paused_follows_after_a_while() -> None:
    """Its running clock stands still, and its wall clock is corrected afterwards."""
    machine = Machine()
    machine.after(36_000, set_by=HOUR)
    assert machine.after(2_000) == HOUR + 38_000


@pytest.mark.parametrize("ahead", [2 * MINUTE, 180 * DAY])
def test_clock_ahead_of_another_machine_is_held_at_the_start(ahead: int) -> None:
    machine = Machine()
    machine.clock.compare(START - ahead, "the Mesos master")
    assert machine.after(5_000) == 5_000 - ahead
    jumped, compared = machine.clock.warnings()
    assert "has jumped" in jumped
    assert compared == f"the clock of this machine is {_span(ahead)} ahead of that of the Mesos master"
    machine.after(max(10_000, ahead // 100), every=ahead // 1_000)
    assert machine.clock.now_ms() == START + machine.running - 5_000


def test_master_whose_clock_is_wrong_does_not_set_a_confirmed_clock_back() -> None:
    machine = Machine()
    machine.clock.compare(START, "the Mesos master")
    assert machine.after(HOUR) == HOUR
    machine.clock.compare(START - 365 * DAY, "the Mesos master")
    assert machine.after(MINUTE) == HOUR + MINUTE
    (warning,) = machine.clock.warnings()
    assert "ahead of that of the Mesos master" in warning


def test_clock_that_has_changed_since_it_was_confirmed_is_held_when_it_is_ahead() -> None:
    machine = Machine()
    machine.clock.compare(START, "the Mesos master")
    assert machine.after(MINUTE, set_by=HOUR) == HOUR + MINUTE, "the jump has lasted long enough"
    machine.clock.compare(START + MINUTE, "the Mesos master")
    assert machine.after(5_000) == MINUTE + 5_000


def test_clock_behind_another_machine_is_reported() -> None:
    machine = Machine()
    machine.clock.compare(START + HOUR, "ZooKeeper")
    assert machine.after(1_000) == 1_000
    assert machine.clock.warnings() == ("the clock of this machine is 1 h behind that of ZooKeeper",)
    machine.clock.compare(START + 1_000, "ZooKeeper")
    assert machine.clock.warnings() == ()


def test_jump_that_another_machine_does_not_share_is_not_followed() -> None:
    machine = Machine()
    machine.after(1_000, set_by=DAY)
    machine.clock.compare(START + 1_000, "ZooKeeper")
    assert machine.after(1_000) == 2_000


def test_correction_to_the_time_of_another_machine_is_followed_at_once() -> None:
    """The battery of the machine's clock was empty, and NTP sets the clock half a minute after the start."""
    machine = Machine()
    machine.clock.compare(START + 4_000 * DAY, "the Mesos master")
    assert machine.after(30_000) == 30_000
    assert machine.after(1_000, set_by=4_000 * DAY - 1_000) == 4_000 * DAY + 30_000
    assert machine.clock.warnings() == ()


def test_jump_that_another_machine_confirms_later_is_followed_at_once() -> None:
    """A virtual machine was paused for three days. Its session with the master has ended meanwhile."""
    machine = Machine()
    machine.clock.compare(START, "the Mesos master")
    assert machine.after(2_000, set_by=3 * DAY) == 2_000
    machine.clock.compare(START + 3 * DAY + 2_000, "the Mesos master")
    assert machine.after(1_000) == 3 * DAY + 3_000
    assert machine.clock.warnings() == ()


def test_jump_past_the_time_of_another_machine_is_held() -> None:
    machine = Machine()
    machine.clock.compare(START + HOUR, "the Mesos master")
    assert machine.after(2_000, set_by=2 * HOUR) == 2_000


def test_clocks_of_the_machine_are_in_milliseconds() -> None:
    assert abs(Clock().now_ms() - wall_ms()) < 5_000
    assert 0 < running_ms() < wall_ms()


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0, "0 s"), (999, "0 s"), (61_000, "1 min 1 s"), (-5_000, "-5 s"), (3_600_000, "1 h"), (90_061_000, "1 d 1 h")],
)
def test_span_names_the_two_greatest_units(ms: int, text: str) -> None:
    assert _span(ms) == text
