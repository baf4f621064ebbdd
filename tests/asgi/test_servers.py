"""What is known of the servers: found by what they hand us, warned of in sentences that name the setting."""

import multiprocessing
import types
from typing import Any

import pytest

from lastcall import ShutdownPlan
from lastcall.asgi import KILL_AFTER_VARIABLE
from lastcall.asgi._hypercorn import EventPoll, stop_event
from lastcall.asgi._servers import Server, call_limit, check_limits, detect_server
from tests.asgi.driver import until


def method_of(module: str, **attributes: Any) -> Any:
    """A bound method of an object of a class of that module, as a server's `receive` is."""
    owner_class = type("Owner", (), {"__module__": module, "receive": lambda self: None})
    owner = owner_class()
    vars(owner).update(attributes)
    return owner.receive


def settings(**values: Any) -> Any:
    return types.SimpleNamespace(**values)


def test_real_uvicorn_is_known_with_its_limit() -> None:
    """uvicorn's own lifespan object and configuration, not a picture of them."""
    import uvicorn
    from uvicorn.lifespan.on import LifespanOn

    config = uvicorn.Config("none:app", timeout_graceful_shutdown=7)
    receive = LifespanOn.__new__(LifespanOn)
    receive.config = config
    server = detect_server(receive.receive, [])
    assert (server.name, server.can_delay, server.call_limit_seconds) == ("uvicorn", True, 7)
    handler = uvicorn.Server(config).handle_exit
    assert detect_server(None, [handler]).name == "uvicorn", "also by its signal handler alone"


def test_real_hypercorn_is_known_with_its_limit() -> None:
    """hypercorn's configuration: 3 s unless it is told otherwise, and calls must be over before."""
    from hypercorn.config import Config

    server = detect_server(method_of("hypercorn.asyncio.lifespan", config=Config()), [])
    assert server.name == "hypercorn" and server.call_limit_seconds == Config().graceful_timeout
    limit = call_limit(server)
    assert limit is not None and 0 < limit < Config().graceful_timeout


def test_gunicorn_is_known_with_both_workers() -> None:
    """Its own worker through the logger's settings, uvicorn's worker through the notify callback."""
    own = detect_server(
        method_of("gunicorn.asgi.lifespan", logger=settings(cfg=settings(graceful_timeout=30))), []
    )
    assert (own.name, own.kill_after_seconds, own.can_delay) == ("gunicorn", 30, False)
    worker = settings(cfg=settings(graceful_timeout=9))
    notify = types.MethodType(lambda self: None, worker)
    config = settings(timeout_graceful_shutdown=None, callback_notify=notify)
    uvicorn_worker = detect_server(method_of("uvicorn.lifespan.on", config=config), [])
    assert (uvicorn_worker.kill_after_seconds, uvicorn_worker.can_delay) == (9, True)


def test_receive_behind_a_framework_is_looked_through() -> None:
    """Frameworks wrap `receive` in closures; the server is still found."""
    inner = method_of("granian.asgi")

    def wrap(receive: Any) -> Any:
        async def wrapped() -> Any:
            return await receive()

        return wrapped

    assert detect_server(wrap(wrap(inner)), []).name == "granian"


def test_unknown_servers_are_not_guessed() -> None:
    """Another server, none, or one whose insides changed: no limits, no warnings about them."""
    for receive in (
        None,
        object(),
        method_of("daphne.server"),
        lambda: None,
        method_of("hypercorn.asyncio.lifespan"),
    ):
        server = detect_server(receive, [None, 0])
        assert server.call_limit_seconds is None and server.kill_after_seconds is None
        assert check_limits(server, ShutdownPlan(), {}) == []


@pytest.mark.parametrize(
    ("arguments", "limit"),
    [
        (["granian", "--workers-kill-timeout", "30", "app:app"], 30),
        (["granian", "--workers-kill-timeout=12"], 12),
        (["granian", "--workers-kill-timeout"], None),
        (["granian"], None),
    ],
)
def test_granian_limit_from_its_command_line(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], limit: float | None
) -> None:
    """granian's kill timeout is known to its master only; the command line tells."""
    monkeypatch.setattr("sys.argv", arguments)
    assert detect_server(method_of("granian.asgi"), []).kill_after_seconds == limit


def test_warnings_name_the_setting_and_a_number_that_fits() -> None:
    """Each limit the plan does not fit into is one sentence with the setting and what to set."""
    plan = ShutdownPlan(notice=2, drain=20, cancel=5, close=5)
    hypercorn = Server("hypercorn", False, 3.0, "hypercorn's --graceful-timeout")
    notice, calls = check_limits(hypercorn, plan, {})
    assert "notice of 2 s" in notice and "preStop" in notice
    assert "--graceful-timeout" in calls and "20" in calls and "25" in calls
    gunicorn = Server(
        "gunicorn", True, kill_after_seconds=32, kill_after_setting="gunicorn's --graceful-timeout"
    )
    [killed] = check_limits(gunicorn, plan, {})
    assert "--graceful-timeout" in killed and "37" in killed
    [kubernetes] = check_limits(Server("uvicorn", True), plan, {KILL_AFTER_VARIABLE: "30"})
    assert "terminationGracePeriodSeconds" in kubernetes
    [wrong] = check_limits(Server("uvicorn", True), plan, {KILL_AFTER_VARIABLE: "soon"})
    assert "'soon'" in wrong
    assert check_limits(Server("uvicorn", True), plan, {KILL_AFTER_VARIABLE: "60"}) == []


def test_no_event_outside_of_a_hypercorn_worker() -> None:
    """A process that hypercorn did not start has no event, and needs none."""
    assert stop_event() is None


def test_event_of_a_process_started_as_hypercorn_does() -> None:
    """The private attribute we rely on is there: a child started with the same arguments finds its event."""
    context = multiprocessing.get_context("spawn")
    event, found = context.Event(), context.Event()
    child = context.Process(target=_report_event, kwargs={"shutdown_event": event, "found": found})
    child.start()
    event.set()
    child.join(20)
    assert child.exitcode == 0 and found.is_set()


def _report_event(shutdown_event: Any, found: Any) -> None:
    event = stop_event()
    if event is not None and event.is_set() and event is shutdown_event:
        found.set()


async def test_poll_calls_once_and_can_be_stopped() -> None:
    """The poll looks until the event is set, calls once, and ends; a stopped one never calls."""
    import asyncio
    import threading

    calls: list[str] = []
    event = threading.Event()
    loop = asyncio.get_running_loop()
    poll = EventPoll(loop, event, lambda: calls.append("set"))
    stopped = EventPoll(loop, event, lambda: calls.append("wrong"))
    poll.start()
    stopped.start()
    stopped.stop()
    event.set()
    await until(lambda: calls)
    poll.stop()
    assert calls == ["set"]
