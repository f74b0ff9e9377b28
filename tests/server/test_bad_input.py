"""Bad input to the running product: a clear error at the right place, no loss, and no effect on other jobs."""

from __future__ import annotations

import hashlib
import io
import json
import resource
import signal
import sqlite3
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, cast

import pytest
from tests.api_kit import package_bytes
from tests.origin_kit import Server
from tests.whole_kit import Product, arguments_of, attempts, executors_of, processes_with, scheduler_of, until

from jobcloud.client.apps import add_app
from jobcloud.client.http import ApiError, Client

pytestmark = pytest.mark.dev_cluster

JOBS = """
import os, time

def raises(ctx):
    raise ValueError("no stock")

def exits(ctx):
    os._exit(9)

def forever(ctx):
    while True:
        time.sleep(0.05)

def works(ctx):
    print("worked")
"""
MANIFEST = '[app]\nappName = "bad"\ncpuCount = 0.1\nmemoryMB = 32\n'


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """The demo on a dev cluster, with another app whose jobs are registered by the tests."""
    product = Product(tmp_path_factory.mktemp("bad"))
    product.environ |= {"JOBCLOUD_PACKAGES_HOSTS": "127.0.0.1", "JOBCLOUD_PACKAGES_FETCH_TIMEOUT": "2s"}
    root = product.start("dev", "--demo", "--data", str(product.data), "--port", str(product.port))
    until(product.healthy, "a healthy server")
    app = product.folder / "bad"
    app.mkdir()
    (app / "jobs.py").write_text(JOBS)
    (app / "jobcloud.toml").write_text(MANIFEST)
    with connect(product) as client:
        add_app(client, app)
        until(lambda: ended(client, "sales"), "a firing of the demo")
    yield product
    root.send_signal(signal.SIGTERM)
    assert root.wait(15) == 0
    product.end()
    until(lambda: not processes_with(str(product.folder)), "the process tree to end")


def connect(dev: Product) -> Client:
    return Client(f"http://127.0.0.1:{dev.port}", (dev.data / "token").read_text())


@pytest.fixture
def client(dev: Product) -> Iterator[Client]:
    with connect(dev) as client:
        yield client


@pytest.fixture(autouse=True)
def nothing_is_lost(client: Client) -> Iterator[None]:
    """After each test: the stored records still exist, and no shard of the demo has failed."""
    before = {job["jobName"]: job["config"] for job in client.jobs()}
    yield
    after = {job["jobName"]: job["config"] for job in client.jobs()}
    assert {name: after.get(name) for name in before} == before
    assert {run["state"] for run in client.runs(job="sales")} <= {"WAITING", "ACTIVE", "FINISHED"}


@pytest.fixture
def siblings_go_on(dev: Product, client: Client) -> Iterator[None]:
    """A run of the demo that is due during or after the test succeeds, with one attempt per shard."""
    known = ended(client, "sales")
    yield
    until(lambda: ended(client, "sales") - known, "a further firing of the demo")
    assert set(attempts(dev.data / "demo-output").values()) == {1}


def ended(client: Client, job: str) -> set[str]:
    return {run["id"] for run in client.runs(job=job) if run["state"] not in ("WAITING", "ACTIVE")}


def job(name: str, **changes: Any) -> dict[str, Any]:
    """A job of the app `bad` that runs only when it is triggered."""
    return {
        "jobName": name,
        "appName": "bad",
        "jobType": "SIMPLE",
        "jobClass": "jobs:works",
        "jobExecutionType": "TRANSIENT",
        "cron": "0 0 0 1 1 ? 2099",
        "shardingTotalCount": 1,
        "cpuCount": 0.1,
        "memoryMB": 32,
    } | changes


def refused(action: Callable[[], object]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        action()
    return caught.value


# --------------------------------------------------------------------------------------------------------- requests


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff", b"[" * 100_000, b'{"cpuCount": NaN}'])
def test_malformed_json_is_refused_and_stores_nothing(dev: Product, body: bytes) -> None:
    token = (dev.data / "token").read_text()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"http://127.0.0.1:{dev.port}/api/v1/jobs", body, headers, method="POST")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)
    with caught.value as answer:
        assert answer.code == 400
        assert json.load(answer)["type"].endswith("malformed-json")


@pytest.mark.parametrize(
    ("field", "value", "status"),
    [
        ("cpuCount", "0.1", 422),
        ("shardingTotalCount", 1.5, 422),
        ("shardingTotalCount", 10**9, 422),
        ("memoryMB", 10**15, 422),
        ("shardingItemParameters", "1=x", 422),
        ("cron", "0 0 0 31 2 MON", 422),
        ("jobName", "a/b", 422),
        ("jobName", "a@-@b", 422),
        ("jobNaem", "x", 422),
        ("appName", "nowhere", 404),
        ("jobName", "sales", 409),
    ],
)
def test_wrong_field_is_named_and_stores_nothing(client: Client, field: str, value: object, status: int) -> None:
    before = {job["jobName"] for job in client.jobs()}
    refusal = refused(lambda: client.create_job(job("wrong", **{field: value})))
    assert refusal.status == status
    assert [issue["field"] for issue in refusal.errors] == [field]
    assert refusal.errors[0]["problem"]
    assert {job["jobName"] for job in client.jobs()} == before


