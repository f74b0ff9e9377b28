"""Secrets of jobs in the API: references only, checked when a job is registered."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from httpx import Client
from tests.api_kit import FakeLoop, app_body, client_of, issues, job_body, make_api, package_bytes

from jobcloud.server.api import ApiOptions
from jobcloud.server.urls import UrlPolicy

PASSWORD = "DB_PASSWORD=secret:db-password"


class Known:
    """The secrets of the teams. `asked` has the checks."""

    def __init__(self) -> None:
        self.names = {("default", "db-password"), ("shop", "shop-key")}
        self.asked: list[list[tuple[str, str]]] = []

    def missing(self, wanted: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        self.asked.append(list(wanted))
        return [one for one in self.asked[-1] if one not in self.names]


@pytest.fixture
def known() -> Known:
    return Known()


@pytest.fixture
def guarded(loop: FakeLoop, tmp_path: Path, known: Known) -> Client:
    """An API of a scheduler with a source of secrets, and the app `demo` of two teams."""
    options = ApiOptions(job_urls=UrlPolicy(hosts=("api.example.org",)))
    api = client_of(make_api(tmp_path, loop, options=options, missing_secrets=known.missing))
    sha256 = api.post("packages", content=package_bytes()).json()["sha256"]
    for team in ("default", "shop"):
        assert api.post("apps", json=app_body(sha256, team=team)).status_code == 201
    return api


def test_job_shows_the_references_of_its_secrets(guarded: Client) -> None:
    secrets = [PASSWORD, "tls.key=secret-file:db-password"]
    answer = guarded.post("jobs", json=job_body(secrets=secrets))
    assert answer.status_code == 201, answer.text
    assert answer.json()["config"]["secrets"] == secrets
    assert guarded.patch("jobs/hello", json={"secrets": None}).json()["config"]["secrets"] == []


@pytest.mark.parametrize(
    ("team", "name", "status"),
    [
        ("default", "db-password", 201),
        ("default", "shop-key", 422),
        ("shop", "shop-key", 201),
        ("shop", "nothing", 422),
    ],
)
def test_job_may_name_secrets_of_its_own_team_only(
    guarded: Client, known: Known, team: str, name: str, status: int
) -> None:
    answer = guarded.post("jobs", json=job_body(team=team, secrets=[f"KEY=secret:{name}"]))
    assert answer.status_code == status, answer.text
    assert known.asked == [[(team, name)]]
    if status == 422:
        assert issues(answer)["secrets"].startswith(f"there is no secret {name} (team {team}) |")


def test_change_apply_and_ad_hoc_run_are_checked_too(guarded: Client, known: Known) -> None:
    assert guarded.post("jobs", json=job_body(secrets=[PASSWORD])).status_code == 201
    unknown: dict[str, Any] = {"secrets": ["KEY=secret:unknown"]}
    assert "secrets" in issues(guarded.patch("jobs/hello", json=unknown))
    assert "secrets" in issues(guarded.put("jobs/hello", json=job_body(**unknown)))
    assert "secrets" in issues(guarded.post("apply", json={"jobs": [job_body("other", **unknown)]}))
    ad_hoc = {name: value for name, value in job_body(**unknown).items() if name not in ("cron", "jobExecutionType")}
    assert "secrets" in issues(guarded.post("runs", json=ad_hoc))
    known.names.clear()
    same = guarded.post("apply", json={"jobs": [job_body(secrets=[PASSWORD])]})
    assert same.status_code == 200, "a job that does not change needs no check"
    assert guarded.get("jobs/hello").json()["config"]["secrets"] == [PASSWORD]


def test_scheduler_without_a_source_refuses_jobs_with_secrets(api: Client, demo: str) -> None:
    problem = issues(api.post("jobs", json=job_body(secrets=[PASSWORD])))["secrets"]
    assert problem.startswith("the scheduler has no source of secrets | set secrets.directory")


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("hunter2", "entry 1 refers to no secret"),
        ("DB_PASSWORD=hunter2", "entry 1 refers to no secret"),
        ("DB_PASSWORD=secret:Hunter2", "entry 1 refers to no secret"),
        ("../x=secret-file:db-password", "entry 1 refers to no secret"),
        ("1X=secret:db-password", "'1X' cannot be the name of a variable"),
        ("JOBCLOUD_PROCESS=secret:db-password", "'JOBCLOUD_PROCESS' cannot be the name of a variable"),
        ("a.b=secret:db-password", "'a.b' cannot be the name of a variable"),
    ],
)
def test_entry_that_is_no_reference_is_refused_and_not_repeated(guarded: Client, entry: str, problem: str) -> None:
    answer = guarded.post("jobs", json=job_body(secrets=[entry]))
    assert issues(answer)["secrets"].startswith(problem)
    assert "unter2" not in answer.text


def test_too_many_or_doubled_secrets_are_refused(guarded: Client) -> None:
    many = [f"KEY_{number}=secret:db-password" for number in range(21)]
    assert "has 21 entries" in issues(guarded.post("jobs", json=job_body(secrets=many)))["secrets"]
    twice = [PASSWORD, "db_password=secret-file:db-password"]
    assert "is given twice" in issues(guarded.post("jobs", json=job_body(secrets=twice)))["secrets"]


@pytest.mark.parametrize(
    ("uri", "entry", "problem"),
    [
        ("https://api.example.org/", "Authorization=secret:db-password", ""),
        ("http://api.example.org/", "Authorization=secret:db-password", "would be sent without TLS"),
        ("https://api.example.org/", "Authorization=secret-file:db-password", "cannot be a header"),
        ("https://api.example.org/", "Content-Length=secret:db-password", "cannot be a header"),
        ("https://api.example.org/", "X-Jobcloud-Fence=secret:db-password", "cannot be a header"),
        ("https://api.example.org/", "under_score=secret:db-password", "cannot be a header"),
    ],
)
def test_http_job_gets_secrets_as_headers_over_tls(guarded: Client, uri: str, entry: str, problem: str) -> None:
    body: dict[str, Any] = job_body(jobType="HTTP", httpUri=uri, jobClass="", secrets=[entry])
    answer = guarded.post("jobs", json=body)
    if problem:
        assert problem in issues(answer)["secrets"]
    else:
        assert answer.status_code == 201, answer.text
