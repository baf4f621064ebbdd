"""`python -m bench postgres [section ...]`: progress goes to stderr, tables to stdout.

The exit code is 0, or 1 if a contender that is installed could not be measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..jobs import deploy
from ..jobs.catalog import Setting, named
from ..jobs.report import progress, tables, write_json
from ..jobs.rows import Row
from ..jobs.servers import Servers
from . import capacity, latency, throughput, tokens
from .catalog import DEPLOY, SPEED
from .figures import put_into, table
from .measuring import FEW, FULL, QUICK, Bench
from .plot import draw
from .server import PostgresServer, problem

COMMAND = "postgres"
WHAT = "durable jobs on PostgreSQL, beside raw asyncpg and other libraries; and what one server carries"
ROWS = {"throughput": throughput.rows, "latency": latency.rows, "tokens": tokens.rows}
GAPS, CAPACITY = "gaps", "capacity"
SECTIONS = (*ROWS, GAPS, CAPACITY)
SIZES = {"full": FULL, "few": FEW, "quick": QUICK}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog=f"python -m bench {COMMAND}", description=WHAT)
    made.add_argument(
        "section", nargs="*", help=f"any of {', '.join(SECTIONS)}; all but {CAPACITY} if none is named"
    )
    made.add_argument(
        "--peers", type=Path, metavar="DIR", help="where bench/jobs/install_peers.py has put the others"
    )
    made.add_argument("--only", action="append", metavar="NAME", help="these contenders; may be repeated")
    made.add_argument(
        "--few", action="store_true", help="fewer rounds: some minutes instead of a quarter hour"
    )
    made.add_argument("--quick", action="store_true", help="small sizes: does it run, not how fast")
    made.add_argument("--json", metavar="FILE", help="write every row there, too")
    made.add_argument("--page", metavar="FILE", help=f"put the figures of {CAPACITY} into that page")
    made.add_argument("--note", default="", help="a line above them: when, and what else the machine did")
    made.add_argument("--svg", metavar="FILE", help=f"draw the figures of {CAPACITY} there")
    return made


def run(arguments: Sequence[str]) -> int:
    """0 when all went well, 1 when somebody who is installed could not be measured."""
    made = parser()
    given = made.parse_args(arguments)
    for section in given.section:
        if section not in SECTIONS:
            made.error(f"unknown section {section!r}; choose from {', '.join(SECTIONS)}")
    wanted = given.section or [section for section in SECTIONS if section != CAPACITY]
    try:
        speed = named(SPEED, given.only)
    except ValueError as error:
        made.error(str(error))
    if why := problem():
        progress(why)
        return 0
    sizes = QUICK if given.quick else FEW if given.few else FULL
    with PostgresServer() as server:
        bench = Bench(sizes, given.peers, speed, server)
        progress(f"PostgreSQL {server.version}, its own defaults: fsync and synchronous commits on")
        rows: list[Row] = []
        found: list[deploy.Outcome] = []
        for section, measure in ROWS.items():
            if section in wanted:
                rows += measure(bench)
        if GAPS in wanted:
            found = gaps(bench, given.only, quick=given.quick)
        if rows:
            print(tables(rows))
        if found:
            print(deploy.table(found))
    answer: list[object] = [*rows, *found]
    if CAPACITY in wanted:
        figures = capacity.run(quick=given.quick, few=given.few)
        answer.append(figures)
        print(table(figures))
        if given.svg:
            Path(given.svg).write_text(draw(figures), encoding="utf-8")
        if given.page:
            page = Path(given.page)
            page.write_text(put_into(page.read_text(encoding="utf-8"), figures, given.note), encoding="utf-8")
    if given.json:
        write_json(given.json, answer)
    return 1 if any(row.failed for row in rows) or any(each.failed for each in found) else 0


def gaps(bench: Bench, only: list[str] | None, *, quick: bool) -> list[deploy.Outcome]:
    """The deploy test on this server."""
    settings: tuple[Setting, ...] = tuple(
        setting for setting in DEPLOY if not only or {setting.name, setting.peer} & set(only)
    )
    timing = deploy.QUICK if quick else deploy.FULL
    timing = replace(timing, watch_seconds=bench.sizes.watch_seconds)
    scenarios = deploy.scenarios(settings, deploy.SIGNALS, deploy.VARIANTS, timing)
    return deploy.run_all(scenarios, bench.peers, Servers(None, bench.server), parallel=20)