# --------------------------------------------------------------------------------------------------------- packages


def no_archive(file: Path) -> None:
    file.write_bytes(b"no archive at all")


def escaping(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("../../escaped.py", "")


def escaping_by_a_link(file: Path) -> None:
    with tarfile.open(file, "w") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(link)
        inside = tarfile.TarInfo("link/passwd")
        archive.addfile(inside, io.BytesIO())


def bomb(file: Path) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(200 << 20))


def cut_off(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("jobs.py", "x" * 100_000)
    file.write_bytes(file.read_bytes()[:-50])


@pytest.mark.parametrize("make", [no_archive, escaping, escaping_by_a_link, bomb, cut_off])
def test_invalid_package_is_refused_at_upload(
    dev: Product, client: Client, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    file = tmp_path / "package.zip"
    make(file)
    kept = set((dev.data / "packages").iterdir())
    refusal = refused(lambda: client.upload(file))
    assert refusal.status == 422
    assert [issue["field"] for issue in refusal.errors] == ["package"]
    assert set((dev.data / "packages").iterdir()) == kept


@pytest.fixture
def files() -> Iterator[Server]:
    server = Server({"/app.zip": package_bytes({"by_url.py": "def works(ctx):\n    print('from afar')\n"})})
    yield server
    server.close()


def test_app_by_url_runs_from_the_package_that_the_server_fetched(client: Client, files: Server) -> None:
    sha256 = hashlib.sha256(cast(bytes, files.pages["/app.zip"])).hexdigest()
    app = {
        "appName": "afar",
        "appURL": files.url + "/app.zip",
        "packageSha256": sha256,
        "cpuCount": 0.1,
        "memoryMB": 32,
    }
    client.put_app(app)
    files.close()
    client.create_job(job("afar", appName="afar", jobClass="by_url:works"))
    run = client.trigger("afar")["id"]
    until(lambda: client.run(run)["state"] == "FINISHED", "its run")
    assert files.asked == ["/app.zip"]


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    while True:
        handler.wfile.write(b"x")


@pytest.mark.parametrize(
    ("page", "field", "why"),
    [
        ("/nothing", "appURL", "404 Not Found"),
        ("http://169.254.169.254/latest", "appURL", "the host '169.254.169.254' is not allowed"),
        ("http://localhost/app.zip", "appURL", "the host 'localhost' is not allowed"),
        ("/endless", "appURL", "takes longer than 2 s"),
        ("/app.zip", "packageSha256", "has the hash"),
        ("/login", "appURL", "not a zip, tar or compressed tar"),
    ],
)
def test_url_without_a_package_is_refused_at_once(
    client: Client, files: Server, page: str, field: str, why: str
) -> None:
    login = b"<html>"
    files.pages |= {"/login": login, "/endless": endless}
    files.redirect("/moved", page)
    config = {
        "appName": "none",
        "appURL": files.url + "/moved",
        "cpuCount": 0.1,
        "memoryMB": 32,
        "packageSha256": hashlib.sha256(login).hexdigest(),
    }
    refusal = refused(lambda: client.put_app(config))
    assert (refusal.status, refusal.errors[0]["field"]) == (422, field)
    assert why in refusal.errors[0]["problem"]
    assert refusal.errors[0]["fix"]
    assert "none" not in {app["appName"] for app in client.apps()}


# ------------------------------------------------------------------------------------------------------------- jobs


def failure(client: Client, name: str, **changes: Any) -> str:
    """Trigger a job and return the message of its failed shard."""
    client.create_job(job(name, **changes))
    run = client.trigger(name)["id"]
    shard = until(lambda: next((s for s in client.run(run)["shards"] if s["state"] == "FAILED"), None), "a failure")
    assert shard is not None
    return str(shard["message"])


def test_job_whose_class_its_package_lacks_is_refused(client: Client) -> None:
    refusal = refused(lambda: client.create_job(job("lacking", jobClass="jobs:Missing")))
    assert [issue["field"] for issue in refusal.errors] == ["jobClass"]
    assert "jobs.py has no Missing" in refusal.errors[0]["problem"]


@pytest.mark.usefixtures("siblings_go_on")
def test_package_without_the_entry_of_a_job_fails_that_job(client: Client) -> None:
    assert "nowhere" in failure(client, "no-module", jobClass="nowhere:Job")
    assert "Missing" in failure(client, "no-class", jobClass="statistics:Missing")
    assert "nothere.sh" in failure(client, "no-script", jobType="SCRIPT", jobClass="", scriptCommandLine="./nothere.sh")


@pytest.mark.usefixtures("siblings_go_on")
def test_job_that_raises_exits_or_hangs_fails_alone(client: Client) -> None:
    assert "no stock" in failure(client, "raises", jobClass="jobs:raises")
    assert failure(client, "exits", jobClass="jobs:exits")
    client.create_job(job("forever", jobClass="jobs:forever"))
    client.trigger("forever")
    until(lambda: client.tasks(job="forever", state="RUNNING"), "the endless job")
    client.create_job(job("works"))
    run = client.trigger("works")["id"]
    until(lambda: client.run(run)["state"] == "FINISHED", "its neighbour in the same worker")
    assert client.tasks(job="forever", state="RUNNING"), "it runs until it is killed"
    client.kill(client.tasks(job="forever")[0]["id"])
    until(lambda: client.runs(job="forever")[0]["state"] == "KILLED", "its end", 30)


# ---------------------------------------------------------------------------------------------------------- cluster


def turn(dev: Product, knob: str, **fields: Any) -> dict[str, Any]:
    """Break the dev cluster below the product (docs/dev-cluster.md)."""
    arguments = arguments_of(scheduler_of(dev.data))
    url = f"http://{arguments[arguments.index('--mesos') + 1]}/dev/control"
    body = json.dumps({"knob": knob, **fields}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


GARBAGE = ("no frame at all\n", "7\n{broken", "99999999999999\n{}", '2\n[]12\n{"type": "X"}', '17\n{"type":"OFFERS"}')


@pytest.mark.usefixtures("siblings_go_on")
def test_garbage_from_master_and_agent_only_ends_the_connection(dev: Product, client: Client) -> None:
    pid, executors = scheduler_of(dev.data), set(executors_of(dev.data))
    for garbage in GARBAGE:
        assert until(lambda: turn(dev, "garble_stream", bytes=garbage)["streams"], "a stream") == 1  # noqa: B023
        for agent in (1, 2):
            turn(dev, "garble_stream", bytes=garbage, agent=agent)
    until(lambda: client.cluster()["connected"], "the connection")
    assert scheduler_of(dev.data) == pid
    assert executors <= set(executors_of(dev.data)), "executors live on"


# ------------------------------------------------------------------------------------------------------------ state


def damaged(file: Path) -> None:
    file.write_bytes(bytes(range(256)) * 64)


def future(file: Path) -> None:
    with sqlite3.connect(file) as database:
        database.execute("PRAGMA user_version = 999")
        database.execute("CREATE TABLE what (ever)")
    database.close()


@pytest.mark.parametrize(("make", "why"), [(damaged, "not an SQLite database"), (future, "newer jobcloud")])
def test_unreadable_state_ends_the_start_and_is_left_unchanged(
    dev: Product, tmp_path: Path, make: Callable[[Path], None], why: str
) -> None:
    file = tmp_path / "jobcloud.db"
    make(file)
    before = hashlib.sha256(file.read_bytes()).hexdigest()
    dev.environ["JOBCLOUD_ARTIFACTS_PORT"] = "0"
    said = dev.run("scheduler", "--mesos", "127.0.0.1:1", "--data", str(tmp_path), "--port", "0", code=6)
    assert why in said
    assert "it was left unchanged" in said
    assert hashlib.sha256(file.read_bytes()).hexdigest() == before


@pytest.mark.usefixtures("siblings_go_on")
def test_full_disk_refuses_changes_until_space_is_free_and_loses_nothing(
    dev: Product, client: Client, tmp_path: Path
) -> None:
    """A limit on file sizes stops every write of the scheduler process, including its log."""
    jobs = {job["jobName"]: job["config"] for job in client.jobs()}
    pid = scheduler_of(dev.data)
    room = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1024, room[1]))
    try:
        refusal = refused(lambda: client.create_job(job("no-room")))
        assert refusal.status in (503, 507)
        package = tmp_path / "package.zip"
        with zipfile.ZipFile(package, "w") as archive:
            archive.writestr("jobs.py", "#" * 10_000)
        assert refused(lambda: client.upload(package)).status in (503, 507)
        until(lambda: not client.health()["leading"], "the server to say that it is not well")
        assert "jobcloud.db" in str(refused(client.jobs)), "the reason"
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, room)
    until(lambda: created(client, job("room-again")), "a change to be taken")
    assert {job["jobName"] for job in client.jobs()} == {*jobs, "room-again"}
    assert scheduler_of(dev.data) == pid


def created(client: Client, config: dict[str, Any]) -> bool:
    try:
        client.create_job(config)
    except ApiError:
        return False
    return True
