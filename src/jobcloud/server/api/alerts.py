"""Alerts, the channels that are told, and silences."""

from __future__ import annotations

import secrets
from typing import Annotated, Literal, NamedTuple

from fastapi import Query as Parameter
from pydantic import Field

from jobcloud.access.verbs import Verb
from jobcloud.config import team_of
from jobcloud.errors import NotFound
from jobcloud.messages import PutSilence, RemoveSilence
from jobcloud.model import OF_TEAMS, Alert, AlertMessage, Condition, Silence
from jobcloud.scheduler import Scheduler
from jobcloud.scheduler.alerts import matches
from jobcloud.scheduler.refusals import no_silence
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import CHANNELS_FILE
from jobcloud.server.api.authorization import AccessDep
from jobcloud.server.api.convert import read_silence
from jobcloud.server.api.paging import Listing, PageQuery, PageView, Place
from jobcloud.server.api.schema import Instant, SilenceConfig, TeamFilter, View
from jobcloud.server.api.services import JsonObject, Services, ServicesDep, json_body
from jobcloud.server.api.snapshot import Teams
from jobcloud.server.api.words import WordsView, words_of
from jobcloud.server.routes import Routes

router = Routes(tags=["alerts"])

_ALERTS = Listing("alerts", (int, int, str, str))
_SILENCES = Listing("silences", (int, str))


class AlertView(WordsView):
    condition: Condition
    subject: str = Field(description="the key of a job, the id of an agent, or empty")
    team: str = Field(description="the team of the job; empty for an alert about something else")
    owner: str = Field(description="the label owner of the job")
    state: Literal["open", "closed"] = Field(description="closed: messages about its end are still to be sent")
    silenced: bool
    opened_at: Instant
    last_at: Instant = Field(description="when the condition occurred last")
    closed_at: Instant
    count: int = Field(description="how often the condition occurred")
    run_id: str
    text: str = Field(description="what happened last, in English")
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
    problem: str = Field(description="why the channel has not accepted the message; empty if it has")


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
def list_alerts(services: ServicesDep, access: AccessDep, query: Annotated[AlertQuery, Parameter()]) -> AlertList:
    """The open alerts, and the closed ones about whose end messages are still to be sent.

    Alerts about agents and the scheduler are for those who may view the cluster.
    """
    teams = access.shown_teams(query.team)
    known = services.loop.ask(_known)
    views = [_alert_view(alert, known.silences) for alert in known.alerts.values() if access.sees(_key_in_team(alert))]
    found = [
        view
        for view in views
        if query.condition in (None, view.condition)
        and query.team in ("", view.team)
        and query.owner in ("", view.owner)
    ]
    found.sort(key=_alert_place)
    items, cursor = _ALERTS.page(found, _alert_place, query)
    return AlertList(items=items, channels=_channel_views(services, known, teams), next_cursor=cursor)


def _alert_place(view: AlertView) -> Place:
    return int(view.state == "closed"), -view.opened_at, view.condition.value, view.subject


@router.post("/alerts/channels/{channel}/test")
def test_channel(services: ServicesDep, channel: str) -> ChannelTest:
    """Send a test message to a channel, from this scheduler."""
    if services.alerts is None:
        problem = Told(f"there is no channel {channel[:80]}", "no_channel", channel=channel[:80])
        raise NotFound(problem, field="channel", fix=CHANNELS_FILE)
    return ChannelTest(channel=channel, problem=services.alerts.test(channel))


@router.get("/silences")
def list_silences(services: ServicesDep, access: AccessDep, query: Annotated[PageQuery, Parameter()]) -> SilenceList:
    """The silences that have not ended, sorted by their ends. Those without a team concern the whole installation."""
    access.shown_teams()
    known = services.loop.ask(_known)
    views = [
        _silence_view(name, silence)
        for name, silence in known.silences.items()
        if access.allows(Verb.VIEW, silence.team)
    ]
    items, cursor = _SILENCES.page(sorted(views, key=_silence_place), _silence_place, query)
    return SilenceList(items=items, next_cursor=cursor)


def _silence_place(view: SilenceView) -> Place:
    return view.until, view.id


@router.post("/silences", status_code=201, openapi_extra=json_body(SilenceConfig))
def add_silence(services: ServicesDep, access: AccessDep, body: JsonObject) -> SilenceView:
    """Send no messages about some alerts for a while. Afterwards, those about alerts that are still open are sent.

    A silence without a team needs the right in the whole installation.
    """
    given, silence_id = read_silence(body), secrets.token_hex(4)
    access.require(Verb.PAUSE, given.team)

    def made(at: int) -> Silence:
        until = at + given.for_seconds * 1_000
        return Silence(at, until, given.condition, given.subject, given.team, given.owner, given.comment)

    at = services.command(lambda at: PutSilence(at, silence_id, made(at)))
    return _silence_view(silence_id, made(at))


@router.delete("/silences/{silence_id}", status_code=204)
def remove_silence(services: ServicesDep, access: AccessDep, silence_id: str) -> None:
    """End a silence."""
    silence = services.loop.ask(lambda scheduler: scheduler.silences.get(silence_id))
    # One answer for both, so that nobody learns of a silence that they may not see.
    if silence is None or not access.allows(Verb.VIEW, silence.team):
        raise no_silence(silence_id)
    access.require(Verb.PAUSE, silence.team)
    services.command(lambda at: RemoveSilence(at, silence_id))


def _key_in_team(alert: Alert) -> str:
    """The job or workflow that an alert is about; "" if it is about something else, or about several of them."""
    return alert.subject if alert.condition in OF_TEAMS else ""


def _alert_view(alert: Alert, silences: dict[str, Silence]) -> AlertView:
    return AlertView(
        condition=alert.condition,
        subject=alert.subject,
        team=team_of(_key_in_team(alert)),
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
        **words_of(alert.words),
    )


def _channel_views(services: Services, known: _Known, shown: Teams) -> list[ChannelView]:
    """The channels for all teams, and those for one of the teams that are shown."""
    waiting = {message.channel: message for message in known.messages.values()}
    found = []
    for channel in services.alerts.channels if services.alerts is not None else ():
        message = waiting.get(channel.name)
        teams = [team for team in channel.teams if shown is None or team in shown]
        if channel.teams and not teams:
            continue
        found.append(
            ChannelView(
                name=channel.name,
                kind=channel.kind,
                conditions=sorted(channel.conditions),
                teams=teams,
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
