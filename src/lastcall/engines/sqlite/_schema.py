"""The tables, how they came to be, and whose file this is.

Who calls it: the writer's `_database`, at every opening. `MIGRATIONS[v]` leads from version v to v + 1; a published
step is never changed, a new one is added below it. Every name begins with `lastcall_`, because the user's own tables
may live in the same file (`ctx.transaction`).

What the hot path pays for a job: one row, the unique index on its id, and one entry at a time in one of the partial
indexes; that is why everything else about a job either hangs on rare columns or has a table of its own.
"""

from __future__ import annotations

import sqlite3

from ...exceptions import EngineUnavailable, SchemaTooNew
from ._moved import move_of

# "last" in ASCII, at byte 68 of the file: `file` and we can tell it from other applications' databases.
APPLICATION_ID = 0x6C617374

_VERSION_1 = (
    # Where jobs belong. There are few; rows are never deleted. `jobs` counts them all, so that what cannot be counted
    # by a small index (the completed ones) is what is left.
    """CREATE TABLE lastcall_lane (
        id INTEGER PRIMARY KEY, queue TEXT NOT NULL, task TEXT NOT NULL, version TEXT NOT NULL,
        jobs INTEGER NOT NULL DEFAULT 0,
        UNIQUE (task, version, queue))""",
    # Long texts stand last: what is left of them is read without following their overflow pages.
    """CREATE TABLE lastcall_job (
        n INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        lane INTEGER NOT NULL,
        status TEXT NOT NULL,
        held INTEGER NOT NULL DEFAULT 0,
        priority INTEGER NOT NULL,
        attempt INTEGER NOT NULL DEFAULT 0,
        failures INTEGER NOT NULL DEFAULT 0,
        lost INTEGER NOT NULL DEFAULT 0,
        lost_in_a_row INTEGER NOT NULL DEFAULT 0,
        steps_at_last_loss INTEGER NOT NULL DEFAULT 0,
        max_lost INTEGER NOT NULL,
        max_attempts INTEGER NOT NULL,
        created_at REAL NOT NULL,
        due_at REAL,
        started_at REAL,
        ended_at REAL,
        expires_at REAL,
        retention_seconds REAL,
        worker TEXT,
        cancel_reason TEXT,
        key TEXT,
        key_task TEXT,
        limit_key TEXT,
        limit_count INTEGER,
        parent_id TEXT,
        labels TEXT,
        options TEXT,
        progress TEXT,
        args TEXT NOT NULL,
        result TEXT,
        error TEXT)""",
    """CREATE INDEX lastcall_job_claim ON lastcall_job (lane, priority DESC)
        WHERE status = 'queued' AND held = 0""",
    "CREATE INDEX lastcall_job_running ON lastcall_job (lane, worker) WHERE status = 'running'",
    "CREATE INDEX lastcall_job_due ON lastcall_job (due_at, lane) WHERE status = 'scheduled'",
    # Written with OR: an IN of three words costs every change of every job, in it or not, more than the index does.
    """CREATE INDEX lastcall_job_aside ON lastcall_job (status, n, lane)
        WHERE status = 'waiting' OR status = 'failed' OR status = 'cancelled'""",
    "CREATE UNIQUE INDEX lastcall_job_key ON lastcall_job (key, key_task) WHERE key IS NOT NULL",
    """CREATE INDEX lastcall_job_limit ON lastcall_job (limit_key, held, priority DESC)
        WHERE limit_key IS NOT NULL AND status IN ('queued', 'running')""",
    "CREATE INDEX lastcall_job_parent ON lastcall_job (parent_id) WHERE parent_id IS NOT NULL",
    # A row when an attempt has ended; the running one and a completed last one are told from the job's own row.
    """CREATE TABLE lastcall_attempt (
        job INTEGER NOT NULL, attempt INTEGER NOT NULL, worker TEXT, started_at REAL NOT NULL, ended_at REAL NOT NULL,
        outcome TEXT NOT NULL, reason TEXT, error TEXT,
        PRIMARY KEY (job, attempt)) WITHOUT ROWID""",
    """CREATE TABLE lastcall_step (
        n INTEGER PRIMARY KEY, job INTEGER NOT NULL, key TEXT NOT NULL, status TEXT NOT NULL, policy TEXT NOT NULL,
        main INTEGER NOT NULL, attempt INTEGER NOT NULL, started_at REAL NOT NULL, ended_at REAL,
        value TEXT, error TEXT,
        UNIQUE (job, key))""",
    """CREATE TABLE lastcall_event (
        job INTEGER NOT NULL, seq INTEGER NOT NULL, attempt INTEGER NOT NULL, step TEXT, type TEXT NOT NULL,
        at REAL NOT NULL, data TEXT NOT NULL,
        PRIMARY KEY (job, seq)) WITHOUT ROWID""",
    # Messages that came before anybody waited for them.
    """CREATE TABLE lastcall_message (
        n INTEGER PRIMARY KEY, job INTEGER NOT NULL, name TEXT NOT NULL, data TEXT NOT NULL)""",
    "CREATE INDEX lastcall_message_job ON lastcall_message (job, name)",
    # What jobs wait for. `due_at` is absolute, so that a wait asked for again ends when it would have ended.
    """CREATE TABLE lastcall_wait (
        n INTEGER PRIMARY KEY, job INTEGER NOT NULL, step TEXT NOT NULL, kind TEXT NOT NULL, name TEXT, seconds REAL,
        jobs TEXT NOT NULL, created_at REAL NOT NULL, due_at REAL,
        UNIQUE (job, step))""",
    "CREATE INDEX lastcall_wait_due ON lastcall_wait (due_at) WHERE due_at IS NOT NULL",
    # The jobs that a wait is about. `ended` is kept here too: ten thousand children that end one by one must not be
    # counted anew each time.
    """CREATE TABLE lastcall_wait_job (
        job_id TEXT NOT NULL, wait INTEGER NOT NULL, ended INTEGER NOT NULL,
        PRIMARY KEY (job_id, wait)) WITHOUT ROWID""",
    "CREATE INDEX lastcall_wait_job_wait ON lastcall_wait_job (wait, ended)",
    # Token buckets of rate limits.
    "CREATE TABLE lastcall_rate (task TEXT PRIMARY KEY, tokens REAL NOT NULL, at REAL NOT NULL) WITHOUT ROWID",
    "CREATE TABLE lastcall_schedule (name TEXT PRIMARY KEY, last_tick REAL NOT NULL) WITHOUT ROWID",
    # `lease_until` is a reading of the machine's monotonic clock in the boot `boot_id`.
    """CREATE TABLE lastcall_worker (
        id TEXT PRIMARY KEY, host TEXT NOT NULL, pid INTEGER NOT NULL, process_start TEXT, boot_id TEXT,
        pid_namespace TEXT, lease_seconds REAL NOT NULL, lease_until REAL NOT NULL, concurrency INTEGER NOT NULL,
        queues TEXT, joined_at REAL NOT NULL, renewed_at REAL NOT NULL) WITHOUT ROWID""",
)

