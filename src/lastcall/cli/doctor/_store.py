"""Whether the jobs' store survives the next deploy, and what waits in it for nobody."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from lastcall.cli.doctor._facts import Facts, Store
from lastcall.cli.doctor._finding import ERROR, NOTE, WARNING, Check, Finding
from lastcall.cli.doctor._manifest import Pod

# As /proc/self/mountinfo calls them. WAL needs shared memory and locks of one machine.
_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "fuse.sshfs")
_PASSING = ("tmpfs", "ramfs")
_NETWORK_VOLUMES = ("nfs", "cephfs", "glusterfs", "azureFile")


def _jobs_installed(facts: Facts) -> Iterator[Finding]:
    if facts.store is not None and facts.app.plan is not None and not facts.app.has_jobs:
        yield Finding(
            "jobs-not-installed",
            NOTE,
            facts.app.target,
            "the app has no jobs: its store is not opened with it, and not shown below its prefix",
            "install(app, manager, jobs=jobs), unless jobs run in processes of their own only",
        )


def _store_trouble(facts: Facts) -> Iterator[Finding]:
    store = facts.store
    if store is None:
        return
    if store.trouble is not None:
        yield Finding("store-unreadable", ERROR, store.shown, store.trouble, "see docs/jobs.md")
    if store.schema is None:
        return
    schema = store.schema
    if schema.word == "too new":
        yield Finding(
            "schema-too-new",
            ERROR,
            store.shown,
            f"{schema.why}: this code cannot open it and will not start",
            "deploy a lastcall that is as new, or go back to a backup",
        )
    elif schema.word == "old":
        yield Finding(
            "schema-old",
            NOTE,
            store.shown,
            f"its schema has version {schema.found}, and the first process with this code brings it to {schema.known}",
            "lastcall db migrate, at a moment of your own choice",
            schema.found,
        )
    elif schema.word in ("missing", "empty"):
        yield Finding(
            "store-missing",
            NOTE,
            store.shown,
            "there is no store yet; the first process makes it",
            "nothing, if this is its first deploy; else check the path and the current folder",
        )


def _sqlite_place(facts: Facts) -> Iterator[Finding]:
    store = facts.store
    if store is None or store.path is None or store.filesystem is None:
        return
    if store.filesystem in _NETWORK:
        yield Finding(
            "sqlite-on-network",
            ERROR,
            store.shown,
            f"the file is on {store.filesystem}: SQLite's log needs the locks and the memory of one machine, and is "
            "damaged there",
            "a local disk, or PostgreSQL",
        )
    elif store.filesystem in _PASSING:
        yield Finding(
            "sqlite-in-memory",
            ERROR,
            store.shown,
            f"the file is on {store.filesystem}, which is memory: all jobs are gone when the machine restarts",
            "a folder on a disk",
        )
    elif store.filesystem == "overlay" and not facts.pods:
        yield Finding(
            "sqlite-in-container",
            WARNING,
            store.shown,
            "the file is in a container's own layer, and is gone when the container is replaced",
            "a volume",
        )


def _sqlite_in_pods(facts: Facts) -> Iterator[Finding]:
    store = facts.store
    if store is None or store.path is None:
        return
    for pod in facts.pods:
        if pod.replicas > 1:
            yield Finding(
                "sqlite-several-pods",
                ERROR,
                pod.where,
                f"{pod.replicas} pods cannot share the SQLite file {store.path}: each has its own jobs, or they damage "
                "one file over the network",
                "replicas: 1, or PostgreSQL",
                pod.replicas,
            )
        kind = _volume_of(pod, store)
        if kind in ("none", "emptyDir"):
            place = "no volume" if kind == "none" else "an emptyDir"
            yield Finding(
                "sqlite-goes-with-pod",
                ERROR,
                pod.where,
                f"{store.path} is on {place}: a new pod begins with no jobs",
                "a persistentVolumeClaim (ReadWriteOncePod), or PostgreSQL",
            )
        elif kind in _NETWORK_VOLUMES:
            yield Finding(
                "sqlite-on-network",
                ERROR,
                pod.where,
                f"{store.path} is on a volume of kind {kind}, over the network, where SQLite's log is damaged",
                "a volume of block storage, or PostgreSQL",
            )


def _volume_of(pod: Pod, store: Store) -> str | None:
    """The kind of volume the file is on; `none`; None where that cannot be known."""
    assert store.path is not None
    path = store.path
    if not posixpath.isabs(path):
        if pod.working_dir is None:
            return None
        path = posixpath.join(pod.working_dir, path)
    path = posixpath.normpath(path)
    around = [at for at in pod.volumes if path.startswith(at.rstrip("/") + "/")]
    return pod.volumes[max(around, key=len)] if around else "none"


def _workers(facts: Facts) -> Iterator[Finding]:
    store = facts.store
    if store is None or store.schema is None or store.schema.word != "current":
        return
    for worker in store.workers:
        silent = store.now - worker.renewed_at
        if silent > worker.lease_seconds:
            yield Finding(
                "worker-lease-over",
                WARNING,
                store.shown,
                f"worker {worker.id} (process {worker.pid} on {worker.host}) was last heard of {silent:.0f} s ago, its "
                f"lease is {worker.lease_seconds:g} s: {worker.running} jobs wait until another worker rescues them",
                "look whether it hangs; a new worker takes its jobs over",
                silent,
            )
    alive = [worker for worker in store.workers if store.now - worker.renewed_at <= worker.lease_seconds]
    hosts = sorted({worker.host for worker in alive})
    if store.path is not None and len(hosts) > 1:
        yield Finding(
            "sqlite-several-hosts",
            ERROR,
            store.shown,
            f"workers on {len(hosts)} machines ({', '.join(hosts)}) use one SQLite file",
            "one machine, or PostgreSQL",
            len(hosts),
        )
    waiting: dict[str, int] = {}
    for (queue, status), count in store.counts.items():
        if status == "queued" and count:
            waiting[queue] = count
    for queue, count in sorted(waiting.items()):
        if not any(worker.queues is None or queue in worker.queues for worker in alive):
            yield Finding(
                "queue-without-worker",
                WARNING,
                store.shown,
                f"{count} jobs are queued in {queue!r}, and no living worker serves it",
                "start a worker: async with jobs.worker(), or lastcall worker",
                count,
            )


def _waiting(facts: Facts) -> Iterator[Finding]:
    store = facts.store
    if store is None:
        return
    for (task, version), count in sorted(store.strangers.items()):
        named = f"{task!r}" + (f" (version {version})" if version else "")
        yield Finding(
            "unknown-task",
            WARNING,
            store.shown,
            f"{count} jobs of the task {named} are not ended, and nobody declares it here: after the last old worker "
            "has gone they wait for ever",
            "keep the declaration until they have ended, or cancel them: lastcall jobs list --task NAME",
            count,
        )
    if store.undecided:
        shown = ", ".join(store.undecided[:3]) + (", ..." if len(store.undecided) > 3 else "")
        yield Finding(
            "undecided",
            WARNING,
            store.shown,
            f"{len(store.undecided)} jobs wait for a person to say what became of a step: {shown}",
            "lastcall jobs show ID, then lastcall jobs resolve ID STEP",
            len(store.undecided),
        )
    if not store.looked_at_all:
        yield Finding(
            "many-jobs",
            NOTE,
            store.shown,
            "there are more jobs than were looked at for unknown tasks and decisions",
            "nothing",
        )


CHECKS: tuple[Check, ...] = (
    _jobs_installed,
    _store_trouble,
    _sqlite_place,
    _sqlite_in_pods,
    _workers,
    _waiting,
)
