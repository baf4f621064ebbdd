"""What a type checker refuses before anything runs: a function for its coroutine, wrong arguments, unknown words."""

import asyncio
from dataclasses import dataclass

from lastcall import RestartPolicy, ShutdownPlan, TaskGroup, TaskInfo, TaskManager, current_shutdown, run


async def fetch(url: str) -> bytes:
    return url.encode()


def crunch(path: str, times: int) -> float:
    return len(path) / times


def wrong_hook(info: TaskInfo) -> None:
    """Takes too little."""


@dataclass
class Other:
    """Something else."""


async def functions_for_coroutines(manager: TaskManager, group: TaskGroup) -> None:
    manager.create_task(fetch)  # type: ignore[arg-type]
    manager.create_task(crunch("a", 1))  # type: ignore[arg-type]
    group.create_task(fetch)  # type: ignore[arg-type]
    await group.spawn(fetch)  # type: ignore[arg-type]
    manager.service(fetch("a"))  # type: ignore[arg-type]
    manager.service(fetch)  # type: ignore[arg-type]
    run(fetch)  # type: ignore[arg-type]


def arguments_of_threads(manager: TaskManager) -> None:
    manager.run_in_thread(crunch, "a")  # type: ignore[arg-type]
    manager.run_in_thread(crunch, 1, "a")  # type: ignore[arg-type]
    manager.run_in_thread(crunch, "a", times=1)  # type: ignore[call-arg, arg-type]
    manager.run_in_thread("crunch")  # type: ignore[arg-type]


def results(manager: TaskManager) -> None:
    text: asyncio.Task[str] = manager.create_task(fetch("a"))  # type: ignore[arg-type]
    number: asyncio.Task[int] = manager.run_in_thread(crunch, "a", 1)  # type: ignore[arg-type]
    print(text, number)


def unknown_words(manager: TaskManager) -> None:
    manager.group(on_error="ignore")  # type: ignore[arg-type]
    manager.service(lambda: fetch("a"), on_give_up="restart")  # type: ignore[arg-type]
    manager.stop_task("id", reason="because")  # type: ignore[arg-type]
    manager.create_task(fetch("a"), labels={"k": 1})  # type: ignore[dict-item]
    manager.create_task(fetch("a"), priority=1)  # type: ignore[call-arg]
    manager.group("late", stop_after=[Other()])  # type: ignore[list-item]
    manager.info(7)  # type: ignore[arg-type]


def wrong_settings() -> None:
    TaskManager("name")  # type: ignore[call-arg, arg-type]
    TaskManager(on_error=wrong_hook)  # type: ignore[arg-type]
    TaskManager(plan={"drain": 5})  # type: ignore[arg-type]
    ShutdownPlan(drain="5")  # type: ignore[arg-type]
    RestartPolicy(max_restarts=1.5)  # type: ignore[arg-type]
    TaskGroup(limit="3")  # type: ignore[arg-type]


async def read_only(manager: TaskManager, info: TaskInfo) -> None:
    info.name = "other"  # type: ignore[misc]
    info.labels["k"] = "v"  # type: ignore[index]
    manager.state = "open"  # type: ignore[misc, assignment]
    ShutdownPlan().drain = 5  # type: ignore[misc]
    current_shutdown().requested = True  # type: ignore[misc]
    await current_shutdown().sleep("5")  # type: ignore[arg-type]
