"""`python -m bench streams`: progress goes to stderr, the tables to stdout."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..jobs.report import progress, tables, write_json
from ..jobs.rows import Row
from . import writes

COMMAND = "streams"
WHAT = "streams written durably and read at once, beside raw SQLite and DBOS"


def run(arguments: Sequence[str]) -> int:
    """0 when all went well, 1 when somebody who is installed could not be measured."""
    made = argparse.ArgumentParser(prog=f"python -m bench {COMMAND}", description=WHAT)
    made.add_argument(
        "--peers", type=Path, metavar="DIR", help="where bench/jobs/install_peers.py has put DBOS"
    )
    made.add_argument("--quick", action="store_true", help="small sizes: does it run, not how fast")
    made.add_argument("--json", metavar="FILE", help="write every row there, too")
    given = made.parse_args(arguments)
    rows: list[Row] = []
    try:
        rows += writes.rows(writes.QUICK if given.quick else writes.FULL, given.peers)
    except KeyboardInterrupt:
        progress("interrupted")
        return 130
    print(tables(rows))
    if given.json:
        write_json(given.json, rows)
    return 1 if any(row.failed for row in rows) else 0
