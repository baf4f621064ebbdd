"""``lastcall db``: the options of its commands. What they do is in `_database`, brought in only when one is used."""

from __future__ import annotations

from typing import NoReturn

import typer

from lastcall.cli._jobs import App, Db, Json

app = typer.Typer(
    help="Look at the store of durable jobs, and bring its schema to this version.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

_STATUS_EXITS = """
Exit code:

- 0 when the store is there and its schema is current
- 1 when there is none, or an older one: `lastcall db migrate`
- 2 when it is too new for this lastcall, or cannot be read
"""

_MIGRATE_EXITS = """
Exit code:

- 0 when the schema is current, whether anything was to be done or not
- 2 when it is too new for this lastcall, or the store cannot be used; nothing was changed
"""


def _run(db: str | None, target: str | None, verb: str, as_json: bool) -> NoReturn:
    # Not at the top: jobs take a while to load, and `--help` needs none.
    from lastcall.cli._database import run_db

    raise typer.Exit(run_db(db, target, verb, as_json=as_json))


@app.command(epilog=_STATUS_EXITS)
def status(db: Db = None, target: App = None, as_json: Json = False) -> None:
    """Say which version of the schema is there, and how many jobs. Changes nothing."""
    _run(db, target, "status", as_json)


@app.command(epilog=_MIGRATE_EXITS)
def migrate(db: Db = None, target: App = None, as_json: Json = False) -> None:
    """Bring the schema to this version, or make a new store.

    Every process does so by itself when it opens the store; this is for doing it at a moment of one's own choice, and
    with rights that the app need not have. Several at once harm nothing: one migrates, the others find it done.
    """
    _run(db, target, "migrate", as_json)
