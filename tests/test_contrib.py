"""The alert rules and the dashboard in contrib/: promtool accepts them, and a scrape has each metric that they name."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.core_world import make_app, make_job
from tests.metrics_kit import OPENMETRICS, MeasuredWorld

CONTRIB = Path(__file__).parents[1] / "contrib"
ALERTS = CONTRIB / "jobcloud-alerts.yml"
TESTS = CONTRIB / "jobcloud-alerts.test.yml"
DASHBOARD = json.loads((CONTRIB / "jobcloud-dashboard.json").read_text())
_METRIC = re.compile(r"\b(?:jobcloud|process|python)_[a-z_]+\b")
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs Debian's package prometheus")


def promtool(*arguments: str, given: str = "") -> None:
    done = subprocess.run(["promtool", *arguments], input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def scraped() -> tuple[str, set[str]]:
    """The text of a leader's scrape, and the names of its samples."""
    world = MeasuredWorld(make_app(), make_job())
    world.clock.compare(world.at, "the Mesos master")
    found = world.scrape()
    return found.text, found.names()


@needs_promtool
def test_alert_rules_are_valid() -> None:
    promtool("check", "rules", str(ALERTS))


@needs_promtool
def test_alerts_fire_when_they_should() -> None:
    promtool("test", "rules", str(TESTS))


@needs_promtool
def test_scrape_follows_the_conventions_of_prometheus(scraped: tuple[str, set[str]]) -> None:
    promtool("check", "metrics", given=scraped[0])


def test_every_alert_has_a_test_in_which_it_fires() -> None:
    alerts = re.findall(r"- alert: (\w+)", ALERTS.read_text())
    assert len(alerts) == len(set(alerts)) > 10
    fired = {found[1] for found in re.finditer(r"alertname: (\w+),?\s+exp_alerts:(?! \[\])", TESTS.read_text())}
    assert fired == set(alerts)


def test_every_metric_of_the_alert_rules_is_in_a_scrape(scraped: tuple[str, set[str]]) -> None:
    expressions = re.findall(r"expr: (.+)", ALERTS.read_text())
    assert metrics_in(expressions) <= scraped[1]


def test_every_metric_of_the_dashboard_is_in_a_scrape(scraped: tuple[str, set[str]]) -> None:
    expressions = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    expressions += [variable["query"]["query"] for variable in DASHBOARD["templating"]["list"][1:]]
    named = metrics_in(expressions)
    assert len(named) > 30
    assert named <= scraped[1]


def test_dashboard_has_no_overlapping_panels_and_no_id_twice() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    squares = [square for panel in panels for square in squares_of(panel["gridPos"])]
    assert len(set(squares)) == len(squares)


@needs_promtool
def test_queries_of_the_dashboard_are_valid(tmp_path: Path) -> None:
    """As recording rules, after Grafana's variables have been replaced."""
    rules = []
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            expr = re.sub(r"\$__rate_interval", "5m", target["expr"])
            rules.append(
                {"record": f"check:panel_{panel['id']}_{target['refId']}", "expr": re.sub(r"\$\w+", ".*", expr)}
            )
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    promtool("check", "rules", str(file))


def test_openmetrics_has_the_same_samples_as_the_text_format(scraped: tuple[str, set[str]]) -> None:
    world = MeasuredWorld(make_app(), make_job())
    world.clock.compare(world.at, "the Mesos master")
    assert {name for name in world.scrape(OPENMETRICS).names() if name.startswith("jobcloud_")} == {
        name for name in scraped[1] if name.startswith("jobcloud_")
    }


def metrics_in(expressions: list[str]) -> set[str]:
    return {name for expression in expressions for name in _METRIC.findall(re.sub(r'"[^"]*"', "", expression))}


def squares_of(place: dict[str, Any]) -> Iterator[tuple[int, int]]:
    for x in range(place["x"], place["x"] + place["w"]):
        for y in range(place["y"], place["y"] + place["h"]):
            yield x, y