# `held` has a second bit from here on: 1, a limit holds it back; 2, it is a suspect, which runs alone. A column of its
# own would stand behind the long texts, and be read by every claim.
_VERSION_2 = (
    """UPDATE lastcall_job SET held = held | 2 WHERE status IN ('scheduled', 'queued', 'running', 'waiting')
        AND max_lost > 1 AND lost_in_a_row >= max_lost - 1 AND steps_at_last_loss >=
        (SELECT count(*) FROM lastcall_step WHERE job = lastcall_job.n AND status = 'completed')""",
    "CREATE INDEX lastcall_job_suspect ON lastcall_job (status, lane, priority DESC) WHERE held >= 2",
)

# Free-standing streams. `id` is random: a cache outside must not take a stream for another of the same name.
_VERSION_3 = (
    """CREATE TABLE lastcall_stream (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, content_type TEXT NOT NULL, created_at REAL NOT NULL,
        ttl_seconds INTEGER, expires_at REAL, due REAL, closed INTEGER NOT NULL, first INTEGER NOT NULL,
        last INTEGER NOT NULL, tail INTEGER NOT NULL, writer_seq TEXT, parent INTEGER, inherited INTEGER NOT NULL,
        fork_source TEXT, fork_seq INTEGER, fork_end INTEGER, fork_further INTEGER,
        forks INTEGER NOT NULL, gone INTEGER NOT NULL)""",
    "CREATE INDEX lastcall_stream_due ON lastcall_stream (due) WHERE due IS NOT NULL AND gone = 0",
    # `upto`: how many bytes the stream has up to and including this entry.
    """CREATE TABLE lastcall_stream_entry (
        stream INTEGER NOT NULL, seq INTEGER NOT NULL, batch INTEGER NOT NULL, upto INTEGER NOT NULL, at REAL NOT NULL,
        data BLOB NOT NULL,
        PRIMARY KEY (stream, seq)) WITHOUT ROWID""",
    """CREATE TABLE lastcall_stream_producer (
        stream INTEGER NOT NULL, id TEXT NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL,
        PRIMARY KEY (stream, id)) WITHOUT ROWID""",
)

