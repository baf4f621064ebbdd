"""Arguments and values as JSON and back, from a function's annotations."""

import dataclasses
import datetime as dt
import enum
import functools
import json
import math
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, Json, computed_field
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import TypedDict

from lastcall.exceptions import BadArguments, BadDeclaration, BadResult
from lastcall.jobs._codec import (
    ArgumentsCodec,
    ValueCodec,
    dump_error,
    dump_plain,
    fingerprint_text,
    load_plain,
)
from lastcall.jobs._function import hints_of, return_hint_of
from tests.support.ids import stable

NAN = float("nan")


def codec_of(fn: Callable[..., Any]) -> ArgumentsCodec:
    return ArgumentsCodec(fn, 0, hints_of(fn))


def call_of(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What the function returns when it is called with its arguments as they come back from the store."""
    codec = codec_of(fn)
    positional, named = codec.load(codec.dump(args, kwargs))
    return fn(*positional, **named)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclasses.dataclass
class Place:
    name: str
    at: tuple[float, float] = (0.0, 0.0)


@dataclasses.dataclass
class Packed:
    data: bytes
    more: list[bytes]


@pydantic_dataclass
class Strict:
    count: int


class Point(NamedTuple):
    x: int
    y: int = 0


class Options(TypedDict, total=False):
    deep: bool
    names: list[str]


class Order(BaseModel):
    number: int
    lines: list[Place] = []
    note: str | None = None


class Marked(BaseModel):
    """What it has by default is different every time, and may be changed in place."""

    id: UUID = Field(default_factory=uuid4)
    tags: list[str] = []


class Aliased(BaseModel):
    count: int = Field(alias="theCount")


class Summed(BaseModel):
    model_config = {"extra": "forbid"}
    a: int
    b: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def total(self) -> int:
        return self.a + self.b


class Measured(BaseModel):
    value: float


class Hidden(BaseModel):
    secret: str = Field(exclude=True)


# --- values --------------------------------------------------------------------------------------------

VALUES = [
    (int, -(2**70)),
    (str, "häß 𝒳 \x00 \u2028 \"'\\"),
    (float, 0.1),
    (float, math.inf),
    (float, -math.inf),
    (bool, True),
    (None, None),
    (bytes, bytes(range(256))),
    (bytes, b""),
    (Packed, Packed(b"\xff\x00", [b""])),
    (list[Packed], [Packed(b"\x80", [])]),
    (dt.datetime, dt.datetime(2026, 11, 5, 12, 30, 0, 123456)),
    (dt.datetime, dt.datetime(2026, 11, 5, 12, tzinfo=ZoneInfo("Europe/Berlin"))),
    (dt.date, dt.date(2026, 2, 28)),
    (dt.time, dt.time(23, 59, 59, 5)),
    (dt.timedelta, dt.timedelta(days=-3, microseconds=7)),
    (Decimal, Decimal("0.10")),
    (UUID, UUID(int=5)),
    (Path, Path("a/b c")),
    (Colour, Colour.BLUE),
    (Level, Level.HIGH),
    (Literal["a", 1], 1),
    (Place, Place("x", (1.5, -2.0))),
    (Strict, Strict(3)),
    (Point, Point(1, 2)),
    (Options, {"deep": True}),
    (Order, Order(number=1, lines=[Place("y")])),
    (Aliased, Aliased(theCount=4)),
    (Summed, Summed(a=1, b=2)),
    (Json[list[int]], "[1, 2]"),
    (list[Order], [Order(number=1), Order(number=2, note="n")]),
    (dict[int, Order], {7: Order(number=1)}),
    (dict[Colour, int], {Colour.RED: 1}),
    (set[int], {3, 1, 2}),
    (set[float], {1.5, math.inf}),
    (set[bytes], {b"\xff", b""}),
    (set[dt.date], {dt.date(2026, 1, 2), dt.date(2025, 1, 2)}),
    (list[set[Colour] | None], [{*Colour}, None, set()]),
    (frozenset[str], frozenset({"a", "b"})),
    (tuple[int, str], (1, "1")),
    (tuple[int, ...], ()),
    (int | str, "5"),
    (int | str, 5),
    (int | None, None),
    (Order | Place, Place("z")),
    (Any, {"a": [1, 2.5, None, "x"]}),
    (Annotated[int, Field(ge=1)], 1),
]
# By number and not by value: a set is written in another order in each process.
NAMES = [f"{stable(annotation)[:40]} {n}" for n, (annotation, _) in enumerate(VALUES)]


@pytest.mark.parametrize(("annotation", "value"), VALUES, ids=NAMES)
def test_a_value_comes_back_as_it_was(annotation: Any, value: Any) -> None:
    """A result of every kind of type is written and read again; so is an argument."""
    codec = ValueCodec(annotation, "the result of 'f'")
    expected = [1, 2] if isinstance(value, str) and value == "[1, 2]" else value
    text = codec.dump(value)
    json.loads(text)
    loaded = codec.load(text)
    assert loaded == expected
    assert type(loaded) is type(expected) or isinstance(expected, dt.datetime)

    def same(argument: Any) -> Any:
        return argument

    same.__annotations__ = {"argument": annotation}
    assert call_of(same, value) == expected
    assert call_of(same, argument=value) == expected


@pytest.mark.parametrize("annotation", [float, list[float], dict[str, float], Place, tuple[float, ...]])
def test_nan_comes_back_as_nan(annotation: Any) -> None:
    """JSON has no NaN; a float that is none is written as a word, at every depth."""
    value = {
        "list": [NAN],
        "dict": {"a": NAN},
        "tuple": (NAN,),
        "Place": Place("x", (NAN, 1.0)),
    }.get(getattr(annotation, "__name__", ""), NAN)
    codec = ValueCodec(annotation, "it")
    loaded = codec.load(codec.dump(value))
    found = repr(loaded)
    assert type(loaded) is type(value) and "nan" in found


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
)
def test_anything_plain_is_written_or_refused(value: Any) -> None:
    """Whatever plain value comes, it is written as JSON that can be read, or refused with an error of ours."""
    try:
        text = dump_plain(value, "a message")
        assert ValueCodec(Any, "it").dump(value) == text
    except BadResult:
        return
    json.loads(text)
    load_plain(text)
    text.encode()


@pytest.mark.parametrize("annotation", [str, Any, list[str], Order, dict[str, str]], ids=stable)
def test_text_that_is_no_unicode_is_refused(annotation: Any) -> None:
    """A file's name that is no Unicode came from the operating system: it is refused, not written half."""
    bad = "caf\udce9.txt"
    value = {"Order": Order(number=1, note=bad), "list": [bad], "dict": {bad: bad}}.get(
        getattr(annotation, "__name__", ""), bad
    )
    with pytest.raises(BadResult, match="the result of 'f'"):
        ValueCodec(annotation, "the result of 'f'").dump(value)
    with pytest.raises(BadResult, match="the message 'm'"):
        dump_plain(value, "the message 'm'")

    def same(argument: Any) -> Any:
        return argument

    same.__annotations__ = {"argument": annotation}
    with pytest.raises(BadArguments, match="same"):
        codec_of(same).dump((value,), {})


def itself() -> list[Any]:
    one: list[Any] = []
    one.append(one)
    return one


def deep(levels: int) -> list[Any]:
    one: list[Any] = []
    for _ in range(levels):
        one = [one]
    return one


class NoJson:
    def __repr__(self) -> str:
        raise ValueError("not even a repr")


@pytest.mark.parametrize(
    "value",
    [object(), itself(), deep(100_000), lambda: 1, NoJson(), {(1, 2): object()}, b"a".decode],
    ids=type,
)
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    """Values without an annotation that cannot be written: each is an error of ours that names what it was."""
    with pytest.raises(BadResult, match="the result of 'f' cannot be written as JSON"):
        ValueCodec(Any, "the result of 'f'").dump(value)
    with pytest.raises(BadResult, match="the message 'm' cannot be written as JSON"):
        dump_plain(value, "the message 'm'")

    def work(anything: Any) -> None: ...

    with pytest.raises(BadArguments, match="arguments for .*work cannot be written as JSON"):
        codec_of(work).dump((value,), {})


@pytest.mark.parametrize(
    ("annotation", "value", "told"),
    [
        (int, "x", "valid integer"),
        (int, None, "valid integer"),
        (None, 1, "None"),
        (Order, {"number": "x"}, "number: "),
        (Order, Place("p"), "Order"),
        (list[Order], [Order(number=1), 5], "1: "),
        (Colour, "green", "'red' or 'blue'"),
        (Annotated[int, Field(ge=1)], 0, "greater than or equal to 1"),
    ],
    ids=stable,
)
def test_a_result_that_does_not_fit_is_refused(annotation: Any, value: Any, told: str) -> None:
    """The function returned something else than it says: the error names it, the place in it, and what was there."""
    with pytest.raises(BadResult, match=r"the result of 'f' does not fit its annotation") as caught:
        ValueCodec(annotation, "the result of 'f'").dump(value)
    assert told in str(caught.value)


@pytest.mark.parametrize("text", ["", "x", "5x", '"a"', "[1", "null", '{"number": 1}'])
def test_a_stored_result_that_does_not_fit_is_told(text: str) -> None:
    """The annotation has changed since, or the row is corrupt."""
    with pytest.raises(BadResult, match="what is stored for the result of 'f' does not fit"):
        ValueCodec(int, "the result of 'f'").load(text)


def test_what_a_model_has_by_default_is_kept() -> None:
    """An argument is a model with a default that is made anew each time, and one that was changed in place."""

    def work(marked: Marked) -> Marked:
        return marked

    codec, marked = codec_of(work), Marked()
    marked.tags.append("later")
    text = codec.dump((marked,), {})
    for _ in range(2):
        assert codec.load(text)[1]["marked"] == marked


def test_a_model_that_was_spoilt_is_refused() -> None:
    """A model is changed after it was made, to something its field cannot be: that is found before it is written."""
    measured = Measured(value=1.0)
    measured.value = "much"  # type: ignore[assignment]

    def work(measured: Measured) -> None: ...

    with pytest.raises(BadArguments, match="not read again: measured.value: "):
        codec_of(work).dump((measured,), {})
    with pytest.raises(BadResult, match="not read again: value: "):
        ValueCodec(Measured, "it").dump(measured)


@pytest.mark.parametrize("value", [Measured(value=NAN), Hidden(secret="s")], ids=stable)
def test_a_model_that_cannot_be_read_again_is_refused(value: BaseModel) -> None:
    """A model with settings of its own writes NaN as null, or leaves a field out that it needs."""

    def work(value: Any) -> None: ...

    work.__annotations__ = {"value": list[type(value)]}  # type: ignore[misc]
    with pytest.raises(BadArguments, match="work can be written as JSON, but not read again: value.0."):
        codec_of(work).dump(([value],), {})
    with pytest.raises(BadResult, match="it can be written as JSON, but not read again"):
        ValueCodec(type(value), "it").dump(value)


def test_a_number_too_long_to_be_read_is_refused() -> None:
    """Python writes a number of 5000 digits, and does not read one."""
    big = 10**4200 * 10**800

    def work(number: int) -> None: ...

    with pytest.raises(BadArguments, match="work"):
        codec_of(work).dump((big,), {})
    with pytest.raises(BadResult, match="it "):
        ValueCodec(int, "it").dump(big)


# --- arguments -----------------------------------------------------------------------------------------


def test_arguments_are_one_object_by_name() -> None:
    """However they were given, what is stored is the same text: keys are compared by it."""

    def work(a: int, b: str = "x", *, c: float = 1.0) -> Any:
        return (a, b, c)

    codec = codec_of(work)
    texts = {
        codec.dump((1, "y"), {"c": 2}),
        codec.dump((1,), {"c": 2.0, "b": "y"}),
        codec.dump((), {"c": 2, "b": "y", "a": 1}),
        codec.check_json({"c": 2, "a": 1, "b": "y"}),
    }
    assert texts == {'{"a":1,"b":"y","c":2.0}'}
    assert codec.dump((1,), {}) == '{"a":1}'
    assert call_of(work, 1) == (1, "x", 1.0)


def test_every_kind_of_parameter() -> None:
    """Positional-only, starred, keyword-only and double-starred parameters come back where they were."""

    def work(a: int, /, b: int = 2, *rest: int, c: int = 3, **more: int) -> Any:
        return (a, b, rest, c, more)

    assert call_of(work, 1) == (1, 2, (), 3, {})
    assert call_of(work, 1, 5, 6, 7) == (1, 5, (6, 7), 3, {})
    assert call_of(work, 1, b=5, c=6, d=7) == (1, 5, (), 6, {"d": 7})
    # PEP 570: a name that is positional-only is free for `**more`.
    assert call_of(work, 1, a=9) == (1, 2, (), 3, {"a": 9})

    def only(a: int = 1, b: int = 2, /) -> Any:
        return (a, b)

    assert call_of(only) == (1, 2)
    assert call_of(only, 5) == (5, 2)
    assert call_of(only, 5, 6) == (5, 6)


def test_json_may_leave_out_what_comes_before() -> None:
    """By name somebody gives a later positional argument and not the one before it, which keeps its default."""

    def only(a: int = 1, b: int = 2, /) -> Any:
        return (a, b)

    def starred(a: int, b: int = 2, *rest: int) -> Any:
        return (a, b, rest)

    codec = codec_of(only)
    args, kwargs = codec.load(codec.check_json({"b": 5}))
    assert only(*args, **kwargs) == (1, 5)
    codec = codec_of(starred)
    args, kwargs = codec.load(codec.check_json({"a": 1, "rest": [7, 8]}))
    assert starred(*args, **kwargs) == (1, 2, (7, 8))


def test_any_name_will_do_for_a_parameter() -> None:
    """Names that a pydantic model has itself, private ones, and those that the codec uses inside."""

    def work(
        json: int,
        schema: int,
        copy: int,
        _x: int,
        __y: int,
        model_fields: int,
        model_config: int,
        model_dump: int,
        p0: int,
        p1: int,
        self_: int,
        cls: int,
        values: int,
        dict: int,
        kwargs: int,
    ) -> Any:
        return (json, schema, copy, _x, __y, model_fields, model_config, model_dump, p0, p1, self_, cls, values,
                dict, kwargs)  # fmt: skip

    assert call_of(work, *range(15)) == tuple(range(15))
    names = work.__code__.co_varnames[:15]
    assert call_of(work, **dict(zip(names, range(15), strict=True))) == tuple(range(15))


def test_a_default_is_the_functions_own() -> None:
    """A default need not be JSON, and need not fit the annotation: it is not stored."""
    nothing = object()

    def work(a: int = nothing, b: Order = None) -> Any:  # type: ignore[assignment]
        return (a, b)

    assert call_of(work) == (nothing, None)
    assert call_of(work, 1) == (1, None)


@pytest.mark.parametrize(
    ("args", "kwargs", "told"),
    [
        ((), {}, "a"),
        ((1, "x", 2.0), {}, "too many"),
        (("x",), {}, "a: "),
        ((1,), {"z": 1}, "z"),
        ((1,), {"a": 2}, "multiple values"),
        ((), {"a": 1, "b": None}, "b: "),
        ((), {"b": "x"}, "a"),
        ((), {"a": 1, "p0": 1}, "p0"),
        ((None,), {}, "a: "),
    ],
)
def test_wrong_arguments_are_refused(args: tuple[Any, ...], kwargs: dict[str, Any], told: str) -> None:
    """Too few, too many, unknown, twice, of another type: the error shows the signature and names the argument."""

    def work(a: int, b: str = "x") -> None: ...

    with pytest.raises(BadArguments, match=r"wrong arguments for .*work\(a: int, b: str = 'x'\)") as caught:
        codec_of(work).dump(args, kwargs)
    assert told in str(caught.value).partition(": str = 'x'): ")[2]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (None, "must be an object"),
        ([1], "must be an object"),
        ("x", "must be an object"),
        ({"a": "x"}, "a: "),
        ({}, "a: "),
        ({"a": 1, "c": 2}, "c: "),
        ({"a": 1, "b": "\ud800"}, "no JSON"),
        ({"a": 1, "\ud800": 1}, "no JSON"),
        ({"a": float("nan")}, "a: "),
        ({"a": object()}, "no JSON"),
        ({1: 1}, "a: "),
    ],
    ids=stable,
)
def test_wrong_json_is_refused(values: Any, told: str) -> None:
    """The same from an HTTP request, where everything may come."""

    def work(a: int, b: str = "x") -> None: ...

    with pytest.raises(BadArguments, match="work") as caught:
        codec_of(work).check_json(values)
    assert told in str(caught.value)


