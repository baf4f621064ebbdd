"""Workers on one SQLite file, killed, stopped and stalled at random for as long as you like; then the verdict.

    python scripts/chaos.py [--seconds 600] [--seed N] [--workers 3] [--keep FOLDER]

A ledger outside of the store counts every effect. Exit code 1 if a promise was broken; then the database, the ledger
and the workers' log are kept, and the seed says what was done (not how the processes interleaved).
"""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.jobs.crash.chaos import Chaos, Plan  # noqa: E402
from tests.jobs.crash.forks import Nursery  # noqa: E402


def main() -> int:
    options = parse_arguments()
    folder = Path(options.keep or tempfile.mkdtemp(prefix="lastcall-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    plan = Plan(options.seed, options.seconds, options.workers)
    print(f"seed {plan.seed}: {plan.seconds:g} s in {folder}", flush=True)
    with Nursery() as nursery:
        verdict = asyncio.run(Chaos(nursery, folder, plan).run())
    print(verdict.text())
    if verdict.holds and not options.keep:
        shutil.rmtree(folder)
    return 0 if verdict.holds else 1


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600.0, help="how long to attack (600)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--keep", metavar="FOLDER", help="work there, and leave it")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
