"""Who may do what below the prefix, and what they are shown: the app's own rule, read-only, other sites, redaction."""

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from lastcall import ShutdownPlan, TaskManager, current_shutdown
from lastcall.asgi import Access, Challenge, DurableStreams, Lastcall, Shown
from lastcall.exceptions import BadDeclaration
from lastcall.jobs import Context, Jobs
from lastcall.streams import Streams
from tests.asgi.driver import Request, get, running
from tests.asgi.test_face import make, not_found
from tests.asgi.test_jobs_face import Service, post, run_all, serving, url_of

HOST = (b"host", b"app.example")
PAGES = (
    "stats",
    "tasks",
    "meta",
    "openapi.json",
    "live",
    "drain",
    "shutdown",
    "history",
    "",
    "nothing",
    "assets/x.js",
)

pytestmark = pytest.mark.loops("asyncio")


def everybody(scope: Any) -> bool:
    return True


# --- who comes in ---


async def test_a_challenge_asks_who_it_is() -> None:
    """`allow` may answer with a challenge: 401, and a browser asks its user. Also for pages that do not exist."""

    def by_password(scope: Any) -> bool | Challenge:
        return (b"authorization", b"Basic YW5uOnNlY3JldA==") in scope["headers"] or Challenge()

    async with running(app := make(allow=by_password)):
        for page in PAGES:
            answer = await get(app, f"/lastcall/{page}")
            assert (answer.status, answer.json()["title"]) == (401, "Unauthorized")
            assert answer.headers["www-authenticate"].startswith('Basic realm="lastcall"')
        let_in = [HOST, (b"authorization", b"Basic YW5uOnNlY3JldA==")]
        assert (await get(app, "/lastcall/stats", headers=let_in)).status == 200


async def test_a_rule_that_fails_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    """The app's own check has a bug: closed, a problem without the traceback, which is in the log."""

    async def broken(scope: Any) -> bool:
        raise RuntimeError("the session store is away, its password is hunter2")

    async with running(app := make(allow=broken)):
        task = app.manager.create_task(asyncio.sleep(3600), id="sleepy")
        for method, page in (("GET", "tasks/sleepy"), ("POST", "tasks/sleepy/cancel")):
            answer = await get(app, f"/lastcall/{page}", method=method)
            assert answer.status == 500 and b"hunter2" not in answer.body and b"sleepy" not in answer.body
        assert not task.done() and "hunter2" in caplog.text
        await app.manager.cancel_task(task)


@pytest.mark.parametrize(
    "given",
    [
        "yes",
        Access(allow="yes"),  # type: ignore[arg-type]
        Access(redact=3),  # type: ignore[arg-type]
        Access(live_readers=0),
        Access(live_readers_per_client=True),
    ],
)
def test_bad_access_is_refused(given: Any) -> None:
    """A hook that cannot be called and a limit that lets nobody in are clear errors at once."""
    with pytest.raises(BadDeclaration):
        make(allow=given)


async def test_everything_below_the_prefix_is_guarded() -> None:
    """No page of another site may frame it or have it, and no browser guesses what it is."""
    async with running(app := make(allow=everybody)):
        for page in ("stats", "nothing", "tasks/t-0"):
            headers = (await get(app, f"/lastcall/{page}", headers=[HOST])).headers
            assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
            assert headers["cross-origin-resource-policy"] == "same-origin"
            assert headers["cache-control"] == "no-store" and "access-control-allow-origin" not in headers


# --- what may be done from where ---

ELSEWHERE = [
    [(b"sec-fetch-site", b"cross-site")],
    [(b"sec-fetch-site", b"same-site"), (b"origin", b"https://app.example")],
    [(b"origin", b"https://evil.example")],
    [(b"origin", b"https://app.example.evil.example")],
    [(b"origin", b"null")],
]
HERE = [
    [],
    [(b"sec-fetch-site", b"same-origin"), (b"origin", b"https://behind.a.proxy")],
    [(b"sec-fetch-site", b"none")],
    [(b"origin", b"https://App.example")],
]


@pytest.mark.parametrize("headers", ELSEWHERE)
async def test_a_page_of_another_site_does_nothing(tmp_path: Path, headers: Any) -> None:
    """A browser that carries the user's cookie is made to ask by somebody else: 403 for every verb, nothing is done.
    Looking is not refused: the other page cannot read the answer."""
    streams = DurableStreams(Streams(), origins=["https://friend.example"])
    async with serving(tmp_path, allow=everybody, streams=streams) as service:
        job = await service.wait.submit()
        for method, page, body in (
            ("POST", "jobs", {"task": "wait"}),
            ("POST", f"jobs/{job.id}/cancel", None),
            ("DELETE", f"jobs/{job.id}", None),
            ("POST", "drain", None),
            ("PUT", "streams/s", None),
        ):
            answer = await post(service.app, page, body, method=method, headers=[HOST, *headers])
            assert answer.status == 403 and "another site" in answer.json()["detail"], page
        assert (await get(service.app, "/lastcall/stats", headers=[HOST, *headers])).status == 200
        assert (await job.info()).status == "queued" and len(await service.jobs.find()) == 1
        assert service.manager.state == "open"
        friend = [HOST, (b"origin", b"https://friend.example"), (b"content-type", b"text/plain")]
        made = await post(service.app, "streams/s", b"", method="PUT", headers=friend)
        assert made.status == 201