def test_json_is_read_as_json() -> None:
    """Dates, bytes, enums and NaN come as text in JSON, and are what the annotation says."""

    def work(when: dt.date, data: bytes, colour: Colour, number: float) -> Any:
        return (when, data, colour, number)

    codec = codec_of(work)
    text = codec.check_json({"when": "2026-01-02", "data": "/w==", "colour": "red", "number": NAN})
    args, kwargs = codec.load(text)
    when, data, colour, number = work(*args, **kwargs)
    assert (when, data, colour) == (dt.date(2026, 1, 2), b"\xff", Colour.RED) and math.isnan(number)


@pytest.mark.parametrize("text", ["", "null", "[]", "{", '{"a": "x"}', "{}", '{"a": 1, "gone": 2}'])
def test_stored_arguments_that_do_not_fit_any_more(text: str) -> None:
    """A parameter was added, removed or changed since: the error shows the signature of now."""

    def work(a: int) -> None: ...

    with pytest.raises(BadArguments, match=r"the stored arguments do not fit .*work\(a: int\)"):
        codec_of(work).load(text)


# --- annotations ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "annotation", [NoJson, type("Own", (), {}), "ArgumentsCodec", subprocess.Popen], ids=stable
)
def test_a_type_that_cannot_be_written_is_refused(annotation: Any) -> None:
    """The error names the function and the type, when the codec is made and not when a job runs."""

    def work(a: Any) -> None: ...

    work.__annotations__["a"] = annotation
    with pytest.raises(
        BadDeclaration, match="an argument of .*work has a type that cannot be written as JSON"
    ):
        codec_of(work)
    if not isinstance(annotation, str):
        with pytest.raises(BadDeclaration, match="the result of 'f' has a type that cannot be written"):
            ValueCodec(annotation, "the result of 'f'")


