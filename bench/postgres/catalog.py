"""Who takes part on PostgreSQL, under which settings. Imports none of them."""

from __future__ import annotations

from ..jobs.catalog import FULL_FSYNC, OURS, Setting

OURS_RECORDED = "SELECT count(*) FROM lastcall.job WHERE status = 'completed'"
PGQUEUER_RECORDED = "SELECT count(*) FROM pgqueuer_log WHERE status = 'successful'"
PROCRASTINATE_RECORDED = "SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'"
DBOS_RECORDED = "SELECT count(*) FROM dbos.workflow_status WHERE status = 'SUCCESS'"

PGQUEUER = "pgqueuer"


def _setting(
    name: str, peer: str, worker: str, recorded: str = "", count: int = 20_000, **options: object
) -> Setting:
    module = "bench.jobs.ours" if peer == OURS else f"bench.jobs.peers.with_{peer}"
    return Setting(name, peer, module, "postgres", FULL_FSYNC, worker, options, count, recorded)


SPEED = (
    _setting("lastcall", OURS, "concurrency 100, results kept", OURS_RECORDED),
    _setting(PGQUEUER, "pgqueuer", "batch size 100, no results, uvloop", PGQUEUER_RECORDED, uvloop=True),
    _setting("lastcall-uvloop", OURS, "concurrency 100, results kept, uvloop", OURS_RECORDED, uvloop=True),
    _setting("procrastinate", "procrastinate", "concurrency 100, no results", PROCRASTINATE_RECORDED, 2_000),
    _setting("dbos-postgres", "dbos", "sync workflow, no steps, results kept", DBOS_RECORDED, 1_000),
    _setting("dbos-postgres-poll50ms", "dbos", "polls every 50 ms", DBOS_RECORDED, 1_000, polling=0.05),
)
DEPLOY = (
    _setting("lastcall", OURS, ""),
    _setting(PGQUEUER, "pgqueuer", "shutdown event at SIGTERM"),
    _setting("procrastinate", "procrastinate", ""),
    _setting("procrastinate-grace3-retry3", "procrastinate", "grace 3 s, retry 3", grace=3, retry=3),
    _setting("dbos-postgres", "dbos", "no signal handler"),
)
