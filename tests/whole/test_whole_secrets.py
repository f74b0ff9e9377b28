"""Secrets in a whole dev cluster: jobs get them, and no file, API answer or command line shows a value."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.process_kit import paths_below
from tests.vault_kit import Vault, read_answer
from tests.whole_kit import ROOT, Product, arguments_of, processes_with, scheduler_of, until

pytestmark = pytest.mark.dev_cluster

EXAMPLE = ROOT / "examples" / "secrets"
CANARY = "c4n4ry-v4lue"
READS = ("jobs", "apps", "runs", "tasks", "cluster", "health", "agents", "attempts", "alerts")


def write(folder: Path, name: str, value: str) -> None:
    path = folder / "default" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value)
    path.chmod(0o600)


def run(product: Product, job: str, state: str = "FINISHED") -> list[dict[str, Any]]:
    """Trigger a job. The attempts of its shard after the run has ended with `state`."""
    status, answer = product.call(f"jobs/{job}/trigger", "POST")
    assert status == 202, answer
    path = f"runs/{answer['id']}"
    until(lambda: product.get(path)["endedAt"], "the end of the run")
    found: list[dict[str, Any]] = product.get(f"{path}/shards/0/attempts")["items"]
    assert product.get(path)["state"] == state, found
    return found


def signature(key: str) -> str:
    return hmac.new(key.encode(), b"hello", hashlib.sha256).hexdigest()


def leaks(product: Product, source: Path) -> list[str]:
    """The files, command lines and answers of the API that contain a value or a token."""
    files = (path for path in paths_below(product.folder) if path.is_file() and source not in path.parents)
    found = [str(path) for path in files if CANARY.encode() in path.read_bytes()]
    found += [str(pid) for pid in processes_with(str(product.folder)) if CANARY in str(arguments_of(pid))]
    for path in READS:
        status, answer = product.call(path)
        if status == 200 and (CANARY in json.dumps(answer) or "jcx1." in json.dumps(answer)):
            found.append(path)
    return found


def test_jobs_get_present_secrets_and_nothing_shows_them(dev: Product) -> None:
    source = dev.folder / "secrets"
    for name in ("signing-key", "db-password", "client-key"):
        write(source, name, f"{CANARY}-{name}\n")
    dev.environ |= {
        "JOBCLOUD_SECRETS_DIRECTORY": str(source),
        "JOBCLOUD_ARCHIVE_URL": str(dev.folder / "archive"),
        "JOBCLOUD_LOG_LEVEL": "debug",
    }
    dev.start("dev", "--data", str(dev.data), "--port", str(dev.port))
    until(dev.healthy, "a healthy server")
    dev.run("app", "add", str(EXAMPLE))

    assert run(dev, "sign")[0]["result"] == {"signature": signature(f"{CANARY}-signing-key")}
    task = run(dev, "connect")[0]["taskId"]
    lengths = f"password of {len(CANARY) + 12} characters, key of {len(CANARY) + 12} bytes with mode 600"
    assert lengths in dev.run("logs", task)

    write(source, "signing-key", f"{CANARY}-rotated\n")
    assert run(dev, "sign")[0]["result"] == {"signature": signature(f"{CANARY}-rotated")}, "rotation is no registration"

    (source / "default" / "signing-key").unlink()
    failed = run(dev, "sign", "FAILED")[0]
    assert failed["cause"] == "secrets"
    assert "team default has no secret signing-key" in failed["message"]
    refused = dev.run("job", "update", "sign", "--set", 'secrets=["A=secret:absent"]', code=1)
    assert "there is no secret absent (team default)" in refused

    write(source, "signing-key", f"{CANARY}-again")
    os.kill(first := scheduler_of(dev.data), signal.SIGKILL)
    until(lambda: dev.healthy() and scheduler_of(dev.data) != first, "a new scheduler")
    assert run(dev, "sign")[0]["result"] == {"signature": signature(f"{CANARY}-again")}
    assert leaks(dev, source) == []


def test_attempt_gets_its_secrets_from_the_next_leader_if_the_first_one_dies_meanwhile(dev: Product) -> None:
    (token := dev.folder / "vault.token").write_text("hvs.token")
    token.chmod(0o600)
    asked, may_answer = threading.Event(), threading.Event()
    vault = Vault()
    try:
        dev.environ |= {"JOBCLOUD_SECRETS_VAULT_URL": vault.url, "JOBCLOUD_SECRETS_VAULT_TOKEN_FILE": str(token)}
        dev.environ |= {"JOBCLOUD_SECRETS_VAULT_TIMEOUT": "1m", "JOBCLOUD_SECRETS_LIFETIME": "10m"}
        dev.start("dev", "--data", str(dev.data), "--port", str(dev.port))
        until(dev.healthy, "a healthy server")
        vault.answers = [read_answer(CANARY)]
        dev.run("app", "add", str(EXAMPLE))

        def hold(handler: Any) -> None:
            asked.set()
            may_answer.wait(60)

        vault.before = hold
        status, answer = dev.call("jobs/sign/trigger", "POST")
        assert status == 202, answer
        assert asked.wait(60), "the scheduler asks for the secret"
        os.kill(first := scheduler_of(dev.data), signal.SIGKILL)
        may_answer.set()
        until(lambda: dev.healthy() and scheduler_of(dev.data) != first, "a new scheduler")
        path = f"runs/{answer['id']}"
        until(lambda: dev.get(path)["endedAt"], "the end of the run")
        attempts = dev.get(f"{path}/shards/0/attempts")["items"]
        assert [(one["number"], one["result"]) for one in attempts] == [(1, {"signature": signature(CANARY)})]
        assert {headers["X-Vault-Token"] for _, headers in vault.asked} == {"hvs.token"}
    finally:
        may_answer.set()
        vault.close()
