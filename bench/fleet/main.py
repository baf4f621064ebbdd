"""`python -m bench fleet`: a line now and then on stderr, the verdict on stdout."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..jobs.report import machine, progress
from . import plan

if TYPE_CHECKING:
    from .verdict import Verdict

COMMAND = "fleet"
WHAT = "workers on one database, killed, stopped, stalled and cut off by a seed; then a verdict per promise"


def run(arguments: Sequence[str]) -> int:
    """0 when all promises held, 1 when one was broken: then the folder with ledger and log is kept."""
    given = parser().parse_args(arguments)
    options = plan.Options(**{name: getattr(given, name) for name in plan.Options._fields})
    if options.seed is None:
        options = options._replace(seed=random.SystemRandom().randrange(10**6))
    actions = plan.actions(options)
    if given.replay:
        options, actions = plan.from_json(json.loads(Path(given.replay).read_text(encoding="utf-8")))
    folder = Path(given.keep or tempfile.mkdtemp(prefix="lastcall-fleet-"))
    folder.mkdir(parents=True, exist_ok=True)
    progress(
        f"{options.store}, seed {options.seed}: {len(actions)} attacks in {options.seconds:g} s, in {folder}"
    )
    verdict = asyncio.run(_play(options, actions, folder))
    print(verdict.text())
    result = {"machine": machine(), **verdict.to_json()}
    Path(given.json or folder / "result.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    if verdict.holds and not given.keep:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        progress(f"kept: {folder}")
    return 0 if verdict.holds else 1


async def _play(options: plan.Options, actions: list[plan.Action], folder: Path) -> Verdict:
    # Here, because `python -m bench` works also where there is no driver for PostgreSQL.
    from .play import Play

    play = Play(options, actions, folder, progress)
    # The first Ctrl-C ends the attack, and the verdict is about what was done until then; a second one is as usual.
    loop = asyncio.get_running_loop()

    def stop() -> None:
        progress("told to stop")
        play.stop.set()
        loop.remove_signal_handler(signal.SIGINT)

    loop.add_signal_handler(signal.SIGINT, stop)
    try:
        return await play.run()
    finally:
        loop.remove_signal_handler(signal.SIGINT)


def parser() -> argparse.ArgumentParser:
    usual = plan.Options()
    made = argparse.ArgumentParser(prog=f"python -m bench {COMMAND}", description=WHAT)
    made.add_argument("--store", choices=plan.STORES, default=usual.store)
    made.add_argument("--seconds", type=float, default=usual.seconds, help="how long to attack (%(default)g)")
    made.add_argument("--workers", type=int, default=usual.workers, help="processes (%(default)s)")
    made.add_argument("--seed", type=int, help="of what is done to whom (a new one)")
    made.add_argument("--concurrency", type=int, default=usual.concurrency, help="jobs at once (%(default)s)")
    made.add_argument(
        "--jobs", dest="jobs_per_second", type=float, metavar="N", default=usual.jobs_per_second,
        help="submitted per second (%(default)g)",
    )  # fmt: skip
    made.add_argument(
        "--attacks", dest="attacks_per_second", type=float, metavar="N", default=usual.attacks_per_second,
        help="per second (%(default)g)",
    )  # fmt: skip
    made.add_argument(
        "--lease", dest="lease_seconds", type=float, metavar="SECONDS", default=usual.lease_seconds,
        help="of each worker (%(default)g)",
    )  # fmt: skip
    made.add_argument("--replay", metavar="RESULT", help="the plan and the options of this result, once more")
    made.add_argument("--keep", metavar="FOLDER", help="work there, and leave it")
    made.add_argument("--json", metavar="FILE", help="write the result there")
    return made
