"""Signed webhooks: an outside system fires a job. A signature takes the place of a token.

The sender has no identity before its signature is proved. All refusals before the proof have the same answer and take
the same steps: for a job with a webhook, for a job without one, and for a name that no job has.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import structlog
from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool

from jobcloud.access.directory import Principal
from jobcloud.config import MAX_WEBHOOK_KEYS, Job, WebhookScheme, parse_webhook_parameters, team_of
from jobcloud.errors import Unavailable
from jobcloud.messages import Trigger
from jobcloud.model import Firing
from jobcloud.sentences import Told
from jobcloud.sentences.frequent import TRY_LATER
from jobcloud.server.api.body import parse
from jobcloud.server.api.convert import read_trigger
from jobcloud.server.api.identities import PRINCIPAL
from jobcloud.server.api.jobs import started_run
from jobcloud.server.api.problems import Issue, Problem, invalid
from jobcloud.server.api.schema import Key, View
from jobcloud.server.api.services import Services, ServicesDep
from jobcloud.server.routes import Routes
from jobcloud.server.secrets.sources import SourceFailed
from jobcloud.webhooks.signatures import MIN_KEY, TOLERANCE_S, Claim, claim_of, holds, key_of

log = structlog.get_logger(__name__)

router = Routes(tags=["webhooks"])

#: maximum length of the id of a delivery in the key of a run; the key has the hash of a longer id
_MAX_SHOWN = 80
_EVENT_ID = re.compile(r"[!-~]{1,200}")
# Stands in for missing keys, so that each delivery is compared with the same number of keys.
_NO_KEY = secrets.token_bytes(32)
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": False,
        "description": "the signed body: any bytes; JSON if the job takes parameters from it",
        "content": {"application/json": {"schema": {}}},
    }
}


class Delivered(View):
    run_id: str
    existed: bool = False


class _Checked(NamedTuple):
    """The result of a check. `job` is None if the signature of the delivery is invalid; `why` is for the log only."""

    job: Job | None
    claim: Claim
    why: str = ""


@router.post(
    "/hooks/{job}",
    status_code=202,
    openapi_extra=_BODY,
    responses={200: {"model": Delivered}, 204: {"description": "GitHub tries the webhook; nothing is started"}},
)
async def deliver(services: ServicesDep, job: Key, request: Request, response: Response) -> Any:
    """Fire a job by a signed request. Without a valid signature, the answer does not tell whether the job exists.

    The id of the delivery is the key of the run: a repeated delivery starts nothing, and the answer is 200.
    """
    body = await request.body()
    address = request.client.host if request.client is not None else ""
    limits = services.webhook_limits
    if not limits.admits(address):
        raise _too_many("Too many deliveries from this address were refused.")
    headers = request.scope["headers"]
    checked = await services.webhook_checks.ask(lambda: _check(services, job, headers, body))
    if checked.job is None:
        raise _refusal(services, job, address, "No webhook of this name accepts the signature.", checked.why)
    claim = checked.claim
    age_s = 0 if claim.at_s is None else services.clock() // 1000 - claim.at_s
    if abs(age_s) > TOLERANCE_S:
        when = f"{age_s} s old" if age_s > 0 else f"{-age_s} s ahead"
        fix = "Check the clock of the sender. A repeated delivery needs a new time stamp and signature."
        raise _refusal(services, job, address, f"The time stamp is {when}, at most {TOLERANCE_S} s are allowed. {fix}")
    scheme = checked.job.webhook_scheme
    request.scope[PRINCIPAL] = Principal(f"webhook:{job}", f"signature ({scheme})")
    if not limits.verified(address, job):
        raise _too_many("Too many deliveries of this webhook.")
    if scheme is WebhookScheme.GITHUB and request.headers.get("x-github-event") == "ping":
        return Response(status_code=204)
    return await run_in_threadpool(_fire, services, checked.job, claim, body, response)


def _check(services: Services, key: str, headers: list[tuple[bytes, bytes]], body: bytes) -> _Checked:
    """Check the signature of a delivery, with the same steps for each job and each name.

    Raises Unavailable if the scheduler or the source of secrets does not answer.
    """
    job = services.loop.ask(lambda scheduler: None if key in scheduler.ad_hoc else scheduler.jobs.get(key))
    names = job.webhook_secrets if job is not None else ()
    scheme = job.webhook_scheme if job is not None else WebhookScheme.STANDARD
    given, problems = _secrets(services, team_of(key), names)
    keys = [found for found in (key_of(scheme, secret) for secret in given) if len(found) >= MIN_KEY]
    if len(keys) < len(names) and services.webhook_limits.logs():
        why = "; ".join(problems)[:500] or f"it is missing, or has less than {MIN_KEY} bytes"
        log.warning("a key of a webhook cannot be used", job=key, problem=why)
    padding = [_NO_KEY] * (MAX_WEBHOOK_KEYS - len(keys))
    claim = claim_of(scheme, headers)
    proved = holds(claim, [*keys, *padding], body)
    if proved and keys:
        return _Checked(job, claim)
    if not names:
        why = "there is no such job" if job is None else "the job has no webhook"
    elif not claim.signatures:
        why = f"the headers of the scheme {scheme} are missing or malformed"
    else:
        why = "no key of the webhook has made the signature of this body"
    return _Checked(None, claim, why)


def _secrets(services: Services, team: str, names: Sequence[str]) -> tuple[list[bytes], list[str]]:
    """The values of secrets, and the problems with those that cannot be read. Raises Unavailable."""
    if services.webhook_keys is None:
        return [], []
    try:
        return services.webhook_keys(team, names)
    except SourceFailed as error:
        if services.webhook_limits.logs():
            log.warning("the keys of webhooks cannot be read", problem=str(error))
        raise Unavailable(Told("the source of secrets cannot be read", "secrets_fail"), fix=TRY_LATER) from None


def _fire(services: Services, job: Job, claim: Claim, body: bytes, response: Response) -> Delivered:
    """Start the run of a delivery, if there is none. Raises Problem, and the errors of a trigger."""
    content = _content(body) if job.webhook_parameters or job.webhook_scheme is WebhookScheme.STRIPE else None
    run_key = _run_key(claim.id or _event_id(content))
    before = services.snapshot_of(job.key)
    # The parameters are not compared: the job may have changed since the first delivery.
    if known := _with_key(before.runs(job.key), run_key):
        response.status_code = 200
        return Delivered(run_id=known.id, existed=True)
    terms_given: dict[str, Any] = {"key": run_key}
    if job.webhook_parameters:
        terms_given["jobParameter"] = _parameters(job, content)
    terms = read_trigger(terms_given, before.job(job.key), "")
    at = services.command(lambda at: Trigger(at, job.key, terms))
    found = [run for run in services.snapshot_of(job.key).runs(job.key) if run.terms.key == run_key]
    started = started_run(found, before, at, terms, response)
    return Delivered(run_id=started.id, existed=started.existed)


def _with_key(runs: list[Firing], key: str) -> Firing | None:
    return next((run for run in runs if run.terms.key == key), None)


def _run_key(delivery: str) -> str:
    """The key of the run of a delivery. It differs from the keys of triggers by the API."""
    shown = delivery if len(delivery) <= _MAX_SHOWN else hashlib.sha256(delivery.encode()).hexdigest()
    return f"webhook {shown}"


def _content(body: bytes) -> Any:
    """The JSON of a body. Raises Problem."""
    try:
        return parse(body)
    except RecursionError:
        raise Problem("malformed-json", "The body is nested too deeply.") from None


def _event_id(content: Any) -> str:
    """The id of Stripe's event. Raises Problem."""
    found = content.get("id") if isinstance(content, Mapping) else None
    if not isinstance(found, str) or not _EVENT_ID.fullmatch(found):
        raise invalid([Issue("id", "is no id of an event", "send an object with an id of 1 to 200 ASCII characters")])
    return found


def _parameters(job: Job, content: Any) -> dict[str, Any]:
    """The parameter of the run. Parts that are missing or null are left out."""
    found = {name: _part(content, steps) for name, steps in parse_webhook_parameters(job.webhook_parameters).items()}
    return {name: value for name, value in found.items() if value is not None}


def _part(value: Any, steps: tuple[str, ...]) -> Any:
    """The part of a JSON value to which a JSON Pointer leads (RFC 6901); None if there is none."""
    for step in steps:
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list) and re.fullmatch(r"0|[1-9][0-9]{0,8}", step) and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def _refusal(services: Services, job: str, address: str, detail: str, why: str = "") -> Problem:
    """The answer to a refused delivery. Counts the refusal. `why`: for the log, in place of the `detail`."""
    within = services.webhook_limits.refused(address)
    if services.webhook_limits.logs():
        log.warning("webhook refused", job=json.dumps(job[:150]), client=address, problem=why or detail)
    return Problem("forbidden", detail) if within else _too_many("Too many deliveries from this address were refused.")


def _too_many(detail: str) -> Problem:
    return Problem("too-many", detail, headers={"Retry-After": "60"})
