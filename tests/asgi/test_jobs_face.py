"""The HTTP face of durable jobs: what it takes, what it answers, and what it refuses; on a real SQLite file."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import lastcall.asgi._body as body_module
from lastcall import ManagerState, ShutdownPlan, TaskManager
from lastcall.asgi import Lastcall
from lastcall.asgi._cursor import make_cursor
from lastcall.asgi._jobs_face import STATUSES
from lastcall.exceptions import EngineUnavailable
from lastcall.jobs import Context, Jobs, JobStatus, StepPolicy, StepStatus, WorkerRow
from lastcall.jobs._ids import new_id
from lastcall.jobs._rows import ClaimRequest, JobRow, NewJob, StepRecord, Submitted
from tests.asgi.driver import Lifespan, Request, get, running, until, within
from tests.asgi.test_face import not_found
from tests.engines.model import ModelEngine

NOBODY = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"


class Post(Request):
    """A request with a body, in the chunks given; `ends=False`: more may come by `give`, or never."""

    def __init__(
        self, app: Any, path: str, chunks: Sequence[bytes], *, ends: bool = True, **options: Any
    ) -> None:
        self._body: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.read = 0
        for number, chunk in enumerate(chunks, 1):
            self.give(chunk, last=ends and number == len(chunks))
        super().__init__(app, path, **{"method": "POST", **options})

    def give(self, chunk: bytes, *, last: bool) -> None:
        self._body.put_nowait({"type": "http.request", "body": chunk, "more_body": not last})

    def leave(self) -> None:
        super().leave()
        self._body.put_nowait({"type": "http.disconnect"})

    async def _receive(self) -> dict[str, Any]:
        self.read += 1
        return await self._body.get()


async def post(app: Any, path: str, content: object = None, **options: Any) -> Request:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return await Post(app, f"/lastcall/{path}", [body], **options).done()


async def look(app: Any, path: str, query: str = "") -> Any:
    request = await get(app, f"/lastcall/{path}", query=query)
    assert request.status == 200, request.body
    return request.json()


class Service:
    """An app with jobs: `add` ends at once, `wait` waits for a message, `charge` asks what became of a step."""

    def __init__(self, jobs: Jobs, **options: Any) -> None:
        self.jobs = jobs
        self.manager = TaskManager(plan=ShutdownPlan(drain=30))
        self.app = Lastcall(not_found, self.manager, jobs=jobs, **options)

        @jobs.task(name="add", retention=3600, max_lost=2)
        async def add(ctx: Context, a: int, b: int = 0) -> int:
            await ctx.log("adding")
            return await ctx.step(_sum, a, b)

        @jobs.task(name="wait")
        async def wait(ctx: Context) -> Any:
            return await ctx.wait_for("go")

        @jobs.task(name="at")
        async def at(when: datetime) -> str:
            return when.isoformat()

        @jobs.task(name="alone", concurrency_key="tenant")
        async def alone(tenant: str) -> None: ...

        @jobs.task(name="fail")
        async def fail() -> None:
            raise ValueError("no such folder")

        self.add, self.wait, self.at, self.alone, self.fail = add, wait, at, alone, fail


def _sum(a: int, b: int) -> int:
    return a + b


def url_of(folder: Path) -> str:
    return f"sqlite:///{folder}/jobs.db"


@asynccontextmanager
async def serving(folder: Path, **options: Any) -> AsyncIterator[Service]:
    """The service between startup and shutdown, without a worker."""
    service = Service(Jobs(url_of(folder)), **options)
    async with running(service.app):
        yield service


async def run_all(service: Service) -> None:
    """Run what is there until nothing of it can go on."""
    async with service.jobs.worker(manager=service.manager):
        async with asyncio.timeout(20):
            while await service.jobs.find(status=["scheduled", "queued", "running"]):
                await asyncio.sleep(0.01)


def test_the_statuses_are_those_of_jobs() -> None:
    """The face names them without importing jobs; they must not drift apart."""
    assert tuple(JobStatus) == STATUSES


# --- submitting ---


async def test_submit_answers_after_the_commit(tmp_path: Path) -> None:
    """202, where the job can be looked at, and the job itself; by then another process can see it."""
    async with serving(tmp_path) as service:
        made = await post(
            service.app,
            "jobs",
            {
                "task": "add",
                "args": {"a": 2, "b": 3},
                "delay": 60,
                "priority": 7,
                "queue": "slow",
                "labels": {"tenant": "ada"},
            },
        )
        assert made.status == 202, made.body
        job = made.json()
        assert made.headers["location"] == f"/lastcall/jobs/{job['id']}"
        assert (job["task"], job["args"], job["status"]) == ("add", {"a": 2, "b": 3}, "scheduled")
        assert (job["priority"], job["queue"], job["labels"]) == (7, "slow", {"tenant": "ada"})
        async with Jobs(url_of(tmp_path)) as others:
            assert (await others.job(job["id"]).info()).args == {"a": 2, "b": 3}
        shown = await look(service.app, f"jobs/{job['id']}")
        assert shown["steps"] == [] and shown["attempts"] == [] and shown["due_at"] > shown["created_at"] + 59


async def test_location_counts_the_mount(tmp_path: Path) -> None:
    """Behind a proxy that strips a prefix, the Location is the one that the client can ask for."""
    async with serving(tmp_path) as service:
        body = json.dumps({"task": "add", "args": {"a": 1}}).encode()
        made = await Post(service.app, "/shop/lastcall/jobs", [body], root_path="/shop").done()
        assert made.status == 202
        assert made.headers["location"] == f"/shop/lastcall/jobs/{made.json()['id']}"


@pytest.mark.parametrize("in_header", [True, False])
async def test_a_key_makes_it_idempotent(tmp_path: Path, in_header: bool) -> None:
    """The same key: the same job, 200; with other arguments: 409, and nothing is written."""

    async def submit(service: Service, a: int) -> Request:
        body: dict[str, Any] = {"task": "add", "args": {"a": a}}
        headers = [(b"host", b"localhost")]
        if in_header:
            headers.append((b"Idempotency-Key", b"order 17"))
        else:
            body["key"] = "order 17"
        return await post(service.app, "jobs", body, headers=headers)

    async with serving(tmp_path) as service:
        first, again, other = [await submit(service, a) for a in (1, 1, 2)]
        assert (first.status, again.status, other.status) == (202, 200, 409)
        assert (
            again.json()["id"] == first.json()["id"]
            and again.headers["location"] == first.headers["location"]
        )
        assert "order 17" in other.json()["detail"] and first.json()["id"] in other.json()["detail"]
        assert [job.key for job in await service.jobs.find()] == ["order 17"]


async def test_two_at_once_with_one_key_make_one_job(tmp_path: Path) -> None:
    """A client that does not know whether its request arrived sends it again meanwhile: one 202, one 200."""
    async with serving(tmp_path) as service:
        body = {"task": "add", "args": {"a": 1}, "key": "k"}
        answers = await asyncio.gather(*(post(service.app, "jobs", body) for _ in range(5)))
        assert sorted(answer.status or 0 for answer in answers) == [200, 200, 200, 200, 202]
        assert len({answer.json()["id"] for answer in answers}) == 1


async def test_two_different_keys_are_refused(tmp_path: Path) -> None:
    """A header and a body that disagree: nobody knows which was meant."""
    async with serving(tmp_path) as service:
        headers = [(b"host", b"localhost"), (b"idempotency-key", b"a")]
        answer = await post(
            service.app, "jobs", {"task": "add", "args": {"a": 1}, "key": "b"}, headers=headers
        )
        assert answer.status == 422 and "Idempotency-Key" in answer.json()["detail"]
        assert await service.jobs.find() == []


async def test_arguments_are_those_of_the_function(tmp_path: Path) -> None:
    """What JSON writes as text arrives as the function's type, and is the same job as one submitted in Python."""
    async with serving(tmp_path) as service:
        when = datetime(2026, 11, 24, 12, 0)
        made = await post(
            service.app, "jobs", {"task": "at", "args": {"when": "2026-11-24T12:00:00"}, "key": "noon"}
        )
        assert made.status == 202
        assert (await service.at.options(key="noon").submit(when)).id == made.json()["id"]
        await run_all(service)
        assert (await look(service.app, f"jobs/{made.json()['id']}"))["result"] == "2026-11-24T12:00:00"


