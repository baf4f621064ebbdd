"""From what was typed to a `Jobs` or an app (`MODULE:ATTRIBUTE`), or a store (a URL). Each error is one line."""

from __future__ import annotations

import importlib
import os
import sys
from contextlib import redirect_stdout
from traceback import format_exception
from types import ModuleType, TracebackType
from typing import Any

from lastcall.cli._say import Unusable
from lastcall.engines.sqlite import SqliteEngine
from lastcall.exceptions import JobError
from lastcall.jobs import Jobs

DB_VARIABLE = "LASTCALL_DB"


def load_jobs(target: str) -> Jobs:
    """The `Jobs` that `module:attribute` names; the current folder is importable. Raises `Unusable`."""
    module, found = _load(target, "jobs")
    if not isinstance(found, Jobs):
        kind = type(found).__name__
        raise Unusable(f"{target!r} is no Jobs, but {kind!r}{_instead(module)}")
    return found


def load_app(target: str) -> Any:
    """The ASGI app that `module:attribute` names; the current folder is importable. Raises `Unusable`."""
    _, found = _load(target, "app")
    if not callable(found) or isinstance(found, type):
        raise Unusable(f"{target!r} is no app, but {type(found).__name__!r}")
    return found


def _load(target: str, usual: str) -> tuple[ModuleType, object]:
    module_name, colon, attribute = target.partition(":")
    if module_name.endswith(".py") or os.sep in module_name:
        raise Unusable(f"{target!r} names a file; give the module instead, like app:{usual} for app.py")
    words = [*module_name.split("."), *attribute.split(".")]
    if not colon or not all(word.isidentifier() for word in words):
        raise Unusable(f"{target!r} must look like module:attribute, for example app:{usual}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    module = _import(module_name)
    found: object = module
    for word in attribute.split("."):
        if not hasattr(found, word):
            instead = _instead(module) if usual == "jobs" else ""
            raise Unusable(f"the module {module_name!r} has no {attribute!r}{instead}")
        found = getattr(found, word)
    return module, found


def jobs_at(url: str | None, target: str | None) -> Jobs:
    """The jobs to look at, as `find_jobs` finds them.

    A file that does not exist is an error and is not created: looking must not leave an empty store behind.
    Raises `Unusable`.
    """
    jobs = find_jobs(url, target)
    _check_exists(jobs)
    return jobs


def find_jobs(url: str | None, target: str | None) -> Jobs:
    """Those of an app, or those at a URL, by default that of the environment. Raises `Unusable`."""
    if url is not None and target is not None:
        raise Unusable("give --db or --app, not both")
    if target is not None:
        return load_jobs(target)
    url = url or os.environ.get(DB_VARIABLE)
    if not url:
        raise Unusable(
            f"say where the jobs are: --db URL, --app MODULE:ATTRIBUTE, or the variable {DB_VARIABLE}"
        )
    try:
        return Jobs(url)
    except JobError as error:
        raise Unusable(str(error)) from None


def _check_exists(jobs: Jobs) -> None:
    engine = jobs.engine
    if isinstance(engine, SqliteEngine):
        check_file(engine.path)


def check_file(path: str) -> None:
    """Whether there is a database. Raises `Unusable`."""
    try:
        empty = os.stat(path).st_size == 0
    except FileNotFoundError:
        raise Unusable(f"there is no database {path!r}") from None
    except OSError as error:
        raise Unusable(f"the database {path!r} cannot be read: {error.strerror or error}") from None
    if empty:
        raise Unusable(f"the database {path!r} is an empty file")


def _import(name: str) -> ModuleType:
    try:
        # Standard output is for the answer alone, also where a module prints when it is imported.
        with redirect_stdout(sys.stderr):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _failed(name, error) from None
        raise Unusable(f"there is no module {error.name!r}, neither in {os.getcwd()} nor installed") from None
    except (Exception, SystemExit) as error:
        raise _failed(name, error) from None


def _failed(name: str, error: BaseException) -> Unusable:
    """What the module itself raised, with the part of the traceback that is its own."""
    told = f"{type(error).__name__}: {error}".splitlines()[0]
    details = "".join(format_exception(type(error), error, _own_part(error.__traceback__)))
    return Unusable(f"importing {name!r} failed: {told}", details)


def _own_part(traceback: TracebackType | None) -> TracebackType | None:
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if file != __file__ and not file.startswith("<frozen importlib") and file != importlib.__file__:
            break
        traceback = traceback.tb_next
    return traceback


def _instead(module: ModuleType) -> str:
    names = [name for name, value in vars(module).items() if isinstance(value, Jobs)]
    return f"; there is {module.__name__}:{names[0]}" if names else ""