# How much is kept of a job's log (NULL: as usual), and how long the log was up to and including an entry. Columns that
# most rows lack cost nothing: SQLite reads no further than to the row's own end.
_VERSION_4 = (
    "ALTER TABLE lastcall_job ADD COLUMN log_max_bytes INTEGER",
    "ALTER TABLE lastcall_job ADD COLUMN log_max_age_seconds REAL",
    "ALTER TABLE lastcall_event ADD COLUMN upto INTEGER",
)

# Labels, to find jobs by. By triggers, so that a process of the version before keeps it right too; jobs without labels,
# most of them, do not pass the triggers' conditions.
_VERSION_5 = (
    """CREATE TABLE lastcall_label (
        name TEXT NOT NULL, value TEXT NOT NULL, job INTEGER NOT NULL,
        PRIMARY KEY (name, value, job)) WITHOUT ROWID""",
    """INSERT OR IGNORE INTO lastcall_label SELECT label.key, label.value, job.n FROM lastcall_job AS job
        JOIN json_each(job.labels) AS label WHERE job.labels IS NOT NULL""",
    """CREATE TRIGGER lastcall_labelled AFTER INSERT ON lastcall_job WHEN new.labels IS NOT NULL BEGIN
        INSERT OR IGNORE INTO lastcall_label SELECT key, value, new.n FROM json_each(new.labels); END""",
    """CREATE TRIGGER lastcall_unlabelled AFTER DELETE ON lastcall_job WHEN old.labels IS NOT NULL BEGIN
        DELETE FROM lastcall_label WHERE (name, value, job) IN (SELECT key, value, old.n FROM json_each(old.labels));
        END""",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_VERSION_1, _VERSION_2, _VERSION_3, _VERSION_4, _VERSION_5)

VERSION = len(MIGRATIONS)


def check_owner(connection: sqlite3.Connection, path: str) -> int:
    """The version of the schema; 0: an empty file. Refuses other applications' databases, newer versions, and files
    whose jobs were moved elsewhere."""
    version = version_of(connection, path)
    move = move_of(connection) if version else None
    if move is not None:
        raise EngineUnavailable(move.told(path))
    return version


def version_of(connection: sqlite3.Connection, path: str) -> int:
    """The same, also of a file whose jobs were moved elsewhere."""
    application_id, version, tables = _marks(connection)
    if application_id == 0 and not tables:
        return 0
    if application_id != APPLICATION_ID:
        raise EngineUnavailable(
            f"{path!r} is another application's database; nothing was changed. Give lastcall a file of its own"
        )
    if version > VERSION:
        raise SchemaTooNew(
            f"the database {path!r} has version {version} of the schema, and this lastcall knows {VERSION}; upgrade"
            " lastcall. Nothing was changed"
        )
    return version


def migrate(connection: sqlite3.Connection, path: str) -> None:
    """Bring the file to `VERSION`, in one transaction; another process that opens it at the same time waits."""
    if check_owner(connection, path) == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Again: another process may have been first while we waited for the lock.
        for step in MIGRATIONS[check_owner(connection, path) :]:
            for statement in step:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _marks(connection: sqlite3.Connection) -> tuple[int, int, int]:
    # One statement, and so one look at the file: between two, another process may have made its tables, and they would
    # be those of an application without a name.
    found: tuple[int, int, int] = connection.execute(
        "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_schema)"
        " FROM pragma_application_id, pragma_user_version"
    ).fetchone()
    return found