def test_annotations_that_mean_nothing_are_refused() -> None:
    """A name that nobody defined: the error names the function and the name."""

    def work(a: "Missing") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(BadDeclaration, match="annotations of .*work cannot be resolved.*Missing"):
        hints_of(work)

    def syntax(a: "list[") -> None: ...  # type: ignore[valid-type]  # noqa: F722

    with pytest.raises(BadDeclaration, match="annotations of .*syntax cannot be resolved"):
        hints_of(syntax)


def test_the_returned_type_of_a_step_alone_is_read() -> None:
    """A step's parameters are never stored, so their annotations need not mean anything."""

    def work(a: "Missing") -> "list[int]":  # type: ignore[name-defined]  # noqa: F821
        return [a]

    assert return_hint_of(work) == list[int]
    assert return_hint_of(functools.partial(work, 1)) == list[int]
    assert return_hint_of(len) is Any


def test_the_annotations_of_a_partial_are_its_functions() -> None:
    """A partial is checked like the function in it."""

    def work(a: int, b: int) -> int:
        return a + b

    codec = codec_of(functools.partial(work, 1))
    with pytest.raises(BadArguments, match="b: "):
        codec.dump((), {"b": "x"})
    assert codec.dump((), {"b": "5"}) == '{"b":5}'


def test_sets_are_written_in_one_order() -> None:
    """The same arguments are the same text in every process, or their key would be refused there."""
    program = (
        "import enum\n"
        "from typing import Annotated\n"
        "from lastcall.jobs._codec import ArgumentsCodec\n"
        "from lastcall.jobs._function import hints_of\n"
        "Colour = enum.Enum('Colour', {'RED': 'red', 'BLUE': 'blue'})\n"
        "def work(a: set[str], b: 'list[frozenset[int | str]] | None', c: Annotated[set, 1], d, *e: set[Colour],"
        " **f: dict[str, tuple[set[str], ...]]): ...\n"
        "words = {'a', 'b', 'c', 'd', 'e', 'f'}\n"
        "args = words, [frozenset({1, 'x', 'y'})], words, {'in': [words]}, {*Colour}\n"
        "codec = ArgumentsCodec(work, 0, hints_of(work))\n"
        "text = codec.dump(args, {'more': {'x': (words,)}})\n"
        "assert codec.load(text)[0][:3] == args[:3], text\n"
        "print(text)"
    )
    found = {in_another_process(program, seed) for seed in ("1", "2", "3")}
    assert len(found) == 1, found


