"""``lastcall serve``, ``drain``, ``shutdowns``, ``doctor``, ``top``: their options. What each does is in a file of its
own name, brought in only when it is used.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lastcall.cli import _jobs, _streams
from lastcall.cli._say import Unusable, complain

app = typer.Typer()


class LogLevel(StrEnum):
    """What a worker tells."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@app.command()
def serve(
    target: Annotated[
        str,
        typer.Argument(
            help="The module and the name of the app, such as app:app. The current folder is importable.",
            metavar="MODULE:ATTRIBUTE",
        ),
    ],
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="0.0.0.0 in a container.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="PORT", help="0 chooses a free one.")] = 8000,
    kill_after: Annotated[
        float | None,
        typer.Option(
            "--kill-after",
            min=0,
            metavar="SECONDS",
            help="What the orchestrator grants between SIGTERM and SIGKILL, to be compared with the plan. Without "
            "it: the environment variable LASTCALL_KILL_AFTER_SECONDS.",
            show_default=False,
        ),
    ] = None,
    log_level: Annotated[LogLevel, typer.Option("--log-level", help="What uvicorn tells.")] = LogLevel.INFO,
    access_log: Annotated[bool, typer.Option(help="A line for each request.")] = True,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Once it serves, one line of JSON on standard output: url, pid, chosen."),
    ] = False,
) -> None:
    """Serve an ASGI app with uvicorn, with settings that fit its shutdown plan, and say which and why.

    One process: let the orchestrator make more of them. Ctrl-C or SIGTERM drains it by the app's own plan, Ctrl-C twice
    forces. To develop with --reload, use uvicorn itself.

    Exit code:

    - 0 when all work ended or was handed over
    - 1 when something was cut off or would not end; the report names it
    - 2 when the app or the port cannot be used, or the app does not start
    - 130 or 143 when the stop was forced
    """
    # Not at the top: the server takes a while to load, and `--help` needs none.
    from lastcall.cli._serve import run_serve

    try:
        code = run_serve(
            target,
            host=host,
            port=port,
            kill_after=kill_after,
            log_level=log_level.value,
            access_log=access_log,
            as_json=as_json,
        )
    except Unusable as error:
        complain(str(error), error.details)
        code = 2
    raise typer.Exit(code)


@app.command()
def drain(
    url: Annotated[
        str | None,
        typer.Argument(
            metavar="[URL]",
            help="The running process, http://host:port, with the prefix of its face if it is not /lastcall.",
            show_default=False,
        ),
    ] = None,
    pid: Annotated[
        int | None,
        typer.Option(
            "--pid",
            metavar="PID",
            help="Send SIGTERM to this process instead of asking by HTTP, and wait until it has ended. With URL as "
            "well, it is followed there to its report.",
            show_default=False,
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", min=0, metavar="SECONDS", help="Follow it no longer than that.", show_default=False
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the end as JSON, and nothing else, on standard output.")
    ] = False,
    header: _streams.Header = None,
) -> None:
    """Ask a running process to drain, and follow it to its report.

    It stops as at SIGTERM: readiness turns 503, work ends by the plan, the process exits, with all workers of its
    server. Behind a balancer it is the one that answers. By default only clients on its machine may ask.

    Exit code:

    - 0 when it has drained and nothing was cut off; with --pid alone, when it has ended
    - 1 when something was cut off, or its end was not seen in time
    - 2 when it cannot be asked: nobody there, not allowed, no such process
    - 130 at Ctrl-C; the process goes on draining
    """
    # Not at the top: `--help` needs none of it.
    from lastcall.cli._drain import run_drain

    raise typer.Exit(run_drain(url, pid, timeout=timeout, as_json=as_json, headers=header or []))


@app.command()
def shutdowns(
    db: _jobs.Db = None,
    target: _jobs.App = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=1000, metavar="N", help="How many of them, at most.")
    ] = 10,
    as_json: _jobs.Json = False,
) -> None:
    """Show the reports of the last shutdowns of all processes on a store, the newest first.

    Every server and worker that was told to stop has left one there, and every other process that did not end well.
    They are kept for 30 days. A process that was killed leaves none.

    Exit code:

    - 0 when they are shown, or there are none
    - 2 when the store cannot be used, or an option is wrong
    """
    # Not at the top: jobs take a while to load, and `--help` needs none.
    from lastcall.cli._inspect import run
    from lastcall.cli._shutdowns import show_shutdowns

    raise typer.Exit(run(db, target, show_shutdowns, limit=limit, as_json=as_json))