async def test_a_limit_per_key_holds_for_http_too(tmp_path: Path) -> None:
    """A task that runs once per tenant: jobs submitted by HTTP count like all others."""
    async with serving(tmp_path) as service:
        made = await post(service.app, "jobs", {"task": "alone", "args": {"tenant": "ada"}})
        [row] = await service.jobs.engine.get([made.json()["id"]])
        assert row.limit_key == "alone:ada"


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        (b"", 400, "not JSON"),
        (b"{", 400, "not JSON"),
        (b"\xff\xfe", 400, "not JSON"),
        (b'{"task": "add", "args": {"a": NaN}}', 400, "NaN"),
        (b'{"task": "add", "args": {"a": ' + b"1" * 5000 + b"}}", 400, "not JSON"),
        (b"[" * 100_000, 400, "nested"),
        (b'{"task": "at", "args": {"when": ' + b"[" * 150 + b"]" * 150 + b"}}", 400, "nested"),
        (b'{"task": "at", "args": {"when": "\\ud800"}}', 400, "surrogate"),
        (b'{"task": "add", "args": {"a": 1}, "labels": {"x": "\\uDC00"}}', 400, "surrogate"),
        ([], 422, "object"),
        (None, 422, "object"),
        ({}, 422, "'task'"),
        ({"task": 5}, 422, "'task'"),
        ({"task": ""}, 422, "'task'"),
        ({"task": "nobody"}, 404, "nobody"),
        ({"task": "add"}, 422, "a: "),
        ({"task": "add", "args": []}, 422, "object"),
        ({"task": "add", "args": {"a": "x"}}, 422, "a: "),
        ({"task": "add", "args": {"a": 1, "c": 1}}, 422, "c: "),
        ({"task": "add", "args": {"a": 1, "ctx": 1}}, 422, "ctx: "),
        ({"task": "add", "args": {"a": 1}, "delya": 5}, 422, "delya"),
        ({"task": "add", "args": {"a": 1}, "delay": -1}, 422, "delay"),
        ({"task": "add", "args": {"a": 1}, "delay": "5"}, 422, "delay"),
        ({"task": "add", "args": {"a": 1}, "delay": 10**400}, 422, "delay"),
        ({"task": "add", "args": {"a": 1}, "priority": 1.5}, 422, "priority"),
        ({"task": "add", "args": {"a": 1}, "priority": True}, 422, "priority"),
        ({"task": "add", "args": {"a": 1}, "priority": 10**30}, 422, "priority"),
        ({"task": "add", "args": {"a": 1}, "key": ""}, 422, "key"),
        ({"task": "add", "args": {"a": 1}, "key": 5}, 422, "key"),
        ({"task": "add", "args": {"a": 1}, "key": "x" * 201}, 422, "key"),
        ({"task": "add", "args": {"a": 1}, "queue": "a\nb"}, 422, "queue"),
        ({"task": "add", "args": {"a": 1}, "labels": ["x"]}, 422, "labels"),
        ({"task": "add", "args": {"a": 1}, "labels": {"x": 5}}, 422, "labels"),
    ],
)
@pytest.mark.loops("asyncio")
async def test_bad_submissions_are_named_and_nothing_is_written(
    tmp_path: Path, body: object, status: int, named: str
) -> None:
    """Each is an answer that names what is wrong, never a 500 and never a job."""
    async with serving(tmp_path) as service:
        answer = await post(service.app, "jobs", body)
        assert answer.status == status, answer.body
        assert named in answer.json()["detail"]
        assert await service.jobs.find() == []