@pytest.mark.parametrize("headers", HERE)
async def test_our_own_pages_and_programs_do(tmp_path: Path, headers: Any) -> None:
    """The same origin, also behind a proxy that has changed the Host, and whoever is no browser."""
    async with serving(tmp_path, allow=everybody) as service:
        answer = await post(service.app, "jobs", {"task": "wait"}, headers=[HOST, *headers])
        assert answer.status == 202


@pytest.mark.parametrize(
    "kind", [b"text/plain", b"application/x-www-form-urlencoded; charset=utf-8", b"Multipart/Form-Data"]
)
async def test_a_form_is_not_understood(tmp_path: Path, kind: bytes) -> None:
    """The content types that any page can send without being asked: 415, whatever is in the body."""
    async with serving(tmp_path) as service:
        job = await service.wait.submit()
        headers = [(b"host", b"localhost"), (b"content-type", kind)]
        for page, body in (("jobs", {"task": "wait"}), (f"jobs/{job.id}/cancel", None), ("drain", None)):
            assert (await post(service.app, page, body, headers=headers)).status == 415
        assert len(await service.jobs.find()) == 1 and (await job.info()).status == "queued"


async def test_read_only_changes_nothing(tmp_path: Path) -> None:
    """Everything can be looked at, and no verb does anything; pages are told beforehand."""
    async with serving(tmp_path, allow=Access(read_only=True), streams=Streams()) as service:
        job = await service.wait.submit()
        task = service.manager.create_task(asyncio.sleep(3600), id="sleepy")
        for method, page, body in (
            ("POST", "jobs", {"task": "wait"}),
            ("POST", f"jobs/{job.id}/cancel", None),
            ("POST", f"jobs/{job.id}/send", {"name": "go"}),
            ("DELETE", f"jobs/{job.id}", None),
            ("POST", "tasks/sleepy/cancel", None),
            ("POST", "drain", None),
            ("PUT", "streams/s", None),
        ):
            answer = await post(service.app, page, body, method=method)
            assert answer.status == 403 and answer.json()["detail"].startswith("read-only"), page
        assert (await get(service.app, "/lastcall/meta")).json()["read_only"]
        assert (await get(service.app, f"/lastcall/jobs/{job.id}")).json()["status"] == "queued"
        assert not task.done() and service.manager.state == "open"
        await service.manager.cancel_task(task)


# --- what is shown ---


def hide(shown: Shown) -> Any:
    """A hook as users write it: of one task nothing but its numbers, of all others what there is."""
    if shown.task in ("secret", "gossip", "keeper"):
        return f"<{shown.what}>"
    return shown.value


async def test_what_the_hook_hides_is_nowhere_to_be_seen(tmp_path: Path) -> None:
    """Arguments, result, progress, steps, errors, events as a page, as a stream, as a Durable Stream, the live feed,
    tasks in memory and the report of the shutdown: none of them shows the word."""
    service = Service(Jobs(url_of(tmp_path)), allow=Access(redact=hide))

    @service.jobs.task(name="secret")
    async def secret(ctx: Context, word: str, fails: bool) -> str:
        await ctx.progress(1, 2, word)
        await ctx.emit("told", {"word": word})
        await ctx.step(_echo, word)
        if fails:
            raise ValueError(word)
        return word

    async def gossip() -> str:
        return "hunter2"

    async def keeper() -> None:
        await current_shutdown().wait()
        raise ValueError("hunter2")

    seen: list[Request] = []
    async with running(service.app) as lifespan:
        live = Request(service.app, "/lastcall/live")
        made = await post(
            service.app, "jobs", {"task": "secret", "args": {"word": "hunter2", "fails": False}}
        )
        other = await secret.submit("hunter2", True)
        open_one = await service.add.submit(40, 2)
        await service.manager.create_task(gossip(), name="gossip")
        await run_all(service)
        for id in (made.json()["id"], other.id):
            for query in ("", "format=sse", "format=ndjson"):
                seen.append(await get(service.app, f"/lastcall/jobs/{id}/events", query=query))
            seen.append(await get(service.app, f"/lastcall/streams/jobs/{id}"))
            seen.append(await get(service.app, f"/lastcall/jobs/{id}"))
        seen += [await get(service.app, f"/lastcall/{page}") for page in ("jobs", "tasks")]
        detail = (await get(service.app, f"/lastcall/jobs/{made.json()['id']}")).json()
        assert (detail["args"], detail["result"]) == ("<args>", "<result>")
        assert [(step["key"], step["value"]) for step in detail["steps"]] == [("<step_key>", "<step>")]
        failed = (await get(service.app, f"/lastcall/jobs/{other.id}")).json()
        assert failed["error"] == {"message": "<error>"} == failed["attempts"][0]["error"]
        shown = (await get(service.app, f"/lastcall/jobs/{open_one.id}")).json()
        assert (shown["result"], shown["args"]) == (42, {"a": 40, "b": 2})
        service.manager.create_task(keeper(), name="keeper")
        await lifespan.stop()
        await live.done()
        seen += [
            made,
            live,
            await get(service.app, "/lastcall/shutdown"),
            await get(service.app, "/lastcall/drain"),
        ]
    for answer in seen:
        assert answer.status in (200, 202), answer.scope["path"]
        assert b"hunter2" not in answer.body, (answer.scope["path"], answer.scope["query_string"])
        assert answer.body


