"""Alerts, the channels that are told, and silences."""

from __future__ import annotations

import secrets
from typing import Annotated, Literal, NamedTuple

from fastapi import APIRouter
from fastapi import Query as Parameter
from pydantic import Field

from jobcloud.config import team_of
from jobcloud.errors import NotFound
from jobcloud.messages import PutSilence, RemoveSilence
from jobcloud.model import OF_JOBS, Alert, AlertMessage, Condition, Silence
from jobcloud.scheduler import Scheduler
from jobcloud.scheduler.alerts import matches
from jobcloud.server.api.convert import read_silence
from jobcloud.server.api.paging import Listing, PageQuery, PageView, Place
from jobcloud.server.api.schema import Instant, SilenceConfig, TeamFilter, View
from jobcloud.server.api.services import JsonObject, Services, ServicesDep, json_body

router = APIRouter(tags=["alerts"])

_ALERTS = Listing("alerts", (int, int, str, str))
_SILENCES = Listing("silences", (int, str))


class AlertView(View):
    condition: Condition
    subject: str = Field(description="the key of a job, the id of an agent, or empty")
    team: str = Field(description="the team of the job; empty for an alert about something else")
    owner: str = Field(description="the label owner of the job")
    state: Literal["open", "closed"] = Field(description="closed: its end is still to be told")
    silenced: bool
    opened_at: Instant
    last_at: Instant = Field(description="when the condition occurred last")
    closed_at: Instant
    count: int = Field(description="how often the condition occurred")
    run_id: str
    text: str
    channels: list[str]
    untold: list[str] = Field(description="the channels that do not know the present state yet")


class ChannelView(View):
    name: str
    kind: str
    conditions: list[Condition] = Field(description="empty: all")
    teams: list[str] = Field(description="empty: all")
    owners: list[str] = Field(description="globs; empty: all")
    attempts: int = Field(description="failed attempts to send the message that waits now")
    next_attempt: Instant
    problem: str = Field(description="why the last attempt failed; empty if no message waits for another attempt")


class AlertList(PageView):
    items: list[AlertView] = Field(description="the open ones first, each part from the newest")
    channels: list[ChannelView]


class SilenceView(View):
    id: str
    since: Instant
    until: Instant
    condition: Condition | None = Field(description="null: all conditions")
    subject: str = Field(description="glob; empty: all")
    team: str
    owner: str = Field(description="glob; empty: all")
    comment: str


class SilenceList(PageView):
    items: list[SilenceView]


class ChannelTest(View):
    channel: str
    problem: str = Field(description="why the channel has not taken the message; empty if it has")


class AlertQuery(PageQuery):
    condition: Condition | None = None
    team: TeamFilter = ""
    owner: str = Field("", max_length=100, description="only alerts about jobs with this label owner")


class _Known(NamedTuple):
    alerts: dict[str, Alert]
    messages: dict[str, AlertMessage]
    silences: dict[str, Silence]


def _known(scheduler: Scheduler) -> _Known:
    return _Known(dict(scheduler.alerts), dict(scheduler.alert_messages), dict(scheduler.silences))


@router.get("/alerts")
def list_alerts(services: ServicesDep, query: Annotated[AlertQuery, Parameter()]) -> AlertList:
    """The open alerts, and the closed ones whose end is still to be told."""
    known = services.loop.ask(_known)
    views = [_alert_view(alert, known.silences) for alert in known.alerts.values()]
    found = [
        view
        for view in views
        if query.condition in (None, view.condition)
        and query.team in ("", view.team)
        and query.owner in ("", view.owner)
    ]
    found.sort(key=_alert_place)
    items, cursor = _ALERTS.page(found, _alert_place, query)
    return AlertList(items=items, channels=_channel_views(services, known), next_cursor=cursor)


def _alert_place(view: AlertView) -> Place:
    return int(view.state == "closed"), -view.opened_at, view.condition.value, view.subject


@router.post("/alerts/channels/{channel}/test")
def test_channel(services: ServicesDep, channel: str) -> ChannelTest:
    """Send a test message to a channel, from this scheduler."""
    if services.alerts is None:
        fix = "name a file of channels in the setting alerts.channels_file"
        raise NotFound(f"there is no channel {channel[:80]}", field="channel", fix=fix)
    return ChannelTest(channel=channel, problem=services.alerts.test(channel))


@router.get("/silences")
def list_silences(services: ServicesDep, query: Annotated[PageQuery, Parameter()]) -> SilenceList:
    """The silences that have not ended, sorted by their ends."""
    known = services.loop.ask(_known)
    views = [_silence_view(name, silence) for name, silence in known.silences.items()]
    items, cursor = _SILENCES.page(sorted(views, key=_silence_place), _silence_place, query)
    return SilenceList(items=items, next_cursor=cursor)


def _silence_place(view: SilenceView) -> Place:
    return view.until, view.id


@router.post("/silences", status_code=201, openapi_extra=json_body(SilenceConfig))
def add_silence(services: ServicesDep, body: JsonObject) -> SilenceView:
    """Tell nobody of some alerts for a while. Afterwards, those that are still open are told."""
    given, silence_id = read_silence(body), secrets.token_hex(4)

    def made(at: int) -> Silence:
        until = at + given.for_seconds * 1_000
        return Silence(at, until, given.condition, given.subject, given.team, given.owner, given.comment)

    at = services.command(lambda at: PutSilence(at, silence_id, made(at)))
    return _silence_view(silence_id, made(at))


@router.delete("/silences/{silence_id}", status_code=204)
def remove_silence(services: ServicesDep, silence_id: str) -> None:
    """End a silence."""
    services.command(lambda at: RemoveSilence(at, silence_id))


def _alert_view(alert: Alert, silences: dict[str, Silence]) -> AlertView:
    return AlertView(
        condition=alert.condition,
        subject=alert.subject,
        team=team_of(alert.subject) if alert.condition in OF_JOBS else "",
        owner=alert.owner,
        state="closed" if alert.closed_ms else "open",
        silenced=any(matches(silence, alert) for silence in silences.values()),
        opened_at=alert.opened_ms,
        last_at=alert.last_ms,
        closed_at=alert.closed_ms,
        count=alert.count,
        run_id=alert.run,
        text=alert.text,
        channels=list(alert.channels),
        untold=list(alert.untold),
    )


def _channel_views(services: Services, known: _Known) -> list[ChannelView]:
    waiting = {message.channel: message for message in known.messages.values()}
    found = []
    for channel in services.alerts.channels if services.alerts is not None else ():
        message = waiting.get(channel.name)
        found.append(
            ChannelView(
                name=channel.name,
                kind=channel.kind,
                conditions=sorted(channel.conditions),
                teams=list(channel.teams),
                owners=list(channel.owners),
                attempts=message.attempts if message is not None else 0,
                next_attempt=message.not_before_ms if message is not None else 0,
                problem=message.problem if message is not None else "",
            )
        )
    return found


def _silence_view(silence_id: str, silence: Silence) -> SilenceView:
    return SilenceView(
        id=silence_id,
        since=silence.since_ms,
        until=silence.until_ms,
        condition=silence.condition,
        subject=silence.subject,
        team=silence.team,
        owner=silence.owner,
        comment=silence.comment,
    )
