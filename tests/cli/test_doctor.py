"""`lastcall doctor`: each check on facts that call for it, the reading of commands and manifests, and the command."""

import asyncio
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall import ShutdownPlan, TaskManager
from lastcall.asgi import _servers
from lastcall.cli import doctor
from lastcall.cli._app import app as command
from lastcall.cli._say import Unusable
from lastcall.cli._schema import Schema
from lastcall.cli.doctor._checks import examine
from lastcall.cli.doctor._facts import App, Facts, Store
from lastcall.cli.doctor._finding import Severity
from lastcall.cli.doctor._gather import filesystem_of
from lastcall.cli.doctor._manifest import Pod, Probe, pods_of, read_manifests
from lastcall.cli.doctor._server_words import Server, parse_server
from lastcall.jobs import Context, Jobs, JobStatus, StepPolicy, StepStatus, WorkerRow
from lastcall.jobs._ids import new_id
from lastcall.jobs._rows import ClaimRequest, NewJob, StepRecord

PLAN = ShutdownPlan(drain=15, cancel=3, close=2)  # 20 s
APP = App("app:app", PLAN, "/lastcall", True)
CURRENT = Schema(3, 3, True)


def pod(**given: Any) -> Pod:
    """One that is right, but for what is given."""
    facts: dict[str, Any] = {
        "where": "Deployment shop, container web (k8s.yaml)",
        "kind": "Deployment",
        "replicas": 1,
        "grace_seconds": 30.0,
        "pre_stop_seconds": 3.0,
        "readiness": Probe("/readyz", 3.0),
        "liveness": Probe("/livez", 30.0),
        "environment": {"LASTCALL_KILL_AFTER_SECONDS": f"{given.get('grace_seconds', 30.0) - 3:g}"},
        "working_dir": "/app",
        "volumes": {"/data": "persistentVolumeClaim"},
        "server": Server("k8s.yaml", "uvicorn", call_limit_seconds=21.0),
    }
    return Pod(**facts | given)


def store(**given: Any) -> Store:
    """One that is right, but for what is given."""
    facts: dict[str, Any] = {
        "shown": "the store /data/jobs.db",
        "path": "/data/jobs.db",
        "filesystem": "ext4",
        "schema": CURRENT,
        "now": 100.0,
        "workers": [worker()],
    }
    return Store(**facts | given)


def worker(**given: Any) -> WorkerRow:
    facts: dict[str, Any] = {"renewed_at": 99.0, "joined_at": 50.0, "running": 2}
    return WorkerRow("w-1", "one", 7, None, None, None, 15.0, 10, None)._replace(**facts | given)


def facts(*pods: Pod, **given: Any) -> Facts:
    servers = [(pod.server, pod) for pod in pods if pod.server is not None]
    return Facts(**{"app": APP, "servers": servers, "pods": pods, "store": None} | given)


def served(words: str, plan: ShutdownPlan = PLAN) -> Facts:
    server = parse_server(words.split(), "--server")
    assert server is not None
    return Facts(APP._replace(plan=plan), [(server, None)])


def test_what_is_right_is_praised() -> None:
    """A deployment as the documentation has it: nothing is found, not even a note."""
    assert examine(facts(pod(), store=store())) == []


