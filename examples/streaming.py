"""Tokens of a language model to a browser, ended properly by a stop, a failure or a reader who left.

uvicorn streaming:app, then curl -N localhost:8000/answer and press Ctrl-C in the server's terminal.
"""

import asyncio
from collections.abc import AsyncIterator

from fastapi import FastAPI

from lastcall import TaskManager, current_shutdown
from lastcall.fastapi import StreamResponse, install

app = FastAPI()
install(app, TaskManager(), stream_grace_seconds=2)


async def answer() -> AsyncIterator[dict[str, str]]:
    """Stands in for `llm.astream(prompt)`: any async iterator will do."""
    try:
        while not current_shutdown().requested:
            for word in "and so the story goes on ".split(" "):
                yield {"text": word}
                await asyncio.sleep(0.05)
        yield {"text": "(cut short: the service is restarting)"}
    finally:
        print("the model's connection is closed", flush=True)


@app.get("/answer")
async def stream() -> StreamResponse:
    return StreamResponse(answer())