# --- bodies ---


async def test_a_payload_over_the_limit_is_413(tmp_path: Path) -> None:
    """The limit is the one that the Jobs have; nothing is written."""
    service = Service(Jobs(url_of(tmp_path), max_payload_bytes=1000))
    async with running(service.app):
        answer = await post(service.app, "jobs", {"task": "at", "args": {"when": "x" * 999}})
        assert answer.status == 422  # it fits, and is no time
        made = await service.wait.submit()
        assert (
            await post(service.app, f"jobs/{made.id}/send", {"name": "go", "data": "x" * 990})
        ).status == 200
        answer = await post(service.app, f"jobs/{made.id}/send", {"name": "go", "data": "x" * 999})
        assert answer.status == 413 and "1000" in answer.json()["detail"]


@pytest.mark.parametrize("announced", [b"99999999", b"9" * 5000])
async def test_a_body_announced_too_large_is_not_read(tmp_path: Path, announced: bytes) -> None:
    """The length alone is enough to refuse; the connection ends, so that the client stops sending."""
    async with serving(tmp_path) as service:
        headers = [(b"host", b"localhost"), (b"content-length", announced)]
        request = Post(service.app, "/lastcall/jobs", [b"{"], ends=False, headers=headers)
        answer = await request.done()
        assert (answer.status, request.read) == (413, 0)
        assert answer.headers["connection"] == "close"


async def test_a_body_without_a_length_is_read_up_to_the_limit(tmp_path: Path) -> None:
    """Chunks without end: no more is read than could ever be used."""
    async with serving(tmp_path) as service:
        chunk = b" " * (1 << 18)
        request = Post(service.app, "/lastcall/jobs", [chunk] * 1000, ends=False)
        answer = await request.done()
        assert answer.status == 413 and request.read == 13  # 3 MiB and 64 KiB


async def test_a_body_in_many_pieces_arrives_whole(tmp_path: Path) -> None:
    """One byte at a time, split within a character."""
    async with serving(tmp_path) as service:
        body = json.dumps(
            {"task": "add", "args": {"a": 1}, "labels": {"n": "Zoë"}}, ensure_ascii=False
        ).encode()
        answer = await Post(service.app, "/lastcall/jobs", [bytes([byte]) for byte in body]).done()
        assert answer.status == 202 and answer.json()["labels"] == {"n": "Zoë"}


async def test_a_client_that_leaves_in_the_middle_submits_nothing(tmp_path: Path) -> None:
    """Half a body may be whole JSON by chance: it must not become a job."""
    async with serving(tmp_path) as service:
        body = json.dumps({"task": "add", "args": {"a": 1}}).encode()
        request = Post(service.app, "/lastcall/jobs", [body], ends=False)
        await until(lambda: request.read == 2)
        request.leave()
        await request.done()
        assert request.status is None
        assert await service.jobs.find() == []


