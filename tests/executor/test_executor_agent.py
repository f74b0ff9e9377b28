"""The executor and its agent: restarts, lost connections, missing answers."""

from __future__ import annotations

import hashlib
import os
import signal
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from tests.api_kit import serving
from tests.executor_kit import (
    PACKAGE,
    ExecutorProcess,
    FakeAgent,
    Start,
    app_payload,
    interpreters,
    json_data,
    living_in,
    task_payload,
    wait_until,
)
from tests.tls_kit import Authority, server_tls

from jobcloud.executor import bundle
from jobcloud.server.api import create_artifacts
from jobcloud.server.packages import PackageStore
from jobcloud.wire import frame

pytest_plugins = ["tests.executor_kit.fixtures"]

WAIT = "shop.jobs:wait_for_kill"


def test_unacknowledged_update_is_sent_again_when_the_agent_is_back(agent: FakeAgent, start: Start) -> None:
    start()
    agent.acknowledge = False
    agent.launch("t1", jobClass="shop.jobs:works_on")
    end = agent.end("t1")
    agent.down()
    agent.up()
    subscription = wait_until(lambda: agent.subscriptions()[1:], "it subscribed again")[0]
    assert [task["task_id"]["value"] for task in subscription["unacknowledged_tasks"]] == ["t1"]
    states = [update["status"]["state"] for update in subscription["unacknowledged_updates"]]
    assert states == ["TASK_RUNNING", "TASK_FINISHED"]
    assert agent.end("t1").data == end.data
    assert len(agent.statuses("t1")) == 2


def test_acknowledged_update_is_not_sent_again(agent: FakeAgent, start: Start) -> None:
    start()
    agent.launch("t1", jobClass="shop.jobs:works_on")
    agent.end("t1")
    agent.launch("t2", jobClass=WAIT)
    agent.state("t2", "TASK_RUNNING")

    def owes_nothing() -> bool:
        """Acknowledgements that are under way when the stream breaks are lost, and the updates are sent again."""
        agent.drop_stream()
        known = len(agent.subscriptions())
        subscription = wait_until(lambda: agent.subscriptions()[known:], "it subscribed again")[0]
        return bool(subscription == {"unacknowledged_tasks": [], "unacknowledged_updates": []})

    wait_until(owes_nothing, "all is acknowledged")


def test_update_made_while_the_agent_is_away_is_sent_when_it_is_back(agent: FakeAgent, start: Start) -> None:
    executor = start()
    agent.launch("t1", jobType="SCRIPT", scriptCommandLine="sh -c 'until test -e go; do sleep 0.02; done'")
    agent.state("t1", "TASK_RUNNING")
    agent.down()
    (executor.sandbox / "app" / "go").touch()
    wait_until(lambda: not living_in(executor.sandbox / "app"), "the script ended")
    agent.up()
    assert agent.end("t1").state == "TASK_FINISHED"
    assert agent.states("t1") == ["TASK_RUNNING", "TASK_FINISHED"]


def test_update_made_during_a_subscription_is_sent_after_it(agent: FakeAgent, start: Start) -> None:
    executor = start()
    agent.launch("t1", jobType="SCRIPT", scriptCommandLine="sh -c 'until test -e go; do sleep 0.02; done'")
    agent.state("t1", "TASK_RUNNING")
    agent.may_answer_subscribe.clear()
    agent.drop_stream()
    wait_until(lambda: agent.subscriptions()[1:], "it subscribes again")
    (executor.sandbox / "app" / "go").touch()
    wait_until(lambda: not living_in(executor.sandbox / "app"), "the script ended")
    agent.may_answer_subscribe.set()
    assert agent.end("t1").state == "TASK_FINISHED"
    assert len(agent.subscriptions()) == 2


def test_executor_without_checkpointing_ends_with_the_agent(agent: FakeAgent, start: Start) -> None:
    executor = start(MESOS_CHECKPOINT="0", MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD="1secs")
    agent.launch("t1", jobClass=WAIT)
    agent.state("t1", "TASK_RUNNING")
    agent.down()
    assert executor.wait() == 4
    assert not living_in(executor.sandbox / "app")


def test_task_with_checkpointing_outlives_an_agent_restart(agent: FakeAgent, start: Start) -> None:
    start(MESOS_CHECKPOINT="1")
    agent.launch("t1", jobClass=WAIT)
    agent.state("t1", "TASK_RUNNING")
    agent.down()
    agent.up()
    agent.kill("t1")
    assert agent.end("t1").state == "TASK_KILLED"


