"""Who takes part, under which settings, and how durable each is. Imports none of them."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from ..postgres.server import problem as no_postgres
from .install_peers import installed, interpreter

FULL_FSYNC = "fsync per commit"
EVERYSEC = "AOF, fsync once a second"
OURS = "lastcall"


@dataclass(frozen=True)
class Setting:
    """One library under one setting. `options` is what its file in `peers/` reads."""

    name: str
    peer: str
    """The environment it needs; `lastcall` runs in this one."""
    module: str
    store: str
    durability: str
    worker: str = ""
    options: dict[str, object] = field(default_factory=dict)
    count: int = 20_000
    """How many jobs at most: slow ones would take for ever."""
    recorded: str = ""
    """For a store in SQLite: how many results are recorded. Elsewhere a job's end and its result are one."""

    @property
    def ours(self) -> bool:
        return self.peer == OURS

    @property
    def needs_redis(self) -> bool:
        return self.store == "redis"

    def python(self, peers: Path | None) -> str:
        """The interpreter that has it."""
        return sys.executable if self.ours or peers is None else str(interpreter(peers, self.peer))

    def problem(self, peers: Path | None) -> str:
        """Why it cannot be measured; empty if it can."""
        if self.store == "postgres" and (why := no_postgres()):
            return why
        if self.ours:
            return ""
        for needed in (self.peer, "redis") if self.needs_redis else (self.peer,):
            if not installed(peers, needed):
                return f"{needed} is not installed, not measured"
        return ""


HUEY_RECORDED = "select count(*) from kv"
DBOS_RECORDED = "select count(*) from workflow_status where status = 'SUCCESS'"

SPEED = (
    Setting("lastcall", OURS, "bench.jobs.ours", "sqlite", FULL_FSYNC, "concurrency 100"),
    Setting(
        "huey-sqlite",
        "huey",
        "bench.jobs.peers.with_huey",
        "sqlite",
        FULL_FSYNC,
        "8 threads",
        {"storage": "sqlite"},
        5_000,
        HUEY_RECORDED,
    ),
    Setting(
        "dbos-sqlite",
        "dbos",
        "bench.jobs.peers.with_dbos",
        "sqlite",
        FULL_FSYNC,
        "sync workflow, no steps",
        {},
        2_000,
        DBOS_RECORDED,
    ),
    Setting(
        "dbos-sqlite-poll50ms",
        "dbos",
        "bench.jobs.peers.with_dbos",
        "sqlite",
        FULL_FSYNC,
        "polls the queue every 50 ms",
        {"polling": 0.05},
        2_000,
        DBOS_RECORDED,
    ),
    Setting(
        "huey-redis",
        "huey",
        "bench.jobs.peers.with_huey",
        "redis",
        EVERYSEC,
        "8 threads",
        {"storage": "redis"},
        10_000,
    ),
    Setting(
        "saq-redis", "saq", "bench.jobs.peers.with_saq", "redis", EVERYSEC, "concurrency 100", {}, 10_000
    ),
    Setting("arq", "arq", "bench.jobs.peers.with_arq", "redis", EVERYSEC, "100 jobs at once", {}, 10_000),
    Setting(
        "taskiq-stream",
        "taskiq",
        "bench.jobs.peers.with_taskiq",
        "redis",
        EVERYSEC,
        "1 process, 100 tasks",
        {},
        10_000,
    ),
    Setting(
        "celery-threads20",
        "celery",
        "bench.jobs.peers.with_celery",
        "redis",
        EVERYSEC,
        "20 threads",
        {"pool": "threads", "concurrency": 20},
        5_000,
    ),
    Setting(
        "celery-prefork2",
        "celery",
        "bench.jobs.peers.with_celery",
        "redis",
        EVERYSEC,
        "2 child processes",
        {"pool": "prefork", "concurrency": 2},
        5_000,
    ),
    Setting(
        "rq-simple",
        "rq",
        "bench.jobs.peers.with_rq",
        "redis",
        EVERYSEC,
        "in the worker's process",
        {"simple": True},
        2_000,
    ),
    Setting("rq-default", "rq", "bench.jobs.peers.with_rq", "redis", EVERYSEC, "one fork per job", {}, 300),
)


def _deploy(name: str, peer: str, store: str = "redis", worker: str = "", **options: object) -> Setting:
    module = "bench.jobs.ours" if peer == OURS else f"bench.jobs.peers.with_{peer}"
    return Setting(name, peer, module, store, FULL_FSYNC if store == "sqlite" else EVERYSEC, worker, options)


DEPLOY = (
    _deploy("lastcall", OURS, "sqlite"),
    _deploy("dbos-sqlite", "dbos", "sqlite", "no signal handler"),
    _deploy("dbos-sqlite-destroy5", "dbos", "sqlite", "SIGTERM calls destroy, 5 s for workflows", destroy=5),
    _deploy("huey-sqlite", "huey", "sqlite", storage="sqlite"),
    _deploy(
        "huey-sqlite-g-TERM", "huey", "sqlite", "graceful_signal TERM", storage="sqlite", graceful="TERM"
    ),
    _deploy("huey-redis", "huey", storage="redis"),
    _deploy("saq-redis", "saq"),
    _deploy("saq-redis-retries3", "saq", retries=3),
    _deploy("arq", "arq"),
    _deploy("taskiq-stream", "taskiq"),
    _deploy("taskiq-wait3", "taskiq", worker="wait_tasks_timeout 3", wait=3),
    _deploy("taskiq-idle30", "taskiq", worker="idle_timeout 30", idle=30),
    _deploy("celery-prefork", "celery", pool="prefork", concurrency=2),
    _deploy("celery-threads", "celery", pool="threads", concurrency=20),
    _deploy(
        "celery-prefork-remap-soft3",
        "celery",
        worker="REMAP_SIGTERM=SIGQUIT, soft shutdown 3 s",
        pool="prefork",
        concurrency=2,
        remap=True,
        soft=3,
    ),
    _deploy(
        "celery-prefork-vt30-lost",
        "celery",
        worker="visibility_timeout 30, reject_on_worker_lost",
        pool="prefork",
        concurrency=2,
        visibility=30,
    ),
    _deploy("rq-default", "rq"),
    _deploy("rq-default-retry3", "rq", retry=3),
    _deploy("rq-simple-retry3", "rq", retry=3, simple=True),
)


def named(settings: tuple[Setting, ...], names: list[str] | None) -> tuple[Setting, ...]:
    """Those of that name, or of that library; all if none is named. ValueError names what there is."""
    if not names:
        return settings
    for name in names:
        if not any(name in (setting.name, setting.peer) for setting in settings):
            raise ValueError(f"unknown contender {name!r}; choose from {', '.join(s.name for s in settings)}")
    return tuple(setting for setting in settings if setting.name in names or setting.peer in names)
