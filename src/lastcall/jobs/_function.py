"""A function as it is written: how it is called, what its annotations mean, whether it can be a task.

Who calls it: declarations, codecs, steps. What can go wrong: names that mean nothing, callables that tell nothing of
themselves; each is a `BadDeclaration` that names the function.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping
from inspect import Parameter
from typing import Any

from ..exceptions import BadDeclaration


def name_of(fn: Callable[..., Any]) -> str:
    """How messages call a function."""
    inner = bare(fn)
    return str(getattr(inner, "__qualname__", None) or type(inner).__qualname__)


def bare(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The function inside a partial."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return fn


def hints_of(fn: Callable[..., Any], localns: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The annotations of a function, as types. Raises `BadDeclaration` for a name that means nothing."""
    target = _annotated(fn)
    try:
        return typing.get_type_hints(target, localns=dict(localns or {}), include_extras=True)
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        raise BadDeclaration(
            f"the annotations of {name_of(fn)} cannot be resolved: {error}; "
            "define or import the type at module level"
        ) from error


def return_hint_of(fn: Callable[..., Any]) -> Any:
    """What a function says it returns; Any if it says nothing. Its other annotations need not mean anything here."""
    target = _annotated(fn)
    written = getattr(target, "__annotations__", {}).get("return", Any)
    if not isinstance(written, str):
        return written
    only = types.FunctionType((lambda: None).__code__, getattr(target, "__globals__", {}), name_of(fn))
    only.__annotations__ = {"return": written}
    return hints_of(only)["return"]


def _annotated(fn: Callable[..., Any]) -> Any:
    """What has the annotations of a callable."""
    fn = bare(fn)
    return fn if inspect.isroutine(fn) or inspect.isclass(fn) else type(fn).__call__


def signature_without(fn: Callable[..., Any], skip: int) -> inspect.Signature:
    """Its signature without the leading parameters that are not stored."""
    signature = inspect.signature(fn)
    return signature.replace(
        parameters=list(signature.parameters.values())[skip:], return_annotation=inspect.Signature.empty
    )


def default_name(fn: Callable[..., Any]) -> str:
    """The name of a task that was given none. Raises `BadDeclaration` for what has none of its own."""
    qualname: str = getattr(fn, "__qualname__", "<callable>")
    name = qualname.rpartition("<locals>.")[2]
    if "<" in name:
        raise BadDeclaration(
            f"{fn!r} has no name of its own under which its jobs could be stored; give it a name="
        )
    return name


def check_function(fn: Callable[..., Any], name: str) -> None:
    """Raises `BadDeclaration` for what can never run as a task."""
    where = f"task {name!r}: "
    inner = bare(fn)
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        raise BadDeclaration(f"{where}a generator has no result to store; emit events, or return a list")
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (ValueError, TypeError) as error:
        raise BadDeclaration(f"{where}{fn!r} does not tell its parameters: {error}") from None
    if parameters and parameters[0].name in ("self", "cls") and parameters[0].annotation is Parameter.empty:
        raise BadDeclaration(
            f"{where}it is a method, and {parameters[0].name!r} is nothing that could be stored; declare a function"
        )


def names_around(fn: Callable[..., Any], module: str) -> Mapping[str, Any] | None:
    """The local names where a nested function is declared, by which its annotations are read; a module's need none.

    `module` is the one that declares: its own frames are passed over.
    """
    if "<locals>" not in getattr(bare(fn), "__qualname__", ""):
        return None
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__") == module:
        frame = frame.f_back
    return dict(frame.f_locals)


def is_coroutine_function(fn: Callable[..., Any]) -> bool:
    """Also of a partial, and of an object with an async `__call__`."""
    fn = bare(fn)
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(type(fn), "__call__", None))  # noqa: B004


async def awaited(value: Any) -> Any:
    """A plain function may return an awaitable (a decorated coroutine function does)."""
    return await value if inspect.isawaitable(value) else value
