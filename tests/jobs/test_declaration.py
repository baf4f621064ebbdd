"""Declaring tasks: what may be one, under which name, and what is read of its annotations.

The annotations of this file are text, as in most programs; those of tests/jobs/test_codec.py are not.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

import lastcall.jobs
from lastcall.exceptions import BadArguments, BadDeclaration, UnknownTaskName
from lastcall.jobs import Context, Jobs
from lastcall.jobs import Context as Ctx
from tests.engines.model import ModelEngine
from tests.jobs.conftest import Store
from tests.support.ids import stable

if TYPE_CHECKING:
    from decimal import Decimal  # known to the type checker only


@pytest.fixture
def declared() -> Jobs:
    """`Jobs` that are only declared on."""
    return Jobs(ModelEngine())


# --- the function stays what it was --------------------------------------------------------------------


async def test_a_function_stays_callable(declared: Jobs) -> None:
    """Calling the task calls the function: coroutine functions, plain ones, with a context and without."""
    context: Any = object()

    @declared.task
    async def with_context(ctx: Context, a: int, b: int = 2) -> tuple[Any, int, int]:
        return (ctx, a, b)

    @declared.task(retries=1)
    async def without(a: int, /, *, b: int) -> int:
        """Adds."""
        return a + b

    @declared.task()
    def plain(*args: int) -> int:
        return sum(args)

    @declared.task
    def plain_with_context(ctx: Context) -> Context:
        return ctx

    assert await with_context(context, 1, b=3) == (context, 1, 3)
    assert await without(1, b=2) == 3
    assert plain(1, 2, 3) == 6
    assert plain_with_context(context) is context
    assert (without.__name__, without.__doc__) == ("without", "Adds.")
    assert without.__module__ == __name__
    assert str(inspect.signature(without)) == "(a: 'int', /, *, b: 'int') -> 'int'"
    with pytest.raises(TypeError):
        without(1)  # type: ignore[call-arg]


def test_a_declaration_does_nothing_yet() -> None:
    """Declaring imports no engine, opens nothing, resolves no annotation and needs no loop."""

    class Untouchable:
        claim = True

        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"the engine was asked for {name}")

    jobs = Jobs(Untouchable())  # type: ignore[arg-type]

    @jobs.task
    async def work(ctx: Context, later: LaterInTheModule) -> None: ...

    assert work.options(priority=1).settings.name == "work"
    assert "1 tasks" in repr(jobs) and "work" in repr(work)


# --- names ---------------------------------------------------------------------------------------------


class Namespace:
    @staticmethod
    def static(a: int) -> int:
        return a

    @classmethod
    def of_class(cls, a: int) -> int:
        return a

    def method(self, a: int) -> int:
        return a + 1

    def __call__(self, a: int) -> int:
        return a


class AsyncCallable:
    async def __call__(self, a: int) -> int:
        return a + 1


def top(a: int, b: int = 0) -> int:
    return a + b


async def later(a: int, b: int = 0) -> int:
    return a + b


def test_the_name_is_the_functions(declared: Jobs) -> None:
    """The qualified name without its module, and without the function around it; or what was given."""

    def inner() -> None: ...

    assert declared.task(top).name == "top"
    assert declared.task(inner).name == "inner"
    assert declared.task(Namespace.static).name == "Namespace.static"
    assert declared.task(name="häß 𝒳 1")(later).name == "häß 𝒳 1"
    assert set(declared.tasks) == {("top", ""), ("inner", ""), ("Namespace.static", ""), ("häß 𝒳 1", "")}


@pytest.mark.parametrize(
    "fn", [lambda: 1, functools.partial(top, 1), Namespace()], ids=["lambda", "partial", "object"]
)
def test_what_has_no_name_needs_one(declared: Jobs, fn: Any) -> None:
    """Two lambdas are called alike: after a restart nobody could tell whose job it is."""
    with pytest.raises(BadDeclaration, match="give it a name="):
        declared.task(fn)
    with pytest.raises(BadDeclaration, match="give it a name="):
        declared.task(retries=1)(fn)
    assert declared.task(name="named")(fn).name == "named"


def test_a_name_is_used_once(declared: Jobs) -> None:
    """Two tasks of one name: the error names both places, and the first stays. Another version is another task."""
    first = declared.task(top)
    with pytest.raises(
        BadDeclaration, match=r"task name 'top' \(version ''\) is used twice.*test_declaration"
    ) as caught:
        declared.task(name="top")(later)
    assert "name=" in str(caught.value) and "version=" in str(caught.value)
    second = declared.task(version="2")(top)
    with pytest.raises(BadDeclaration, match="version '2'"):
        declared.task(version="2")(top)
    assert declared.tasks == {("top", ""): first, ("top", "2"): second}
    assert declared.task_named("top") is second
    assert declared.task_named("top", "") is first
    assert declared.task_named("top", "2") is second


def test_a_name_that_is_not_declared(declared: Jobs) -> None:
    """The error names what is declared."""
    with pytest.raises(UnknownTaskName, match="no task 'x'.*declared are: none"):
        declared.task_named("x")
    declared.task(top)
    declared.task(later)
    with pytest.raises(UnknownTaskName, match="no task 'x'.*declared are: later, top"):
        declared.task_named("x")
    with pytest.raises(UnknownTaskName, match="'top'"):
        declared.task_named("top", "7")


def test_what_is_seen_of_tasks_cannot_be_changed(declared: Jobs) -> None:
    """Whoever changes the mapping changes a copy."""
    declared.task(top)
    declared.tasks.clear()  # type: ignore[attr-defined]
    assert set(declared.tasks) == {("top", "")}


# --- what can be a task --------------------------------------------------------------------------------


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("fn", "told"),
    [
        (None, "decorates a function"),
        (5, "decorates a function"),
        ("work", "decorates a function"),
        (top(1), "decorates a function"),
        (Namespace.__dict__["of_class"], "decorates a function"),
        (generator, "a generator has no result"),
        (async_generator, "a generator has no result"),
        (functools.partial(generator), "a generator has no result"),
        (Namespace.method, "it is a method"),
        (dict, "does not tell its parameters"),
    ],
    ids=stable,
)
def test_what_can_be_no_task(declared: Jobs, fn: Any, told: str) -> None:
    """Not callable, or never able to run: refused where it is declared, and nothing is."""
    with pytest.raises(BadDeclaration, match=told):
        declared.task(name="it")(fn)
    if fn is not None:
        with pytest.raises(BadDeclaration):
            declared.task(fn)
    assert not declared.tasks


def test_a_coroutine_is_no_task(declared: Jobs) -> None:
    """Somebody decorates what the function returned."""
    coroutine = later(1)
    with pytest.raises(BadDeclaration, match="decorates a function"):
        declared.task(coroutine)  # type: ignore[call-overload]
    coroutine.close()


RUNNABLE = {
    "function": top,
    "async function": later,
    "lambda": lambda a: a + 1,
    "partial": functools.partial(top, b=1),
    "async partial": functools.partial(later, b=1),
    "bound method": Namespace().method,
    "object": functools.partial(Namespace().method),
    "async object": AsyncCallable(),
    "static method": Namespace.static,
    "class method": Namespace.of_class,
    "static method object": Namespace.__dict__["static"],
}


@pytest.mark.loops("asyncio")
@pytest.mark.parametrize("kind", RUNNABLE)
async def test_every_kind_of_callable_runs(jobs: Jobs, kind: str) -> None:
    """Partials, lambdas, bound methods, objects: declared by a name, checked by their annotations, run by a worker."""
    fn = RUNNABLE[kind]
    task = jobs.task(name="it")(fn)
    if kind != "lambda":
        with pytest.raises(BadArguments, match="a: "):
            task.call("x")
    async with jobs.worker():
        job = await task.submit(5)
        expected = fn(5)
        assert await job.result(timeout=20) == (await expected if inspect.isawaitable(expected) else expected)


@pytest.mark.parametrize(
    ("fn", "told"),
    [
        (functools.partial(top, 1), "at module level"),
        (Namespace().method, "at module level"),
        (Namespace(), "at module level"),
        (lambda: 1, "at module level"),
        (AsyncCallable(), "at module level"),
    ],
    ids=["partial", "bound method", "object", "lambda", "async object"],
)
def test_what_no_other_process_can_import(declared: Jobs, fn: Any, told: str) -> None:
    """`run="process"` imports the function by its name."""
    with pytest.raises(BadDeclaration, match=f"task 'it': run='process' .*{told}"):
        declared.task(name="it", run="process")(fn)
    assert not declared.tasks


def test_a_process_has_no_context(declared: Jobs) -> None:
    """Under its own name the context is seen at once, under another one at the first use."""

    def nested(a: int) -> None: ...

    with pytest.raises(BadDeclaration, match="at module level"):
        declared.task(run="process")(nested)
    with pytest.raises(BadDeclaration, match="task 'with_context': run='process' cannot have a Context"):
        declared.task(run="process")(with_context)
    task = declared.task(run="process")(with_ctx)
    with pytest.raises(BadDeclaration, match="task 'with_ctx': run='process' cannot have a Context"):
        task.call()
    with pytest.raises(BadDeclaration, match="run='process' cannot have a Context"):
        declared.worker()


def with_context(ctx: Context) -> None: ...


def with_ctx(ctx: Ctx) -> None: ...


@pytest.mark.parametrize(
    "fn", [later, functools.partial(later, 1), AsyncCallable()], ids=["function", "partial", "object"]
)
def test_a_coroutine_function_does_not_run_in_a_thread(declared: Jobs, fn: Any) -> None:
    """`run="thread"` of what runs on the loop."""
    with pytest.raises(BadDeclaration, match="run='thread' is for plain functions"):
        declared.task(name="it", run="thread")(fn)


# --- the context ---------------------------------------------------------------------------------------


async def by_name(ctx: Context, a: int) -> None: ...
async def by_alias(ctx: Ctx, a: int) -> None: ...
async def by_path(ctx: lastcall.jobs.Context, a: int) -> None: ...
async def positional_only(ctx: Context, /, a: int) -> None: ...
async def another_name(anything: Context, a: int) -> None: ...


@pytest.mark.parametrize(
    "fn", [by_name, by_alias, by_path, positional_only, another_name], ids=lambda fn: fn.__name__
)
def test_a_context_is_no_argument(declared: Jobs, fn: Any) -> None:
    """It is known by its annotation, however that is written; the rest are the arguments."""
    task = declared.task(fn)
    assert task.takes_context
    assert task.call(5).job.args == task.call(a=5).job.args == '{"a":5}'
    with pytest.raises(BadArguments, match=r"\(a: 'int'\)"):
        task.call(object(), 5)


def test_a_context_that_is_not_first(declared: Jobs) -> None:
    """A Context elsewhere, or one that may be left out, cannot be stored: the error names the function."""

    async def second(a: int, ctx: Context) -> None: ...

    async def optional(ctx: Context | None = None) -> None: ...

    for fn in (second, optional):
        with pytest.raises(
            BadDeclaration, match=f"an argument of .*{fn.__name__}.*cannot be written as JSON"
        ):
            declared.task(fn).call()


def test_a_context_without_an_annotation_is_an_argument(declared: Jobs) -> None:
    """Nothing tells that it is one."""

    async def work(ctx, a: int) -> None: ...  # type: ignore[no-untyped-def]

    with pytest.raises(BadArguments, match="a: Field required"):
        declared.task(work).call(1)


# --- annotations ---------------------------------------------------------------------------------------


@pytest.mark.loops("asyncio")
async def test_local_types(jobs: Jobs) -> None:
    """Types of the function around a task, whose annotations are text."""

    class Inner(BaseModel):
        number: int

    class Data(BaseModel):
        inner: Inner

    @jobs.task
    async def work(ctx: Context, data: Data, more: list[Inner]) -> dict[str, Inner]:
        return {"a": data.inner, "b": more[0]}

    @jobs.task(retries=1)
    def plain(data: Inner) -> Inner:
        return data

    async with jobs.worker():
        job = await work.submit(Data(inner=Inner(number=1)), [Inner(number=2)])
        assert await job.result(timeout=20) == {"a": Inner(number=1), "b": Inner(number=2)}
        assert await (await plain.submit(Inner(number=3))).result(timeout=20) == Inner(number=3)


def test_a_type_that_holds_a_local_one(declared: Jobs) -> None:
    """A dataclass' own annotations are text too, and pydantic cannot see the names around it."""

    class Inner(BaseModel):
        number: int

    @dataclass
    class Data:
        inner: Inner

    @declared.task
    async def work(data: Data) -> None: ...

    @declared.task
    async def result() -> Data: ...

    for task in (work, result):
        with pytest.raises(
            BadDeclaration, match=f"of '?.*{task.name}'? has a type .* define the types in it at module"
        ):
            task.call(Data(Inner(number=1)))


