"""The table of names is whole: what the code writes stands in it."""

import ast

from lastcall._names import JOB_EVENTS, LOG_EVENTS, METRICS
from tests.frame.floorplan import SOURCES


def written() -> set[str]:
    """Every type of event that the code names where it writes one."""
    found = set()
    for path in SOURCES.rglob("*.py"):
        if {"testing", "demo"} & set(path.parts):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                name = (
                    node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                )
                if name in ("NewEvent", "emit") and isinstance(node.args[0].value, str):
                    found.add(node.args[0].value)
    return found


def test_every_event_has_its_line() -> None:
    """An event that a job's log can have without its program's doing is in the table."""
    assert {"status", "stream.text", "tool.call"} <= written() <= {event.name for event in JOB_EVENTS}


def test_every_metric_has_names_of_its_own() -> None:
    """No name is used twice, in neither way of writing it."""
    assert len({metric.name for metric in METRICS}) == len({m.prometheus for m in METRICS}) == len(METRICS)


def test_the_events_of_log_lines_are_those_of_the_table() -> None:
    """Each event that a log line names is in the table, and none is left in it that no line has."""
    named = set()
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "extra":
                named |= {each.value for each in ast.walk(node.value) if isinstance(each, ast.Constant)}
    events = {event.name for event in LOG_EVENTS}
    assert events <= named
    assert {name for name in named if isinstance(name, str) and "." in name} == events
