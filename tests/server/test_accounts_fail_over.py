"""Users and tokens at a change of leader: the next leader has them, and the old one cannot change them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.api_kit import ARTIFACTS

from jobcloud.adapters.sqlite import SqliteStore
from jobcloud.errors import JobcloudError
from jobcloud.messages import Acknowledge, Call, Event, PutAccess, RevokeToken, Subscribed
from jobcloud.model import EVERY_TEAM, AccessToken, Member, Team, User
from jobcloud.scheduler import Policy, Scheduler
from jobcloud.server.loop import Loop


class QuietMesos:
    """A driver whose master offers nothing."""

    def start(self, deliver: Callable[[Event], None], framework_id: str) -> None:
        deliver(Subscribed(1, framework_id or "framework-1"))

    def send(self, call: Call | Acknowledge) -> None:
        pass

    def stop(self) -> None:
        pass

    def teardown(self) -> None:
        pass


@contextmanager
def leading(file: Path) -> Iterator[Loop[Scheduler]]:
    loop: Loop[Scheduler] = Loop(
        SqliteStore(file),
        QuietMesos,
        (),
        lambda stored, epoch, at: Scheduler(Policy(ARTIFACTS), stored, epoch, at),
    )
    loop.start()
    try:
        yield loop
    finally:
        loop.stop(10)


def test_old_leader_cannot_change_accounts_and_the_next_one_has_them(tmp_path: Path) -> None:
    file = tmp_path / "state.db"
    with leading(file) as old:
        for record in (
            User("ann", 1, "hash"),
            Team(EVERY_TEAM, (Member("user:ann", "admin"),)),
            AccessToken("t1", "ci", "hash", "user:ann", 1),
        ):
            old.command(lambda at, record=record: PutAccess(at, record))  # type: ignore[misc]
        old.command(lambda at: RevokeToken(at, "t1"))
        with leading(file) as new:
            found = new.ask(lambda scheduler: scheduler.directory)
            assert [*found.users] == ["ann"]
            assert found.tokens["t1"].revoked_ms
            assert found.grants_of("user:ann") == ((EVERY_TEAM, "admin"),)
            with pytest.raises(JobcloudError):
                old.command(lambda at: PutAccess(at, User("mallory", at)))
            new.command(lambda at: PutAccess(at, User("bob", at)))
    with leading(file) as last:
        assert sorted(last.ask(lambda scheduler: [*scheduler.directory.users])) == ["ann", "bob"]
