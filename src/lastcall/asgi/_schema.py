"""JSON schemas from types: TypedDicts, literals, unions, lists; bounds are what a type is annotated with. Pure.

Who calls it: `_openapi`. A model that is met becomes a component under its own name, with its docstring as description.
"""

from __future__ import annotations

import types
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    NotRequired,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

_PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    Any: {},
}


class Bounds(NamedTuple):
    """What a type is annotated with: the length of a text, the least number."""

    shortest: int | None = None
    longest: int | None = None
    least: float | None = None

    def as_schema(self) -> dict[str, Any]:
        words = {"minLength": self.shortest, "maxLength": self.longest, "minimum": self.least}
        return {word: value for word, value in words.items() if value is not None}


class Schemas:
    """Schemas, and the components that they refer to."""

    def __init__(self) -> None:
        self.components: dict[str, dict[str, Any]] = {}

    def of(self, kind: Any, *, closed: bool = False) -> dict[str, Any]:
        """The schema of a type. `closed`: an object of it has no other members; for what clients send. Raises
        `TypeError` for a type that the models do not use."""
        origin, args = get_origin(kind), get_args(kind)
        if origin is Annotated:
            return {**self.of(args[0]), **args[1].as_schema()}
        if kind in _PLAIN:
            return dict(_PLAIN[kind])
        if is_typeddict(kind):
            return self._reference(kind, closed)
        if origin is Literal:
            return {"type": "string", "enum": list(args)}
        if origin in (Union, types.UnionType):
            return {"anyOf": [self.of(arg) for arg in args]}
        if origin is list:
            return {"type": "array", "items": self.of(args[0])}
        if origin is dict:
            return {"type": "object", "additionalProperties": self.of(args[1])}
        raise TypeError(f"the models do not use {kind!r}")

    def _reference(self, kind: Any, closed: bool) -> dict[str, Any]:
        name = kind.__name__
        if name not in self.components:
            # By the hints: the class itself does not see what is not required while annotations are texts.
            hints = get_type_hints(kind, include_extras=True)
            properties, required = {}, []
            for member, hint in hints.items():
                if get_origin(hint) is NotRequired:
                    (hint,) = get_args(hint)
                else:
                    required.append(member)
                properties[member] = self.of(hint)
            schema: dict[str, Any] = {"type": "object", "properties": properties, "required": required}
            about = " ".join((kind.__doc__ or "").split())
            self.components[name] = {"description": about, **schema}
            if closed:
                self.components[name]["additionalProperties"] = False
        return {"$ref": f"#/components/schemas/{name}"}