def test_agents_token_is_sent_with_each_call_and_hidden_from_jobs(agent: FakeAgent, start: Start) -> None:
    start(MESOS_EXECUTOR_AUTHENTICATION_TOKEN="a.b.c")
    agent.launch("t1", jobClass="shop.jobs:environment")
    assert agent.end("t1").data["result"] == []
    assert {headers["Authorization"] for headers in agent.headers} == {"Bearer a.b.c"}


def test_executor_ends_when_the_recovery_timeout_is_over(agent: FakeAgent, start: Start) -> None:
    timeouts = {"MESOS_RECOVERY_TIMEOUT": "500ms", "MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD": "1secs"}
    executor = start(**timeouts)
    agent.launch("t1", jobClass=WAIT)
    agent.state("t1", "TASK_RUNNING")
    agent.down()
    assert executor.wait() == 4
    assert "did not come back" in executor.log()


def test_refusing_agent_is_asked_again_with_a_back_off(agent: FakeAgent, start: Start) -> None:
    agent.answer_subscribe = 503
    began = time.monotonic()
    executor = start(MESOS_RECOVERY_TIMEOUT="1secs", MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD="100ms")
    assert executor.wait() == 3
    # The back-off is at least 12 ms. A busy loop would ask thousands of times.
    assert 3 <= len(agent.subscriptions()) <= 3 + (time.monotonic() - began) / 0.0125


def test_agents_domain_socket_is_used_if_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    agent = FakeAgent(app_payload(PACKAGE), socket_path=path)
    python = interpreters()[0]
    executor = ExecutorProcess(agent, tmp_path / "box", PACKAGE, python, MESOS_DOMAIN_SOCKET=str(path))
    try:
        agent.launch("t1", jobClass="shop.jobs:works_on")
        assert agent.end("t1").state == "TASK_FINISHED"
    finally:
        executor.stop()
        agent.close()


def test_agent_with_tls_is_trusted_only_with_a_valid_certificate(tmp_path: Path) -> None:
    authority = pytest.importorskip("trustme").CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    agent = FakeAgent(app_payload(PACKAGE), tls=context)
    python, tls = interpreters()[0], {"MESOS_SSL_ENABLED": "true"}
    trusting = ExecutorProcess(agent, tmp_path / "a", PACKAGE, python, SSL_CERT_FILE=str(tmp_path / "ca.pem"), **tls)
    try:
        agent.launch("t1", jobClass="shop.jobs:works_on")
        assert agent.end("t1").state == "TASK_FINISHED"
        trusting.stop()
        calls = len(agent.calls)
        wary = ExecutorProcess(agent, tmp_path / "b", PACKAGE, python, **tls)
        try:
            wait_until(lambda: "CERTIFICATE_VERIFY_FAILED" in wary.log(), "it refuses the certificate")
            assert len(agent.calls) == calls
        finally:
            wary.stop()
    finally:
        trusting.stop()
        agent.close()


def test_second_launch_of_a_living_task_changes_nothing(agent: FakeAgent, start: Start) -> None:
    executor = start()
    for _ in range(2):
        agent.launch("t1", jobClass=WAIT)
    agent.launch("t2", jobClass="shop.jobs:works_on")
    assert agent.end("t2").state == "TASK_FINISHED"
    agent.kill("t1")
    assert agent.end("t1").state == "TASK_KILLED"
    assert agent.states("t1") == ["TASK_RUNNING", "TASK_KILLED"]
    assert executor.output("t1") == "waiting\n"


def test_launch_of_an_ended_task_starts_nothing(agent: FakeAgent, start: Start) -> None:
    start()
    agent.launch("t1", jobClass="shop.jobs:works_on")
    agent.end("t1")
    agent.launch("t1", jobClass="shop.jobs:works_on")
    agent.launch("t2", jobClass="shop.jobs:works_on")
    agent.end("t2")
    assert agent.states("t1") == ["TASK_RUNNING", "TASK_FINISHED"]


def test_other_processes_in_the_executors_group_survive_its_end(agent: FakeAgent, start: Start) -> None:
    neighbour = subprocess.Popen(["sleep", "600"], process_group=0)
    try:
        executor = start(process_group=neighbour.pid)
        agent.launch("t1", jobClass="shop.jobs:never_returns")
        agent.state("t1", "TASK_RUNNING")
        agent.send({"type": "SHUTDOWN"})
        assert executor.wait() == 0
        assert neighbour.poll() is None
    finally:
        neighbour.kill()
        neighbour.wait()


