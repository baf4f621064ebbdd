"""The command line: options, help, version."""

from __future__ import annotations

import io
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from lastcall._version import __version__
from lastcall.cli import _db, _jobs, _operating, _schedules, _streams
from lastcall.cli._operating import LogLevel
from lastcall.cli._say import Unusable, complain

app = typer.Typer(
    help="Background work for asyncio services that finishes, hands over, or says why it could not.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
app.add_typer(_operating.app)
app.add_typer(_jobs.app, name="jobs")
app.add_typer(_schedules.app, name="schedules")
app.add_typer(_streams.app, name="streams")
app.add_typer(_db.app, name="db")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lastcall {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(
            stream, io.TextIOWrapper
        ):  # a terminal that knows few characters gets "?", not a traceback
            stream.reconfigure(errors="replace")


@app.command()
def demo(
    path: Annotated[
        Path | None,
        typer.Argument(
            help="A folder or file to analyse. Without it: a few hundred files of Python's standard library.",
            metavar="PATH",
            show_default=False,
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Analyse, print the report and exit.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON, and nothing else, on standard output.")
    ] = False,
    port: Annotated[
        int,
        typer.Option(
            min=0, max=65535, metavar="PORT", help="Port on 127.0.0.1 to serve on. 0 chooses a free one."
        ),
    ] = 0,
    limit: Annotated[
        int, typer.Option(min=1, max=1000, metavar="N", help="How many files to analyse at a time.")
    ] = 4,
    db: Annotated[
        Path | None,
        typer.Option(
            "--db",
            metavar="FILE",
            help="Where to keep what is done. Without it: $XDG_STATE_HOME/lastcall/demo.db, as a rule "
            "~/.local/state/lastcall/demo.db; if that cannot be written, a temporary folder.",
            show_default=False,
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget what was found before, and begin anew.")
    ] = False,
    ask: Annotated[
        str | None,
        typer.Option(
            "--ask",
            metavar="QUESTION",
            help="Answer a question about the files, and exit. Asked of the model that OPENAI_MODEL names, at "
            "OPENAI_BASE_URL; without one, passages are quoted.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Analyse every text file below PATH in a real FastAPI service, and stop it whenever you like.

    The service runs in this process. The analysis is a durable job with a step for each file, the blocking
    work runs in tracked threads, progress and summary are streamed. Open the printed address in a browser.

    Press Ctrl-C in the middle, or kill it: the next run with the same PATH says what it found done and
    continues there. Ctrl-C finishes the files at hand, hands the job over, lets the streams say good-bye,
    and reports how everything ended; pressed twice, it waits for nothing. What is done stays as it is, even
    if a file was changed since; --fresh begins anew, as does the run after a complete one. Two runs on the
    same PATH share one analysis.

    With --ask an agent answers a question about the files, from a complete analysis if there is one. It
    searches and reads, each of which is a step of a durable run, and its answer is streamed. Stopped or
    killed in the middle and asked the same again, it goes on where it was. Questions about one analysis
    are turns of one conversation.

    Exit code:

    - 0 when the analysis (or the answer) is complete and everything ended well, 1 when not
    - 2 when PATH, the port, the database or the model cannot be used
    - 130 or 143 when Ctrl-C or SIGTERM came before it was complete: run it again to continue
    """
    # Not at the top: the server and the framework take a while to load, and `--help` needs neither.
    from lastcall.cli._demo import CannotStart, run_demo

    try:
        if ask is not None:
            from lastcall.cli._ask import run_ask

            code = run_ask(path, ask, limit=limit, db=db, fresh=fresh)
        else:
            code = run_demo(path, once=once, as_json=as_json, port=port, limit=limit, db=db, fresh=fresh)
    except CannotStart as error:
        typer.echo(f"lastcall: {error}", err=True)
        code = 2
    raise typer.Exit(code)


_Seconds = partial(typer.Option, min=0, metavar="SECONDS")


@app.command()
def worker(
    target: Annotated[
        str,
        typer.Argument(
            help="The module and the name of its `Jobs`, such as app:jobs. The current folder is importable.",
            metavar="MODULE:ATTRIBUTE",
        ),
    ],
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=1, metavar="N", help="How many jobs to run at once.")
    ] = 10,
    queue: Annotated[
        list[str] | None,
        typer.Option("--queue", metavar="NAME", help="Only of this queue; may be given several times."),
    ] = None,
    notice: Annotated[float, _Seconds("--notice", help="Go on as before, so long after the signal.")] = 0.0,
    drain: Annotated[
        float, _Seconds("--drain", help="Then jobs hand over at their next step, or may end.")
    ] = 20.0,
    cancel: Annotated[
        float, _Seconds("--cancel", help="Then what still runs is cancelled, and may clean up.")
    ] = 5.0,
    close: Annotated[
        float, _Seconds("--close", help="Then the rest is given back, and the store is closed.")
    ] = 5.0,
    log_level: Annotated[
        LogLevel, typer.Option("--log-level", help="What to tell on standard error.")
    ] = LogLevel.INFO,
) -> None:
    """Run the durable jobs of an app in a process of its own, until Ctrl-C or SIGTERM.

    Any number of workers may run on one store, beside web processes. At a stop no new job is begun; those
    that run finish the step in flight and are handed over, so that another worker goes on at once. It ends
    when the last one has left, and never later than the sum of the four times. Ctrl-C again forces.

    Exit code:

    - 0 when every job ended or was handed over
    - 1 when something was cut off or would not end; the report names it
    - 2 when the app or its store cannot be used
    - 130 or 143 when the stop was forced by a second signal
    """
    # Not at the top: `--help` needs no jobs.
    from lastcall.cli._worker import run_worker

    try:
        run_worker(
            target,
            concurrency=concurrency,
            queues=queue or [],
            notice=notice,
            drain=drain,
            cancel=cancel,
            close=close,
            log_level=log_level.value,
        )
    except Unusable as error:
        complain(str(error), error.details)
        raise typer.Exit(2) from None


_MOVE_EXITS = """
Exit code:

- 0 when everything has arrived and was compared, or had before
- 1 when the state of a store does not allow it now: workers are at work, or it was moved elsewhere
- 2 when a store cannot be used, or what is there must not be touched; or an option is wrong
"""


@app.command(epilog=_MOVE_EXITS)
def move(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="The file to leave: sqlite:///jobs.db.")],
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="The new place, without jobs so far: postgresql://user@host/database, with ?schema=NAME if need be.",
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only look at both, and say what would be moved.")
    ] = False,
    undo: Annotated[
        bool, typer.Option("--undo", help="Give up a move that is not done, and open the file again.")
    ] = False,
    batch: Annotated[
        int,
        typer.Option("--batch", min=1, max=100_000, metavar="N", help="How many rows in one transaction."),
    ] = 1000,
    as_json: _jobs.Json = False,
) -> None:
    """Move durable jobs from a SQLite file to PostgreSQL, with all that belongs to them.

    Jobs in every state go along, with their steps, attempts, logs, waits, messages, keys, children, schedules and
    limits, and the free-standing streams: a job goes on behind its last completed step, a reader at its cursor. Stop
    the workers first. From its beginning on, a move refuses all writes to the file, and nobody sees the new place
    before all has arrived there and was compared. Broken off or killed, run it again: it goes on where it was.
    """
    # Not at the top: engines take a while to load, and `--help` needs none.
    from lastcall.cli._move import Wanted, run_move

    raise typer.Exit(run_move(Wanted(source, target, batch, dry_run, undo, as_json)))