SICK: dict[str, tuple[Severity, Facts]] = {
    "no-lastcall": (Severity.ERROR, facts(pod(), app=APP._replace(plan=None))),
    "jobs-not-installed": (Severity.NOTE, facts(pod(), app=APP._replace(has_jobs=False), store=store())),
    "grace-period-too-short": (Severity.ERROR, facts(pod(grace_seconds=23.0))),
    "grace-period-without-spare": (Severity.WARNING, facts(pod(grace_seconds=27.0))),
    "pre-stop-unknown": (
        Severity.NOTE,
        facts(pod(pre_stop_seconds=None, environment={"LASTCALL_KILL_AFTER_SECONDS": "30"})),
    ),
    "kill-after-untold": (Severity.NOTE, facts(pod(environment={}))),
    "kill-after-differs": (Severity.WARNING, facts(pod(environment={"LASTCALL_KILL_AFTER_SECONDS": "30"}))),
    "killed-before-plan": (Severity.ERROR, facts(pod(), kill_after_seconds=20.0)),
    "granian-never-kills": (Severity.WARNING, served("granian --interface asgi app:app")),
    "server-kills-before-plan": (Severity.ERROR, served("gunicorn -k x.UvicornWorker --graceful-timeout=20")),
    "server-kills-without-spare": (Severity.WARNING, served("granian --workers-kill-timeout 24")),
    "no-call-limit": (Severity.NOTE, served("uvicorn app:app")),
    "calls-cut-in-drain": (Severity.ERROR, served("python -m hypercorn app:app -w 0")),
    "calls-cut-in-cancel": (Severity.WARNING, served("uvicorn --timeout-graceful-shutdown 16")),
    "lifespan-cut": (
        Severity.ERROR,
        served("hypercorn -w0 --graceful-timeout 300", ShutdownPlan(drain=50, cancel=5, close=5)),
    ),
    "lifespan-off": (Severity.ERROR, served("uvicorn --lifespan off --timeout-graceful-shutdown 21")),
    "reload": (Severity.WARNING, served("uvicorn --reload --timeout-graceful-shutdown 21")),
    "several-workers": (Severity.WARNING, served("uvicorn --workers=2 --timeout-graceful-shutdown 21")),
    "notice-skipped": (
        Severity.WARNING,
        served("granian --workers-kill-timeout 27", PLAN._replace(notice=2)),
    ),
    "gunicorn-sigint": (Severity.NOTE, served("gunicorn -k asgi")),
    "behind-shell": (
        Severity.WARNING,
        facts(pod(server=Server("x", "uvicorn", call_limit_seconds=21.0, behind_shell=True))),
    ),
    "configuration-unread": (Severity.NOTE, served("gunicorn -k uvicorn_worker.UvicornWorker -c conf.py")),
    "server-unknown": (Severity.NOTE, facts(pod(server=None))),
    "liveness-asks-readiness": (Severity.ERROR, facts(pod(liveness=Probe("/lastcall/readyz", 30.0)))),
    "no-readiness-probe": (Severity.WARNING, facts(pod(readiness=None))),
    "readiness-asks-elsewhere": (Severity.WARNING, facts(pod(readiness=Probe("/health", 3.0)))),
    "no-time-to-look-away": (
        Severity.WARNING,
        facts(pod(pre_stop_seconds=0.0, environment={"LASTCALL_KILL_AFTER_SECONDS": "30"})),
    ),
    "store-unreadable": (Severity.ERROR, facts(pod(), store=store(trouble="damaged", schema=None))),
    "schema-too-new": (Severity.ERROR, facts(pod(), store=store(schema=Schema(None, 3, True, "newer")))),
    "schema-old": (Severity.NOTE, facts(pod(), store=store(schema=Schema(2, 3, True)))),
    "store-missing": (Severity.NOTE, facts(pod(), store=store(schema=Schema(0, 3, False)))),
    "sqlite-on-network": (Severity.ERROR, facts(pod(), store=store(filesystem="nfs4"))),
    "sqlite-in-memory": (Severity.ERROR, facts(pod(), store=store(filesystem="tmpfs"))),
    "sqlite-in-container": (
        Severity.WARNING,
        served("uvicorn --timeout-graceful-shutdown 21")._replace(store=store(filesystem="overlay")),
    ),
    "sqlite-several-pods": (Severity.ERROR, facts(pod(replicas=2), store=store())),
    "sqlite-goes-with-pod": (Severity.ERROR, facts(pod(volumes={"/data": "emptyDir"}), store=store())),
    "worker-lease-over": (
        Severity.WARNING,
        facts(pod(), store=store(workers=[worker(), worker(id="w-2", renewed_at=80.0)])),
    ),
    "sqlite-several-hosts": (
        Severity.ERROR,
        facts(pod(), store=store(workers=[worker(), worker(host="two")])),
    ),
    "queue-without-worker": (
        Severity.WARNING,
        facts(
            pod(),
            store=store(
                workers=[worker(queues=frozenset({"mail"}))], counts={("default", JobStatus.QUEUED): 3}
            ),
        ),
    ),
    "unknown-task": (Severity.WARNING, facts(pod(), store=store(strangers={("old", "2"): 1}))),
    "undecided": (Severity.WARNING, facts(pod(), store=store(undecided=["x"] * 4))),
    "many-jobs": (Severity.NOTE, facts(pod(), store=store(looked_at_all=False))),
}


