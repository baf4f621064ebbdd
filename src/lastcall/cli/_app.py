"""The command line: options, help, version."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Annotated

import typer

from lastcall._version import __version__

app = typer.Typer(
    help="Background work for asyncio services that finishes, hands over, or says why it could not.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
)


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
) -> None:
    """Analyse every text file below PATH in a real FastAPI service, and stop it whenever you like.

    The service runs in this process: each file is a tracked task, the blocking work runs in tracked threads,
    progress and summary are streamed. Open the printed address in a browser.

    Press Ctrl-C in the middle: the files at hand are finished, the streams say good-bye, and the shutdown
    report tells how everything ended. Press it twice, and nothing is waited for.

    Exit code:

    - 0 when the analysis is complete and everything ended well, 1 when not
    - 2 when PATH or the port cannot be used
    - 130 or 143 when Ctrl-C or SIGTERM came before the analysis was complete
    """
    # Not at the top: the server and the framework take a while to load, and `--help` needs neither.
    from lastcall.cli._demo import CannotStart, run_demo

    try:
        code = run_demo(path, once=once, as_json=as_json, port=port, limit=limit)
    except CannotStart as error:
        typer.echo(f"lastcall: {error}", err=True)
        code = 2
    raise typer.Exit(code)