@pytest.mark.loops("asyncio")
async def test_a_body_that_does_not_come_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that announces a body and sends nothing: 408, and the connection ends."""
    monkeypatch.setattr(body_module, "_BODY_SECONDS", 0.01)
    async with serving(tmp_path) as service:
        answer = await Post(service.app, "/lastcall/jobs", [], ends=False).done()
        assert answer.status == 408 and answer.headers["connection"] == "close"


# --- listing ---


async def test_the_list_pages_through_everything_once(tmp_path: Path) -> None:
    """Newest first, page by page to the end; `next` is null on the last page, also when that is full."""
    async with serving(tmp_path) as service:
        made = [(await service.add.submit(n)).id for n in range(6)]
        seen, query = [], "limit=2"
        for _ in range(3):
            page = await look(service.app, "jobs", query)
            assert page["shown"] == 2
            seen += [job["id"] for job in page["jobs"]]
            query = f"limit=2&cursor={page['next']}"
        assert page["next"] is None
        assert seen == made[::-1]
        assert (await look(service.app, "jobs"))["next"] is None


async def test_the_list_is_filtered(tmp_path: Path) -> None:
    """Every filter alone and together; a status may be given several times."""
    async with serving(tmp_path) as service:
        add = await service.add.options(key="k", queue="slow", labels={"who": "a:b"}).submit(1)
        later = await service.add.options(delay=60).submit(2)
        wait = await service.wait.submit()
        for query, expected in [
            ("task=add", [later, add]),
            ("queue=slow", [add]),
            ("key=k", [add]),
            ("label=who:a:b", [add]),
            ("label=who:nobody", []),
            ("status=scheduled", [later]),
            ("status=scheduled&status=queued", [wait, later, add]),
            ("status=queued&task=wait", [wait]),
            (f"parent={add.id}", []),
            ("task=nobody", []),
            ("task_part=AD", [later, add]),
            ("task_part=a&status=queued", [wait, add]),
        ]:
            found = (await look(service.app, "jobs", query))["jobs"]
            assert [job["id"] for job in found] == [job.id for job in expected], query


async def test_children_are_found_by_their_parent(tmp_path: Path) -> None:
    """The filter `parent` lists what a job has started."""
    async with serving(tmp_path) as service:

        @service.jobs.task(name="parent")
        async def parent(ctx: Context) -> str:
            return (await ctx.start(service.add.call(1))).id

        job = await parent.submit()
        await run_all(service)
        found = (await look(service.app, "jobs", f"parent={job.id}"))["jobs"]
        assert [child["id"] for child in found] == [await job.result(timeout=10)]


@pytest.mark.parametrize(
    "query",
    [
        "status=gone",
        "status=",
        "staus=running",
        "limit=0",
        "limit=-1",
        "limit=x",
        "limit=%C2%B2",
        "limit=" + "9" * 5000,
        "label=x",
        "label=:x",
        "limit=1001",
        "cursor=",
        "cursor=x",
        f"cursor={NOBODY}",
        f"cursor={make_cursor('tasks', NOBODY)}",
        f"cursor={make_cursor('jobs', NOBODY)[:-2]}",
        f"cursor={make_cursor('jobs', NOBODY)}%3D",
    ],
)
@pytest.mark.loops("asyncio")
async def test_bad_queries_are_named(tmp_path: Path, query: str) -> None:
    """Also a cursor that is forged, cut, or another list's."""
    async with serving(tmp_path) as service:
        await service.add.submit(1)
        answer = await get(service.app, "/lastcall/jobs", query=query)
        assert answer.status == 400 and answer.headers["content-type"] == "application/problem+json"
        assert query.partition("=")[0] in answer.json()["detail"]


async def test_a_list_leaves_out_results_and_tracebacks(tmp_path: Path) -> None:
    """They may be long, and a page has many; the job itself has them."""
    async with serving(tmp_path) as service:
        failed = await service.fail.submit()
        await run_all(service)
        [listed] = (await look(service.app, "jobs"))["jobs"]
        assert listed["error"] == {"type": "ValueError", "message": "no such folder"}
        assert "result" not in listed and listed["args"] == {}
        [short] = (await look(service.app, "jobs", "args=no"))["jobs"]
        assert "args" not in short and short["id"] == listed["id"]
        assert "Traceback" in (await look(service.app, f"jobs/{failed.id}"))["error"]["traceback"]


# --- one job ---


async def test_a_job_is_shown_with_its_steps_and_attempts(tmp_path: Path) -> None:
    """What ran, what each step returned, and how each attempt ended."""
    async with serving(tmp_path) as service:
        job, failed = await service.add.submit(2, 3), await service.fail.submit()
        await run_all(service)
        shown = await look(service.app, f"jobs/{job.id}")
        assert (shown["status"], shown["result"], shown["attempt"]) == ("completed", 5, 1)
        assert [(step["value"], step["status"]) for step in shown["steps"]] == [(5, "completed")]
        assert [attempt["outcome"] for attempt in shown["attempts"]] == ["completed"]
        [attempt] = (await look(service.app, f"jobs/{failed.id}"))["attempts"]
        assert attempt["outcome"] == "failed" and attempt["error"]["message"] == "no such folder"
        head = await get(service.app, f"/lastcall/jobs/{job.id}", method="HEAD")
        assert (head.status, head.body) == (200, b"")
        assert int(head.headers["content-length"]) > 100


