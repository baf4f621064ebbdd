"""Write the tables of docs/observability.md from the table of names in the code.

python scripts/names.py
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "observability.md"

sys.path.insert(0, str(ROOT / "src"))

from lastcall._names import JOB_EVENTS, LOG_EVENTS, LOG_FIELDS, METRICS, SPANS, Named  # noqa: E402  # found by the line above


def tables() -> dict[str, str]:
    """Each table by the name that its place on the page has."""
    metrics = [
        (f"`{m.name}`", f"`{m.prometheus}`", m.shape, ", ".join(m.attributes) or "-", m.about)
        for m in METRICS
    ]
    return {
        "metrics": _table(("OpenTelemetry", "Prometheus", "shape", "labels", "what"), metrics),
        "spans": _named("span", SPANS),
        "fields": _named("field", LOG_FIELDS),
        "lines": _named("event", LOG_EVENTS),
        "events": _named("event", JOB_EVENTS),
    }


def with_tables(page: str) -> str:
    """The page with its tables as the code has them. Raises ValueError for a page that has no place for one."""
    for name, table in tables().items():
        place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.S)
        if not place.search(page):
            raise ValueError(
                f"the page has no place for the table {name!r}: <!-- {name} --> ... <!-- end -->"
            )
        page = place.sub(lambda found, table=table: found[1] + table + found[2], page)
    return page


def _named(what: str, rows: Iterable[Named]) -> str:
    return _table((what, "what"), [(f"`{row.name}`", row.about) for row in rows])


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
