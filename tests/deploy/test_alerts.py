"""The alert rules by promtool's own tests."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
import yaml

from tests.deploy.kit import DEPLOY

FOLDER = DEPLOY / "prometheus"
RULES = [
    rule
    for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
NAMES = [rule["alert"] for rule in RULES]

needs_promtool = pytest.mark.skipif(
    not shutil.which("promtool"), reason="promtool is not installed (apt-get install prometheus)"
)


@needs_promtool
@pytest.mark.parametrize(
    "arguments",
    [("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml")],
    ids=" ".join,
)
def test_promtool_is_content(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["promtool", *arguments],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_an_alert_is_tried_both_ways(name: str) -> None:
    tried = [
        test["exp_samples"]
        for group in yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
        for test in group["promql_expr_test"]
        if f'alertname="{name}"' in test["expr"]
    ]
    assert any(tried), "nowhere does it fire"
    assert [] in tried, "nowhere does it keep quiet"


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_an_alert_says_what_to_do(rule: dict) -> None:
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert "for" in rule or rule["alert"] == "ServingdWorkersRestart"
    assert re.search(
        r"\bservingd (status|models show|devices|workers|validate)", rule["annotations"]["runbook"]
    )
