"""The dashboard by Grafana's own schema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import combinations

import pytest
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.deploy.kit import DEPLOY

DASHBOARD = json.loads((DEPLOY / "grafana" / "servingd.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
TITLES = [panel["title"] for panel in PANELS]
QUERIES = [
    pytest.param(f"{panel['title']} {target['refId']}", target["expr"])
    for panel in PANELS
    for target in panel["targets"]
]


def lost(ours, read, where: str = "") -> Iterator[str]:
    """What is not the same after Grafana's schema has read it: it drops what it does not know."""
    if isinstance(ours, dict) and isinstance(read, dict):
        for key, value in ours.items():
            if key in read:
                yield from lost(value, read[key], f"{where}.{key}")
            else:
                yield f"{where}.{key}"
    elif isinstance(ours, list) and isinstance(read, list) and len(ours) == len(read):
        for place, (one, other) in enumerate(zip(ours, read, strict=True)):
            yield from lost(one, other, f"{where}[{place}]")
    elif ours != read:
        yield f"{where}: {ours!r} became {read!r}"


def test_grafana_knows_all_that_is_said() -> None:
    plugins.register_default_plugins()
    read = json.loads(JSONEncoder().encode(Dashboard.from_json(DASHBOARD)))
    assert list(lost(DASHBOARD, read)) == []
    wrong = {**DASHBOARD, "panels": [{**PANELS[0], "tittle": "x"}]}
    read = json.loads(JSONEncoder().encode(Dashboard.from_json(wrong)))
    assert list(lost(wrong, read)) == [".panels[0].tittle"]  # a slip would be seen


def test_panels_lie_beside_each_other_below_their_rows() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        {(x, y) for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])}
        for p in (panel["gridPos"] for panel in panels)
    ]
    assert all(one.isdisjoint(other) for one, other in combinations(cells, 2))
    assert max(x for cell in cells for x, _ in cell) < 24
    assert [p["title"] for p in panels if p["type"] == "row"] == [
        "Overview",
        "Models",
        "Latency",
        "Batching and queues",
        "Devices and memory",
        "Workers",
        "Loads",
    ]


def test_panels_explain_themselves_and_take_the_chosen_source() -> None:
    assert len(set(TITLES)) == len(TITLES)
    for panel in PANELS:
        assert panel["description"], panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@pytest.mark.parametrize(("query", "expression"), QUERIES)
def test_queries_obey_the_chosen_servers(query: str, expression: str) -> None:
    metrics = re.findall(r"\b(?:servingd|process)_\w+", expression)
    chosen = expression.count('instance=~"$instance"') + expression.count("on (instance) servingd_")
    assert query == "Alerts A" or chosen >= len(metrics)
