"""One example of each answer and body, for the OpenAPI document; a test holds them to the models."""

from __future__ import annotations

from typing import Any

ID = "0199d4b0-6f0a-7c35-9d3e-5b1f6f1c2a77"
WORKER_ID = "0199d4af-11c2-7d51-8f0e-2a9c51d0b6e4"
CURSOR = "3q2-7zAxOTlkNGIwLTZmMGEtN2MzNS05ZDNlLTViMWY2ZjFjMmE3Nw"

TASK: dict[str, Any] = {
    "id": "poll-1",
    "name": "poll",
    "kind": "task",
    "group": None,
    "status": "running",
    "labels": {},
    "daemon": False,
    "started_at": 1764000000.5,
    "ended_at": None,
    "seconds": None,
    "result": None,
    "error": None,
    "reason": None,
    "swallowed_cancel": False,
}
TASK_PAGE = {"tasks": [TASK], "shown": 1, "total": 1, "next": None}
TASK_CANCELLED = {"id": "poll-1", "answer": "ended"}
STATS = {
    "name": "lastcall",
    "state": "open",
    "pending": 0,
    "running": 3,
    "completed": 941,
    "failed": 1,
    "cancelled": 0,
    "swallowed": 0,
    "calls": 2,
}
META = {
    "name": "lastcall",
    "version": "0.1.0",
    "host": "web-1",
    "pid": 4711,
    "state": "open",
    "now": 1764000009.0,
    "prefix": "/lastcall",
    "read_only": False,
    "has_jobs": True,
    "has_streams": True,
    "has_metrics": False,
}
HEALTH = {"status": "alive", "state": "open"}
NOT_READY = {"status": "not ready", "state": "draining"}

JOB: dict[str, Any] = {
    "id": ID,
    "task": "analyse",
    "version": "",
    "queue": "default",
    "status": "running",
    "priority": 0,
    "attempt": 1,
    "failures": 0,
    "lost": 0,
    "args": {"folder": "docs/"},
    "result": None,
    "error": None,
    "progress": {"done": 3, "total": 10},
    "key": "docs-2026-11",
    "labels": {"tenant": "ada"},
    "parent_id": None,
    "worker_id": WORKER_ID,
    "created_at": 1764000000.0,
    "due_at": None,
    "started_at": 1764000000.1,
    "ended_at": None,
    "cancel_reason": None,
    "waits_for": [],
}
LISTED_JOB = {name: value for name, value in JOB.items() if name != "result"}
JOB_PAGE = {"jobs": [LISTED_JOB], "shown": 1, "next": CURSOR}
JOB_DETAIL = {
    **JOB,
    "steps": [
        {
            "key": "list_files",
            "status": "completed",
            "value": ["a.md", "b.md"],
            "error": None,
            "attempt": 1,
            "started_at": 1764000000.1,
            "ended_at": 1764000000.3,
        }
    ],
    "running_steps": [{"key": 'index_file("b.md")', "started_at": 1764000000.3}],
    "attempts": [
        {
            "attempt": 1,
            "worker_id": WORKER_ID,
            "started_at": 1764000000.1,
            "ended_at": None,
            "outcome": None,
            "reason": None,
            "error": None,
        }
    ],
    "undecided_steps": [],
    "log": {"first": 1, "last": 5},
}
NEW_JOB = {"task": "analyse", "args": {"folder": "docs/"}, "key": "docs-2026-11", "labels": {"tenant": "ada"}}
MESSAGE = {"name": "approval", "data": {"by": "ada"}}
DECISION = {"step": "charge the card", "happened": True, "value": {"receipt": "r-17"}}
JOB_ANSWER = {"id": ID, "answer": "already_ended"}
JOB_CANCEL_REQUESTED = {"id": ID, "answer": "requested"}
LOG_PAGE = {
    "events": [
        {"seq": 2, "type": "progress", "attempt": 1, "step": None, "at": 1764000000.4, "data": {"done": 3}}
    ],
    "shown": 1,
    "next": 2,
    "first": 1,
    "last": 2,
    "closed": False,
    "snapshot": {name: value for name, value in JOB.items() if name != "args"},
}
TASK_NAMES = {
    "tasks": [
        {
            "name": "analyse",
            "version": "",
            "queue": "default",
            "retries": 3,
            "timeout_seconds": 600.0,
            "cron": None,
            "timezone": None,
        }
    ]
}

