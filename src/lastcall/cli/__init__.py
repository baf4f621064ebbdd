"""The ``lastcall`` command.

General layout:

    _app.py      the command line: options, help, version
    _operating.py  the options of serve, drain, doctor and top
    _demo.py     ``lastcall demo``: the service, the terminal and the signals together
    _render.py   the report for people, drawn with rich
    _serve.py    ``lastcall serve``: uvicorn, with the settings that _fit.py chooses
    _worker.py   ``lastcall worker``: runs an app's jobs until it is told to stop
    _drain.py    ``lastcall drain``: asks a process to drain, and follows it
    doctor/      what ``lastcall doctor`` knows, checks and tells; _doctor.py is the command
    top/         what ``lastcall top`` shows, chooses and draws; _top.py is the command
    _jobs.py     ``lastcall jobs``: the options of its commands
    _inspect.py  what these do with a store
    _ids.py      whole ids from abbreviated ones
    _tables.py   jobs for people, drawn with rich
    _schedules.py  ``lastcall schedules``: the options; _timetable.py does it
    _db.py       ``lastcall db``: the options; _database.py does it
    _streams.py  ``lastcall streams``: the options of its commands
    _tail.py     follows a log, from a store or a process; _typist.py shows its text
    _remote.py   the HTTP face of a running process
    _load.py     from what was typed to a Jobs or an app; _find.py: where lastcall is in it
    _schema.py   which version a store's schema has
    _listen.py   a socket, before anything else begins
    _say.py      answers on one output, one line about trouble on the other
"""

from __future__ import annotations

import sys

_EXTRAS = frozenset(
    {
        "cronsim",
        "fastapi",
        "pydantic",
        "pydantic_core",
        "rich",
        "starlette",
        "typer",
        "uuid_utils",
        "uvicorn",
        "yaml",
    }
)


def main() -> None:
    """Run the command line. Exits with 2 and a hint if the packages it needs are not installed."""
    try:
        # Not at the top: the library needs nothing but Python, and its command can say what it lacks.
        from lastcall.cli._app import app

        app(prog_name="lastcall")
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRAS:
            raise
        sys.stderr.write(
            f"lastcall: this command needs {missing}. Install it with: pip install 'lastcall[demo]'\n"
        )
        raise SystemExit(2) from None


__all__ = ["main"]
