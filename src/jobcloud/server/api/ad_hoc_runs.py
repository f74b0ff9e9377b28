"""Ad-hoc runs: a job that is not registered runs once."""

from __future__ import annotations

from dataclasses import replace

from fastapi import Response

from jobcloud.access.verbs import Verb
from jobcloud.config import NEW_AD_HOC
from jobcloud.messages import RunAdHoc
from jobcloud.server.api.authorization import AccessDep
from jobcloud.server.api.convert import read_ad_hoc_run
from jobcloud.server.api.jobs import StartedRun, check_code, check_secrets, started_run
from jobcloud.server.api.schema import AdHocConfig
from jobcloud.server.api.services import JsonObject, ServicesDep, TraceParent, json_body
from jobcloud.server.routes import Routes

router = Routes(tags=["runs"])


@router.post("/runs", status_code=202, openapi_extra=json_body(AdHocConfig))
def start_run(
    services: ServicesDep, access: AccessDep, body: JsonObject, response: Response, traceparent: TraceParent = ""
) -> StartedRun:
    """Run a job once without registering it. The answer is the new run.

    If the app has an ad-hoc run with the same key, the answer is this run, with status 200.
    """
    job, terms = read_ad_hoc_run(body, services.options.job_urls, traceparent)
    access.require(Verb.RUN_AD_HOC, job.team)
    before = services.snapshot()
    check_code(services, job, before.apps.get(job.app_key))
    check_secrets(services, [job])
    at = services.command(lambda at: RunAdHoc(at, job, terms))
    after = services.snapshot()
    same = {key for key, one in after.ad_hoc.items() if replace(one, ad_hoc=NEW_AD_HOC) == job}
    found = [run for run in after.runs() if run.job in same and run.terms.same(terms)]
    return started_run(found, before, at, terms, response)
