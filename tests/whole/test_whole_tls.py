"""API and artifact server with certificates of a private authority: the command line, agents, and a renewal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.tls_kit import Authority
from tests.whole.test_whole_mesos import master
from tests.whole_kit import ROOT, Product, add_demo, until

from jobcloud.client.http import ApiError, Client
from jobcloud.ports import TlsFiles

__all__ = ["master"]


class Secured:
    """A product whose servers have certificates of `authority`."""

    def __init__(self, product: Product, folder: Path) -> None:
        self.product = product
        self.authority = Authority(folder / "tls")
        files = self.authority.issue()
        self.url = f"https://127.0.0.1:{product.port}"
        ours = {
            "HTTP_TLS_CERT_FILE": files.cert,
            "HTTP_TLS_KEY_FILE": files.key,
            "HTTP_TLS_CA_FILE": self.authority.file,
            "ARTIFACTS_TLS_CERT_FILE": files.cert,
            "ARTIFACTS_TLS_KEY_FILE": files.key,
            "ARTIFACTS_TLS_CA_FILE": self.authority.file,
        }
        product.environ |= {f"JOBCLOUD_{name}": str(path) for name, path in ours.items()}
        product.environ["JOBCLOUD_SERVER"] = self.url

    def healthy(self) -> bool:
        try:
            with Client(self.url, tls=TlsFiles(str(self.authority.file))) as client:
                return bool(client.health().get("connected"))
        except ApiError:
            return False

    def runs(self) -> int:
        """The number of finished runs of the demo, or 0 if there is no answer."""
        try:
            with Client(self.url, self.product.token(), tls=TlsFiles(str(self.authority.file))) as client:
                return len(client.runs(job="sales", state="FINISHED"))
        except ApiError:
            return 0


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Secured]:
    product = Product(tmp_path)
    yield Secured(product, tmp_path)
    product.end()


@pytest.mark.dev_cluster
def test_jobs_run_and_commands_work_over_tls_on_a_dev_cluster(secured: Secured, tmp_path: Path) -> None:
    product = secured.product
    product.start("dev", "--demo", "--agents", "1", "--port", str(product.port), "--data", str(product.data))
    until(secured.runs, "a finished run")
    assert product.json("cluster")["agents"], "the authority comes from the file of the running server"
    product.environ["XDG_RUNTIME_DIR"] = str(tmp_path / "elsewhere")
    untrusted = product.run("cluster", code=3)
    assert "--ca-file" in untrusted
    token = (product.data / "token").read_text()
    assert "agents" in product.run("--ca-file", str(secured.authority.file), "--token", token, "cluster", "--json")
    plain = product.run("--server", f"http://127.0.0.1:{product.port}", "--token", token, "cluster", code=1)
    assert "https://" in plain


@pytest.mark.mesos
def test_agents_of_mesos_fetch_over_tls(secured: Secured, master: str, tmp_path: Path) -> None:
    product = secured.product
    product.environ["JOBCLOUD_ARTIFACTS_PORT"] = "0"
    product.start("scheduler", "--mesos", master, "--data", str(product.data), "--port", str(product.port))
    until(secured.healthy, "a healthy server")
    add_demo(product, tmp_path / "output")
    until(secured.runs, "a finished run")
    product.run("framework", "teardown", "--confirm", product.json("cluster")["frameworkId"])


@pytest.mark.dev_cluster
def test_executor_fetches_secrets_over_tls_and_the_audit_log_tells_it(secured: Secured, tmp_path: Path) -> None:
    product, value = secured.product, "c4n4ry-v4lue"
    (folder := tmp_path / "secrets" / "default").mkdir(parents=True)
    for name in ("signing-key", "db-password", "client-key"):
        (folder / name).touch(0o600)
        (folder / name).write_text(value)
    product.environ["JOBCLOUD_SECRETS_DIRECTORY"] = str(tmp_path / "secrets")
    product.start("dev", "--agents", "1", "--port", str(product.port), "--data", str(product.data))
    until(secured.healthy, "a healthy server")
    product.run("app", "add", str(ROOT / "examples" / "secrets"))
    run = product.json("job", "trigger", "sign", "--wait")
    assert run["state"] == "FINISHED", run
    content = b"".join(path.read_bytes() for path in (product.data / "audit").iterdir() if path.is_file())
    (read,) = [entry for entry in map(json.loads, content.splitlines()) if entry.get("route") == "/secrets"]
    assert (read["target"], read["outcome"], read["subject"][:10]) == ("secret signing-key", "succeeded", "task:sign@")
    assert value.encode() not in content
