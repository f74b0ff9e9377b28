"""Apply: several apps and jobs change together, or nothing changes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.core_world import Desk, make_app, make_job, of

from jobcloud.config import JobKind
from jobcloud.errors import ConfigError, NotFound
from jobcloud.messages import Apply, Save
from jobcloud.scheduler import launch


def test_apps_and_jobs_are_registered_and_replaced_in_one_write() -> None:
    desk = Desk(make_app(), make_job("old"))
    command = Apply(
        desk.at,
        (make_app(), make_app("bank")),
        (make_job("old", description="new"), make_job("new", app="bank"), make_job("resident", kind=JobKind.DAEMON)),
    )
    (save,) = of(Save, desk.do(command))
    assert {write.key for write in save.writes} >= {"bank", "old", "new", "resident"}
    assert desk.scheduler.jobs["old"].description == "new"
    assert desk.scheduler.jobs["new"].app == "bank"
    desk.scheduler.validate()
    assert desk.do(command) == []


def test_refused_apply_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(make_app(), make_job("old"))
    orphan = Apply(desk.at, (), (make_job("new"), make_job("orphan", app="none")), prune=True)
    with pytest.raises(NotFound, match="there is no app none for job orphan"):
        desk.do(orphan)
    monkeypatch.setattr(launch, "MAX_SPEC_BYTES", 3_000)
    large = replace(make_app("bank"), bootstrap_script="x" * 3_000)
    with pytest.raises(ConfigError):
        desk.do(Apply(desk.at, (make_app("other"), large), (make_job("new"),), prune=True))
    assert set(desk.scheduler.jobs) == {"old"}
    assert set(desk.scheduler.apps) == {"shop"}
    with pytest.raises(NotFound):
        desk.scheduler.check_apply(orphan)


def test_prune_removes_only_unnamed_jobs_of_named_apps() -> None:
    desk = Desk(make_app(), make_app("bank"), make_job("a"), make_job("b"), make_job("c", app="bank"))
    desk.do(Apply(desk.at, (), (make_job("a"),)))
    assert set(desk.scheduler.jobs) == {"a", "b", "c"}
    desk.do(Apply(desk.at, (), (make_job("a"),), prune=True))
    assert set(desk.scheduler.jobs) == {"a", "c"}
    desk.do(Apply(desk.at, (make_app("bank"),), (), prune=True))
    assert set(desk.scheduler.jobs) == {"a"}
    desk.scheduler.validate()