@app.command()
def doctor(
    target: Annotated[
        str,
        typer.Argument(
            help="The module and the name of the app, such as app:app. It is imported, and not started.",
            metavar="MODULE:ATTRIBUTE",
        ),
    ],
    command: Annotated[
        str | None,
        typer.Option(
            "--server",
            metavar="COMMAND",
            help="How it is served, such as 'uvicorn --workers 2 --timeout-graceful-shutdown 20'.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=0, metavar="N", help="How many of them.", show_default=False),
    ] = None,
    manifest: Annotated[
        list[Path] | None,
        typer.Option(
            "--manifest",
            metavar="FILE",
            help="A Kubernetes manifest, rendered; may be given several times.",
        ),
    ] = None,
    jobs: Annotated[
        str | None,
        typer.Option(
            "--jobs",
            metavar="MODULE:ATTRIBUTE",
            help="The jobs whose store is looked at, such as app:jobs. Without it: those given to install.",
            show_default=False,
        ),
    ] = None,
    kill_after: Annotated[
        float | None,
        typer.Option(
            "--kill-after",
            min=0,
            metavar="SECONDS",
            help="The time from SIGTERM to SIGKILL, where no manifest says it. Without it: the environment variable "
            "LASTCALL_KILL_AFTER_SECONDS.",
            show_default=False,
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 for warnings, too.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")
    ] = False,
) -> None:
    """Say what will go wrong at the next deploy, and why.

    Compares the app's shutdown plan with the limits of its server and of Kubernetes, and looks into the store of its
    jobs. Each finding has a stable code, its figures, and what to change. Nothing is started, and nothing changed.

    Exit code:

    - 0 when nothing was found that will go wrong; there may be warnings and notes
    - 1 when something was
    - 2 when the app, an option or a file cannot be used
    """
    # Not at the top: it takes a while to load, and `--help` needs none of it.
    from lastcall.cli._doctor import run_doctor

    try:
        code = run_doctor(
            target,
            command=command,
            workers=workers,
            manifests=manifest or [],
            jobs_target=jobs,
            kill_after=kill_after,
            strict=strict,
            as_json=as_json,
        )
    except Unusable as error:
        complain(str(error), error.details)
        code = 2
    raise typer.Exit(code)


@app.command()
def top(
    place: Annotated[
        str,
        typer.Argument(
            metavar="PLACE",
            help="A running process, http://host:port (with the prefix of its face, if it is not /lastcall), or a "
            "database, sqlite:///jobs.db.",
        ),
    ],
    once: Annotated[bool, typer.Option("--once", help="Print one frame, and exit.")] = False,
    interval: Annotated[
        float, typer.Option("--interval", min=0.1, max=3600, metavar="SECONDS", help="How often to look.")
    ] = 1.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="One line of JSON for each look, or for the only one with --once.")
    ] = False,
    header: _streams.Header = None,
) -> None:
    """Watch a running process or a database: tasks, jobs, workers with their leases, throughput, the drain.

    Keys: arrows choose, c cancels what is chosen (it asks first), / filters, tab shows all, jobs or tasks, q leaves.
    A process is watched through its drain to its report, and on, when another one takes its place.

    Exit code:

    - 0 when it was left with q, or printed once
    - 2 when the place cannot be used, or the screen is no terminal
    - 130 or 143 at Ctrl-C or SIGTERM
    """
    # Not at the top: it takes a while to load, and `--help` needs none of it.
    from lastcall.cli._top import run_top

    raise typer.Exit(run_top(place, once=once, interval=interval, as_json=as_json, headers=header or []))
