"""Prometheus scrapes a leader and a standby on one etcd, while a demo app runs on a dev cluster."""

from __future__ import annotations

import signal
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from tests.metrics_kit import OPENMETRICS, Samples
from tests.pair_kit import Pair, check_leader
from tests.whole_kit import Product, add_demo, until

from jobcloud.dev.cluster import DevCluster
from jobcloud.server.metrics.catalogue import FAMILIES

pytestmark = [pytest.mark.dev_cluster, pytest.mark.etcd]

SALES = {"team": "default", "app": "demo", "job": "sales"}
_SCRAPE_TOKEN = "scr4pe"


def scrape(product: Product, token: str = _SCRAPE_TOKEN) -> Samples:
    headers = {"Authorization": f"Bearer {token}", "Accept": OPENMETRICS}
    request = urllib.request.Request(f"http://127.0.0.1:{product.port}/metrics", headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return Samples(answer.read(), answer.headers["Content-Type"])


def test_leader_and_standby_answer_scrapes(etcd_hosts: str, tmp_path: Path) -> None:
    token = tmp_path / "scrape-token"
    token.write_text(_SCRAPE_TOKEN)
    token.chmod(0o600)
    with DevCluster(agents=2) as cluster:
        pair = Pair(tmp_path, cluster.master, "etcd", etcd_hosts)
        leader, standby, _ = pair.products
        for product in pair.products:
            product.environ["JOBCLOUD_METRICS_TOKEN_FILE"] = str(token)
        try:
            pair.start(0)
            until(lambda: pair.leads(0), "a leader")
            pair.start(1)
            until(lambda: pair.is_standby(1), "a standby")
            add_demo(leader, tmp_path / "output")
            check_leader(pair, 0)

            found = scrape(leader)
            assert {family.name.removesuffix("_total") for family in FAMILIES} <= set(found.types)
            assert found("jobcloud_leader") == found("jobcloud_healthy") == found("jobcloud_core_answered") == 1
            assert found("jobcloud_epoch") > 0
            assert found("jobcloud_runs_ended_total", **SALES, state="FINISHED") >= 1
            launched = sum(found.of("jobcloud_launches_total").values())
            assert found("jobcloud_placements_total") >= launched > 0
            assert found("jobcloud_launch_lateness_seconds_count") > 0
            assert found("jobcloud_cycle_seconds_count") > 0
            assert found("jobcloud_store_write_seconds_count") > 0
            assert found("jobcloud_offers_received_total") > 0
            assert found("jobcloud_agents", state="up") == 2
            assert found("jobcloud_packages_bytes") > 0
            assert found.values("jobcloud_clock_difference_seconds", "machine") >= {"etcd"}
            assert found("jobcloud_http_requests_total", method="GET", route="/api/v1/runs", status="2xx") > 0
            assert set(found.of("jobcloud_notices_dropped_total").values()) == {0}
            assert found("process_resident_memory_bytes") > 0

            waiting = scrape(standby)
            assert waiting("jobcloud_leader") == waiting("jobcloud_core_answered") == 0
            assert waiting("jobcloud_leader_changes_total") == 1
            assert not waiting.of("jobcloud_jobs")
            with pytest.raises(urllib.error.HTTPError, match="401"):
                scrape(standby, "wrong").names()

            pair.send_signal(0, signal.SIGTERM).wait(60)
            until(lambda: pair.leads(1), "a new leader")
            taken_over = scrape(standby)
            assert taken_over("jobcloud_leader") == 1
            assert taken_over("jobcloud_leader_changes_total") >= 2
            assert taken_over("jobcloud_job_last_success_timestamp_seconds", **SALES) > 0
        finally:
            for product in pair.products:
                product.end()