async def test_a_step_in_flight_is_shown_by_the_process_that_runs_it(tmp_path: Path) -> None:
    """Nobody else knows of it before its end: there it is null, and no empty list."""
    async with serving(tmp_path) as service:
        begun, go = asyncio.Event(), asyncio.Event()

        async def slow() -> None:
            begun.set()
            await go.wait()

        @service.jobs.task(name="long")
        async def long(ctx: Context) -> None:
            await ctx.step(slow, name="a long one")

        job = await long.submit()
        assert (await look(service.app, f"jobs/{job.id}"))["running_steps"] is None
        async with service.jobs.worker():
            await within(begun.wait())
            shown = await look(service.app, f"jobs/{job.id}")
            assert [step["key"] for step in shown["running_steps"]] == ["a long one"] and shown["steps"] == []
            go.set()
            await job.result(timeout=20)


async def test_events_are_read_from_where_one_was(tmp_path: Path) -> None:
    """Each once, in order, and the status tells when none will come any more."""
    async with serving(tmp_path) as service:

        @service.jobs.task(name="talk")
        async def talk(ctx: Context) -> None:
            for n in range(5):
                await ctx.emit("word", {"n": n})

        job = await talk.submit()
        empty = await look(service.app, f"jobs/{job.id}/events")
        assert empty["snapshot"]["status"] == "queued" and not empty["closed"]
        await run_all(service)
        seen, after = [], 0
        for shown in (2, 2, 2, 0):
            page = await look(service.app, f"jobs/{job.id}/events", f"after={after}&limit=2")
            assert page["shown"] == shown and page["closed"] and page["snapshot"]["status"] == "completed"
            seen += page["events"]
            after = page["next"]
        assert [(event["seq"], event["type"], event["data"]) for event in seen] == [
            *((n + 1, "word", {"n": n}) for n in range(5)),
            (6, "status", {"status": "completed"}),
        ]
        for query in ("after=-1", "after=x", "limit=0", "befor=1"):
            assert (await get(service.app, f"/lastcall/jobs/{job.id}/events", query=query)).status == 400


async def test_cancel_and_retry_answer_honestly(tmp_path: Path) -> None:
    """A queued job is cancelled, an ended one was already; what has not failed cannot be queued again."""
    async with serving(tmp_path) as service:
        job = await service.add.submit(1)
        answer = await post(service.app, f"jobs/{job.id}/cancel")
        assert (answer.status, answer.json()) == (200, {"id": job.id, "answer": "cancelled"})
        assert (await post(service.app, f"jobs/{job.id}/cancel")).json()["answer"] == "already_ended"
        answer = await post(service.app, f"jobs/{job.id}/retry")
        assert (answer.status, answer.json()["answer"]) == (200, "queued")
        await run_all(service)
        answer = await post(service.app, f"jobs/{job.id}/retry")
        assert (answer.status, answer.json()["job_status"]) == (409, "completed")
        assert "completed" in answer.json()["detail"]


async def test_a_running_job_is_told(tmp_path: Path) -> None:
    """The cancel of a running job is requested, and reaches it."""
    async with serving(tmp_path) as service:
        begun = asyncio.Event()

        @service.jobs.task(name="long")
        async def long() -> None:
            begun.set()
            await asyncio.sleep(3600)

        job = await long.submit()
        async with service.jobs.worker(manager=service.manager):
            await within(begun.wait())
            assert (await post(service.app, f"jobs/{job.id}/cancel")).json()["answer"] == "requested"
            assert (await job.wait(timeout=10)).status == "cancelled"
        answer = await get(service.app, f"/lastcall/jobs/{job.id}", method="DELETE")
        assert (answer.status, answer.json()["answer"]) == (200, "purged")


async def test_a_message_reaches_the_job_that_waits(tmp_path: Path) -> None:
    """Sent with data or without, and refused when nobody will read it."""
    async with serving(tmp_path) as service:
        first, second = await service.wait.submit(), await service.wait.submit()
        await run_all(service)
        assert (await look(service.app, f"jobs/{first.id}"))["waits_for"] == ["signal go"]
        answer = await post(service.app, f"jobs/{first.id}/send", {"name": "go", "data": {"ok": [1, None]}})
        assert (answer.status, answer.json()["answer"]) == (200, "sent")
        assert (await post(service.app, f"jobs/{second.id}/send", {"name": "go"})).status == 200
        await run_all(service)
        assert await first.result(timeout=10) == {"ok": [1, None]}
        assert await second.result(timeout=10) is None
        answer = await post(service.app, f"jobs/{first.id}/send", {"name": "go"})
        assert (answer.status, answer.json()["job_status"]) == (409, "completed")


@pytest.mark.parametrize("body", [{}, {"name": ""}, {"name": 5}, {"name": "go", "date": 1}, [], "x"])
@pytest.mark.loops("asyncio")
async def test_bad_messages_are_named(tmp_path: Path, body: object) -> None:
    """A message without a name, or with something misspelled, is not sent."""
    async with serving(tmp_path) as service:
        job = await service.wait.submit()
        assert (await post(service.app, f"jobs/{job.id}/send", body)).status == 422