async def test_types_that_come_later_in_the_module(declared: Jobs) -> None:
    """A task stands above the type of its argument."""
    task = declared.task(early)
    assert task.options(priority=1).call(LaterInTheModule(1)).job.args == '{"later":{"a":1}}'


async def early(later: LaterInTheModule) -> LaterInTheModule: ...


@dataclass
class LaterInTheModule:
    a: int


def test_annotations_that_cannot_be_resolved(declared: Jobs) -> None:
    """A type that only the type checker imports: the error names the function and the type, and nothing is written."""

    async def work(amount: Decimal) -> None: ...

    async def result() -> Decimal: ...

    for fn in (work, result):
        task = declared.task(fn)
        with pytest.raises(
            BadDeclaration, match=rf"annotations of .*{fn.__name__} cannot be resolved.*'Decimal'"
        ):
            task.call()
    with pytest.raises(BadDeclaration, match="'Decimal'"):
        declared.worker()


async def test_a_type_that_cannot_be_stored(store: Store) -> None:
    """An argument of a type without JSON: told at the first use, and by every worker before it begins."""
    jobs = store.jobs()

    @jobs.task
    async def work(stream: inspect.Signature) -> None: ...

    async with jobs:
        with pytest.raises(BadDeclaration, match="an argument of .*work has a type"):
            await work.submit(inspect.Signature())
        with pytest.raises(BadDeclaration, match="an argument of .*work has a type"):
            await work.submit_json({})
    with pytest.raises(BadDeclaration, match="an argument of .*work has a type"):
        jobs.worker()
    assert await store.is_empty()


