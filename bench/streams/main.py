"""`python -m bench streams`: progress goes to stderr, the tables to stdout."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..jobs.report import progress, tables, write_json
from ..jobs.rows import Row
from . import readers, writes

COMMAND = "streams"
WHAT = "streams written durably, beside raw SQLite and DBOS, and read over HTTP, beside other event streams"
SECTIONS = ("writes", "readers")


def run(arguments: Sequence[str]) -> int:
    """0 when all went well, 1 when somebody who is installed could not be measured."""
    made = argparse.ArgumentParser(prog=f"python -m bench {COMMAND}", description=WHAT)
    made.add_argument("section", nargs="*", help=f"any of {', '.join(SECTIONS)}; all if none is named")
    made.add_argument(
        "--peers", type=Path, metavar="DIR", help="where bench/jobs/install_peers.py has put DBOS"
    )
    made.add_argument("--quick", action="store_true", help="small sizes: does it run, not how fast")
    made.add_argument("--json", metavar="FILE", help="write every row there, too")
    given = made.parse_args(arguments)
    for section in given.section:
        if section not in SECTIONS:
            made.error(f"unknown section {section!r}; choose from {', '.join(SECTIONS)}")
    wanted = given.section or SECTIONS
    rows: list[Row] = []
    try:
        if "writes" in wanted:
            rows += writes.rows(writes.QUICK if given.quick else writes.FULL, given.peers)
        if "readers" in wanted:
            rows += readers.rows(readers.QUICK if given.quick else readers.FULL)
    except KeyboardInterrupt:
        progress("interrupted")
        return 130
    print(tables(rows))
    if given.json:
        write_json(given.json, rows)
    return 1 if any(row.failed for row in rows) else 0
