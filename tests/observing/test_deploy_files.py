"""The dashboard and the alert rules: they parse, and ask for nothing that does not exist.

Grafana and Prometheus themselves are not here; the expressions are read by the parser that promql-parser brings.
"""

import json
import re
from typing import Any

import promql_parser
import pytest
import yaml

from lastcall._names import METRICS
from tests.frame.floorplan import ROOT

DASHBOARD = json.loads((ROOT / "deploy/grafana/lastcall.json").read_text(encoding="utf-8"))
ALERTS = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8"))

# What Prometheus adds by itself.
SCRAPED = {"job", "instance", "le"}


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def rules() -> list[dict[str, Any]]:
    return [rule for group in ALERTS["groups"] for rule in group["rules"]]


EXPRESSIONS = [
    *(target["expr"].replace("$__rate_interval", "5m") for panel in panels() for target in panel["targets"]),
    *(rule["expr"] for rule in rules()),
]

SERIES = {
    series: set(metric.attributes) | SCRAPED
    for metric in METRICS
    for series in (
        [metric.prometheus + end for end in ("_bucket", "_count", "_sum")]
        if metric.shape == "histogram"
        else [metric.prometheus]
    )
}


def labels_of(expression: str) -> set[str]:
    """Every label that an expression selects or groups by."""
    grouped = re.findall(r"\b(?:by|on|without) \(([^)]*)\)", expression)
    selected = re.findall(r"[{,]\s*(\w+)\s*(?:=|!)", expression)
    return {label.strip() for group in grouped for label in group.split(",")} | set(selected)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_parses_and_asks_for_what_exists(expression: str) -> None:
    """Each series is one that lastcall makes, and each label one that some of them has."""
    promql_parser.parse(expression)
    asked = set(re.findall(r"\blastcall_\w+", expression))
    assert asked and asked <= set(SERIES)
    assert labels_of(expression) <= set().union(*(SERIES[series] for series in asked))


def test_every_metric_is_shown() -> None:
    """No metric is collected that the dashboard leaves out."""
    asked = {name for expression in EXPRESSIONS for name in re.findall(r"\blastcall_\w+", expression)}
    shown = [m.name for m in METRICS if not any(name.startswith(m.prometheus) for name in asked)]
    assert shown == []


def test_rules_are_whole() -> None:
    """Each rule has a name of its own, a severity and words; its words use labels that its expression keeps."""
    assert len({rule["alert"] for rule in rules()}) == len(rules())
    for rule in rules():
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "1m"))
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert set(rule["annotations"]) == {"summary", "description"}
        kept = {label for found in re.findall(r"by \(([^)]*)\)", rule["expr"]) for label in found.split(", ")}
        kept |= {"manager", "instance", "job"} if " by " not in rule["expr"] else set()
        used = {
            label for text in rule["annotations"].values() for label in re.findall(r"\$labels\.(\w+)", text)
        }
        assert used <= kept, rule["alert"]


def test_panels_do_not_overlap() -> None:
    """Every panel has its own id and its own place on the grid of 24 columns."""
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) == 23
