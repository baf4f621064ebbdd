"""An answer that survives: stop it with Ctrl-C or kill -9, start it again, and it goes on with the next word.

python examples/quickstart_streams.py [question]
"""

import asyncio
import sys

import lastcall
from lastcall.jobs import Context, Job, Jobs
from lastcall.streams import TextView, follow

jobs = Jobs("sqlite:///quickstart_streams.db")

WORDS = (
    "When the bell rings the bar stops taking orders and everyone who was served may finish the glass".split()
)


async def say(ctx: Context, question: str) -> str:
    """A step that streams. Cut off, it is called again with what it has said, and goes on there."""
    async with ctx.stream("answer") as out:
        for word in WORDS[len(out.text_so_far.split()) :]:
            await asyncio.sleep(0.1)  # a model, thinking
            await out.write(word + " ")
        return out.text_so_far


@jobs.task
async def answer(ctx: Context, question: str) -> str:
    return await ctx.step(say, ctx, question, name="say", policy="continue")


async def show(job: Job[str]) -> None:
    """Everything from the beginning, then what comes; many may read, each at its own pace."""
    view, shown = TextView(), ""
    async for entries in follow(job.log()):
        view.apply(entries)
        text = view.text("answer")
        print(text[len(shown) :], end="", flush=True)
        shown = text
    print(f"\n{await job.status()}: {len(shown.split())} words", flush=True)


async def main(question: str) -> None:
    async with jobs.worker() as worker:
        job = await answer.options(key=question).submit(question)
        worker.manager.create_task(show(job), name="show", daemon=True)  # the stop does not wait for it
        await lastcall.current_shutdown().wait()


if __name__ == "__main__":
    lastcall.run(main(sys.argv[1] if len(sys.argv) > 1 else "What is last call?"))
