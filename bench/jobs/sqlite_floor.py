"""Raw SQLite, WAL and `synchronous=FULL`: what the same rows cost without any library around them.

One table, with the columns that a job needs at least. Everything here blocks and runs in one process of its own.
"""

import sqlite3
import time
from pathlib import Path

QUEUED, RUNNING, DONE = 1, 2, 3

SCHEMA = """
create table jobs(
    n integer primary key, id text not null, task text not null, args text not null, status integer not null,
    attempt integer not null default 0, worker integer, created real not null, started real, ended real, result text
);
create unique index jobs_id on jobs(id);
create index jobs_queued on jobs(task, n) where status = 1;
create index jobs_running on jobs(worker) where status = 2;
"""
INSERT = "insert into jobs(id, task, args, status, created) values (?, ?, ?, 1, ?)"
CLAIM = """
update jobs set status = 2, attempt = attempt + 1, worker = 1, started = ?
where n in (select n from jobs where status = 1 and task = ? order by n limit ?) returning n, id, args
"""
FINISH = "update jobs set status = 3, ended = ?, result = ?, worker = null where n = ? and attempt = ? and status = 2"
GIVE_BACK = "update jobs set status = 1, worker = null, started = null where n = ? and status = 2"

TASK = "noop"
ARGS = '{"n":1}'


def connect(path: Path) -> sqlite3.Connection:
    """A connection that commits when told; the table is made if it is not there."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("pragma journal_mode = wal")
    database.execute("pragma synchronous = full")
    if not database.execute("select 1 from sqlite_master where name = 'jobs'").fetchone():
        database.executescript(SCHEMA)
    return database


def job_id(number: int) -> str:
    return f"{number:032x}"


def fill(database: sqlite3.Connection, count: int, task: str = TASK, first: int = 0) -> None:
    """Queue `count` jobs in one transaction."""
    now = time.time()
    database.execute("begin immediate")
    database.executemany(INSERT, ((job_id(first + n), task, ARGS, now) for n in range(count)))
    database.execute("commit")


def insert_one_by_one(database: sqlite3.Connection, count: int) -> float:
    """Seconds for `count` jobs, each committed by itself."""
    began = time.perf_counter()
    for number in range(count):
        database.execute(INSERT, (job_id(number), TASK, ARGS, time.time()))
    return time.perf_counter() - began


def process_one_by_one(database: sqlite3.Connection, count: int) -> float:
    """Seconds to claim and finish `count` queued jobs: one commit for the claim, one for the result."""
    began = time.perf_counter()
    for _ in range(count):
        ((number, _, _),) = database.execute(CLAIM, (time.time(), TASK, 1)).fetchall()
        database.execute(FINISH, (time.time(), "null", number, 1))
    return time.perf_counter() - began


def one_commit_per_change(path: Path, count: int) -> dict[str, float]:
    """Jobs per second through their whole life, three commits each; and the two halves of it."""
    database = connect(path)
    submit = insert_one_by_one(database, count)
    process = process_one_by_one(database, count)
    database.close()
    return {"submit": count / submit, "process": count / process, "both": count / (submit + process)}


def paced_commits(path: Path, count: int, per_second: float) -> list[float]:
    """Seconds of each of `count` single inserts, at an even pace: a disk that rests in between is another disk."""
    database = connect(path)
    taken = []
    began = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, began + number / per_second - time.monotonic()))
        before = time.perf_counter()
        database.execute(INSERT, (job_id(number), TASK, ARGS, time.time()))
        taken.append(time.perf_counter() - before)
    database.close()
    return taken


def file_bytes(path: Path) -> int:
    """The size of the data, once everything has moved from the write-ahead log into the file."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("pragma wal_checkpoint(truncate)")
    ((pages,),) = database.execute("pragma page_count").fetchall()
    ((size,),) = database.execute("pragma page_size").fetchall()
    database.close()
    return int(pages) * int(size)


def bytes_per_queued_job(path: Path, count: int) -> float:
    """What one more queued row takes in the file."""
    database = connect(path)
    database.close()
    empty = file_bytes(path)
    database = connect(path)
    fill(database, count)
    database.close()
    return (file_bytes(path) - empty) / count


class Queue:
    """A table with queued jobs, of which a batch is claimed and given back, again and again."""

    def __init__(self, path: Path, known: int, unknown_in_front: int, batch: int) -> None:
        self.batch = batch
        self.database = connect(path)
        fill(self.database, unknown_in_front, task="unknown")
        fill(self.database, known, first=unknown_in_front)
        self.database.execute("pragma wal_checkpoint(truncate)")

    def claim(self) -> float:
        """Seconds that one claim took; what it brought is given back, untimed."""
        before = time.perf_counter()
        rows = self.database.execute(CLAIM, (time.time(), TASK, self.batch)).fetchall()
        seconds = time.perf_counter() - before
        self.database.execute("begin immediate")
        self.database.executemany(GIVE_BACK, [(number,) for number, _, _ in rows])
        self.database.execute("commit")
        if len(rows) != self.batch:
            raise RuntimeError(f"a claim of {self.batch} brought {len(rows)} jobs")
        return seconds

    def close(self) -> None:
        self.database.close()