@pytest.mark.parametrize(
    ("decision", "status", "result"),
    [
        ({"happened": True, "value": "receipt 1"}, "completed", "receipt 1"),
        ({"happened": False}, "completed", "charged"),
        ({"error": "the card was stolen"}, "failed", None),
    ],
)
async def test_a_step_in_doubt_is_resolved(
    tmp_path: Path, decision: dict[str, Any], status: str, result: Any
) -> None:
    """A step declared `once` whose process died: the job waits until somebody says what became of it."""
    async with serving(tmp_path) as service:

        @service.jobs.task(name="pay")
        async def pay(ctx: Context) -> Any:
            return await ctx.step(charge, name="charge", policy="once")

        async def charge() -> str:
            return "charged"

        job = await pay.submit()
        await _die_inside(service.jobs, job.id, "charge")
        await run_all(service)
        shown = await look(service.app, f"jobs/{job.id}")
        assert (shown["status"], shown["undecided_steps"]) == ("waiting", ["charge"])
        refused = await post(service.app, f"jobs/{job.id}/resolve", {"step": "chrage", "happened": False})
        assert refused.status == 409 and "charge" in refused.json()["detail"]
        answer = await post(service.app, f"jobs/{job.id}/resolve", {"step": "charge", **decision})
        assert (answer.status, answer.json()["answer"]) == (200, "resolved")
        await run_all(service)
        info = await job.info()
        assert (info.status, info.result) == (status, result)
        again = await post(service.app, f"jobs/{job.id}/resolve", {"step": "charge", **decision})
        assert again.status == 409


async def _die_inside(jobs: Jobs, job_id: str, step: str) -> None:
    """What is in the store when a process has died inside a step declared `once`."""
    engine = jobs.engine
    worker = WorkerRow(new_id(), "elsewhere", 1, None, None, None, 0.001, 1, None)
    await engine.join(worker)
    claimed = await engine.claim(ClaimRequest(worker.id, 1, {("pay", ""): None}))
    assert [job.id for job in claimed.jobs] == [job_id]
    assert await engine.record_step(job_id, 1, StepRecord(step, StepStatus.STARTED, policy=StepPolicy.ONCE))


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"step": "charge"},
        {"step": "", "happened": True},
        {"step": "charge", "happened": True, "error": "x"},
        {"step": "charge", "happened": 1},
        {"step": "charge", "happened": False, "value": 1},
        {"step": "charge", "error": ""},
        {"step": "charge", "hapened": True},
    ],
)
@pytest.mark.loops("asyncio")
async def test_bad_decisions_are_named(tmp_path: Path, body: object) -> None:
    """A decision about money must say one thing and nothing else."""
    async with serving(tmp_path) as service:
        job = await service.add.submit(1)
        assert (await post(service.app, f"jobs/{job.id}/resolve", body)).status == 422


async def test_a_decision_that_nobody_asked_for_is_refused(tmp_path: Path) -> None:
    """It would be kept, and answer a question that comes up later."""
    async with serving(tmp_path) as service:
        job = await service.add.submit(1)
        answer = await post(service.app, f"jobs/{job.id}/resolve", {"step": "charge", "happened": True})
        assert (answer.status, answer.json()["job_status"]) == (409, "queued")


async def test_only_ended_jobs_are_purged(tmp_path: Path) -> None:
    """DELETE of a queued job is 409 and deletes nothing; of an ended one it deletes it."""
    async with serving(tmp_path) as service:
        job = await service.add.submit(1)
        answer = await get(service.app, f"/lastcall/jobs/{job.id}", method="DELETE")
        assert (answer.status, answer.json()["job_status"]) == (409, "queued")
        await job.cancel()
        assert (await get(service.app, f"/lastcall/jobs/{job.id}", method="DELETE")).status == 200
        assert (await get(service.app, f"/lastcall/jobs/{job.id}")).status == 404
        assert (await get(service.app, f"/lastcall/jobs/{job.id}", method="DELETE")).status == 404


PAGES = [
    ("GET", "", None),
    ("GET", "/events", None),
    ("POST", "/cancel", None),
    ("POST", "/retry", None),
    ("POST", "/send", {"name": "go"}),
    ("POST", "/resolve", {"step": "s", "happened": False}),
    ("DELETE", "", None),
]


@pytest.mark.parametrize("id", [NOBODY, "nobody", NOBODY.upper(), "a b", "%00", "é"])
@pytest.mark.loops("asyncio")
async def test_unknown_ids_are_404_everywhere(tmp_path: Path, id: str) -> None:
    """An id that does not exist, and what is none."""
    async with serving(tmp_path) as service:
        for method, page, body in PAGES:
            answer = await post(service.app, f"jobs/{id}{page}", body, method=method)
            assert answer.status == 404, (method, page)
            assert "job" in answer.json()["detail"]


