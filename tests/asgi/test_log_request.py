"""What a reader of a log asks for: every way to say it, and every way to say it wrongly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lastcall.asgi._log_request import LogFormat, LogRequest, read_request, takes_time
from lastcall.asgi._pages import BadQuery
from lastcall.exceptions import BadCursor


def ask(query: str = "", **headers: str) -> LogRequest:
    return read_request(scope_of(query, **headers))


def scope_of(query: str = "", **headers: str) -> dict[str, object]:
    given = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return {"type": "http", "query_string": query.encode("latin-1"), "headers": given}


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, LogFormat.JSON),
        ("", LogFormat.JSON),
        ("*/*", LogFormat.JSON),
        ("text/html, */*;q=0.8", LogFormat.JSON),
        ("text/event-stream", LogFormat.SSE),
        ("Text/Event-Stream ; charset=utf-8", LogFormat.SSE),
        ("application/json, text/event-stream", LogFormat.JSON),
        ("application/json;q=0.5, text/event-stream", LogFormat.SSE),
        ("text/event-stream;q=0, */*", LogFormat.JSON),
        ("text/event-stream;q=x", LogFormat.JSON),
        ("application/x-ndjson", LogFormat.NDJSON),
        ("application/jsonl, */*;q=0.1", LogFormat.NDJSON),
        (";;;,,,q=1", LogFormat.JSON),
    ],
)
def test_the_format_is_what_accept_likes_best(accept: str | None, chosen: LogFormat) -> None:
    """Browsers ask for event streams by this header; most others send what their library sends."""
    assert ask(**({} if accept is None else {"accept": accept})).format is chosen


def test_a_format_in_the_url_wins() -> None:
    """A link cannot set headers."""
    assert ask("format=ndjson", accept="text/event-stream").format is LogFormat.NDJSON
    with pytest.raises(BadQuery, match="sse, ndjson, json"):
        ask("format=xml")


def test_the_cursor_of_a_browser_that_comes_back_wins() -> None:
    """It repeats the URL of its first request, `?after=` and all; what it has seen since is in the header."""
    assert ask("after=3", last_event_id="17").after == 17
    assert ask("after=3", last_event_id="").after == 3
    assert ask("starting_after=4").after == 4
    assert ask("after=3&starting_after=4").after == 3
    assert ask().after == 0 and not ask().comes_back
    assert ask("after=0").comes_back and ask(last_event_id="0").comes_back


@pytest.mark.parametrize("cursor", ["-1", "1.5", "x", " ", "1e3", "0x10", "²", "9" * 16, "1_000", "+1"])
def test_a_cursor_that_is_none_is_refused(cursor: str) -> None:
    """However it is given; the error names where it was found."""
    with pytest.raises(BadCursor, match="after"):
        ask(f"after={cursor.replace('+', '%2B')}")
    if cursor.strip():
        with pytest.raises(BadCursor, match="Last-Event-ID"):
            ask(last_event_id=cursor)


def test_an_empty_cursor_in_the_url_is_refused() -> None:
    """`?after=` of a script whose variable was empty would otherwise read everything again."""
    with pytest.raises(BadCursor):
        ask("after=")


@pytest.mark.parametrize("wait", ["-1", "nan", "x", "", "-inf"])
def test_a_wait_that_is_none_is_refused(wait: str) -> None:
    """Seconds, 0 or more."""
    with pytest.raises(BadQuery, match="wait"):
        ask(f"wait={wait}")


def test_a_wait_is_bounded() -> None:
    """Nobody waits for ever."""
    assert ask("wait=1e9").wait_seconds == ask("wait=inf").wait_seconds == 60.0
    assert ask("wait=0.5").wait_seconds == 0.5
    assert ask().wait_seconds == 0.0


def test_what_takes_time_is_known_before_it_is_done() -> None:
    """Streams and long-polls are held in the drain; a page, and a request that will be refused, are not."""
    assert takes_time(scope_of(accept="text/event-stream"))
    assert takes_time(scope_of("format=ndjson"))
    assert takes_time(scope_of("wait=3"))
    assert not takes_time(scope_of("after=3"))
    assert not takes_time(scope_of("after=x", accept="text/event-stream"))


@given(query=st.binary(max_size=40), accept=st.binary(max_size=40), last=st.binary(max_size=20))
def test_garbage_never_does_more_than_to_be_refused(query: bytes, accept: bytes, last: bytes) -> None:
    """Bytes of any kind in all three places."""
    scope = {"query_string": query, "headers": [(b"accept", accept), (b"last-event-id", last)]}
    try:
        request = read_request(scope)
    except (BadCursor, BadQuery):
        return
    assert 0 <= request.after < 10**15 and 1 <= request.limit <= 1000 and 0 <= request.wait_seconds <= 60