def _echo(word: str) -> str:
    return word


async def test_a_hook_that_fails_shows_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It must not show what it was meant to hide; the page works, and the log says that the hook failed."""

    def broken(shown: Shown) -> Any:
        raise KeyError("no such field")

    async with serving(tmp_path, allow=Access(redact=broken)) as service:
        job = await service.add.submit(1234567)
        answer = await get(service.app, f"/lastcall/jobs/{job.id}")
        assert answer.status == 200 and b"1234567" not in answer.body
        assert "hook failed" in answer.json()["args"] and "redact failed" in caplog.text


# --- what must not happen ---

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a\r\nSet-Cookie: x=1",
    "../../etc/passwd",
    "\x00",
    "%00%0d%0a",
    "\u202eevil",
    "𝕏" * 300,
    "{{7*7}}${7*7}",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_hostile_strings_are_data(tmp_path: Path, text: str) -> None:
    """In paths, queries, headers, names and arguments: a clear answer in JSON, no header of its own, never a page."""
    async with serving(tmp_path, allow=everybody) as service:
        quoted = text.encode()
        answers = [
            await get(service.app, f"/lastcall/tasks/{text}"),
            await get(service.app, f"/lastcall/jobs/{text}"),
            await get(service.app, f"/lastcall/jobs/{text}/events"),
            await get(service.app, f"/lastcall/{text}"),
            await get(
                service.app, "/lastcall/jobs", query="task=" + "".join(f"%{byte:02x}" for byte in quoted)
            ),
            await get(service.app, "/lastcall/tasks", query="cursor=" + "".join(f"%{b:02x}" for b in quoted)),
            await post(service.app, "jobs", {"task": text}),
            await post(service.app, "jobs", {"task": "add", "args": {text: 1}}),
            await post(service.app, "jobs", {"task": "add", "args": {"a": text}}),
            await post(service.app, "jobs", {"task": "wait", "key": text}),
            await post(service.app, "jobs", {"task": "wait"}, headers=[HOST, (b"idempotency-key", quoted)]),
            await post(service.app, f"schedules/{text}/run"),
        ]
        for answer in answers:
            assert answer.status is not None and answer.status < 500, (answer.scope["path"], answer.body)
            assert answer.headers["content-type"] in ("application/json", "application/problem+json")
            assert "set-cookie" not in answer.headers and b"Traceback" not in answer.body
            json.loads(answer.body)
            for value in answer.headers.values():
                assert "\r" not in value and "\n" not in value


async def test_what_breaks_a_page_is_a_problem_and_a_log_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug of ours: 500 as a problem document, the traceback in the log and not at the client."""
    async with serving(tmp_path) as service:

        async def broken() -> Any:
            raise ZeroDivisionError("a bug")

        monkeypatch.setattr(service.jobs, "overview", broken)
        with caplog.at_level(logging.ERROR):
            answer = await get(service.app, "/lastcall/overview")
        assert (answer.status, answer.json()["title"]) == (500, "Internal Server Error")
        assert b"ZeroDivision" not in answer.body and "ZeroDivisionError" in caplog.text


async def test_in_the_drain_new_calls_are_told_by_a_problem() -> None:
    """The app's own calls that are refused: the same form, for whoever reads it."""
    app = Lastcall(not_found, TaskManager(plan=ShutdownPlan(drain=30)))
    async with running(app) as lifespan:
        release = asyncio.Event()
        app.manager.create_task(release.wait())
        app.manager.begin_shutdown()
        answer = await get(app, "/orders")
        assert (answer.status, answer.headers["content-type"]) == (503, "application/problem+json")
        assert answer.headers["retry-after"] == "5" and answer.json()["retry_after_seconds"] == 5
        release.set()
        await lifespan.stop()
