"""The Durable Streams protocol's own conformance suite and its JavaScript client, against our server.

    python scripts/durable_streams.py [--store memory|sqlite] [--only conformance|client]

Needs node and npm; the packages are installed into the user's cache folder at the first run. Without --store both are
tested, side by side. Exit code 1 if anything failed, 2 if nothing could be run.
"""

import argparse
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.streams.durable.runner import CannotRun, Result, packages, run, server  # noqa: E402

STORES = ("memory", "sqlite")
SUITES = ("conformance", "client")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--store", choices=STORES)
    parser.add_argument("--only", choices=SUITES)
    options = parser.parse_args()
    stores = [options.store] if options.store else list(STORES)
    suites = [options.only] if options.only else list(SUITES)
    try:
        folder = packages()
    except CannotRun as error:
        print(error)
        return 2
    with ThreadPoolExecutor(len(stores)) as pool:
        results = list(pool.map(lambda store: test(store, folder, suites), stores))
    failed = 0
    for store, by_suite in zip(stores, results, strict=True):
        for suite, result in by_suite.items():
            failed += result.failed
            for failure in result.failures:
                print(f"FAILED {store} {suite}: {failure}")
            print(f"{suite} on {store}: {result}")
    return 1 if failed else 0


def test(store: str, folder: Path, suites: list[str]) -> dict[str, Result]:
    with tempfile.TemporaryDirectory() as own:
        database = Path(own) / "streams.db" if store == "sqlite" else None
        with server(database) as url:
            return {suite: run(url, folder, [f"{suite}.test.mjs"]) for suite in suites}


if __name__ == "__main__":
    sys.exit(main())