@pytest.mark.parametrize("code", SICK)
def test_each_sickness_alone_is_found(code: str) -> None:
    """Facts that call for one finding have this one, and no other; it says what happens and what helps."""
    severity, given_facts = SICK[code]
    [finding] = examine(given_facts)
    assert (finding.code, finding.severity) == (code, severity)
    assert finding.subject and finding.what and finding.change


def test_every_code_has_a_case() -> None:
    """A check that nothing above calls for would be one that nobody has seen."""
    sources = Path(doctor.__file__).parent.glob("*.py")
    codes = {code for path in sources for code in re.findall(r'Finding\(\s*"([a-z-]+)"', path.read_text())}
    assert codes == set(SICK)


@given(
    name=st.sampled_from(["uvicorn", "hypercorn", "granian", "gunicorn"]),
    limit=st.integers(1, 60),
    drain=st.integers(0, 40),
    cancel=st.integers(0, 5),
)
def test_doctor_and_the_running_app_agree(name: str, limit: int, drain: int, cancel: int) -> None:
    """What the app would warn of at its start, doctor calls an error before the deploy; and the other way round."""
    plan = ShutdownPlan(drain=drain, cancel=cancel, close=1)
    kills = name in ("granian", "gunicorn")
    option = {
        "uvicorn": "--timeout-graceful-shutdown",
        "hypercorn": "--graceful-timeout",
        "granian": "--workers-kill-timeout",
        "gunicorn": "--graceful-timeout",
    }[name]
    limits = {"kill_after_seconds": limit} if kills else {"call_limit_seconds": limit}
    warned = _servers.check_limits(_servers.Server(name, True, **limits), plan, {})
    errors = [
        found for found in examine(served(f"{name} {option} {limit}", plan)) if found.severity == "error"
    ]
    assert len(errors) == len(warned)


# --- commands and manifests ---


@pytest.mark.parametrize(
    ("words", "name", "expected"),
    [
        ("uvicorn app:app", "uvicorn", {"workers": 1, "call_limit_seconds": None}),
        ("uv run uvicorn app:app --workers 3", "uvicorn", {"workers": 3}),
        ("/opt/venv/bin/python -m gunicorn -w4 app", "gunicorn", {"workers": 4, "kill_after_seconds": 30.0}),
        ("gunicorn --graceful-timeout=9 -k a.UvicornWorker", "gunicorn", {"kill_after_seconds": 9.0}),
        ("hypercorn app:app --workers nonsense", "hypercorn", {"workers": 1, "call_limit_seconds": 3.0}),
        ("granian --workers-kill-timeout 26 app:app", "granian", {"kill_after_seconds": 26.0}),
        ("lastcall serve app:app", "lastcall serve", {"lifespan": "on"}),
        ("lastcall worker app:jobs --drain 40", "lastcall worker", {"plan": ShutdownPlan(drain=40)}),
    ],
)
def test_commands_are_read(words: str, name: str, expected: dict[str, Any]) -> None:
    """Options in each of their spellings; what cannot be read has the server's default."""
    server = parse_server(words.split(), "here")
    assert server is not None and server.name == name and not server.behind_shell
    assert {field: getattr(server, field) for field in expected} == expected


@pytest.mark.parametrize(
    ("words", "behind"),
    [
        (["sh", "-c", "uvicorn app:app"], True),
        (["/bin/bash", "-ec", "migrate && exec uvicorn app:app --workers 2"], False),
        (["sh", "start.sh"], None),
        (["sh", "-c", "uvicorn 'app"], None),
        (["python", "main.py"], None),
        ([], None),
    ],
)
def test_shells_are_looked_through(words: list[str], behind: bool | None) -> None:
    """A shell that stays in front is told; a script, or a broken quote, is no server that is known."""
    server = parse_server(words, "here")
    assert (None if server is None else server.behind_shell) == behind