@pytest.mark.loops("asyncio")
async def test_wrong_methods_are_405(tmp_path: Path) -> None:
    """The answer names the right ones, and nothing happens."""
    async with serving(tmp_path) as service:
        job = await service.add.submit(1)
        for path, method, allowed in [
            ("", "PUT", "GET, HEAD, POST"),
            ("", "DELETE", "GET, HEAD, POST"),
            (f"/{job.id}", "POST", "GET, HEAD, DELETE"),
            (f"/{job.id}/cancel", "GET", "POST"),
            (f"/{job.id}/events", "POST", "GET, HEAD"),
            (f"/{job.id}/send", "HEAD", "POST"),
        ]:
            answer = await get(service.app, f"/lastcall/jobs{path}", method=method)
            assert (answer.status, answer.headers["allow"]) == (405, allowed)
        assert (await job.info()).status == "queued"


# --- who, and when ---


async def test_strangers_see_and_do_nothing(tmp_path: Path) -> None:
    """Another machine, or a web page elsewhere that makes a local browser ask: 403, nothing submitted."""
    async with serving(tmp_path) as service:
        job = await service.wait.submit()
        for options in (
            {"client": ("10.0.0.7", 1)},
            {"headers": [(b"host", b"localhost"), (b"origin", b"http://evil.example")]},
        ):
            for method, page, body in PAGES:
                answer = await post(service.app, f"jobs/{job.id}{page}", body, method=method, **options)
                assert answer.status == 403 and job.id.encode() not in answer.body
            for method in ("GET", "POST"):
                answer = await post(service.app, "jobs", {"task": "wait"}, method=method, **options)
                assert answer.status == 403
        assert [info.id for info in await service.jobs.find()] == [job.id]
        assert (await job.info()).status == "queued"


@pytest.mark.loops("asyncio")
async def test_a_cursor_whose_job_is_gone_is_410(tmp_path: Path) -> None:
    """Purged between two pages: its place is lost, and an empty page would look like the end."""
    async with serving(tmp_path) as service:
        for number in range(3):
            await service.add.submit(number)
        page = await look(service.app, "jobs", "limit=2")
        last = page["jobs"][-1]["id"]
        await service.jobs.job(last).cancel()
        await service.jobs.job(last).purge()
        answer = await get(service.app, "/lastcall/jobs", query=f"limit=2&cursor={page['next']}")
        assert answer.status == 410 and last in answer.json()["detail"]


@pytest.mark.loops("asyncio")
async def test_the_next_page_is_linked(tmp_path: Path) -> None:
    """`Link` leads through all pages with the filters as they were, also below a mount; the last one has none."""
    async with serving(tmp_path) as service:
        made = [
            (await service.add.options(queue=queue).submit(1)).id for queue in ("a&b", "other", "a&b", "a&b")
        ]
        path, seen, query = "/shop/lastcall/jobs", [], "queue=a%26b&limit=2"
        while True:
            page = await get(service.app, path, query=query, root_path="/shop")
            seen += [job["id"] for job in page.json()["jobs"]]
            if "link" not in page.headers:
                break
            assert page.headers["link"].startswith("</shop/") and page.headers["link"].endswith(
                '; rel="next"'
            )
            path, _, query = page.headers["link"][1:].partition(">")[0].partition("?")
        assert seen == [made[3], made[2], made[0]]


@pytest.mark.loops("asyncio")
async def test_without_jobs_there_are_no_pages() -> None:
    """An app that has no jobs: the pages of jobs are not there, and say so."""
    async with running(app := Lastcall(not_found, TaskManager())):
        for method in ("GET", "POST"):
            assert (await get(app, "/lastcall/jobs", method=method)).status == 404
        assert not any("jobs" in path for _, path in app.face.example_paths())


@pytest.mark.loops("asyncio")
async def test_paths_that_do_not_exist_are_problems(tmp_path: Path) -> None:
    """Everything below the prefix is ours: what is no page is a problem document, whoever the app is."""
    async with serving(tmp_path) as service:
        for path in ("jobs/", "jobs/a/b", "jobs/a/b/c", "jobs//cancel", "jobsx"):
            for method in ("GET", "POST"):
                answer = await get(service.app, f"/lastcall/{path}", method=method)
                assert (answer.status, answer.json()["status"]) == (404, 404), path
                assert answer.headers["content-type"] == "application/problem+json"


async def test_before_the_start_and_after_the_end_it_says_so(tmp_path: Path) -> None:
    """503 with Retry-After, and the store is not opened again by whoever asks last."""
    service = Service(Jobs(url_of(tmp_path)))
    asked = [("GET", "jobs", None), ("POST", "jobs", {"task": "wait"}), ("GET", f"jobs/{NOBODY}", None)]
    for method, path, body in asked:
        answer = await post(service.app, path, body, method=method)
        assert answer.status == 503 and answer.headers["retry-after"] == "5"
    assert not (tmp_path / "jobs.db").exists()
    async with running(service.app):
        pass
    for method, path, body in asked:
        answer = await post(service.app, path, body, method=method)
        assert answer.status == 503 and answer.headers["retry-after"] == "5"
    assert not service.jobs._client.is_open


