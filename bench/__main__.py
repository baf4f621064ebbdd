"""`python -m bench`: measure, and print a table. Progress goes to stderr, figures to stdout."""

import argparse
import sys

from .chart import svg
from .fleet import main as fleet
from .jobs.main import COMMANDS
from .jobs.main import run as run_command
from .postgres import main as postgres
from .report import table, write_json
from .runner import FULL, QUICK, SECTIONS, run
from .streams import main as streams

LOOPS = ("asyncio", "uvloop", "eager")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m bench",
        description="What tracking a task costs, as a ratio to asyncio alone.",
        epilog="commands of their own, each with --help: "
        + "; ".join(
            f"`{name}`: {what}"
            for name, what in [
                *COMMANDS.items(),
                (streams.COMMAND, streams.WHAT),
                (fleet.COMMAND, fleet.WHAT),
                (postgres.COMMAND, postgres.WHAT),
            ]
        ),
    )
    made.add_argument(
        "section", nargs="*", metavar="section", help=f"any of {', '.join(SECTIONS)}; all if none is named"
    )
    made.add_argument(
        "--quick", action="store_true", help="small sizes and few rounds: does it run, not how fast"
    )
    made.add_argument(
        "--loop", action="append", choices=LOOPS, help="asyncio and uvloop if none is named; may be repeated"
    )
    made.add_argument("--json", metavar="FILE", help="write every row there, too")
    made.add_argument("--svg", metavar="FILE", help="draw the median ratios there")
    return made


def main() -> int:
    """0 when all went well, 1 when a contender that is installed could not be measured."""
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        return run_command(sys.argv[1], sys.argv[2:])
    if sys.argv[1:2] == [streams.COMMAND]:
        return streams.run(sys.argv[2:])
    if sys.argv[1:2] == [fleet.COMMAND]:
        return fleet.run(sys.argv[2:])
    if sys.argv[1:2] == [postgres.COMMAND]:
        return postgres.run(sys.argv[2:])
    arguments = parser().parse_args()
    for section in arguments.section:
        if section not in SECTIONS:
            parser().error(f"unknown section {section!r}; choose from {', '.join(SECTIONS)}")
    sections = tuple(section for section in SECTIONS if not arguments.section or section in arguments.section)
    rows = run(sections, tuple(arguments.loop or LOOPS[:2]), QUICK if arguments.quick else FULL)
    print(table(rows))
    if arguments.json:
        write_json(arguments.json, rows)
    if arguments.svg:
        with open(arguments.svg, "w", encoding="utf-8") as file:
            file.write(svg(rows))
    return 1 if any(row.failed for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
