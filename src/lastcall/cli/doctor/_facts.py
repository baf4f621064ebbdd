"""What `doctor` knows when it judges: plain values, gathered elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lastcall import ShutdownPlan
from lastcall.cli._schema import Schema
from lastcall.cli.doctor._manifest import Pod
from lastcall.cli.doctor._server_words import Server
from lastcall.jobs import JobStatus, WorkerRow


class App(NamedTuple):
    """`plan` None: lastcall is not installed in it. `has_jobs`: jobs were given to `install`."""

    target: str
    plan: ShutdownPlan | None
    prefix: str
    has_jobs: bool


class Store(NamedTuple):
    """`path` None: no file. `filesystem`: of the folder of the file. `strangers`: tasks that wait in the queue and that
    nobody declares, by name and version. `undecided`: jobs that wait for a person. `trouble`: why it was not read."""

    shown: str
    path: str | None
    filesystem: str | None
    schema: Schema | None
    trouble: str | None = None
    now: float = 0.0
    counts: Mapping[tuple[str, JobStatus], int] = {}
    workers: Sequence[WorkerRow] = ()
    strangers: Mapping[tuple[str, str], int] = {}
    undecided: Sequence[str] = ()
    looked_at_all: bool = True


class Facts(NamedTuple):
    """`servers`: each with the pod around it, if it stands in a manifest."""

    app: App
    servers: Sequence[tuple[Server, Pod | None]] = ()
    pods: Sequence[Pod] = ()
    store: Store | None = None
    kill_after_seconds: float | None = None
