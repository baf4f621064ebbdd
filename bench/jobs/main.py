"""`python -m bench jobs [section ...]` and `python -m bench deploy [scenario ...]`.

Progress goes to stderr, tables to stdout. The exit code is 0, or 1 if a contender that is installed could not be
measured.
"""

import argparse
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from . import deploy, latency, memory, million, throughput
from .catalog import DEPLOY, SPEED, Setting, named
from .report import progress, tables, write_json
from .rows import Row
from .run import FULL, QUICK, Run
from .servers import opened

SECTIONS = {
    "throughput": throughput.rows,
    "latency": latency.rows,
    "memory": memory.rows,
    "million": million.rows,
}
COMMANDS = {
    "jobs": "durable jobs, beside raw SQLite and other libraries: " + ", ".join(SECTIONS),
    "deploy": "the deploy test: SIGTERM and SIGKILL in the middle of a job of thirty steps",
}


def parser(command: str, settings: tuple[Setting, ...]) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog=f"python -m bench {command}", description=COMMANDS[command])
    made.add_argument(
        "--peers",
        type=Path,
        metavar="DIR",
        help="where bench/jobs/install_peers.py has put the other libraries",
    )
    made.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        help=f"these contenders: a library or any of {', '.join(s.name for s in settings)}; may be repeated",
    )
    made.add_argument("--quick", action="store_true", help="small sizes: does it run, not how fast")
    made.add_argument("--json", metavar="FILE", help="write every row there, too")
    return made


def run_jobs(arguments: Sequence[str]) -> int:
    made = parser("jobs", SPEED)
    made.add_argument(
        "section", nargs="*", metavar="section", help=f"any of {', '.join(SECTIONS)}; all if none is named"
    )
    made.add_argument("--jobs", type=int, metavar="N", help=f"jobs for the throughput ({FULL.jobs:,})")
    given = made.parse_args(arguments)
    for section in given.section:
        if section not in SECTIONS:
            made.error(f"unknown section {section!r}; choose from {', '.join(SECTIONS)}")
    try:
        settings = named(SPEED, given.only)
    except ValueError as error:
        made.error(str(error))
    sizes = QUICK if given.quick else FULL
    if given.jobs is not None:
        if given.jobs < 1:
            made.error("--jobs must be at least 1")
        sizes = replace(sizes, jobs=given.jobs)
    rows: list[Row] = []
    with opened(given.peers, settings) as servers:
        run = Run(sizes, given.peers, settings, servers)
        for section, measure in SECTIONS.items():
            if not given.section or section in given.section:
                rows += measure(run)
    print(tables(rows))
    if given.json:
        write_json(given.json, rows)
    return 1 if any(row.failed for row in rows) else 0


def run_deploy(arguments: Sequence[str]) -> int:
    made = parser("deploy", DEPLOY)
    made.add_argument(
        "--signal", action="append", choices=deploy.SIGNALS, help="TERM and KILL if none is named"
    )
    made.add_argument(
        "--variant",
        action="append",
        choices=deploy.VARIANTS,
        help="restart: a new worker at 8 s; second: another worker runs all the time; both if none is named",
    )
    made.add_argument(
        "--watch", type=float, metavar="SECONDS", help="how long to wait for the job to begin again (120)"
    )
    made.add_argument("--parallel", type=int, default=12, metavar="N", help="scenarios side by side (12)")
    given = made.parse_args(arguments)
    try:
        settings = named(DEPLOY, given.only)
    except ValueError as error:
        made.error(str(error))
    timing = deploy.QUICK if given.quick else deploy.FULL
    if given.watch is not None:
        timing = replace(timing, watch_seconds=given.watch)
    scenarios = deploy.scenarios(
        settings, given.signal or deploy.SIGNALS, given.variant or deploy.VARIANTS, timing
    )
    with opened(given.peers, settings) as servers:
        found = deploy.run_all(scenarios, given.peers, servers, parallel=given.parallel)
    print(deploy.table(found))
    if given.json:
        write_json(given.json, found)
    return 1 if any(outcome.failed for outcome in found) else 0


def run(command: str, arguments: Sequence[str]) -> int:
    """Carry out one of `COMMANDS`; the exit code."""
    # Workers are leaders of sessions of their own: who only ended us would leave them running.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run_jobs(arguments) if command == "jobs" else run_deploy(arguments)
    except KeyboardInterrupt:
        progress("interrupted")
        return 130