def test_shutdown_ends_every_task_with_one_last_update(agent: FakeAgent, start: Start) -> None:
    # Half of it is for the tasks, the rest for the last updates.
    executor = start(MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD="4secs")
    agent.launch("good", jobClass=WAIT)
    agent.launch("stubborn", jobClass="shop.jobs:never_returns")
    agent.launch("script", jobType="SCRIPT", scriptCommandLine="sh -c 'sleep 600'")
    for task in ("good", "stubborn", "script"):
        agent.state(task, "TASK_RUNNING")
    agent.send({"type": "SHUTDOWN"})
    assert executor.wait() == 0
    for task in ("good", "stubborn", "script"):
        end = agent.end(task)
        assert (end.state, end.cause) == ("TASK_KILLED", "executor_shutdown"), end
        assert len(agent.states(task)) == 2
    assert not living_in(executor.sandbox / "app")


def test_sigterm_is_a_shutdown(agent: FakeAgent, start: Start) -> None:
    executor = start()
    agent.launch("t1", jobClass=WAIT)
    agent.state("t1", "TASK_RUNNING")
    executor.process.send_signal(signal.SIGTERM)
    assert executor.wait() == 0
    assert agent.end("t1").state == "TASK_KILLED"


@pytest.mark.parametrize("word", [b"rubbish without a length\n", frame(b"no json"), frame(b"[]"), b"99999999999\n"])
def test_agent_that_sends_garbage_is_disconnected_and_asked_again(agent: FakeAgent, start: Start, word: bytes) -> None:
    agent.first_word = word
    start()
    wait_until(lambda: len(agent.subscriptions()) >= 3, "it keeps asking")
    agent.drop_stream()
    agent.launch("t1", jobClass="shop.jobs:works_on")
    assert agent.end("t1").state == "TASK_FINISHED"


def test_unreadable_events_are_skipped(agent: FakeAgent, start: Start) -> None:
    start()
    for event in (
        {"type": "NEW_IN_THE_FUTURE"},
        {"type": "HEARTBEAT"},
        {"type": "MESSAGE", "message": {"data": "eA=="}},
        {"type": "LAUNCH"},
        {"type": "LAUNCH", "launch": {"task": 7}},
        {"type": "KILL", "kill": {"task_id": {"value": "never heard of"}}},
        {"type": "ACKNOWLEDGED", "acknowledged": {"task_id": {"value": "x"}, "uuid": "never sent"}},
    ):
        agent.send(event)
    agent.launch("t1", jobClass="shop.jobs:works_on")
    assert agent.end("t1").state == "TASK_FINISHED"


def test_refused_update_is_sent_until_the_agent_takes_it(agent: FakeAgent, start: Start) -> None:
    agent.answer_update = 503
    start()
    agent.launch("t1", jobClass="shop.jobs:works_on")
    agent.end("t1")
    calls = len(agent.calls)
    wait_until(lambda: len(agent.calls) > calls, "it is sent again")
    agent.answer_update = 202
    agent.executor_data = None
    wait_until(lambda: not _owes(agent), "everything is taken")
    assert agent.states("t1") == ["TASK_RUNNING", "TASK_FINISHED"]


def _owes(agent: FakeAgent) -> bool:
    agent.drop_stream()
    known = len(agent.subscriptions())
    subscription = wait_until(lambda: agent.subscriptions()[known:], "it subscribed again")[0]
    return bool(subscription["unacknowledged_updates"])


def test_task_group_is_refused_with_a_message(agent: FakeAgent, start: Start) -> None:
    start()
    task = {"task_id": {"value": "g1"}, "name": "g1", "agent_id": {"value": "S0"}}
    agent.send({"type": "LAUNCH_GROUP", "launch_group": {"task_group": {"tasks": [task]}}})
    end = agent.end("g1")
    assert (end.state, end.cause) == ("TASK_ERROR", "payload")


def test_kill_that_races_with_the_end_gives_one_terminal_update(agent: FakeAgent, start: Start) -> None:
    start()
    tasks = [f"t{number}" for number in range(60)]
    for number, task in enumerate(tasks):
        script: dict[str, Any] = {"jobType": "SCRIPT", "scriptCommandLine": "true"}
        agent.launch(task, **(script if number % 3 == 0 else {"jobClass": "shop.jobs:works_on"}))
        if number % 2:
            agent.kill(task)
    for task in tasks:
        agent.end(task)
    agent.launch("last", jobClass="shop.jobs:works_on")
    agent.end("last")
    for task in tasks:
        states = agent.states(task)
        assert len([state for state in states if state != "TASK_RUNNING"]) == 1, states
        assert states[-1] in ("TASK_FINISHED", "TASK_KILLED")