def test_what_was_read_is_shared(declared: Jobs) -> None:
    """Annotations are read once for a task and everything `options` made of it, whichever comes first."""
    task = declared.task(later)
    urgent = task.options(priority=9)
    assert urgent.arguments is task.arguments is task.options(key="k").arguments
    assert urgent.result is task.result


def test_names_around_a_task_are_let_go() -> None:
    """The local names by which annotations are read keep nothing alive once they are read."""

    class Big:
        pass

    def make(jobs: Jobs) -> tuple[Any, int]:
        big = Big()

        @jobs.task(name=f"work {id(big)}")
        async def work(a: int) -> None: ...

        before = sys.getrefcount(big)
        work.prepare()
        return work, before - sys.getrefcount(big)

    _, freed = make(Jobs(ModelEngine()))
    assert freed == 1


def test_a_concurrency_key_that_is_no_parameter(declared: Jobs) -> None:
    """The error names it and the parameters."""

    @declared.task(concurrency_key="folder")
    async def work(ctx: Context, path: str) -> None: ...

    with pytest.raises(BadDeclaration, match=r"task 'work': concurrency_key 'folder' .*\(path: 'str'\)"):
        work.call("a")
    with pytest.raises(BadDeclaration, match="'folder'"):
        declared.worker()


# --- when the annotations are read ---------------------------------------------------------------------


