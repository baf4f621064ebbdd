"""How quick the dashboard is with many jobs and tasks.

    python scripts/dashboard_speed.py [--jobs 10000] [--tasks 1000]

Real server, real headless Chromium, everything on this machine. Printed for each page: until its first figures could
be read, then over some seconds of being left open the time its script and its layout took in each second, tasks longer
than 50 ms, and the heap after a collection. At last what clients that never read do to a request of the service.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.dashboard.conftest import Bar, opened  # noqa: E402
from tests.examples.browser import browser, find_browser  # noqa: E402
from tests.support.visitor import Visitor  # noqa: E402

LONG_TASKS = """
window.longTasks = [];
new PerformanceObserver(list => longTasks.push(...list.getEntries().map(one => one.duration)))
  .observe({type: "longtask", buffered: true});
"""
READY = {
    "overview": ("", "document.querySelector('.figure[data-status=completed] b')?.innerText.length > 3"),
    "jobs": ("#/jobs", "document.querySelectorAll('tbody tr').length === 50"),
    "tasks": ("#/tasks", "document.querySelectorAll('tbody tr').length === 100"),
    "shutdown": ("#/shutdown", "document.querySelectorAll('.work li').length > 40"),
}


def metrics(visitor: Visitor) -> dict[str, float]:
    return {one["name"]: one["value"] for one in visitor.page.call("Performance.getMetrics")["metrics"]}


def look(visitor: Visitor, url: str, ready: str, seconds: float) -> dict[str, float]:
    visitor.visit(url, ready)
    shown = visitor.value("performance.now()")
    paint = visitor.value("performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0")
    first = visitor.value("longTasks.length")
    before, began = metrics(visitor), time.monotonic()
    while time.monotonic() - began < seconds:
        visitor.complaints()
        time.sleep(0.25)
    after, passed = metrics(visitor), time.monotonic() - began
    visitor.page.call("HeapProfiler.collectGarbage")
    return {
        "first paint ms": paint,
        "figures shown ms": shown,
        "script ms/s": 1000 * (after["ScriptDuration"] - before["ScriptDuration"]) / passed,
        "layout+style ms/s": 1000
        * sum(after[name] - before[name] for name in ("LayoutDuration", "RecalcStyleDuration"))
        / passed,
        "long tasks": visitor.value("longTasks.length") - first,
        "longest ms": visitor.value("Math.max(0, ...longTasks)"),
        "heap MB": metrics(visitor)["JSHeapUsedSize"] / 1e6,
        "nodes": metrics(visitor)["Nodes"],
    }


def stats_seconds(bar: Bar, times: int) -> list[float]:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        bar.ask("GET", "/lastcall/stats")
        taken.append(time.perf_counter() - began)
    return taken


def deaf(bar: Bar) -> socket.socket:
    """A client that asks for everything and reads nothing."""
    client = socket.create_connection(("127.0.0.1", bar.port))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.sendall(b"GET /lastcall/live HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
    return client


def main() -> None:
    parser = argparse.ArgumentParser(description="How quick the dashboard is.")
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--tasks", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=12.0, help="how long each page is left open")
    chosen = parser.parse_args()
    path = find_browser()
    if path is None:
        raise SystemExit("no Chromium is installed (Debian: apt-get install chromium)")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        bar = stack.enter_context(opened(folder))
        visitor = Visitor(stack.enter_context(browser(path, folder)))
        visitor.page.call("Performance.enable")
        visitor.page.call("Page.addScriptToEvaluateOnNewDocument", source=LONG_TASKS)
        bar.order("ping", many=chosen.jobs)
        bar.ask("POST", f"/tasks/{chosen.tasks}")
        deadline = time.monotonic() + 120
        while bar.ask("GET", "/lastcall/overview")["jobs"].get("completed", 0) < chosen.jobs:
            if time.monotonic() > deadline:
                raise SystemExit("the jobs do not end")
            time.sleep(0.5)
        print(
            f"{chosen.jobs} jobs, {chosen.tasks} running tasks; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
        )
        for name, (place, ready) in READY.items():
            figures = look(visitor, bar.url + place, ready, chosen.seconds)
            print(f"{name:9} " + "  ".join(f"{what} {value:.1f}" for what, value in figures.items()))
        visitor.page.open("about:blank")
        alone = stats_seconds(bar, 200)
        clients = [stack.enter_context(deaf(bar)) for _ in range(10)]
        time.sleep(2)
        beside = stats_seconds(bar, 200)
        for what, taken in (("nobody looks", alone), (f"{len(clients)} clients that never read", beside)):
            print(
                f"a request, {what}: median {1000 * statistics.median(taken):.2f} ms, worst {1000 * max(taken):.1f} ms"
            )


if __name__ == "__main__":
    main()