MANIFEST = """
apiVersion: v1
kind: List
items:
- apiVersion: apps/v1
  kind: StatefulSet
  metadata: {name: shop}
  spec:
    replicas: 2
    volumeClaimTemplates: [{metadata: {name: data}}]
    template:
      spec:
        terminationGracePeriodSeconds: 45
        volumes: [{name: scratch, emptyDir: {}}]
        containers:
        - name: proxy
          command: [nginx]
        - name: web
          command: [uvicorn, "app:app"]
          args: [--timeout-graceful-shutdown, 21]
          env: [{name: LASTCALL_KILL_AFTER_SECONDS, value: "40"}, {name: SECRET, valueFrom: {}}]
          volumeMounts: [{name: data, mountPath: /data}, {name: scratch, mountPath: /tmp}]
          readinessProbe: {httpGet: {path: /readyz, port: 80}, periodSeconds: 2, failureThreshold: 1}
          lifecycle: {preStop: {exec: {command: [sh, -c, sleep 5]}}}
---
kind: Pod
metadata: {name: lone}
spec: {containers: [{lifecycle: {preStop: {httpGet: {path: /bye}}}}]}
"""


def test_manifests_are_read(tmp_path: Path) -> None:
    """Lists, several documents, hooks of each kind, defaults where nothing is said."""
    path = tmp_path / "k8s.yaml"
    path.write_text(MANIFEST)
    web, lone = read_manifests(path)
    assert web.where == "StatefulSet shop, container web (k8s.yaml)"
    assert (web.replicas, web.grace_seconds, web.pre_stop_seconds) == (2, 45.0, 5.0)
    assert web.readiness == Probe("/readyz", 2.0) and web.liveness is None
    assert web.volumes == {"/data": "persistentVolumeClaim", "/tmp": "emptyDir"}
    assert web.environment == {"LASTCALL_KILL_AFTER_SECONDS": "40"}
    assert web.server is not None and web.server.call_limit_seconds == 21.0
    assert (lone.grace_seconds, lone.pre_stop_seconds, lone.server) == (30.0, None, None)


_WORDS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                "kind spec template containers items volumes lifecycle preStop exec sleep command env replicas".split()
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=25,
)


@given(_WORDS, st.sampled_from(["Pod", "Deployment", "CronJob", "StatefulSet"]))
def test_no_manifest_is_too_odd(inner: Any, kind: str) -> None:
    """Fields of any shape in any place are passed over: Kubernetes will refuse them, doctor does not fall over."""
    spec = {"containers": [inner, {"name": inner, "env": inner, "command": inner, "lifecycle": inner}]}
    document = {
        "kind": kind,
        "metadata": inner,
        "spec": {**spec, "template": {"spec": spec}, "replicas": inner},
    }
    for one in pods_of(document, "k8s.yaml"):
        examine(facts(one, store=store()))
    list(pods_of(inner, "k8s.yaml"))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"{{ .Values.x }}: [", "is no YAML"),
        (b"a: !!python/object/apply:os.system [echo]", "is no YAML"),
        (b"just: words", "has no Deployment"),
        (b"\xff\xfe\x00", "is no text in UTF-8"),
        (b"[" * 3000, "is no YAML"),
        (None, "cannot read"),
    ],
)
def test_files_that_are_no_manifest(tmp_path: Path, content: bytes | None, line: str) -> None:
    """A template, an attack, another file, none at all: one line each."""
    path = tmp_path / "k8s.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Unusable, match=re.escape(line)):
        read_manifests(path)


def test_the_file_system_of_a_folder() -> None:
    """The deepest mount counts, of two at one place the later; a blank in its name is written in octal."""
    mounts = (
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "2 1 0:3 / /srv/my\\040data rw shared:1 - nfs4 server:/x rw\n"
        "3 1 0:4 / /srv/my\\040data rw shared:1 - tmpfs none rw\n"
    )
    assert filesystem_of("/srv/my data/jobs", mounts) == "tmpfs"
    assert filesystem_of("/srv/my data2", mounts) == "ext4"
    assert filesystem_of("/srv", "") is None


# --- the command ---