def in_another_process(program: str, seed: str) -> bytes:
    """What a program prints when sets have another order."""
    env = {"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}
    return subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, check=True).stdout


# --- steps' names and errors ---------------------------------------------------------------------------


def test_the_name_of_a_step_is_the_same_in_every_process() -> None:
    """Sets have another order in each process; a step must be found again all the same."""
    program = (
        "from lastcall.jobs._codec import fingerprint_text\n"
        "words = {'a', 'b', 'c', 'd', 'e', 'f'}\n"
        "print(fingerprint_text(({'in': [words]}, frozenset({frozenset({'x', 'y', 'z'}), 1}), b'\\xff', object())))"
    )
    found = {in_another_process(program, seed) for seed in ("1", "2", "3")}
    assert len(found) == 1, found


@pytest.mark.parametrize("value", ["\udce9", itself(), deep(100_000)], ids=type)
def test_a_step_whose_arguments_have_no_name(value: Any) -> None:
    """Arguments of a step that cannot stand in its name: the error says what to do."""
    with pytest.raises(BadDeclaration, match="give it a name="):
        fingerprint_text((value,))


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("plain"), "plain"),
        (FileNotFoundError("caf\udce9"), "caf\\udce9"),
        (Unprintable(), "Unprintable (its text cannot be made: RuntimeError)"),
        (ValueError("a\x00b"), "a\x00b"),
        (KeyboardInterrupt(), ""),
    ],
    ids=stable,
)
def test_any_error_can_be_kept(error: BaseException, message: str) -> None:
    """An error whose text is no Unicode, or that has none, is kept and read again like any other."""
    kept = load_plain(dump_error(error, f"Traceback {message}"))
    assert kept["message"] == message and kept["type"] == type(error).__qualname__
    json.loads(dump_error(error, ""))


def test_a_huge_error_is_cut() -> None:
    """Somebody puts a whole answer into an exception: its beginning and its end are kept."""
    text = dump_error(ValueError("a" * 10_000_000 + "z"), "b" * 10_000_000 + "end")
    kept = load_plain(text)
    assert len(text) < 100_000
    assert kept["message"].startswith("aaa") and kept["message"].endswith("az")
    assert "characters" in kept["message"] and kept["traceback"].endswith("end")