async def test_in_the_drain_jobs_are_seen_and_cancelled_but_not_submitted(tmp_path: Path) -> None:
    """A replica that goes sends new jobs elsewhere, and still answers for those it knows."""
    release = asyncio.Event()
    service = Service(Jobs(url_of(tmp_path)))
    async with running(service.app) as lifespan:
        job = await service.wait.submit()
        service.manager.create_task(release.wait())
        service.manager.begin_shutdown()
        assert service.manager.state is ManagerState.DRAINING
        answer = await post(service.app, "jobs", {"task": "wait"})
        assert answer.status == 503
        assert (answer.headers["retry-after"], answer.headers["connection"]) == ("5", "close")
        assert (await post(service.app, f"jobs/{job.id}/send", {"name": "go"})).status == 503
        assert len((await look(service.app, "jobs"))["jobs"]) == 1
        assert (await post(service.app, f"jobs/{job.id}/cancel")).json()["answer"] == "cancelled"
        release.set()
        await lifespan.stop()
    assert service.manager.report is not None and service.manager.report.clean


async def test_a_submission_in_flight_is_waited_for(tmp_path: Path) -> None:
    """The stop comes while the body is on its way: it is taken, committed and answered, and the report is clean."""
    service = Service(Jobs(url_of(tmp_path)))
    async with running(service.app) as lifespan:
        body = json.dumps({"task": "add", "args": {"a": 1}}).encode()
        request = Post(service.app, "/lastcall/jobs", [body[:10]], ends=False)
        await until(lambda: request.read == 2)
        service.manager.begin_shutdown()
        assert service.manager.state is ManagerState.DRAINING
        request.give(body[10:], last=True)
        assert (await request.done()).status == 202
        assert [info.task for info in await service.jobs.find()] == ["add"]
        await lifespan.stop()
    assert service.manager.report is not None and service.manager.report.clean


# --- the store ---


class Moody(ModelEngine):
    """An engine whose verbs fail while they stand in `away`."""

    away: Iterable[str] = ()
    slow: asyncio.Event | None = None
    closed = False

    async def close(self) -> None:
        self.closed = True

    def _check(self, verb: str) -> None:
        if verb in self.away:
            raise EngineUnavailable("the disk is full; free some space")

    async def open(self) -> None:
        self._check("open")

    async def submit(self, jobs: Sequence[NewJob]) -> list[Submitted]:
        self._check("submit")
        return await super().submit(jobs)

    async def get(self, job_ids: Sequence[str]) -> list[JobRow]:
        self._check("get")
        if self.slow is not None:
            await self.slow.wait()
            assert not self.closed, "the store was closed under a page that used it"
        return await super().get(job_ids)


async def test_a_store_that_is_away_is_503() -> None:
    """The client is told to come back; what was not written is not answered as if it were."""
    engine = Moody()
    service = Service(Jobs(engine))
    async with running(service.app):
        engine.away = ["submit"]
        answer = await post(service.app, "jobs", {"task": "wait"})
        assert answer.status == 503 and answer.headers["retry-after"] == "5"
        assert "the disk is full" in answer.json()["detail"]
        assert await service.jobs.find() == []


async def test_what_is_committed_is_never_answered_by_an_error() -> None:
    """The store goes away between the commit and the look at the job: a 503 would make the client submit it twice."""
    engine = Moody()
    service = Service(Jobs(engine))
    async with running(service.app):
        engine.away = ["get"]
        answer = await post(service.app, "jobs", {"task": "wait"})
        assert answer.status == 202
        [info] = await service.jobs.find()
        assert answer.json() == {"id": info.id, "task": "wait"}


async def test_closing_waits_for_the_pages_at_work() -> None:
    """The shutdown closes the store while a page reads: the page ends well, and does not open the store again."""
    engine = Moody()
    service = Service(Jobs(engine))
    async with running(service.app) as lifespan:
        job = await service.wait.submit()
        await look(service.app, f"jobs/{job.id}")  # an earlier page, which is over
        engine.slow = asyncio.Event()
        request = Request(service.app, f"/lastcall/jobs/{job.id}")
        service.manager.begin_shutdown()
        face = service.app.face.jobs
        await until(lambda: face is not None and not face._is_open)
        assert (await get(service.app, "/lastcall/jobs")).status == 503
        assert not engine.closed
        engine.slow.set()
        assert (await request.done()).status == 200
        await lifespan.stop()
    assert engine.closed and not service.jobs._client.is_open
    assert service.manager.report is not None and service.manager.report.clean


async def test_a_store_that_cannot_be_opened_stops_the_start(tmp_path: Path) -> None:
    """The server hears why, and the manager is closed again."""
    service = Service(Jobs(url_of(tmp_path / "nowhere")))
    answer = await Lifespan(service.app).start()
    assert answer["type"] == "lifespan.startup.failed" and "nowhere" in answer["message"]
    assert service.manager.state is ManagerState.CLOSED
