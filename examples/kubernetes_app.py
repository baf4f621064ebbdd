"""The app of deploy/kubernetes: a web process and a worker on one store, with a plan that fits the manifests.

DATABASE_URL says where the jobs are: postgresql://... for several pods, sqlite:////data/jobs.db for one.
`lastcall doctor kubernetes_app:app --manifest deploy/kubernetes/web.yaml` compares all of it.
"""

import os

from fastapi import FastAPI

from lastcall import ShutdownPlan, TaskManager
from lastcall.fastapi import install
from lastcall.jobs import Context, Jobs

jobs = Jobs(os.environ.get("DATABASE_URL", "sqlite:///kubernetes_app.db"))

# 5 s in which balancers look away, 20 for the work, 3 and 2 for the rest: 30 in all, 5 below the grace period.
manager = TaskManager(plan=ShutdownPlan(notice=5, drain=20, cancel=3, close=2))

app = FastAPI()
install(app, manager, jobs=jobs)


async def pack(item: str) -> str:
    return f"{item} is packed"


@jobs.task(retries=3)
async def fulfil(ctx: Context, item: str) -> str:
    return await ctx.step(pack, item)


@app.post("/orders/{item}", status_code=202)
async def order(item: str) -> dict[str, str]:
    return {"id": (await fulfil.submit(item)).id}
