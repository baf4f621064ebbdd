"""An agent behind HTTP that asks a person before it acts, and its conversations; runs survive the server.

uvicorn agents_web:app --app-dir examples
curl -X POST 'localhost:8000/runs?prompt=tidy+up'            {"id": ...}
curl -N -H 'Accept: text/event-stream' localhost:8000/runs/ID/events
curl -X POST localhost:8000/runs/ID/approve
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from lastcall import TaskManager
from lastcall.agents import AgentQueue, Turn
from lastcall.fastapi import LogResponse, install
from lastcall.jobs import Jobs

jobs = Jobs("sqlite:///agents_web.db")


async def make_plan(prompt: str) -> str:
    return f"first look, then {prompt}"


async def carry_out(plan: str) -> str:
    print(f"carried out: {plan}", flush=True)
    return f"done: {plan}"


async def agent(turn: Turn, prompt: str) -> str:
    plan = await turn.step(make_plan, prompt, name="plan")
    await turn.emit("approval.requested", plan)
    if not await turn.wait_for("approval", timeout=86_400):
        return "not approved"
    return await turn.step(carry_out, plan, name="carry out", policy="once")


queue = AgentQueue(agent, jobs=jobs)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with queue:
        yield


app = FastAPI(lifespan=lifespan)
install(app, TaskManager(), jobs=jobs)


@app.post("/runs", status_code=202)
async def ask(prompt: str) -> dict[str, str]:
    run = await queue.submit(prompt)
    return {"id": run.id}


@app.get("/runs/{id}/events")
async def events(id: str) -> LogResponse:
    return LogResponse(queue.run(id))


@app.post("/runs/{id}/approve", status_code=202)
async def approve(id: str, yes: bool = True) -> None:
    await queue.run(id).send("approval", yes)


@app.get("/runs/{id}")
async def look(id: str) -> dict[str, Any]:
    run = queue.run(id)
    return {"status": await run.status(), "answer": (await run.info()).result}


@app.post("/chats/{id}", status_code=202)
async def say(id: str, prompt: str) -> dict[str, str]:
    chat = queue.conversation(id, user="ann")
    run = await chat.send(prompt)
    return {"id": run.id}


@app.get("/chats/{id}")
async def turns(id: str) -> list[dict[str, Any]]:
    chat = queue.conversation(id)
    return [
        {"number": turn.turn, "status": turn.status, "answer": turn.answer} for turn in await chat.turns()
    ]


@app.post("/chats/{id}/branch", status_code=201)
async def branch(id: str, after: int) -> dict[str, str]:
    other = await queue.conversation(id).branch(after=after)  # begins like this one, goes its own way
    return {"id": other.id}
