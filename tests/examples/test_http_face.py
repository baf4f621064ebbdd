"""http_face.py does what it says: strangers are asked who they are, viewers look, staff acts, no password is shown."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from tests.asgi.driver import get, running
from tests.asgi.test_jobs_face import Post

EXAMPLE = Path(__file__).parents[2] / "examples" / "http_face.py"


@pytest.mark.loops("asyncio")
async def test_users_look_and_staff_acts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The three kinds of client of the page, on the app as it stands."""
    monkeypatch.setenv("JOBS_URL", f"sqlite:///{tmp_path}/jobs.db")
    monkeypatch.setenv("TOKENS", '{"of-ann": "staff", "of-bob": "viewer"}')
    app: Any = runpy.run_path(str(EXAMPLE))["app"]

    def as_(token: str) -> list[tuple[bytes, bytes]]:
        return [(b"host", b"app.example"), (b"authorization", f"Bearer {token}".encode())]

    body = json.dumps(
        {"task": "invite", "args": {"email": "eve@example.org", "password": "hunter2"}}
    ).encode()

    async def submit(token: str) -> Post:
        request = Post(app, "/lastcall/jobs", [body], headers=as_(token))
        await request.done()
        return request

    async with running(app):
        stranger = await get(app, "/lastcall/meta", headers=[(b"host", b"app.example")])
        assert stranger.status == 401 and stranger.headers["www-authenticate"].startswith("Bearer")
        assert (await submit("of-bob")).status == 403
        made = await submit("of-ann")
        assert made.status == 202
        seen = await get(app, made.headers["location"], headers=as_("of-bob"))
        assert seen.json()["args"] == {"email": "eve@example.org", "password": "•••"}
        assert b"hunter2" not in seen.body + made.body
