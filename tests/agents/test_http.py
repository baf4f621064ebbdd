"""A run's events over HTTP: `LogResponse(run)` serves both kinds of runs alike."""

import json
from typing import Any

import pytest

from lastcall.asgi import LogResponse
from tests.agents.places import PATIENCE_SECONDS, Place
from tests.asgi.driver import Request

pytestmark = pytest.mark.loops("asyncio")

SSE = (b"accept", b"text/event-stream")


async def words(prompt: str):
    for word in prompt.split():
        yield f"{word} "


async def test_a_browser_reads_a_run_and_comes_back(place: Place) -> None:
    """The snapshot, every event once with its number, and the end; from a cursor on only what is behind it."""
    async with place.queue(words) as queue:
        run = await queue.submit("one two three")
        await run.result(PATIENCE_SECONDS)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await LogResponse(run)(scope, receive, send)

        request = await Request(app, "/", headers=[(b"host", b"localhost"), SSE]).done()
        events = request.events()
        assert [event["event"] for event in events[:1] + events[-1:]] == ["snapshot", "end"]
        snapshot = json.loads(events[0]["data"])
        assert run.id in json.dumps(snapshot) and "completed" in json.dumps(snapshot)
        entries = [told for event in events if "seq" in (told := json.loads(event["data"]))]
        text = "".join(entry["data"]["text"] for entry in entries if entry["type"] == "stream.text")
        assert text == "one two three "
        last = entries[-1]["seq"]
        assert [entry["seq"] for entry in entries] == list(range(1, last + 1))
        headers = [(b"host", b"localhost"), SSE, (b"last-event-id", str(last).encode())]
        assert (await Request(app, "/", headers=headers).done()).status == 204
        page = await Request(app, "/", query=f"after={last - 1}", headers=[(b"host", b"localhost")]).done()
        assert [entry["seq"] for entry in page.json()["events"]] == [last]
