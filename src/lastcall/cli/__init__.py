"""The ``lastcall`` command.

General layout:

    _app.py      the command line: options, help, version
    _demo.py     ``lastcall demo``: the service, the terminal and the signals together
    _render.py   the report for people, drawn with rich
"""

from __future__ import annotations

import sys

_EXTRAS = frozenset({"fastapi", "rich", "starlette", "typer", "uvicorn"})


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
