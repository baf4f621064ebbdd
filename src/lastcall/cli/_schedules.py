"""``lastcall schedules``: the options of its commands. What they do is in `_timetable`, brought in only when used."""

from __future__ import annotations

from typing import Annotated, Any, NoReturn

import typer

from lastcall.cli._jobs import App, Db, Json

app = typer.Typer(
    help="Look at the schedules of tasks declared with cron=, and run one at once.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

_EXITS = """
Exit code:

- 0 when it is done
- 2 when there is no such schedule, an option is wrong, or the store cannot be used
"""


def _run(db: str | None, target: str | None, verb: str, *args: Any, **options: Any) -> NoReturn:
    # Not at the top: jobs take a while to load, and `--help` needs none.
    from lastcall.cli._inspect import run
    from lastcall.cli._timetable import VERBS

    raise typer.Exit(run(db, target, VERBS[verb], *args, **options))


@app.command("list", epilog=_EXITS)
def list_schedules(db: Db = None, target: App = None, as_json: Json = False) -> None:
    """List the schedules: the last tick that was fired or passed over, and, with --app, the next one.

    A store knows when a schedule last ticked; when it ticks next is said by its declaration in the app. A schedule in
    the store that the app does not declare any more never ticks again.
    """
    _run(db, target, "list", as_json=as_json)


@app.command(epilog=_EXITS)
def run(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The task's name.")],
    target: App = None,
    as_json: Json = False,
) -> None:
    """Submit the job of a schedule now, beside its ticks; needs --app. Prints the id of the job."""
    _run(None, target, "run", name, as_json=as_json)
