"""``lastcall streams``: the options of its commands. What they do is in `_list_streams` and `_tail`, each brought in
only when it is used.
"""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    help="List free-standing streams, and read them and the logs of jobs.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

_EXITS = """
Exit code:

- 0 when it was read to its end: the job has ended, the stream is closed
- 1 when it was broken off: the process stays away, or entries are not kept any more; the cursor is printed
- 2 when an id is unknown, an option is wrong, or the place cannot be used
- 130 at Ctrl-C, which prints the cursor to go on with
"""

_LIST_EXITS = """
Exit code:

- 0 when they are shown, or there are none
- 2 when an option is wrong, or the place cannot be used
"""

Place = Annotated[
    str,
    typer.Argument(
        metavar="PLACE",
        help="A running process, http://host:port (with the prefix of its face, if it is not /lastcall), or a "
        "database, sqlite:///jobs.db.",
    ),
]
Header = Annotated[
    list[str] | None,
    typer.Option(
        "--header",
        metavar="'NAME: VALUE'",
        help="Sent along to a running process, for its own authorisation; may be given several times.",
    ),
]


@app.callback()
def _group() -> None:
    """List free-standing streams, and read them and the logs of jobs."""


@app.command("list", epilog=_LIST_EXITS)
def list_streams(
    place: Place,
    prefix: Annotated[
        str, typer.Option("--prefix", metavar="TEXT", help="Only those whose names begin so.")
    ] = "",
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=10_000, metavar="N", help="At most so many.")
    ] = 50,
    after: Annotated[
        str, typer.Option("--after", metavar="NAME", help="The next page: those behind this name.")
    ] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")
    ] = False,
    header: Header = None,
) -> None:
    """List the free-standing streams by their names: what is in them, when they were written, whether they are open.

    The logs of jobs are not among them: `lastcall jobs list` has the jobs. To be listed prolongs no stream's life.
    With --json: `{"items": [...], "shown": n, "next": NAME or null}`; `next` is the --after of the next page.
    """
    # Not at the top: jobs take a while to load, and `--help` needs none.
    from lastcall.cli._list_streams import run_list

    code = run_list(place, prefix=prefix, after=after, limit=limit, as_json=as_json, headers=header or [])
    raise typer.Exit(code)


@app.command(epilog=_EXITS)
def tail(
    place: Place,
    name: Annotated[
        str, typer.Argument(metavar="ID", help="The id of a job, or the name of a free-standing stream.")
    ],
    after: Annotated[
        str,
        typer.Option(
            "--after", metavar="CURSOR", help="Begin behind this one, which an earlier run printed."
        ),
    ] = "0",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each entry as one line of JSON, and nothing else.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Nothing but the text: no progress, no log lines.")
    ] = False,
    patience: Annotated[
        float,
        typer.Option(
            "--patience", min=0, metavar="SECONDS", help="How long to try again when a process is gone."
        ),
    ] = 60.0,
    header: Header = None,
) -> None:
    """Follow a job's log or a stream to its end.

    Standard output is the streamed text as a reader sees it: when a step runs again after a crash, what it had written
    is taken back, on a terminal by drawing it anew. Everything else of the log is one line on standard error.
    A process that is replaced by another one is waited for, and no entry is shown twice or left out.
    """
    # Not at the top: jobs take a while to load, and `--help` needs none.
    from lastcall.cli._tail import run_tail

    code = run_tail(place, name, after, as_json=as_json, quiet=quiet, patience=patience, headers=header or [])
    raise typer.Exit(code)
