"""Traces of a dev cluster, as a receiver decodes them."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("opentelemetry.sdk")
pytest.importorskip("opentelemetry.exporter.otlp.proto.http")

from tests.tracing_kit import Receiver, attributes
from tests.whole_kit import Product, until

pytestmark = pytest.mark.dev_cluster
CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_script_and_its_run_belong_to_the_trace_of_the_command(dev: Product) -> None:
    receiver = Receiver()
    config = dev.folder / "jobcloud.toml"
    config.write_text(f'[tracing]\nendpoint = "{receiver.url}"\n')
    dev.environ["TRACEPARENT"] = CALLER
    arguments = ("--demo", "--config", str(config), "--data", str(dev.data), "--port", str(dev.port))
    dev.start("dev", *arguments)
    until(lambda: dev.healthy() and dev.call("jobs/stock")[0] == 200, "the demo's last job")
    job = {"appName": dev.get("jobs/stock")["appName"], "jobName": "once", "jobType": "SCRIPT", "memoryMB": 32}
    file = dev.folder / "once.json"
    file.write_text(json.dumps({**job, "scriptCommandLine": "sh -c 'echo span=$TRACEPARENT'", "cpuCount": 0.1}))
    said = dev.run("run", "start", str(file), "--follow")
    until(lambda: {"run once", "attempt once"} <= {span.name for span in receiver.spans}, "the spans")
    (attempt,) = [span for span in receiver.spans if span.name == "attempt once"]
    (run,) = [span for span in receiver.spans if span.name == "run once"]
    assert f"span=00-{attempt.trace_id.hex()}-{attempt.span_id.hex()}-01" in said
    assert run.trace_id.hex() == CALLER[3:35]
    assert run.parent_span_id.hex() == CALLER[36:52]
    assert attributes(run)["jobcloud.outcome"] == "FINISHED"
    receiver.close()
