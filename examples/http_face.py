"""The HTTP face for more than this machine: the app's own users look, its staff acts, and no secret is shown.

TOKENS='{"s3cret-of-ann": "staff", "s3cret-of-bob": "viewer"}' uvicorn http_face:app

curl localhost:8000/lastcall/meta                                                        # 401
curl -H 'Authorization: Bearer s3cret-of-bob' localhost:8000/lastcall/jobs               # looks
curl -H 'Authorization: Bearer s3cret-of-ann' localhost:8000/lastcall/jobs \
     -H 'Content-Type: application/json' -d '{"task": "invite", "args": {"email": "eve@example.org", "password": "x"}}'
"""

import json
import os
import secrets
from typing import Any

from fastapi import FastAPI, Request

from lastcall import TaskManager
from lastcall.asgi import Access, Challenge, Shown
from lastcall.fastapi import install
from lastcall.jobs import Jobs

jobs = Jobs(os.environ.get("JOBS_URL", "sqlite:///http_face.db"))
roles: dict[str, str] = json.loads(os.environ.get("TOKENS", "{}"))


@jobs.task
async def invite(email: str, password: str) -> str:
    return f"invited {email}"


async def may_use(scope: Any) -> bool | Challenge:
    request = Request(scope)
    token = request.headers.get("authorization", "").removeprefix("Bearer ")
    role = next((role for known, role in roles.items() if secrets.compare_digest(known, token)), None)
    if role is None:
        return Challenge('Bearer realm="lastcall"')  # 401; False would be 403
    return role == "staff" or request.method in ("GET", "HEAD")


def without_passwords(shown: Shown) -> Any:
    if shown.what == "args" and isinstance(shown.value, dict):
        return {name: "•••" if name == "password" else value for name, value in shown.value.items()}
    return shown.value


app = FastAPI()
install(app, TaskManager(), jobs=jobs, allow=Access(allow=may_use, redact=without_passwords))
