"""The real Prometheus scrapes a daemon under load by deploy/prometheus, and every panel of the dashboard shows something."""

import json
import tempfile

import pytest

from harness import wait_until
from monitoring import DASHBOARD, load, monitored_daemon, panels


@pytest.fixture(scope="module")
def recorded():
    with tempfile.TemporaryDirectory() as directory:
        # 16 slots, so that some of the streams wait.
        with monitored_daemon(directory, "--device_state_bytes=9437184") as (daemon, prometheus):
            load(daemon, 12, 24)
            yield daemon, prometheus


def test_prometheus_scrapes_the_daemon(recorded):
    daemon, prometheus = recorded
    wait_until(lambda: [s for s in prometheus.query("up") if s["value"][1] == "1"], "the target is up")
    generated = daemon.metrics()["sluice_generated_tokens_total"]
    wait_until(lambda: float(prometheus.query("sluice_generated_tokens_total")[0]["value"][1]) == generated, "same count")


def test_every_panel_shows_something(recorded):
    _, prometheus = recorded
    empty = [(title, expression) for _, title, _, targets in panels() for expression, _ in targets
             if not prometheus.query(expression)]
    assert len(list(panels())) >= 15 and not empty, empty


def test_rules_find_their_metrics(recorded):
    """Each recorded series exists, and each alert is evaluated without an error; none fires but what the load brings on."""
    _, prometheus = recorded
    rules = [rule for group in prometheus.api("rules")["groups"] for rule in group["rules"]]
    assert all(rule["health"] == "ok" for rule in rules), rules
    missing = [rule["name"] for rule in rules if rule["type"] == "recording" and not prometheus.query(rule["name"])]
    assert len(rules) > 15 and not missing, missing
    assert not [rule["name"] for rule in rules if rule.get("state") == "firing"]


def test_dashboard_is_whole():
    dashboard = json.loads(DASHBOARD.read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    assert [p["title"] for p in dashboard["panels"] if p["type"] == "row"] == [
        "Is it up", "Are users waiting", "How fast is it for them", "What it does with memory and states",
        "How near the hardware's limit"]
    assert all(panel["datasource"]["uid"] == "prometheus" for panel in dashboard["panels"] if panel["type"] != "row")
