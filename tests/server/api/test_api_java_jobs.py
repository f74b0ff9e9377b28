"""Registration of jobs for a worker in another language: what it cannot do is refused, what looks wrong is noted."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.api_kit import FakeLoop, app_body, client_of, issues, job_body, make_api, package_bytes, serving

from jobcloud.client import cli

FILE = Path(__file__).parents[3] / "examples" / "java-worker" / "jobcloud-worker.json"
JAVA = {"bootstrapScript": "java -jar worker.jar"}


def java_package(*classes: str) -> bytes:
    """A package with the worker for Java, as far as registration looks at it."""
    inner, out = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(inner, "w") as jar:
        for name in classes:
            jar.writestr(zipfile.ZipInfo(name), "")
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(zipfile.ZipInfo("jobcloud-worker.json"), FILE.read_text())
        archive.writestr(zipfile.ZipInfo("lib/shop.jar"), inner.getvalue())
    return out.getvalue()


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


@pytest.fixture
def app(tmp_path: Path, loop: FakeLoop) -> Any:
    return make_api(tmp_path, loop)


@pytest.fixture
def api(app: Any) -> httpx.Client:
    return client_of(app)


@pytest.fixture
def shop(api: httpx.Client) -> str:
    """An app with the worker for Java. Returns the hash of its package."""
    content = java_package("com/acme/Settle.class", "com/acme/Duty$Pager.class")
    sha256 = str(api.post("packages", content=content).json()["sha256"])
    assert api.post("apps", json=app_body(sha256, **JAVA)).status_code == 201
    return sha256


SETTLE = {"jobClass": "com.acme.Settle"}
SPRING = {"jobClass": "", "beanName": "settle", "applicationContext": "classpath:META-INF/beans.xml"}


def test_java_job_with_its_handlers_is_registered_and_shown(api: httpx.Client, loop: FakeLoop, shop: str) -> None:
    handlers = {"job_exception_handler": "com.acme.Duty$Pager", "executor_service_handler": "SINGLE_THREAD"}
    answer = api.post("jobs", json=job_body(**SETTLE, listener=["TYPED"], jobProperties=handlers))
    assert answer.status_code == 201, answer.text
    assert "warning" not in answer.headers
    assert answer.json()["config"]["jobProperties"].items() >= handlers.items()
    job = loop.scheduler.jobs["hello"]
    assert (job.error_handler, job.thread_pool, job.listeners) == ("com.acme.Duty$Pager", "SINGLE_THREAD", ("TYPED",))


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({**SETTLE, "secrets": ["KEY=secret:key"]}, "secrets", "worker, for java, does not support secrets"),
        ({**SPRING, "applicationContext": "file:/etc/beans.xml"}, "applicationContext", "XML file in the class path"),
        ({**SPRING, "applicationContext": "http://a/b.xml"}, "applicationContext", "XML file in the class path"),
        ({**SPRING, "applicationContext": "classpath:../b.xml"}, "applicationContext", "XML file in the class path"),
        ({"jobClass": "com.acme.Set tle"}, "jobClass", "neither a Python object nor a Java class"),
        ({**SETTLE, "listener": ["com.acme.A b"]}, "listener", "a Java class"),
        ({**SETTLE, "listener": ["com." + "a" * 300]}, "listener", "a Java class"),
        (
            {
                "jobType": "SCRIPT",
                "scriptCommandLine": "a",
                "jobClass": "",
                "jobProperties": {"executor_service_handler": "a.B"},
            },
            "jobProperties.executor_service_handler",
            "has no worker",
        ),
    ],
)
def test_job_that_the_worker_for_java_cannot_run_is_refused_by_name(
    api: httpx.Client, shop: str, change: dict[str, Any], field: str, says: str
) -> None:
    assert says in issues(api.post("jobs", json=job_body(**change)))[field]


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        (SPRING, "applicationContext", "for python, does not support Spring's XML"),
        ({"jobClass": "com.acme.Outer$Inner"}, "jobClass", "is a Java class, and the app demo has no worker for Java"),
        ({"listener": ["a$b:C"]}, "listener", "plug-in"),
        (
            {"jobProperties": {"executor_service_handler": "com.acme.Pool"}},
            "jobProperties.executor_service_handler",
            "for python, does not support thread pools",
        ),
    ],
)
def test_job_for_java_is_refused_by_name_if_its_app_has_the_worker_for_python(
    api: httpx.Client, change: dict[str, Any], field: str, says: str
) -> None:
    sha256 = str(api.post("packages", content=package_bytes()).json()["sha256"])
    assert api.post("apps", json=app_body(sha256)).status_code == 201
    assert says in issues(api.post("jobs", json=job_body(**change)))[field]


def test_app_with_an_invalid_declaration_gets_no_jobs(api: httpx.Client) -> None:
    content = package_bytes({"jobcloud-worker.json": "{}"})
    sha256 = str(api.post("packages", content=content).json()["sha256"])
    assert api.post("apps", json=app_body(sha256, **JAVA)).status_code == 201
    assert "jobcloud-worker.json" in issues(api.post("jobs", json=job_body(**SETTLE)))["appName"]


def test_what_looks_wrong_is_in_the_header_of_each_way_to_register(app: Any, api: httpx.Client, shop: str) -> None:
    lost = "jobClass: the package has no class com.acme.Lost in its class path"
    body = job_body(jobClass="com.acme.Lost")
    answers = [
        api.post("jobs", json=body),
        api.put("jobs/hello", json=body),
        api.patch("jobs/hello", json={"priority": 1}),
    ]
    assert [answer.status_code for answer in answers] == [201, 200, 200]
    assert {answer.headers["warning"] for answer in answers} == {f'299 jobcloud "{lost}"'}
    applied = api.post("apply", json={"jobs": [body | {"priority": 2}, job_body("other", **SETTLE)]})
    assert applied.headers["warning"] == f'299 jobcloud "job hello: {lost}"'
    assert "warning" not in api.post("apply", json={"jobs": [body | {"priority": 2}]}).headers, "unchanged"
    old = client_of(app, url="http://127.0.0.1/api")
    assert lost in old.post("job/register", json=body | {"jobName": "third"}).headers["warning"]


def test_command_line_prints_what_looks_wrong(
    tmp_path: Path, app: Any, api: httpx.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    sha256 = str(api.post("packages", content=java_package()).json()["sha256"])
    assert api.post("apps", json=app_body(sha256, **JAVA)).status_code == 201
    (tmp_path / "job.toml").write_text(
        'jobName = "settle"\nappName = "demo"\njobType = "SIMPLE"\njobClass = "com.acme.Lost"\n'
        'jobExecutionType = "TRANSIENT"\ncron = "0 0 0 * * ?"\nshardingTotalCount = 1\ncpuCount = 0.1\nmemoryMB = 32\n'
    )
    with serving(app) as url, pytest.raises(SystemExit) as ended:
        cli.main(["--server", url, "job", "add", str(tmp_path / "job.toml")])
    assert ended.value.code == 0
    assert "warning: job settle: jobClass: the package has no class com.acme.Lost" in capsys.readouterr().err
