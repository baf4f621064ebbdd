"""The tables, how they came to be, and which version of them is there.

Who calls it: the database, at every opening. `MIGRATIONS[v]` leads from version v to v + 1; a published step is never
changed, a new one is added below it, and each must leave the tables usable for the version before it, because its
workers go on during a rolling deploy. Any number of processes may migrate at once: an advisory lock lets one through,
and the others find the work done.

All names stand in the schema `lastcall`; the store puts the chosen schema's name in its place.

What the hot path pays for a job: three versions of one row (queued, running, ended), each with an entry in two unique
indexes and at most one small partial one. `tied` says that more hangs on the job than its row: a limit key, waits of
its own, or others that wait for it. What is not tied ends in one statement.
"""

from __future__ import annotations

from typing import Any

from ...exceptions import EngineUnavailable, SchemaTooNew
from ._store import Texts

# Rows that are changed soon after they came leave room in their pages, and are cleaned up soon.
_BUSY = """WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500,
    autovacuum_analyze_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 1)"""
_APPENDED = "WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.1)"

_VERSION_1 = (
    """CREATE TABLE lastcall.lane (
        id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        queue text COLLATE "C" NOT NULL, task text COLLATE "C" NOT NULL, version text COLLATE "C" NOT NULL,
        UNIQUE (task, version, queue))""",
    # `n` is a job's age. `claim` is drawn anew for each claim, so that one whose answer was lost can be found again.
    f"""CREATE TABLE lastcall.job (
        n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        claim bigint,
        created_at float8 NOT NULL,
        due_at float8,
        started_at float8,
        ended_at float8,
        expires_at float8,
        retention_seconds float8,
        lane int NOT NULL,
        priority int NOT NULL,
        attempt int NOT NULL DEFAULT 0,
        failures int NOT NULL DEFAULT 0,
        lost int NOT NULL DEFAULT 0,
        lost_in_a_row int NOT NULL DEFAULT 0,
        steps_at_last_loss int NOT NULL DEFAULT 0,
        max_lost int NOT NULL,
        max_attempts int NOT NULL,
        limit_count int,
        last_seq int NOT NULL DEFAULT 0,
        log_bytes bigint NOT NULL DEFAULT 0,
        log_max_bytes bigint,
        log_max_age_seconds float8,
        held bool NOT NULL DEFAULT false,
        tied bool NOT NULL DEFAULT false,
        suspect bool NOT NULL DEFAULT false,
        status text COLLATE "C" NOT NULL,
        id text COLLATE "C" NOT NULL CONSTRAINT job_id UNIQUE,
        worker text COLLATE "C",
        cancel_reason text COLLATE "C",
        key text COLLATE "C",
        key_task text COLLATE "C",
        limit_key text COLLATE "C",
        parent_id text COLLATE "C",
        labels text,
        options text,
        progress text,
        args text NOT NULL,
        result text,
        error text) {_BUSY}""",
    """CREATE INDEX job_claim ON lastcall.job (lane, priority DESC, n)
        WHERE status = 'queued' AND NOT held AND NOT suspect""",
    # Nearly always empty, and then nothing more is asked about suspects.
    "CREATE INDEX job_suspect ON lastcall.job (status, lane, priority DESC, n) WHERE suspect",
    "CREATE INDEX job_running ON lastcall.job (worker) WHERE status = 'running'",
    "CREATE INDEX job_due ON lastcall.job (due_at) WHERE status = 'scheduled'",
    "CREATE INDEX job_aside ON lastcall.job (status, n) WHERE status IN ('waiting', 'failed', 'cancelled')",
    "CREATE INDEX job_expired ON lastcall.job (expires_at) WHERE expires_at IS NOT NULL",
    "CREATE UNIQUE INDEX job_key ON lastcall.job (key, key_task) WHERE key IS NOT NULL",
    """CREATE INDEX job_limit ON lastcall.job (limit_key, held, priority DESC, n)
        WHERE limit_key IS NOT NULL AND status IN ('queued', 'running')""",
    "CREATE INDEX job_parent ON lastcall.job (parent_id) WHERE parent_id IS NOT NULL",
    # A row when an attempt has ended; the running one and a completed last one are told from the job's own row.
    f"""CREATE TABLE lastcall.attempt (
        job bigint NOT NULL, attempt int NOT NULL, worker text, started_at float8 NOT NULL, ended_at float8 NOT NULL,
        outcome text NOT NULL, reason text, error text, PRIMARY KEY (job, attempt)) {_APPENDED}""",
    f"""CREATE TABLE lastcall.step (
        n bigint GENERATED ALWAYS AS IDENTITY, job bigint NOT NULL, key text COLLATE "C" NOT NULL,
        status text COLLATE "C" NOT NULL, policy text NOT NULL, main bool NOT NULL, attempt int NOT NULL,
        started_at float8 NOT NULL, ended_at float8, value text, error text, PRIMARY KEY (job, key)) {_APPENDED}""",
    # `upto`: how many bytes the log has had up to and including this entry, so that nobody adds anything up.
    f"""CREATE TABLE lastcall.event (
        job bigint NOT NULL, upto bigint NOT NULL, at float8 NOT NULL, seq int NOT NULL, attempt int NOT NULL,
        step text, type text NOT NULL, data text NOT NULL, PRIMARY KEY (job, seq)) {_APPENDED}""",
    # Messages that came before anybody waited for them.
    """CREATE TABLE lastcall.message (
        n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, job bigint NOT NULL, name text COLLATE "C" NOT NULL,
        data text NOT NULL)""",
    "CREATE INDEX message_job ON lastcall.message (job, name)",
    # What jobs wait for. `due_at` is absolute, so that a wait asked for again ends when it would have ended.
    """CREATE TABLE lastcall.wait (
        n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, job bigint NOT NULL, step text COLLATE "C" NOT NULL,
        kind text NOT NULL, name text COLLATE "C", seconds float8, jobs text NOT NULL, created_at float8 NOT NULL,
        due_at float8, UNIQUE (job, step))""",
    "CREATE INDEX wait_due ON lastcall.wait (due_at) WHERE due_at IS NOT NULL",
    # The jobs that a wait is about. `ended` is kept here too: ten thousand children that end one by one must not be
    # counted anew each time.
    """CREATE TABLE lastcall.wait_job (
        job_id text COLLATE "C" NOT NULL, wait bigint NOT NULL, ended bool NOT NULL, PRIMARY KEY (job_id, wait))""",
    "CREATE INDEX wait_job_open ON lastcall.wait_job (wait) WHERE NOT ended",
    "CREATE INDEX wait_job_wait ON lastcall.wait_job (wait)",
    # Token buckets of rate limits.
    """CREATE TABLE lastcall.rate (
        task text COLLATE "C" PRIMARY KEY, tokens float8 NOT NULL, at float8 NOT NULL) WITH (fillfactor = 50)""",
    'CREATE TABLE lastcall.schedule (name text COLLATE "C" PRIMARY KEY, last_tick float8 NOT NULL)',
    """CREATE TABLE lastcall.worker (
        id text COLLATE "C" PRIMARY KEY, host text NOT NULL, pid bigint NOT NULL, process_start text, boot_id text,
        pid_namespace text, lease_seconds float8 NOT NULL, lease_until float8 NOT NULL, concurrency int NOT NULL,
        queues text[], joined_at float8 NOT NULL, renewed_at float8 NOT NULL) WITH (fillfactor = 50)""",
    # Free-standing streams. `id` is random: a cache outside must not take a stream for another of the same name.
    """CREATE TABLE lastcall.stream (
        id bigint PRIMARY KEY, name text COLLATE "C" NOT NULL UNIQUE, content_type text NOT NULL,
        created_at float8 NOT NULL, ttl_seconds bigint, expires_at float8, due float8, closed bool NOT NULL,
        first bigint NOT NULL, last bigint NOT NULL, tail bigint NOT NULL, writer_seq text, parent bigint,
        inherited bigint NOT NULL, fork_source text, fork_seq bigint, fork_end bigint, fork_further bigint,
        forks int NOT NULL, gone bool NOT NULL) WITH (fillfactor = 70)""",
    "CREATE INDEX stream_due ON lastcall.stream (due) WHERE due IS NOT NULL AND NOT gone",
    # `upto`: how many bytes the stream has up to and including this entry.
    f"""CREATE TABLE lastcall.stream_entry (
        stream bigint NOT NULL, seq bigint NOT NULL, batch bigint NOT NULL, upto bigint NOT NULL, at float8 NOT NULL,
        data bytea NOT NULL, PRIMARY KEY (stream, seq)) {_APPENDED}""",
    """CREATE TABLE lastcall.stream_producer (
        stream bigint NOT NULL, id text COLLATE "C" NOT NULL, epoch bigint NOT NULL, seq bigint NOT NULL,
        PRIMARY KEY (stream, id))""",
    # Counts changes, for those who cannot listen: see `_hints`.
    "CREATE SEQUENCE lastcall.news",
)

