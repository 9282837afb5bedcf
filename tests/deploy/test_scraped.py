"""Alerts, the dashboard and the autoscaler on a real Prometheus that has scraped a real server."""

from __future__ import annotations

import http.client
import json
import math
import re
import shutil
import subprocess
import sys

import pytest

from tests.deploy.prometheus import Prometheus
from tests.deploy.test_alerts import NAMES, RULES
from tests.deploy.test_dashboard import DASHBOARD, QUERIES
from tests.deploy.test_kubernetes import read
from tests.e2e.process import Process

pytestmark = [
    pytest.mark.tf,
    pytest.mark.e2e,
    pytest.mark.skipif(
        not shutil.which("prometheus"),
        reason="prometheus is not installed (apt-get install prometheus)",
    ),
]

SILENT_ALERTS = {
    "ServingdNoServerIsScraped": "one is",
    "ServingdServesNothing": "it serves",
    "ServingdReplicaOutOfService": "all of them serve",
    "ServingdErrors": "no call has failed by the server's fault",
    "ServingdCallsRefused": "no call was refused",
    "ServingdDeviceMemoryNearLimit": "needs a GPU",
    "ServingdWorkersRestart": "no worker has died",
}
"""Alerts whose expressions are empty, whatever their threshold, of a server that is well."""

EMPTY_QUERIES = {
    "Failures by model A": "the server has made no mistake",
    "Parts of streams A": "no call was streamed",
    "Examples in calls A": "no call had any",
    "Calls refused A": "no call was refused",
    "Operations that run elsewhere A": "needs a GPU",
    "Workers replaced A": "no worker was",
    "Warm-up with kept requests A": "no version has come later",
}
"""Queries that are empty, of the server of these tests."""


@pytest.fixture(scope="module")
def server(repository, tmp_path_factory):
    """A server of two workers."""
    process = Process(
        tmp_path_factory.mktemp("server") / "log",
        f"--model_repository={repository}",
        "--ready_when=names,half_plus_two",
        "--max_num_load_retries=0",
        "--workers=2",
        "--inline_below_us=0",  # all calls go through queues
    )
    try:
        yield process.wait_until_ready()
    finally:
        process.close()


def make_calls(server: Process) -> None:
    """A few good calls, and a few bad ones."""
    for model, body, status in (
        ("names", {"instances": ["1", "2"]}, 200),
        ("names", {"instances": [{"nothing": 1}]}, 400),
        ("half_plus_two", {"instances": [1.0, 2.0]}, 200),
        ("nobody_has_it", {"instances": [1.0]}, 404),
    ):
        for _ in range(4):  # connections go to either worker
            connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=30)
            connection.request("POST", f"/v1/models/{model}:predict", json.dumps(body))
            assert connection.getresponse().status == status
            connection.close()


@pytest.fixture(scope="module")
def prometheus(server, tmp_path_factory):
    make_calls(server)
    found = Prometheus(tmp_path_factory.mktemp("prometheus"), f"127.0.0.1:{server.http_port}")
    try:
        found.wait_for('servingd_requests_total{model="half_plus_two"}')
        make_calls(server)
        found.wait_for('rate(servingd_requests_total{model="half_plus_two",code="OK"}[20s]) > 0')
        yield found
    finally:
        found.close()


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_an_alert_looks_at_what_a_server_shows(prometheus, rule: dict) -> None:
    expression = rule["expr"]
    if "unless" not in expression:  # without its threshold
        expression = re.sub(r"\s*(==|<|>)\s*[\d.]+\s*$", "", expression)
    assert bool(prometheus.query(expression)) == (rule["alert"] not in SILENT_ALERTS)


def test_what_is_wrong_with_the_server_is_noticed(prometheus) -> None:
    prometheus.wait_for('ALERTS{alertname="ServingdVersionFailed"}')
    groups = {group["name"]: group["rules"] for group in prometheus.ask("rules")["groups"]}
    about_models = {rule["name"] for rule in groups["servingd-models"]}
    told = {
        (alert["metric"]["alertname"], alert["metric"]["model"])
        for alert in prometheus.query("ALERTS")
        if alert["metric"]["alertname"] in about_models  # others depend on the machine
    }
    assert told == {
        ("ServingdVersionFailed", "broken"),
        ("ServingdModelNotAvailable", "broken"),
        ("ServingdLoadsFail", "broken"),
        ("ServingdVersionIncomplete", "half_plus_two"),
    }
    rules = [rule for group in groups.values() for rule in group]
    assert {rule["name"] for rule in rules} == set(NAMES)
    assert {rule["health"] for rule in rules} == {"ok"}


RUNBOOKS = "; ".join(rule["annotations"]["runbook"] for rule in RULES)
FOUND = re.findall(r"servingd ((?:[a-z]+ )+(?:{{ \S+ }} )?--server {{ \S+ }})", RUNBOOKS)
TO_TYPE = sorted(command for command in set(FOUND) if "recycle" not in command)
"""What runbooks say to type, but for what would change the server."""


def test_no_command_of_a_runbook_is_overlooked() -> None:
    assert len(FOUND) == RUNBOOKS.count("--server")


@pytest.mark.parametrize("command", TO_TYPE)
def test_what_a_runbook_says_to_type_works(prometheus, command: str) -> None:
    command = command.replace("{{ $labels.instance }}", prometheus.target)
    words = command.replace("{{ $labels.model }}", "names").split()
    done = subprocess.run(
        [sys.executable, "-m", "servingd", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout


def filled_in(expression: str) -> str:
    """As Grafana sends it, when all is chosen."""
    for variable, value in (("model", ".*"), ("instance", ".*"), ("__rate_interval", "5m")):
        expression = expression.replace(f"${variable}", value)
    assert "$" not in expression
    return expression


@pytest.mark.parametrize(("query", "expression"), QUERIES)
def test_a_query_finds_something(prometheus, query: str, expression: str) -> None:
    found = prometheus.query(filled_in(expression))
    assert bool(found) == (query not in EMPTY_QUERIES)
    assert all(math.isfinite(float(series["value"][1])) for series in found)


def test_variables_offer_what_there_is(prometheus) -> None:
    variables = {v["name"]: v for v in DASHBOARD["templating"]["list"]}
    offered = {}
    for name in ("model", "instance"):
        metric, label = re.fullmatch(
            r"label_values\((\w+), (\w+)\)", variables[name]["query"]["query"]
        ).groups()
        offered[name] = {
            s["metric"][label] for s in prometheus.query(f"count by ({label}) ({metric})")
        }
    assert offered == {
        "model": {"names", "half_plus_two", "broken"},
        "instance": {prometheus.target},
    }


def test_the_autoscaler_asks_for_what_a_server_shows(prometheus) -> None:
    (rule,) = read("components/autoscaling/prometheus-adapter.yml")["rules"]
    autoscaler = read("components/autoscaling/horizontal-pod-autoscaler.yml")["spec"]
    asked = {m["pods"]["metric"]["name"] for m in autoscaler["metrics"] if m["type"] == "Pods"}
    assert asked == {rule["name"]["as"]}
    query = rule["metricsQuery"].replace("<<.GroupBy>>", "instance")
    query = query.replace("<<.LabelMatchers>>", f'instance="{prometheus.target}"')
    (series,) = prometheus.query(query)
    assert 0 < float(series["value"][1]) < 60
