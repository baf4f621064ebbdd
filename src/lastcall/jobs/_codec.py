"""Arguments and results as JSON and back, from a function's own annotations.

The only file that imports pydantic. Who calls it: declarations (arguments, results) and steps (results).
What can go wrong: annotations that name nothing, values that do not fit, values that JSON cannot hold; each is an
error that names the function, before anything is written.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping, Sequence, Set
from inspect import Parameter
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
    WrapSerializer,
    create_model,
)
from pydantic_core import PydanticSerializationError, from_json, to_json

from .._core._diagnose import error_text
from ..exceptions import BadArguments, BadDeclaration, BadResult
from ._function import name_of, signature_without
from ._settings import shown

# NaN and infinity as words and bytes as base64, so that what is read back is what was written.
_CONFIG = ConfigDict(
    extra="forbid", ser_json_inf_nan="strings", ser_json_bytes="base64", val_json_bytes="base64"
)

_renamed: Callable[[str, Any], Any] = typing.NewType  # a call, and no declaration for the type checker

_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_DUMP_ERRORS = (PydanticSerializationError, ValueError, TypeError, RecursionError, AttributeError)

# What is certain to be read back as it was written, and what is certain if all that it holds is.
_CERTAIN = (str, int, float, bool, bytes, None, type(None), Any)
_CERTAIN_OUTSIDE = (list, tuple, set, frozenset, typing.Union, types.UnionType)
# But for a number of more than 4300 digits, which Python does not read.
_CERTAIN_CHARACTERS = 4000

# An error is for reading. What is cut off is told.
_MESSAGE_CHARACTERS = 10_000
_TRACEBACK_CHARACTERS = 50_000


class ValueCodec:
    """One value of one type, as JSON. What is written can be read again, or it is not written."""

    def __init__(self, annotation: Any, what: str) -> None:
        self._what = what
        self._adapter = adapter = _adapter(annotation, what)
        self._validate = adapter.validator.validate_python
        self._to_json = adapter.serializer.to_json
        self._is_none = annotation is None or annotation is type(None)
        self._certain = _certain(annotation)

    def dump(self, value: Any) -> str:
        """Raises `BadResult`."""
        if value is None and self._is_none:
            return "null"
        try:
            text = self._to_json(
                self._validate(value), by_alias=True, round_trip=True, warnings=False
            ).decode()
        except ValidationError as error:
            raise BadResult(f"{self._what} does not fit its annotation: {_first(error)}") from error
        except _DUMP_ERRORS as error:
            raise BadResult(f"{self._what} cannot be written as JSON: {error}") from error
        if not self._certain or len(text) > _CERTAIN_CHARACTERS:
            try:
                self._adapter.validator.validate_json(text)
            except ValidationError as error:
                raise BadResult(
                    f"{self._what} can be written as JSON, but not read again: {_first(error)}"
                ) from error
        return text

    def load(self, text: str) -> Any:
        """Raises `BadResult` for a text that does not fit (the annotation has changed, or the row is corrupt)."""
        try:
            return self._adapter.validate_json(text)
        except ValidationError as error:
            raise BadResult(f"what is stored for {self._what} does not fit: {_first(error)}") from error


class ArgumentsCodec:
    """The arguments of one function, as one JSON object by parameter name. `skip`: leading ones that are not stored.

    A model with one numbered field per parameter, the parameter's name as its alias: so that any name will do.
    """

    def __init__(self, fn: Callable[..., Any], skip: int, hints: Mapping[str, Any]) -> None:
        self._name = name_of(fn)
        self.signature = signature = signature_without(fn, skip)
        parameters = list(signature.parameters.values())
        self._positional = [p.name for p in parameters if p.kind in _POSITIONAL]
        self._positional_only = [p.name for p in parameters if p.kind is Parameter.POSITIONAL_ONLY]
        self._star = next((p.name for p in parameters if p.kind is Parameter.VAR_POSITIONAL), None)
        self._double_star = next((p.name for p in parameters if p.kind is Parameter.VAR_KEYWORD), None)
        self._simple = self._star is None and self._double_star is None and not self._positional_only
        self._defaults = {p.name: p.default for p in parameters}
        self._names = {f"p{n}": p.name for n, p in enumerate(parameters)}
        self._fields = frozenset(self._names)
        self._certain = all(_certain(hints.get(p.name, Any)) for p in parameters)
        fields = {f"p{n}": _field(p, hints.get(p.name, Any)) for n, p in enumerate(parameters)}
        adapter = _adapter(_model(self._name, fields), f"an argument of {self._name}")
        self._validate = adapter.validator.validate_python
        self._validate_json = adapter.validator.validate_json
        self._to_json = adapter.serializer.to_json

    def dump(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """Raises `BadArguments`, which names the task and the argument."""
        if self._simple and len(args) <= len(self._positional) and not (args and kwargs):
            values = dict(zip(self._positional, args, strict=False)) if args else dict(kwargs)
        else:
            values = self._bind(args, kwargs)
        try:
            return self._dump(self._validate(values))
        except ValidationError as error:
            raise self._wrong(error) from error

    def check_json(self, values: Any) -> str:
        """The same from plain JSON values by name (an HTTP request, a command line)."""
        if not isinstance(values, dict):
            raise BadArguments(
                f"arguments for {self._name} must be an object by parameter name, not {shown(values)}"
            )
        try:
            return self._dump(self._validate_json(to_json(values, inf_nan_mode="strings")))
        except ValidationError as error:
            raise self._wrong(error) from error
        except _DUMP_ERRORS as error:
            raise BadArguments(f"arguments for {self._name} are no JSON: {error}") from error

    def load(self, text: str) -> tuple[Sequence[Any], dict[str, Any]]:
        """What to call the function with. Raises `BadArguments` if the stored text does not fit (any more)."""
        try:
            model = self._validate_json(text)
        except ValidationError as error:
            raise BadArguments(
                f"the stored arguments do not fit {self._name}{self.signature}: {_first(error)}"
            ) from error
        names, given = self._names, model.__pydantic_fields_set__
        values = {names[field]: value for field, value in model.__dict__.items() if field in given}
        if self._simple:
            return (), values
        star = values.pop(self._star, []) if self._star is not None else []
        more = values.pop(self._double_star, {}) if self._double_star is not None else {}
        leading = self._positional if star else self._positional_only
        # By position, so one that was left out before one that was given needs its default here.
        last = (
            len(leading)
            if star
            else max((n + 1 for n, name in enumerate(leading) if name in values), default=0)
        )
        args = [values.pop(name, self._defaults[name]) for name in leading[:last]]
        return (*args, *star), {**values, **more}

    def _dump(self, model: Any) -> str:
        # Not `exclude_unset`, which reaches into models that are arguments: what they had by default is part of them.
        given = model.__pydantic_fields_set__
        left_out = None if len(given) == len(self._fields) else self._fields - given
        try:
            text = self._to_json(
                model, by_alias=True, exclude=left_out, round_trip=True, warnings=False
            ).decode()
        except _DUMP_ERRORS as error:
            raise BadArguments(f"arguments for {self._name} cannot be written as JSON: {error}") from error
        if not self._certain or len(text) > _CERTAIN_CHARACTERS:
            try:
                self._validate_json(text)
            except ValidationError as error:
                raise BadArguments(
                    f"arguments for {self._name} can be written as JSON, but not read again: {_first(error)}"
                ) from error
        return str(text)

    def _wrong(self, error: ValidationError) -> BadArguments:
        return BadArguments(f"wrong arguments for {self._name}{self.signature}: {_first(error)}")

    def _bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise BadArguments(f"wrong arguments for {self._name}{self.signature}: {error}") from None
        values = dict(bound.arguments)
        if self._star in values:
            values[self._star] = list(values[self._star])
        return values


def dump_plain(value: Any, what: str) -> str:
    """A value without an annotation: by its own type. Raises `BadResult`."""
    try:
        return to_json(value, inf_nan_mode="strings", bytes_mode="base64").decode()
    except _DUMP_ERRORS as error:
        raise BadResult(f"{what} cannot be written as JSON: {error}") from error


def load_plain(text: str | None) -> Any:
    """JSON as plain Python values."""
    return None if text is None else from_json(text)


def fingerprint_text(args: Sequence[Any]) -> bytes:
    """The arguments of a step as bytes that are the same on every run: what JSON cannot hold counts by its type.

    Raises `BadDeclaration` for what has no such form: text that is no Unicode, something that contains itself.
    """
    try:
        return to_json(
            _in_order(args),
            fallback=lambda value: f"<{type(value).__qualname__}>",
            inf_nan_mode="strings",
            bytes_mode="base64",
        )
    except _DUMP_ERRORS as error:
        raise BadDeclaration(
            f"the arguments of a step cannot stand in its name ({error}); give it a name="
        ) from error


def _in_order(value: Any) -> Any:
    """Sets as sorted lists: their own order is another one in every process."""
    if isinstance(value, Set):
        return sorted((_in_order(item) for item in value), key=lambda item: fingerprint_text((item,)))
    if isinstance(value, Mapping):
        return {key: _in_order(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_in_order(item) for item in value]
    return value


def dump_error(error: BaseException, traceback_text: str) -> str:
    """An exception as the JSON that a job keeps. Whatever its text is: a name of a file may be no Unicode."""
    try:
        message = str(error)
    except Exception:
        message = error_text(error)
    kind = type(error).__qualname__
    return to_json(
        {
            "type": kind,
            "message": _readable(message, _MESSAGE_CHARACTERS),
            "traceback": _readable(traceback_text, _TRACEBACK_CHARACTERS),
        }
    ).decode()


def _readable(text: str, most: int) -> str:
    if len(text) > most:
        # Of a traceback the end tells most, of a message the beginning.
        text = f"{text[: most // 2]}\n... {len(text) - most} characters ...\n{text[-(most // 2) :]}"
    return text.encode("utf-8", "backslashreplace").decode()


def _field(parameter: Parameter, hint: Any) -> Any:
    hint = _steady(hint)
    if parameter.kind is Parameter.VAR_POSITIONAL:
        return list[hint], Field(default=None, alias=parameter.name)
    if parameter.kind is Parameter.VAR_KEYWORD:
        return dict[str, hint], Field(default=None, alias=parameter.name)
    if parameter.default is Parameter.empty:
        return hint, Field(alias=parameter.name)
    return hint, Field(
        default=None, alias=parameter.name
    )  # left out when it is not given: the function has it


def _steady(annotation: Any) -> Any:
    """The same type, whose sets are written in one order: keys and the names of children are compared by the text.

    Not those inside models and dataclasses, which write themselves.
    """
    if annotation is Any:
        return Annotated[Any, WrapSerializer(lambda value, write: write(_in_order(value)), when_used="json")]
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return Annotated[(_steady(inside[0]), *inside[1:])]
    if annotation in (set, frozenset) or origin in (set, frozenset):
        return Annotated[
            annotation,
            WrapSerializer(lambda value, write: sorted(write(value), key=to_json), when_used="json"),
        ]
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(_steady(item) for item in inside)]  # noqa: UP007
    if origin in (list, tuple, dict):
        return origin[tuple(_steady(item) for item in inside)]
    return annotation


def _certain(annotation: Any) -> bool:
    """Whether every value that fits this annotation can be read back from its JSON, without trying."""
    if annotation in _CERTAIN:
        return True
    origin = typing.get_origin(annotation)
    inside = typing.get_args(annotation)
    if origin is dict:
        return inside[0] in (str, int) and _certain(inside[1])
    return origin in _CERTAIN_OUTSIDE and all(_certain(item) for item in inside if item is not ...)


def _model(name: str, fields: dict[str, Any]) -> type[BaseModel]:
    try:
        return create_model(f"Arguments of {name}", __config__=_CONFIG, **fields)
    except Exception as error:
        raise _unwritable(f"an argument of {name}", error) from error


def _adapter(annotation: Any, what: str) -> TypeAdapter[Any]:
    try:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            adapter = TypeAdapter[Any](annotation)  # it has settings of its own
        else:
            # By another name, under which pydantic takes our settings for dataclasses too.
            adapter = TypeAdapter[Any](_renamed("Value", annotation), config=_CONFIG)
        adapter.validator.validate_python  # noqa: B018  # raises for what is not fully defined yet
    except PydanticUserError as error:
        if error.code == "class-not-fully-defined":
            raise BadDeclaration(
                f"{what} has a type whose own annotations cannot be resolved; define the types in it at module level"
            ) from error
        raise _unwritable(what, error) from error
    except Exception as error:
        raise _unwritable(what, error) from error
    return adapter


def _unwritable(what: str, error: Exception) -> BadDeclaration:
    return BadDeclaration(f"{what} has a type that cannot be written as JSON: {error}")


def _first(error: ValidationError) -> str:
    """The first complaint in one line, and how many more there are."""
    complaints = error.errors(include_url=False, include_context=False)
    where = ".".join(str(part) for part in complaints[0]["loc"])
    more = f" (and {len(complaints) - 1} more)" if len(complaints) > 1 else ""
    got = "" if complaints[0]["type"] == "missing" else f", got {shown(complaints[0]['input'])}"
    return f"{where + ': ' if where else ''}{complaints[0]['msg']}{got}{more}"