WORKER = {
    "id": WORKER_ID,
    "host": "web-1",
    "pid": 4711,
    "process_start": "123456",
    "boot_id": "0c5c1f6e-8f5c-4a55-9a4f-0d7a3a9f5a11",
    "pid_namespace": "pid:[4026531836]",
    "lease_seconds": 15.0,
    "lease_left_seconds": 11.5,
    "concurrency": 10,
    "queues": None,
    "joined_at": 1764000000.0,
    "renewed_at": 1764000005.0,
    "running": 3,
    "is_here": True,
}
WORKERS = {"now": 1764000008.5, "workers": [WORKER]}
SCHEDULES = {
    "now": 1764000008.5,
    "schedules": [
        {
            "name": "nightly",
            "declared": True,
            "cron": "0 3 * * *",
            "timezone": "Europe/Berlin",
            "catch_up": False,
            "last_tick": 1763949600.0,
            "next_tick": 1764036000.0,
        }
    ],
}
OVERVIEW = {
    "now": 1764000008.5,
    "jobs": {"queued": 2, "running": 3, "completed": 940},
    "queues": {"default": {"queued": 2, "running": 3, "completed": 940}},
    "workers": [WORKER],
    "schedules": [{"name": "nightly", "last_tick": 1763949600.0}],
}

STREAM_PAGE = {
    "items": [
        {
            "name": "chat/42",
            "url": "/lastcall/streams/chat/42",
            "content_type": "application/json",
            "closed": False,
            "entries": 12,
            "first": 1,
            "last": 12,
            "bytes": 3400,
            "next_offset": "0000000000000012_0000000000003400",
            "created_at": 1764000000.0,
            "updated_at": 1764000008.1,
            "ttl_seconds": 3600,
            "expires_at": 1764003608.1,
            "forked_from": None,
            "inherited": 0,
        }
    ],
    "shown": 1,
    "next": None,
}
MESSAGES = [{"user": "Hello"}, {"agent": "Hi"}]

REPORT: dict[str, Any] = {
    "name": "lastcall",
    "reason": "shutdown",
    "started_at": 1764000100.0,
    "seconds": 2.2,
    "budget_seconds": 30.0,
    "phases": [{"phase": "drain", "budget_seconds": 20.0, "seconds": 2.1}],
    "counts": {"finished": 2, "handed_over": 1},
    "tasks": [
        {
            "id": "poll-1",
            "name": "poll",
            "kind": "task",
            "group": None,
            "daemon": False,
            "outcome": "finished",
            "seconds": 2.1,
            "reason": "shutdown",
            "cut_off": False,
            "error": None,
            "swallowed_cancel": False,
            "stack": [],
        }
    ],
    "resources": [{"name": "jobs", "outcome": "finished", "seconds": 0.1, "error": None, "stack": []}],
    "forced": False,
    "late_births_refused": 0,
    "unclean": 0,
    "clean": True,
    "exit_code": 0,
}
STAND: dict[str, Any] = {
    "name": "lastcall",
    "host": "web-1",
    "pid": 4711,
    "ends_process": True,
    "state": "draining",
    "plan": {"notice": 0.0, "drain": 20.0, "cancel": 5.0, "close": 5.0, "total": 30.0},
    "elapsed_seconds": 1.5,
    "remaining_seconds": 28.5,
    "phase_remaining_seconds": 18.5,
    "busy": 1,
    "work": [
        {"id": "poll-1", "name": "poll", "kind": "task", "group": None, "status": "running", "seconds": 95.0}
    ],
    "report": None,
    "text": None,
}
SHUTDOWN = {**STAND, "phase": "drain", "reports": []}
PAST_SHUTDOWNS = {
    "now": 1764000900.0,
    "shutdowns": [
        {
            "id": 17,
            "at": 1764000102.1,
            "host": "web-1",
            "pid": 4711,
            "worker_ids": [],
            "is_complete": False,
            "tasks_left_out": 0,
            "report": {**REPORT, "resources": []},
            "text": "shutdown of lastcall (shutdown): clean, 2.10 s of 30 s\n  phases: drain 2.10 s",
        }
    ],
}

HISTORY = {
    "step_seconds": 5.0,
    "points": [
        {
            "at": 1764000005.0,
            "tasks": {
                "started": 3,
                "completed": 2,
                "failed": 0,
                "cancelled": 0,
                "p50_seconds": 0.01,
                "p95_seconds": 0.2,
            },
            "jobs": {
                "submitted": 1,
                "completed": 1,
                "failed": 0,
                "cancelled": 0,
                "handed_over": 0,
                "lost": 0,
                "p50_seconds": 0.4,
                "p95_seconds": 0.4,
                "wait_p50_seconds": 0.002,
                "wait_p95_seconds": 0.002,
            },
            "store": {"queued": 2, "running": 3, "completed": 940},
        }
    ],
}
