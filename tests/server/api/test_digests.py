"""Consoles get digests of notices: few, complete or marked as incomplete, and only of what they may see."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from tests.api_kit import FakeLoop, client_of, issues, make_api

from jobcloud.messages import Publish, Topic
from jobcloud.server.api import Notices, digests
from jobcloud.server.api.authorization import Rights
from jobcloud.server.api.digests import MAX_NAMES, Digests, by_team, render
from jobcloud.server.api.streams import Places

ALL = Rights(None, cluster=True)
ALPHA = Rights(frozenset({"alpha"}), cluster=False)


def notice(job: str = "hello", **changes: Any) -> Publish:
    return Publish(1, changes.pop("topic", Topic.RUNNING), "text", job=job, **changes)


def parse(event: str) -> Any:
    """The data of an event `changes`."""
    lines = dict(line.split(": ", 1) for line in event.strip().splitlines())
    assert lines["event"] == "changes"
    return json.loads(lines["data"])


class Stage:
    """Notices with consoles that never wait longer than one turn of the event loop."""

    def __init__(self, size: int = 2_000) -> None:
        self.notices = Notices(size)
        self.digests = Digests(self.notices, pause_s=0.0, gather_s=0.0)

    def stream(self, rights: Rights = ALL, *given: Any, **more: Any) -> AsyncGenerator[str]:
        return self.digests.stream(lambda: rights, *given, **more)

    async def settle(self) -> None:
        """Let the task that sends the digests do all that it can do now."""
        for _ in range(10):
            await asyncio.sleep(0)


def test_console_that_comes_right_after_the_last_one_left_keeps_its_stream() -> None:
    """The work for the consoles before ends a little later than they do."""

    async def play() -> None:
        stage = Stage()
        first = stage.stream()
        await anext(first)
        await stage.settle()
        await first.aclose()
        second = stage.stream()
        await anext(second)
        await stage.settle()
        (console,) = stage.digests._consoles
        assert not console.ended
        assert stage.digests._work is not None
        stage.notices.publish(notice())
        assert parse(await anext(second))["jobs"] == ["hello"]
        await second.aclose()

    asyncio.run(play())


def test_digest_names_each_thing_once() -> None:
    found = by_team(
        [
            notice(firing_id="r1", hostname="h1"),
            notice(firing_id="r1", hostname="h2", topic=Topic.ENDED),
            notice("", app="shop", topic=Topic.CONFIG),
            notice("", topic=Topic.CLUSTER),
        ]
    )
    assert parse(render("b-4", found, ALL, more=False)) == {
        "jobs": ["hello"], "runs": ["r1"], "apps": ["shop"], "agents": ["h1", "h2"],
        "topics": ["running", "ended", "config", "cluster"], "more": False,
    }  # fmt: skip


@pytest.mark.parametrize("teams", [1, 3])
def test_digest_with_too_many_names_says_so(teams: int) -> None:
    def of(number: int) -> Any:
        made = [notice(f"t{n % teams}:job", firing_id=f"t{n % teams}:r{n}") for n in range(number)]
        return parse(render("b-1", by_team(made), ALL, more=False))

    full, over = of(MAX_NAMES), of(MAX_NAMES + 1)
    assert (len(full["runs"]), full["more"]) == (MAX_NAMES, False)
    assert (len(over["runs"]), over["more"]) == (MAX_NAMES, True)


def test_digest_has_what_the_sender_may_see() -> None:
    found = by_team(
        [notice("alpha:a", hostname="h1"), notice("beta:b", firing_id="beta:r"), notice("", topic=Topic.CLUSTER)]
    )
    mine = render("b-3", found, ALPHA, more=False)
    assert parse(mine) == {
        "jobs": ["alpha:a"],
        "runs": [],
        "apps": [],
        "agents": [],
        "topics": ["running"],
        "more": False,
    }
    assert "h1" not in mine
    of_teams = parse(render("b-3", found, Rights(None, cluster=False), more=False))
    assert (of_teams["jobs"], of_teams["agents"], of_teams["topics"]) == (["alpha:a", "beta:b"], [], ["running"])
    assert render("b-3", found, Rights(frozenset({"gamma"}), cluster=False), more=False) == ""


def test_many_notices_are_one_digest() -> None:
    async def watch() -> list[str]:
        stage = Stage()
        first, second = stage.stream(), stage.stream(ALPHA)
        for stream in (first, second):
            assert (await anext(stream)).startswith("retry: 2000\nid: ")
        asked = [asyncio.ensure_future(anext(stream)) for stream in (first, second)]
        await stage.settle()
        for number in range(500):
            stage.notices.publish(notice("alpha:a", firing_id=f"alpha:r{number % 7}"))
        found = await asyncio.gather(*asked)
        stage.notices.publish(notice("beta:b"))
        found.append(await anext(first))
        for stream in (first, second):
            await stream.aclose()
        return found

    one, same, other = asyncio.run(watch())
    assert one == same
    assert (len(parse(one)["runs"]), parse(other)["jobs"]) == (7, ["beta:b"])


def test_next_digest_waits_for_the_end_of_the_pause() -> None:
    async def watch() -> None:
        stage = Stage()
        stage.digests = Digests(stage.notices, pause_s=3_600, gather_s=0.0)
        stream = stage.stream()
        await anext(stream)
        stage.notices.publish(notice("a"))
        await anext(stream)
        asked = asyncio.ensure_future(anext(stream))
        stage.notices.publish(notice("b"))
        await stage.settle()
        assert not asked.done()
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)

    asyncio.run(watch())


def test_digest_is_rendered_once_for_all_with_the_same_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Rights] = []
    real = digests.render

    def counting(number: str, changes: Any, rights: Rights, *, more: bool) -> str:
        calls.append(rights)
        return real(number, changes, rights, more=more)

    async def watch() -> None:
        stage = Stage()
        streams = [stage.stream(rights) for rights in (ALL, ALL, ALPHA, ALL, ALPHA)]
        for stream in streams:
            await anext(stream)
        calls.clear()
        stage.notices.publish(notice("alpha:a"))
        await asyncio.gather(*map(anext, streams))
        for stream in streams:
            await stream.aclose()

    monkeypatch.setattr(digests, "render", counting)
    asyncio.run(watch())
    assert sorted(calls, key=str) == sorted([ALL, ALPHA], key=str)


def test_console_that_takes_nothing_is_told_to_read_all_again() -> None:
    async def watch() -> list[str]:
        stage = Stage()
        stream = stage.stream()
        await anext(stream)
        found = []
        for names in (("a", "b"), ("c",)):
            for name in names:
                stage.notices.publish(notice(name))
                await stage.settle()
            found.append(await anext(stream))
        await stream.aclose()
        return found

    slow, again = map(parse, asyncio.run(watch()))
    assert slow["more"]
    assert (again["jobs"], again["more"]) == (["c"], False)


def test_console_whose_rights_change_is_told_to_read_all_again() -> None:
    async def watch() -> list[str]:
        stage, rights = Stage(), [ALPHA]
        stream = stage.digests.stream(lambda: rights[-1])
        await anext(stream)
        found = []
        for now in (ALPHA, Rights(frozenset({"alpha", "beta"}), cluster=False), ALPHA):
            rights.append(now)
            stage.notices.publish(notice("alpha:a"))
            stage.notices.publish(notice("beta:b"))
            found.append(await anext(stream))
        await stream.aclose()
        return found

    before, wider, narrower = map(parse, asyncio.run(watch()))
    assert (before["jobs"], before["more"]) == (["alpha:a"], False)
    assert (wider["jobs"], wider["more"]) == (["alpha:a", "beta:b"], True)
    assert (narrower["jobs"], narrower["more"]) == (["alpha:a"], True)


def test_notices_that_were_dropped_before_they_were_read_are_more() -> None:
    async def watch() -> list[str]:
        stage = Stage(size=3)
        stream = stage.stream()
        await anext(stream)
        asked = asyncio.ensure_future(anext(stream))
        await stage.settle()
        for number in range(5):
            stage.notices.publish(notice(f"j{number}"))
        found = [await asked]
        await stream.aclose()
        return found

    (found,) = map(parse, asyncio.run(watch()))
    assert (found["jobs"], found["more"]) == (["j2", "j3", "j4"], True)


@pytest.mark.parametrize(
    ("last_id", "jobs", "more"),
    [("{}-3", ["j3", "j4"], False), ("{}-1", ["j2", "j3", "j4"], True), ("other-3", ["j2", "j3", "j4"], True)],
)
def test_client_that_comes_back_gets_what_it_has_missed(last_id: str, jobs: list[str], more: bool) -> None:
    async def watch() -> list[str]:
        stage = Stage(size=3)
        for number in range(5):
            stage.notices.publish(notice(f"j{number}"))
        boot = stage.notices.last_id().partition("-")[0]
        return [event async for event in stage.stream(ALL, last_id.format(boot), follow=False)]

    _, found = asyncio.run(watch())
    assert (parse(found)["jobs"], parse(found)["more"]) == (jobs, more)
    assert found.startswith("id: ")
    assert found.splitlines()[0].endswith("-5")


def test_client_that_comes_back_and_has_missed_nothing_gets_nothing() -> None:
    async def watch() -> list[str]:
        stage = Stage()
        stage.notices.publish(notice())
        ids = (stage.notices.last_id(), stage.notices.last_id() + "999", "")
        return [event for given in ids async for event in stage.stream(ALL, given, follow=False)]

    assert all(event.startswith("retry:") for event in asyncio.run(watch()))


def test_streams_end_with_the_notices_and_leave_nothing() -> None:
    async def watch() -> None:
        stage = Stage()
        stream = stage.stream()
        await anext(stream)
        asked = asyncio.ensure_future(anext(stream, "end"))
        await stage.settle()
        assert len(asyncio.all_tasks()) == 3
        stage.notices.close()
        assert await asked == "end"
        await stage.settle()
        assert len(asyncio.all_tasks()) == 1
        assert not stage.notices._receivers

    asyncio.run(watch())


def test_work_ends_with_the_last_console_and_begins_again() -> None:
    async def watch() -> str:
        stage = Stage()
        for _ in range(2):
            streams = [stage.stream(), stage.stream()]
            for stream in streams:
                await anext(stream)
            await streams[0].aclose()
            stage.notices.publish(notice())
            found = await anext(streams[1])
            await streams[1].aclose()
            await stage.settle()
            assert len(asyncio.all_tasks()) == 1
        return found

    assert parse(asyncio.run(watch()))["jobs"] == ["hello"]


def test_fault_of_the_digests_ends_the_streams_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(notices: Any) -> Any:
        raise ZeroDivisionError

    async def watch() -> list[str]:
        stage = Stage()
        stream = stage.stream()
        await anext(stream)
        monkeypatch.setattr(digests, "by_team", broken)
        stage.notices.publish(notice())
        return [event async for event in stream]

    assert asyncio.run(watch()) == []
    assert "digests" in caplog.text


def test_route_sends_digests_and_refuses_unknown_parameters(tmp_path: Path, loop: FakeLoop) -> None:
    notices = Notices()
    notices.publish(notice(firing_id="hello.1"))
    api = client_of(make_api(tmp_path, loop, notices=notices))
    answer = api.get("changes", params={"follow": "false", "recent": "1"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert '"runs": ["hello.1"]' in answer.text
    assert "is not a known parameter" in issues(api.get("changes?since=1"))["since"]


def test_stream_without_a_place_is_refused(tmp_path: Path, loop: FakeLoop) -> None:
    notices = Notices()
    made = Digests(notices)
    made.places = Places(0, "watch for changes")
    api = client_of(make_api(tmp_path, loop, notices=notices, digests=made))
    assert api.get("changes", params={"follow": "false"}).status_code == 429
