"""How many results a store in SQLite has, seen from outside."""

import sqlite3
import time
from pathlib import Path

PAUSE_SECONDS = 0.05


def wait_recorded(folder: Path, query: str, count: int, seconds: float) -> float:
    """When (on the monotonic clock) `count` results were there, or else the time at which we stopped looking."""
    database = sqlite3.connect(folder / "jobs.db", timeout=10)
    deadline = time.monotonic() + seconds
    try:
        while True:
            ((found,),) = database.execute(query).fetchall()
            now = time.monotonic()
            if found >= count or now > deadline:
                return now
            time.sleep(PAUSE_SECONDS)
    finally:
        database.close()
