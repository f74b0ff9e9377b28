"""The dev cluster as a process: start and end, fault injection, invalid requests."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.mesos_client import Framework, Stream, amounts, post, request, total

from jobcloud.dev.cluster import ClusterError, DevCluster
from jobcloud.wire import encode_data

pytestmark = pytest.mark.dev_cluster
EXECUTOR = Path(__file__).parents[1] / "contract" / "scripted_executor.py"


@pytest.fixture(scope="module")
def cluster() -> Iterator[DevCluster]:
    with DevCluster(agents=2, allocation_interval_ms=50) as started:
        yield started


@pytest.fixture
def framework(cluster: DevCluster) -> Iterator[Framework]:
    made = Framework(cluster.master, "PARTITION_AWARE", checkpoint=True).subscribe()
    yield made
    made.teardown()


def launch(framework: Framework, name: str = "t", *commands: Any, prelude: str = "exec") -> Any:
    """Launch a task and wait until it runs. Returns its offer."""
    offer = framework.offers(1)[0]
    data = encode_data(json.dumps([{"update": name, "state": "TASK_RUNNING"}, *commands]).encode())
    info = {
        "executor_id": {"value": "e"},
        "command": {"value": f"{prelude} {sys.executable} {EXECUTOR}"},
        "resources": amounts(cpus=0.1),
    }
    task = {"name": name, "task_id": {"value": name}, "agent_id": offer["agent_id"], "executor": info, "data": data}
    framework.accept([offer], {**task, "resources": amounts(cpus=0.5, mem=64)})
    framework.update(name, "TASK_RUNNING")
    return offer


def until(test: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := test()):
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.01)
    return found


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def children_of_sandboxes(root: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and f"MESOS_DIRECTORY={root}".encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


# ---- start and end ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_cluster_and_all_its_processes(tmp_path: Path, number: int) -> None:
    cluster = DevCluster(agents=1, data=tmp_path, allocation_interval_ms=50)
    cluster.start()
    framework = Framework(cluster.master, "PARTITION_AWARE").subscribe()
    launch(framework, prelude="setsid sleep 1000 & exec")  # a helper process in its own session
    until(lambda: len(children_of_sandboxes(tmp_path)) >= 2, "the executor and its helper")
    cluster.process.send_signal(number)
    assert cluster.process.wait(60) == 0
    assert children_of_sandboxes(tmp_path) == []
    framework.stream.wait_end()
    framework.stream.close()
    cluster.stop()


def test_killed_cluster_leaves_no_process(tmp_path: Path) -> None:
    cluster = DevCluster(agents=1, data=tmp_path, allocation_interval_ms=50)
    cluster.start()
    framework = Framework(cluster.master, "PARTITION_AWARE").subscribe()
    launch(framework, prelude="setsid sleep 1000 & exec")
    until(lambda: len(children_of_sandboxes(tmp_path)) >= 2, "the executor and its helper")
    cluster.process.kill()
    until(lambda: not children_of_sandboxes(tmp_path), "the end of the executor and its helper")
    framework.stream.wait_end()
    framework.stream.close()
    cluster.stop()


def test_executor_ends_with_killed_cluster_without_warden(tmp_path: Path) -> None:
    cluster = DevCluster(agents=1, data=tmp_path, allocation_interval_ms=50)
    cluster.start()
    pid = cluster.process.pid
    (warden,) = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    framework = Framework(cluster.master, "PARTITION_AWARE").subscribe()
    launch(framework)
    os.kill(warden, signal.SIGKILL)
    cluster.process.kill()
    until(lambda: not children_of_sandboxes(tmp_path), "the executor's end")
    framework.stream.wait_end()
    framework.stream.close()
    cluster.stop()


def test_cluster_ends_with_its_parent(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys, os\n"
        "argv = [sys.executable, '-m', 'jobcloud.dev.cluster', '--port=0', f'--parent-pid={os.getpid()}']\n"
        "child = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "os._exit(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, timeout=120, check=True)
    until(lambda: not alive(int(done.stdout)), "the cluster's end")


def test_agents_keep_their_ids_with_data_directory(tmp_path: Path) -> None:
    def ids() -> list[str]:
        with DevCluster(agents=2, data=tmp_path) as cluster:
            return [one["id"] for one in request(cluster.master, "GET", "/state").json()["slaves"]]

    first = ids()
    assert ids() == first
    assert len(set(first)) == 2


def test_damaged_state_file_is_named_and_left_unchanged(tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text("{")
    argv = [sys.executable, "-m", "jobcloud.dev.cluster", "--port=0", f"--data={tmp_path}"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "cluster.json is damaged" in done.stderr
    assert (tmp_path / "cluster.json").read_text() == "{"


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--resources=cpus"], "'cpus' is not `name:value`"),
        (["--resources=cpus:-1"], "a value is a number"),
        (["--resources=ports:[9-1]"], "a range is `[low-high]`"),
        (["--attributes=rack"], "'rack' is not `key:value`"),
        (["--agents=-1"], "--agents must be at least 0"),
        (["--heartbeat-ms=0"], "--heartbeat-ms must be at least 1"),
    ],
)
def test_bad_flags_are_named(flags: list[str], text: str) -> None:
    argv = [sys.executable, "-m", "jobcloud.dev.cluster", "--port=0", *flags]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert text in done.stderr


def test_occupied_port_is_an_error(cluster: DevCluster) -> None:
    port = cluster.master.rpartition(":")[2]
    with pytest.raises(ClusterError):
        DevCluster(agents=1, port=int(port)).start()


def test_attributes_and_resources_are_set_by_flags() -> None:
    with DevCluster(agents=1, attributes="rack:a;weight:2.5", resources="cpus:2;cpus(batch):1;mem:64") as cluster:
        framework = Framework(cluster.master).subscribe()
        offer = framework.offers(1)[0]
        assert offer["attributes"] == [
            {"name": "rack", "type": "TEXT", "text": {"value": "a"}},
            {"name": "weight", "type": "SCALAR", "scalar": {"value": 2.5}},
        ]
        assert total(offer["resources"]) == {"cpus": 2.0, "mem": 64.0}
        framework.teardown()


# ---- fault injection -------------------------------------------------------------------------------------------


def test_dropped_stream_ends(cluster: DevCluster, framework: Framework) -> None:
    assert cluster.control("drop_stream", framework_id=framework.id) == {"streams": 1}
    framework.stream.wait_end()
    framework.stream.close()
    framework.subscribe()


def test_muted_stream_stays_open_and_silent(cluster: DevCluster, framework: Framework) -> None:
    offer = framework.offers(1)[0]
    cluster.control("mute_stream", framework_id=framework.id)
    framework.decline([offer], 0)
    framework.expect_none("OFFERS", seconds=0.4)
    assert not framework.stream.ended
    framework.stream.close()
    framework.subscribe()


def test_garbled_stream_is_rejected_by_reader(cluster: DevCluster, framework: Framework) -> None:
    cluster.control("garble_stream", framework_id=framework.id, bytes="nonsense\n")
    framework.stream.wait_end()  # the reader has closed the connection
    framework.stream.close()
    framework.subscribe()


def test_updates_can_be_doubled_delayed_dropped_and_reordered(cluster: DevCluster, framework: Framework) -> None:
    offer = launch(framework, "t")
    cluster.control("updates", kind="double", state="TASK_FINISHED")
    framework.command(offer["agent_id"], "e", {"update": "t", "state": "TASK_FINISHED"})
    first, second = framework.update("t"), framework.update("t")
    assert first == second
    cluster.control("updates", kind="drop", state="TASK_FAILED")
    framework.command(offer["agent_id"], "e", {"update": "x", "state": "TASK_FAILED"})
    framework.expect_none("UPDATE", seconds=0.3)
    cluster.control("advance_clock", ms=11_000)  # until the agent's retry
    assert framework.update("x")["state"] == "TASK_FAILED"
    cluster.control("updates", kind="delay", delay_ms=300, task_id="y")
    begin = time.monotonic()
    framework.command(offer["agent_id"], "e", {"update": "y", "state": "TASK_LOST"})
    framework.update("y")
    assert time.monotonic() - begin >= 0.29
    cluster.control("updates", kind="hold", count=2)
    commands = [{"update": name, "state": "TASK_LOST"} for name in ("p", "q")]
    framework.command(offer["agent_id"], "e", *commands)
    for _ in commands:
        framework.reported("ACKNOWLEDGED")
    assert cluster.control("release_updates") == {"updates": 2}
    assert [framework.update()["task_id"]["value"] for _ in commands] == ["q", "p"]


def test_calls_can_be_answered_with_fault(cluster: DevCluster, framework: Framework) -> None:
    cluster.control("answer", status=503, count=2)
    assert [framework.call("REVIVE").status for _ in range(3)] == [503, 503, 202]


def test_offer_can_be_rescinded(cluster: DevCluster, framework: Framework) -> None:
    offer = framework.offers(1)[0]
    cluster.control("rescind", offer_id=offer["id"]["value"])
    assert framework.next("RESCIND")["rescind"]["offer_id"] == offer["id"]


def test_agent_can_be_lost_and_return_with_its_tasks(cluster: DevCluster, framework: Framework) -> None:
    agent_id = launch(framework, "t")["agent_id"]
    cluster.control("lose_agent", agent=agent_id["value"])
    assert framework.update("t")["state"] == "TASK_UNREACHABLE"
    assert framework.next("FAILURE")["failure"] == {"agent_id": agent_id}
    framework.call("RECONCILE", {"tasks": [{"task_id": {"value": "t"}, "agent_id": agent_id}]})
    assert framework.update("t")["state"] == "TASK_UNREACHABLE"
    cluster.control("return_agent", agent=agent_id["value"])
    back = framework.update("t")
    assert (back["state"], back["reason"]) == ("TASK_RUNNING", "REASON_AGENT_REREGISTERED")
    framework.call("RECONCILE", {"tasks": []})
    assert framework.update("t")["state"] == "TASK_RUNNING"
    framework.command(agent_id, "e", {"update": "t", "state": "TASK_FINISHED"})
    assert framework.update("t", "TASK_FINISHED")


def test_restarted_master_recovers_tasks_from_agents(cluster: DevCluster, framework: Framework) -> None:
    agent_id = launch(framework, "t")["agent_id"]
    cluster.control("restart_master", agents_back=False)
    framework.stream.wait_end()
    framework.stream.close()
    old = framework.id
    framework.subscribe()
    assert framework.id == old
    framework.call("RECONCILE", {"tasks": [{"task_id": {"value": "t"}, "agent_id": agent_id}]})
    framework.expect_none("UPDATE", seconds=0.3)
    for number in (1, 2):
        cluster.control("return_agent", agent=number)
    framework.call("RECONCILE", {"tasks": [{"task_id": {"value": "t"}, "agent_id": agent_id}]})
    assert framework.update("t")["state"] == "TASK_RUNNING"
    framework.command(agent_id, "e", {"update": "t", "state": "TASK_FINISHED"})
    assert framework.update("t", "TASK_FINISHED")


def test_executor_can_be_killed(cluster: DevCluster, framework: Framework) -> None:
    launch(framework, "t")
    assert cluster.control("kill_executor", framework_id=framework.id) == {"executors": 1}
    assert framework.next("FAILURE")["failure"]["status"] == 9
    assert framework.update("t")["state"] == "TASK_FAILED"


def test_virtual_agents_end_tasks_without_processes() -> None:
    with DevCluster(agents=0, allocation_interval_ms=50) as cluster:
        cluster.control("add_agents", count=200, run_ms=10, failing="t7", message="too hot")
        framework = Framework(cluster.master, "PARTITION_AWARE").subscribe()
        offers = framework.offers(200)
        info = {"executor_id": {"value": "e"}, "command": {"value": "x"}}
        for number, offer in enumerate(offers):
            task = {"name": "t", "task_id": {"value": f"t{number}"}, "agent_id": offer["agent_id"], "executor": info}
            framework.accept([offer], {**task, "resources": amounts(cpus=1)})
        updates = [framework.update() for _ in range(2 * len(offers))]
        failed = [one for one in updates if one["state"] == "TASK_FAILED"]
        assert {one["task_id"]["value"] for one in failed} == {"t7", *(f"t{number}" for number in range(70, 80))}
        assert {one["message"] for one in failed} == {"too hot"}
        assert len({one["task_id"]["value"] for one in updates if one["state"] == "TASK_FINISHED"}) == 200 - len(failed)
        framework.teardown()


@pytest.mark.parametrize(
    ("knob", "fields", "text"),
    [
        ("nonsense", {}, "knob: one of "),
        ("lose_agent", {"agent": 99}, "agent: 99 is neither an agent's id"),
        ("updates", {"kind": "eat"}, "kind: one of "),
        ("updates", {"kind": "delay", "delay_ms": "soon"}, "delay_ms: expecting a whole number"),
        ("add_agents", {"resources": "cpus"}, "'cpus' is not `name:value`"),
    ],
)
def test_invalid_fault_request_is_explained(cluster: DevCluster, knob: str, fields: Any, text: str) -> None:
    with pytest.raises(ClusterError, match=text):
        cluster.control(knob, **fields)


# ---- invalid requests ------------------------------------------------------------------------------------------


def raw(cluster: DevCluster, data: bytes) -> bytes:
    host, _, port = cluster.master.partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as link:
        link.sendall(data)
        return link.recv(4096)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"POST /api/v1 HTTP/1.1\r\nContent-Length: many\r\n\r\n", 400),
        (b"POST /api/v1 HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /api/v1 HTTP/1.1\r\nContent-Length: 67108864\r\n\r\n", 413),
        (b"POST /api/v1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST /api/v1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 431),
    ],
)
def test_invalid_http_is_refused(cluster: DevCluster, data: bytes, status: int) -> None:
    assert raw(cluster, data).startswith(f"HTTP/1.1 {status} ".encode())
    assert request(cluster.master, "GET", "/health").status == 200


def test_deep_and_huge_bodies_are_refused(cluster: DevCluster) -> None:
    headers = {"content_type": "application/json"}
    assert request(cluster.master, "POST", "/api/v1", "[" * 200_000, **headers).status == 400
    assert request(cluster.master, "POST", "/api/v1", "9" * 10_000, **headers).status == 400
    with contextlib.suppress(ConnectionError):  # the connection may be reset while the body is sent
        assert request(cluster.master, "POST", "/api/v1", b"x" * (64 << 20), **headers).status == 413
    assert request(cluster.master, "GET", "/health").status == 200


def test_chunked_body_is_read(cluster: DevCluster) -> None:
    host, _, port = cluster.master.partition(":")
    link = http.client.HTTPConnection(host, int(port), timeout=60)
    body = iter([b'{"type":', b' "GET_HEALTH"}'])
    link.request("POST", "/api/v1", body, {"Content-Type": "application/json"}, encode_chunked=True)
    answer = link.getresponse()
    assert (answer.status, json.loads(answer.read())["get_health"]) == (200, {"healthy": True})
    link.close()


def test_cluster_listens_on_loopback_only(cluster: DevCluster) -> None:
    port = int(cluster.master.rpartition(":")[2])
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    listening = {line.split()[1] for line in lines if line.split()[3] == "0A"}
    assert [one for one in listening if int(one.partition(":")[2], 16) == port] == [f"0100007F:{port:04X}"]


def test_refused_subscription_leaves_no_framework(cluster: DevCluster) -> None:
    before = len(request(cluster.master, "GET", "/state").json()["frameworks"])
    call = {"type": "SUBSCRIBE", "subscribe": {"framework_info": {"user": "u", "name": "n", "roles": ["a"]}}}
    stream = Stream(cluster.master, "/api/v1/scheduler", call)
    stream.wait_end()
    stream.close()
    assert stream.events[0]["type"] == "ERROR"
    assert len(request(cluster.master, "GET", "/state").json()["frameworks"]) == before


def test_idle_clients_do_not_block_cluster(cluster: DevCluster) -> None:
    host, _, port = cluster.master.partition(":")
    with contextlib.ExitStack() as held:
        for _ in range(200):
            link = held.enter_context(socket.create_connection((host, int(port)), timeout=60))
            link.sendall(b"POST /api/v1 HTTP/1.1\r\n")
        assert post(cluster.master, "/api/v1", {"type": "GET_HEALTH"}).status == 200