# Labels, to find jobs by. By triggers, so that workers of the version before keep it right too; jobs without labels,
# most of them, do not pass the triggers' conditions, which cost next to nothing. A label with a NUL, which JSON may
# hold and PostgreSQL may not, is found by nobody.
_LABELS_OF = """SELECT label.key, label.value, {job}.n FROM jsonb_each_text(
    CASE WHEN strpos({job}.labels, '\\u0000') = 0 THEN {job}.labels::jsonb ELSE '{{}}'::jsonb END) AS label"""
_VERSION_2 = (
    f"""CREATE TABLE lastcall.label (
        name text COLLATE "C" NOT NULL, value text COLLATE "C" NOT NULL, job bigint NOT NULL) {_APPENDED}""",
    f"""INSERT INTO lastcall.label (name, value, job) SELECT found.* FROM lastcall.job
        CROSS JOIN LATERAL ({_LABELS_OF.format(job="job")}) AS found WHERE job.labels IS NOT NULL""",
    # By hash: a label may be longer than what fits into a B-tree's entry.
    "CREATE INDEX label_found ON lastcall.label (hashtextextended(name || chr(1) || value, 0), job)",
    "CREATE INDEX label_job ON lastcall.label (job)",
    f"""CREATE FUNCTION lastcall.labelled() RETURNS trigger LANGUAGE plpgsql AS $body$ BEGIN
        INSERT INTO lastcall.label (name, value, job) {_LABELS_OF.format(job="NEW")}; RETURN NULL; END $body$""",
    """CREATE FUNCTION lastcall.unlabelled() RETURNS trigger LANGUAGE plpgsql AS $body$ BEGIN
        DELETE FROM lastcall.label WHERE job = OLD.n; RETURN NULL; END $body$""",
    """CREATE TRIGGER labelled AFTER INSERT ON lastcall.job FOR EACH ROW
        WHEN (NEW.labels IS NOT NULL) EXECUTE FUNCTION lastcall.labelled()""",
    """CREATE TRIGGER unlabelled AFTER DELETE ON lastcall.job FOR EACH ROW
        WHEN (OLD.labels IS NOT NULL) EXECUTE FUNCTION lastcall.unlabelled()""",
)

