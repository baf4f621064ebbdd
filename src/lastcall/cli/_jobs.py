"""``lastcall jobs``: the options of its commands. What they do is in `_inspect`, brought in only when one is used."""

from __future__ import annotations

from typing import Annotated, Any, NoReturn

import typer

app = typer.Typer(
    help="Look at durable jobs, cancel, retry, delete them, and send them messages.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

_EXITS = """
Exit code:

- 0 when it is done
- 1 when the state of a job does not allow it
- 2 when an id is unknown, an option is wrong, or the store cannot be used
"""

Db = Annotated[
    str | None,
    typer.Option(
        "--db",
        metavar="URL",
        help="Where the jobs are: sqlite:///relative.db, sqlite:////absolute.db, or "
        "postgresql://user@host/database. Without it: the environment variable LASTCALL_DB.",
        show_default=False,
    ),
]
App = Annotated[
    str | None,
    typer.Option(
        "--app",
        metavar="MODULE:ATTRIBUTE",
        help="In place of --db: the jobs of an app, such as app:jobs.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]
Id = Annotated[
    str, typer.Argument(metavar="ID", help="A job's id, or as much of its beginning or end as is unique.")
]
Ids = Annotated[
    list[str],
    typer.Argument(metavar="ID...", help="Ids, or as much of their beginning or end as is unique."),
]


def _run(db: str | None, target: str | None, verb: str, *args: Any, **options: Any) -> NoReturn:
    # Not at the top: jobs take a while to load, and `--help` needs none.
    from lastcall.cli._inspect import VERBS, run

    raise typer.Exit(run(db, target, VERBS[verb], *args, **options))


@app.command("list", epilog=_EXITS)
def list_jobs(
    status: Annotated[
        list[str] | None,
        typer.Option("--status", metavar="STATUS", help="Only these; may be given several times."),
    ] = None,
    task: Annotated[str | None, typer.Option("--task", metavar="NAME", help="Only of this task.")] = None,
    queue: Annotated[str | None, typer.Option("--queue", metavar="NAME", help="Only in this queue.")] = None,
    key: Annotated[str | None, typer.Option("--key", metavar="KEY", help="Only with this key.")] = None,
    label: Annotated[
        str | None, typer.Option("--label", metavar="NAME=VALUE", help="Only with this label.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=10_000, metavar="N", help="At most so many.")
    ] = 50,
    before: Annotated[
        str | None, typer.Option("--before", metavar="ID", help="The next page: those older than this job.")
    ] = None,
    db: Db = None,
    target: App = None,
    as_json: Json = False,
) -> None:
    """List jobs, the newest first.

    With --json: `{"jobs": [...], "shown": n, "next": ID or null}`; `next` is the --before of the next page.
    Results and tracebacks are left out, `show` has them.
    """
    filters = {"task": task, "queue": queue, "key": key, "before": before}
    _run(db, target, "list", status or [], label, limit=limit, as_json=as_json, **filters)


@app.command(epilog=_EXITS)
def show(
    id: Id,
    events: Annotated[
        int, typer.Option("--events", min=0, max=10_000, metavar="N", help="How many of its last events.")
    ] = 10,
    db: Db = None,
    target: App = None,
    as_json: Json = False,
) -> None:
    """Show a job with its steps, its attempts and its last events."""
    _run(db, target, "show", id, events=events, as_json=as_json)


@app.command(epilog=_EXITS)
def stats(db: Db = None, target: App = None, as_json: Json = False) -> None:
    """Show how many jobs there are, the workers, and the schedules."""
    _run(db, target, "stats", as_json=as_json)


@app.command(epilog=_EXITS)
def cancel(ids: Ids, db: Db = None, target: App = None, as_json: Json = False) -> None:
    """Cancel jobs for good, wherever they are.

    `cancelled`: it did not run. `requested`: it runs, and its worker will hear of it.
    """
    _run(db, target, "cancel", ids, as_json=as_json)


@app.command(epilog=_EXITS)
def retry(ids: Ids, db: Db = None, target: App = None, as_json: Json = False) -> None:
    """Queue failed or cancelled jobs again. Steps that have completed are not repeated."""
    _run(db, target, "retry", ids, as_json=as_json)


@app.command(epilog=_EXITS)
def purge(ids: Ids, db: Db = None, target: App = None, as_json: Json = False) -> None:
    """Delete ended jobs, with all that belongs to them."""
    _run(db, target, "purge", ids, as_json=as_json)


@app.command(epilog=_EXITS)
def send(
    id: Id,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the job waits for.")],
    data: Annotated[
        str, typer.Argument(metavar="[JSON]", help="What it is told.", show_default=False)
    ] = "null",
    db: Db = None,
    target: App = None,
    as_json: Json = False,
) -> None:
    """Send a job a message, for its `ctx.wait_for(NAME)`; it may be sent before the job waits."""
    _run(db, target, "send", id, name, data, as_json=as_json)


@app.command(epilog=_EXITS)
def resolve(
    id: Id,
    step: Annotated[
        str, typer.Argument(metavar="STEP", help="The step, as `show` lists it under undecided.")
    ],
    happened: Annotated[
        str | None, typer.Option("--happened", metavar="JSON", help="It happened, and this is its value.")
    ] = None,
    not_happened: Annotated[
        bool, typer.Option("--not-happened", help="It did not happen, and is called again.")
    ] = False,
    error: Annotated[
        str | None, typer.Option("--error", metavar="TEXT", help="It failed, and the job is told so.")
    ] = None,
    db: Db = None,
    target: App = None,
    as_json: Json = False,
) -> None:
    """Say what became of a step declared `once` whose process died in the middle; the job waits for that."""
    decision = {"happened": happened, "not_happened": not_happened, "error": error}
    _run(db, target, "resolve", id, step, as_json=as_json, **decision)
