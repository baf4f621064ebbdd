"""Existing BackgroundTasks code, kept through a stop by one line.

uvicorn quickstart_fastapi:app, then POST /signup/ada and press Ctrl-C at once: the mail is still sent.
"""

import asyncio

from fastapi import BackgroundTasks, FastAPI

from lastcall import TaskManager
from lastcall.fastapi import install

app = FastAPI()
install(app, TaskManager())  # this line


async def send_mail(name: str) -> None:
    print(f"writing to {name}", flush=True)
    await asyncio.sleep(1)
    print(f"mail to {name} sent", flush=True)


@app.post("/signup/{name}")
async def signup(name: str, background_tasks: BackgroundTasks) -> dict[str, str]:
    background_tasks.add_task(send_mail, name)
    return {"welcome": name}