_VERSION_3 = (
    # What a transaction of ours leaves behind, so that it can be asked for when the answer to its commit was lost: see
    # `_doubt`. One row for each that is under way at once, written again and again.
    """CREATE TABLE lastcall.witness (slot bigint PRIMARY KEY, token bigint NOT NULL, at float8 NOT NULL)
        WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0.5, autovacuum_vacuum_threshold = 1000)""",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_VERSION_1, _VERSION_2, _VERSION_3)

VERSION = len(MIGRATIONS)

_META = "CREATE TABLE IF NOT EXISTS lastcall.meta (version int NOT NULL)"
# Not `to_regclass`: it may know from before the lock that there is no such table, and not have heard of it since.
_HAS_META = "SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = $1 AND tablename = 'meta')"
_VERSION = "SELECT version FROM lastcall.meta"
LOCK = "SELECT pg_advisory_xact_lock(7811887, hashtext($1))"


async def version_of(connection: Any, texts: Texts) -> int:
    """The version that is there; 0: none."""
    if not await connection.fetchval(_HAS_META, texts.schema):
        return 0
    return int(await connection.fetchval(texts(_VERSION)) or 0)


async def migrate(connection: Any, texts: Texts) -> None:
    """Bring the schema to `VERSION`, in one transaction. Raises `SchemaTooNew`, and whatever the server says."""
    if _known(await version_of(connection, texts), texts) == VERSION:
        return
    async with connection.transaction():
        await connection.execute("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0")
        await connection.fetchval(LOCK, texts.schema)
        # Again: another process may have been first while we waited for the lock.
        version = _known(await version_of(connection, texts), texts)
        if version == VERSION:
            return
        if version == 0:
            await _begin(connection, texts)
        for step in MIGRATIONS[version:]:
            for statement in step:
                await connection.execute(texts(statement))
        await connection.execute(texts(f"UPDATE lastcall.meta SET version = {VERSION}"))


async def _begin(connection: Any, texts: Texts) -> None:
    """A schema of our own. One with other tables in it is somebody else's."""
    tables = await connection.fetchval(
        "SELECT count(*) FROM pg_tables WHERE schemaname = $1 AND tablename <> 'meta'", texts.schema
    )
    if tables:
        raise EngineUnavailable(
            f"the schema {texts.schema!r} holds tables of another application; nothing was changed. Give lastcall a"
            " schema of its own: ?schema=NAME"
        )
    if not await connection.fetchval("SELECT 1 FROM pg_namespace WHERE nspname = $1", texts.schema):
        # Only when it is missing: it asks for a right on the database that need not be granted afterwards.
        await connection.execute(f"CREATE SCHEMA {texts.quoted}")
    await connection.execute(texts(_META))
    await connection.execute(
        texts("INSERT INTO lastcall.meta SELECT 0 WHERE NOT EXISTS (SELECT FROM lastcall.meta)")
    )


def _known(version: int, texts: Texts) -> int:
    if version > VERSION:
        raise SchemaTooNew(
            f"the schema {texts.schema!r} has version {version}, and this lastcall knows {VERSION}; upgrade lastcall."
            " Nothing was changed"
        )
    return version
