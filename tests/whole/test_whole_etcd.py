"""A scheduler whose etcd runs out of space: it says so, loses nothing, and continues when there is room."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

pytest.importorskip("httptools", reason="the extra [server] is not installed")

from tests import etcd_kit
from tests.whole_kit import DEMO, Product, until

pytestmark = pytest.mark.etcd


def test_scheduler_tells_that_etcd_is_full_and_continues_when_there_is_room(tmp_path: Path) -> None:
    product = Product(tmp_path)
    product.environ["JOBCLOUD_ARTIFACTS_PORT"] = "0"
    app = tmp_path / "demo"
    subprocess.run(["cp", "-r", str(DEMO), str(app)], check=True)

    def health() -> dict[str, object]:
        found: dict[str, object] = product.call("health")[1]
        return found

    with etcd_kit.running(tmp_path / "etcd", more=etcd_kit.SMALL) as (member,):
        try:
            # No master answers there, which changes nothing for the store.
            arguments = ("--mesos", "127.0.0.1:1", "--etcd", member.address, "--data", str(product.data))
            process = product.start("scheduler", *arguments, "--port", str(product.port))
            until(lambda: health().get("leading"), "a leader")
            etcd_kit.fill(member)
            # Either its write is refused, or the scheduler has noticed before.
            assert "space left" in product.run("app", "add", str(app), "--no-jobs", code=6)
            until(lambda: "etcd has no space left" in str(health().get("problem")), "the problem")
            assert "etcd has no space left" in (tmp_path / "scheduler.log").read_text()
            etcd_kit.make_room(member)
            until(lambda: health().get("leading"), "the same leader")
            product.run("app", "add", str(app), "--no-jobs")
            assert process.poll() is None
        finally:
            product.end()