def test_killed_daemon_leaves_no_process(agent: FakeAgent, start: Start) -> None:
    executor = start()
    agent.launch("t1", jobClass="shop.jobs:never_returns")
    agent.launch("t2", jobType="SCRIPT", scriptCommandLine="sh -c 'setsid sleep 600; true'")
    for task in ("t1", "t2"):
        agent.state(task, "TASK_RUNNING")
    wait_until(lambda: len(living_in(executor.sandbox / "app")) == 3, "worker, script and its child run")
    executor.process.kill()
    executor.wait()
    wait_until(lambda: not living_in(executor.sandbox), "all are gone")


def test_shell_line_fetches_files_from_a_server_of_its_authorities_only(tmp_path: Path) -> None:
    served, sandbox = tmp_path / "served", tmp_path / "sandbox"
    sandbox.mkdir()
    authority = Authority(tmp_path / "ours")
    served.mkdir()
    (served / "app.zip").write_bytes(b"the app")
    listening = create_artifacts(PackageStore(tmp_path / "packages"), ("a" * 64, served / "app.zip"))

    def fetch(url: str, trusted: Authority) -> subprocess.CompletedProcess[str]:
        line = f"{bundle.fetch(trusted.file.read_text())} {url}/{'a' * 64}/app.zip app.zip || exit 1; echo started"
        return subprocess.run(
            ["/bin/sh", "-c", line], cwd=sandbox, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip

    with serving(listening, tls=server_tls(authority.issue())) as url:
        refused = fetch(url, Authority(tmp_path / "theirs"))
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "CERTIFICATE_VERIFY_FAILED" in refused.stderr
        done = fetch(url, authority)
        assert (done.returncode, done.stdout, done.stderr) == (0, "started\n", "")
        missing = fetch(f"{url}/nothing", authority)
        assert (missing.returncode, "404" in missing.stderr) == (1, True)
    assert (sandbox / "app.zip").read_bytes() == b"the app"
    assert (sandbox / bundle.AUTHORITIES_FILE).read_text() == authority.file.read_text()
    gone = fetch(url, authority)
    assert (gone.returncode, "cannot fetch" in gone.stderr) == (1, True)


def test_command_line_of_the_bundle_checks_python_and_hash(tmp_path: Path) -> None:
    zip_file = os.path.join(tmp_path, bundle.FILE_NAME)
    with open(zip_file, "wb") as file:
        file.write(bundle.build())

    def run(sha256: str, path: str) -> subprocess.CompletedProcess[str]:
        line = bundle.command(sha256)
        environment = {"PATH": path}
        return subprocess.run(
            ["/bin/sh", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    right = hashlib.sha256(bundle.build()).hexdigest()
    started = run(right, os.environ["PATH"])
    assert started.returncode == 2
    assert "MESOS_AGENT_ENDPOINT is not set" in started.stderr
    altered = run("0" * 64, os.environ["PATH"])
    assert altered.returncode == 1
    assert "altered" in altered.stderr
    nowhere = run(right, "/nowhere")
    assert nowhere.returncode == 127
    assert "no python3" in nowhere.stderr


@pytest.mark.parametrize("policy", [7, {"grace_period": 7}, {"grace_period": {"nanoseconds": "soon"}}])
def test_task_that_cannot_be_started_fails_without_harm_to_others(
    agent: FakeAgent, start: Start, policy: object
) -> None:
    start()
    info = {"task_id": {"value": "odd"}, "data": json_data(task_payload("odd", jobClass="shop.jobs:works_on"))}
    agent.send({"type": "LAUNCH", "launch": {"task": {**info, "kill_policy": policy}}})
    end = agent.end("odd")
    assert (end.state, end.cause) == ("TASK_FAILED", "executor_error")
    agent.launch("t1", jobClass="shop.jobs:works_on")
    assert agent.end("t1").state == "TASK_FINISHED"


def test_missing_task_data_does_not_end_the_daemon(agent: FakeAgent, start: Start) -> None:
    agent.executor_data = app_payload(PACKAGE)
    start()
    agent.send({"type": "LAUNCH", "launch": {"task": {"task_id": {"value": "t0"}}}})
    assert agent.end("t0").state == "TASK_ERROR"
    payload = task_payload("t1", jobClass="shop.jobs:works_on")
    del payload["shardingContext"]["jobName"]
    agent.launch("t1", payload)
    assert "shardingContext lacks 'jobName'" in agent.end("t1").message
