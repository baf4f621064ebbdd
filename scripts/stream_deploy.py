"""Readers of jobs' logs through a proxy, while the two servers behind it are replaced one after the other.

    python scripts/stream_deploy.py [--streams 50] [--readers 10] [--replacements 6] [--kills 0] [--seed N]

Each reader does what a browser's EventSource does. At the end everything a reader was told is compared with the store:
nothing lost, nothing doubled, nobody left behind. Exit code 1 otherwise; then the folder is kept.
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

from tests.streams.deploy.play import Plan, Play  # noqa: E402


def main() -> int:
    options = parse_arguments()
    folder = Path(tempfile.mkdtemp(prefix="lastcall-deploy-"))
    plan = Plan(
        options.seed,
        streams=options.streams,
        readers_per_stream=options.readers,
        tokens=options.tokens,
        replacements=options.replacements,
        kills=options.kills,
    )
    verdict = asyncio.run(Play(plan, folder, say=lambda line: print(line, flush=True)).run())
    print(verdict.text())
    if verdict.holds:
        shutil.rmtree(folder)
    else:
        print(f"kept: {folder}")
    return 0 if verdict.holds else 1


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--readers", type=int, default=10, help="of each stream (10)")
    parser.add_argument("--tokens", type=int, default=1500, help="that each stream says, one in 20 ms (1500)")
    parser.add_argument("--replacements", type=int, default=6, help="of servers, in turn (6)")
    parser.add_argument("--kills", type=int, default=0, help="how many of a hundred are SIGKILL (0)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