@pytest.mark.loops("asyncio")
@pytest.mark.parametrize("how", ["open", "block"])
async def test_opening_reads_the_annotations(how: str) -> None:
    """A web process only submits: what reading them takes is taken while it starts, and not in its first request."""
    read: list[str] = []

    class Slow:
        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
            read.append("read")
            return handler(str)

    def work(text: Slow) -> None: ...

    jobs = Jobs(ModelEngine())
    work.__annotations__ = {"text": Slow, "return": None}
    task = jobs.task(work)
    assert read == []
    await (jobs.open() if how == "open" else jobs.__aenter__())
    assert read
    read.clear()
    await task.submit("text")  # type: ignore[arg-type]
    assert read == []
    await (jobs.close() if how == "open" else jobs.__aexit__(None, None, None))


@pytest.mark.loops("asyncio")
async def test_opening_does_not_fail_for_a_task_that_nobody_uses() -> None:
    """One of two tasks has an annotation that means nothing: the other one works, and who uses the first is told."""
    jobs = Jobs(ModelEngine())

    @jobs.task
    def good(n: int) -> None: ...

    @jobs.task
    def bad(n: NobodyHasDefinedThis) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    async with jobs:
        await good.submit(1)
        with pytest.raises(BadDeclaration, match="NobodyHasDefinedThis"):
            await bad.submit(1)
