"""The words of the Durable Streams protocol, each by itself: what they mean, and what is none."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lastcall.asgi._body import BadBody
from lastcall.asgi._durable_body import join, split
from lastcall.asgi._durable_reads import _event
from lastcall.asgi._durable_words import (
    Malformed,
    format_offset,
    format_time,
    next_cursor,
    parse_end,
    parse_fork,
    parse_number,
    parse_offset,
    parse_producer,
    query_of,
)
from lastcall.streams._port import START, Fork, Position, Producer
from tests.asgi.driver import parse_events

numbers = st.integers(0, 10**16 - 1)


@given(numbers, numbers, numbers, numbers)
def test_offsets_come_back_and_sort_as_positions_do(a: int, b: int, c: int, d: int) -> None:
    """Clients compare offsets as texts."""
    one, two = Position(a, b), Position(c, d)
    assert parse_offset(format_offset(one)) == one
    assert (format_offset(one) < format_offset(two)) == (one < two)


@given(st.text())
def test_what_is_no_offset_is_told(text: str) -> None:
    """Anything but what we gave, -1 and now is refused."""
    if text in ("-1", "now"):
        return
    with pytest.raises(Malformed, match="offset"):
        parse_offset(text)


def test_the_words_for_the_ends() -> None:
    """No offset and -1 are the beginning; now is wherever the end is."""
    assert parse_offset(None) == parse_offset("-1") == START
    assert parse_offset("now") is None


@given(st.integers(0, 10**12), st.floats(0, 1, exclude_max=True), st.floats(1.8e9, 2e9))
def test_a_cursor_goes_on_always(given_cursor: int, jitter: float, now: float) -> None:
    """The cursor of an answer is behind the one of the request; without a request's it is the time's."""
    answered = int(next_cursor(str(given_cursor), now, jitter))
    assert answered > given_cursor or answered == int(next_cursor(None, now, jitter))
    assert int(next_cursor(str(answered), now, jitter)) > answered
    assert next_cursor("garbage", now, jitter) == next_cursor(None, now, jitter)


@pytest.mark.parametrize("text", ["", "-1", "+1", "01", "1.0", "1e3", " 1", "١", "9" * 16, "nan"])
def test_numbers_that_are_none(text: str) -> None:
    """Only plain digits are a number, and only as far as JavaScript counts."""
    with pytest.raises(Malformed, match="Stream-TTL must be a whole number"):
        parse_number("Stream-TTL", text)


@pytest.mark.parametrize(
    "text", ["tomorrow", "2030-01-01", "20300101T000000Z", "2030-13-01T00:00:00Z", "", "1700000000"]
)
def test_times_that_are_none(text: str) -> None:
    """Only an RFC 3339 time with its zone is a time."""
    with pytest.raises(Malformed, match="Stream-Expires-At"):
        parse_end(None, text)


def test_ends() -> None:
    """A time to live or a time, with any zone, but not both."""
    assert parse_end("60", None) == (60, None)
    assert parse_end(None, "2030-01-01T01:00:00.5+01:00") == (None, 1893456000.5)
    assert format_time(1893456000.5) == "2030-01-01T00:00:00.500Z"
    assert parse_end(None, None) == (None, None)
    with pytest.raises(Malformed, match="either"):
        parse_end("60", "2030-01-01T00:00:00Z")


def test_producers_are_whole() -> None:
    """All three headers or none, and an id that is one."""
    assert parse_producer(None, None, None) is None
    assert parse_producer("p", "0", "7") == Producer("p", 0, 7)
    for headers in (
        ("p", "0", None),
        (None, "0", "0"),
        ("p", None, "0"),
        ("", "0", "0"),
        ("p", "x", "0"),
        ("p", "0", "-1"),
    ):
        with pytest.raises(Malformed):
            parse_producer(*headers)


def test_forks() -> None:
    """The source is told by its path, whole or as it stands behind the path of all streams."""
    for source in ("/lastcall/streams/a/b%20c", "/a/b%20c", "a/b c"):
        assert parse_fork(source, None, None, "/lastcall/streams/") == Fork("a/b c", None, 0)
    at = format_offset(Position(1, 5))
    assert parse_fork("a", at, "3", "/") == Fork("a", Position(1, 5), 3)
    for headers in (
        (None, at, None),
        (None, None, "0"),
        ("a", None, "1"),
        ("a", "x", None),
        ("a", at, "05"),
        ("/", None, None),
    ):
        with pytest.raises(Malformed):
            parse_fork(*headers, "/")


def test_a_query_that_says_it_twice() -> None:
    """Two offsets are none; what others put into the query is theirs."""
    assert query_of(b"utm=1&utm=2&offset=-1")["offset"] == ["-1"]
    with pytest.raises(Malformed, match="offset is given more than once"):
        query_of(b"offset=-1&offset=now")


# --- bodies ---


def test_messages_are_kept_as_they_were_written() -> None:
    """Each element of the array at the top is one entry, digit for digit, and in one line."""
    body = b' [ 1.0000000000000000001 , {"a": [1,\n2], "b" : "x\\n]"}\r\n, "\xc3\xa9\\ud834\\udd1e",[[]],'
    body += b"12345678901234567890 ] "
    messages = split("application/json; charset=utf-8", body)
    assert messages == [
        b"1.0000000000000000001",
        b'{"a": [1, 2], "b" : "x\\n]"}',
        b'"\xc3\xa9\\ud834\\udd1e"',
        b"[[]]",
        b"12345678901234567890",
    ]
    assert split("application/json", b" 5\n") == [b"5"]
    assert split("application/json", b"[]") == split("application/json", b"") == []
    assert join("application/json", messages[:1]) == b"[1.0000000000000000001]"
    assert split("text/plain", b"[1]") == [b"[1]"]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda children: st.lists(children) | st.dictionaries(st.text(st.characters(codec="utf-8")), children),
    max_leaves=20,
)


@given(st.lists(json_values), st.sampled_from([None, 1, "\t"]))
def test_any_array_is_split_into_its_elements(values: list[object], indent: int | str | None) -> None:
    """However it is written, the entries are the elements, and together they are the array again."""
    body = json.dumps(values, indent=indent, ensure_ascii=False).encode()
    messages = split("application/json", body)
    assert [json.loads(message) for message in messages] == values
    assert json.loads(join("application/json", messages)) == values
    assert not any(b"\n" in message or b"\r" in message for message in messages)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[1,]",
        b"[1 2]",
        b"NaN",
        b"[Infinity]",
        b"\xff",
        b'"\\ud800"',
        b"[" * 200 + b"]" * 200,
        b"1 2",
        b"\xef\xbb\xbf1",
    ],
)
def test_what_is_no_json_is_no_entry(body: bytes) -> None:
    """Broken JSON, and JSON that nobody could write down again, is refused as a whole."""
    with pytest.raises(BadBody):
        split("application/json", body)


@given(st.text(st.characters(codec="utf-8")))
@example("  two spaces\n and one\r\n\n")
def test_no_text_breaks_out_of_its_event(text: str) -> None:
    """Line breaks of any kind in the data stay in the data: they cannot end the event or begin a field."""
    [event, control] = parse_events((_event(b"data", text.encode()) + _event(b"control", b"{}")).decode())
    assert event["event"] == "data" and control == {"event": "control", "data": "{}"}
    assert event["data"] == text.replace("\r\n", "\n").replace("\r", "\n")