APPS = {
    "app": (
        "from fastapi import FastAPI\nfrom lastcall import ShutdownPlan, TaskManager\n"
        "from lastcall.fastapi import install\nfrom lastcall.jobs import Jobs\n"
        "jobs = Jobs('sqlite:///jobs.db')\n"
        "@jobs.task(name='known')\nasync def known() -> None: ...\n"
        "app = FastAPI()\ninstall(app, TaskManager(plan=ShutdownPlan(drain=15, cancel=3, close=2)), jobs=jobs)\n"
    ),
    "pure": (
        "from lastcall import TaskManager\nfrom lastcall.asgi import Lastcall\n"
        "async def inner(scope, receive, send): ...\napp = Lastcall(inner, TaskManager(), prefix='/bar')\n"
    ),
    "bare": "print('imported')\nasync def app(scope, receive, send): ...\n",
}

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(on_disk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Say]:
    """Calls doctor in a folder of apps: exit code, standard output, standard error."""
    for name, text in APPS.items():
        (on_disk / f"doctor_{name}.py").write_text(text)
    monkeypatch.chdir(on_disk)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("LASTCALL_KILL_AFTER_SECONDS", raising=False)

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            command(["doctor", *arguments], prog_name="lastcall")
        assert isinstance(end.value.code, int)
        return (end.value.code, *capsys.readouterr())

    yield call
    for name in APPS:
        sys.modules.pop(f"doctor_{name}", None)


def test_an_app_with_its_store(say: Say, on_disk: Path) -> None:
    """Jobs of tasks that nobody declares, one of which waits for a person, are told from the store as it is."""

    async def prepare() -> None:
        async with Jobs(f"sqlite:///{on_disk}/jobs.db") as jobs:

            @jobs.task(name="pay")
            async def pay(ctx: Context) -> None:
                await ctx.step(print, name="charge", policy="once")

            paying = await pay.submit()
            await jobs.engine.join(worker(id="dies", lease_seconds=0.001))
            await jobs.engine.claim(ClaimRequest("dies", 1, {("pay", ""): None}))
            started = StepRecord("charge", StepStatus.STARTED, policy=StepPolicy.ONCE)
            assert await jobs.engine.record_step(paying.id, 1, started)
            await jobs.engine.rescue(new_id())
            async with TaskManager() as manager, jobs.worker(manager=manager):
                async with asyncio.timeout(20):
                    while await paying.status() != "waiting":
                        await asyncio.sleep(0.01)
            await jobs.engine.submit([NewJob(new_id(), "ghost", "{}", version="7")])

    asyncio.run(prepare())
    code, out, err = say("doctor_app:app", "--server", "uvicorn --timeout-graceful-shutdown 21", "--json")
    told = json.loads(out)
    codes = [finding["code"] for finding in told["findings"]]
    assert (code, err, told["errors"]) == (0, "", 0)
    assert sorted(codes) == ["queue-without-worker", "undecided", "unknown-task", "unknown-task"]
    assert "'ghost' (version 7)" in out and "'pay'" in out
    assert say("doctor_app:app", "--strict")[0] == 1


def test_an_app_of_any_kind(say: Say) -> None:
    """Starlette's, a pure one, and one without lastcall; findings are drawn for people, and are the exit code."""
    code, out, err = say("doctor_bare:app")
    assert err == "imported\n"
    assert (
        code == 1 and out.startswith("error   no-lastcall  doctor_bare:app\n") and out.endswith("1 error\n")
    )
    assert say("doctor_pure:app", "--server", "uvicorn", "--kill-after", "36")[0] == 0
    code, out, _ = say("doctor_pure:app", "--server", "lastcall serve", "--kill-after", "30")
    assert code == 1 and "killed-before-plan" in out
    code, out, _ = say("doctor_app:app", "--server", "lastcall serve")
    assert (code, "store-missing" in out, Path("jobs.db").exists()) == (0, True, False)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nowhere:app"], "there is no module 'nowhere'"),
        (["doctor_app:app", "--server", "apache"], "is none that is known here"),
        (["doctor_app:app", "--server", "uvicorn '"], "cannot be read"),
        (["doctor_app:app", "--manifest", "no.yaml"], "cannot read 'no.yaml'"),
        (["doctor_app:app", "--jobs", "doctor_app:app"], "is no Jobs"),
    ],
)
def test_what_cannot_be_looked_at_is_one_line(say: Say, arguments: list[str], line: str) -> None:
    """Code 2, and nothing on standard output."""
    code, out, err = say(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1) and err.startswith("lastcall: ") and line in err
