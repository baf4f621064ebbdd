"""What a type checker refuses of jobs before anything runs: wrong arguments, results, options and names."""

from lastcall.jobs import Backoff, Context, Job, Jobs, Rate

jobs = Jobs("sqlite:///jobs.db")


@jobs.task
async def analyse(ctx: Context, folder: str, deep: bool = False) -> int:
    return len(folder) + deep


@jobs.task(retries=3)
def crunch(path: str, *, times: int) -> float:
    return float(len(path)) / times


async def arguments() -> None:
    await analyse.submit()  # type: ignore[call-arg]
    await analyse.submit(5)  # type: ignore[arg-type]
    await analyse.submit("a", "b")  # type: ignore[arg-type]
    await analyse.submit("a", True, 1)  # type: ignore[call-arg]
    await analyse.submit("a", deeper=True)  # type: ignore[call-arg]
    await analyse.submit("a", key="k")  # type: ignore[call-arg]
    await analyse.options(key="k").submit(5)  # type: ignore[arg-type]
    await crunch.submit("a")  # type: ignore[call-arg]
    await crunch.submit("a", 5)  # type: ignore[call-arg]
    await crunch.submit("a", times="5")  # type: ignore[arg-type]
    analyse.call(folder=None)  # type: ignore[arg-type]
    await jobs.submit_many([analyse.call(1)])  # type: ignore[arg-type]


async def a_context_is_not_submitted(ctx: Context) -> None:
    await analyse.submit(ctx, "a")  # type: ignore[arg-type]
    await analyse("a")  # type: ignore[arg-type, call-arg]
    crunch(ctx, times=1)  # type: ignore[arg-type]


async def functions_for_calls() -> None:
    await jobs.submit_many([analyse.submit("a")])  # type: ignore[arg-type]
    await jobs.submit_many(analyse)  # type: ignore[arg-type]


async def results() -> None:
    text: str = await (await analyse.submit("a")).result()  # type: ignore[assignment]
    job: Job[str] = await analyse.submit("a")  # type: ignore[assignment]
    number: int = crunch("a", times=1)  # type: ignore[assignment]
    print(text, job, number)


def options() -> None:
    analyse.options(delay="5")  # type: ignore[arg-type]
    analyse.options(at=5)  # type: ignore[arg-type]
    analyse.options(labels={"a": 1})  # type: ignore[dict-item]
    analyse.options(timeout_seconds=5)  # type: ignore[call-arg]
    analyse.options("key")  # type: ignore[call-arg]


def declarations() -> None:
    jobs.task(retry=3)  # type: ignore[call-overload]
    jobs.task(retries="3")  # type: ignore[call-overload]
    jobs.task(run="fork")  # type: ignore[call-overload]
    jobs.task(backoff=5)  # type: ignore[call-overload]
    jobs.task(give_up_on=BaseException)  # type: ignore[arg-type]
    jobs.task("name")  # type: ignore[call-overload]
    Backoff("1")  # type: ignore[arg-type]
    Rate(starts="1")  # type: ignore[arg-type]
    Jobs()  # type: ignore[call-arg]
    Jobs(5)  # type: ignore[arg-type]
    jobs.worker(concurrency="5")  # type: ignore[arg-type]


async def handles(job: Job[int], ctx: Context) -> None:
    await job.send()  # type: ignore[call-arg]
    await job.cancel("user")  # type: ignore[arg-type]
    job.events(after="5")  # type: ignore[arg-type]
    await jobs.find(label="a")  # type: ignore[arg-type]
    await jobs.find(state="failed")  # type: ignore[call-arg]
    await ctx.step(len)  # type: ignore[call-arg, arg-type]
    await ctx.start(analyse)  # type: ignore[arg-type]
