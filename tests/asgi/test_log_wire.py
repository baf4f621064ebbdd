"""How logs are written: one form of an entry, and nothing in it that could break the format it stands in."""

import json

from hypothesis import given
from hypothesis import strategies as st

from lastcall.asgi._log_wire import (
    Frame,
    LogEnd,
    LogEvents,
    LogLines,
    entry_json,
    page_json,
    retry_milliseconds,
)
from lastcall.streams import Entry, LogPage
from tests.asgi.driver import parse_events

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PAGE = LogPage([], 1, 7, False)


def test_an_entry_has_one_form() -> None:
    """Its data is passed on as it was stored."""
    entry = Entry(7, "stream.text", '{"text":"Grüße"}', 2, "answer", 1764000000.5)
    assert json.loads(entry_json(entry)) == {
        "seq": 7,
        "type": "stream.text",
        "attempt": 2,
        "step": "answer",
        "at": 1764000000.5,
        "data": {"text": "Grüße"},
    }


@given(type=st.text(max_size=20), step=st.none() | st.text(max_size=10), data=ANY_JSON, indent=st.booleans())
def test_whatever_is_written_arrives(type: str, step: str | None, data: object, indent: bool) -> None:
    """Line ends of every kind in names, texts and between tokens: one event and one line stay one."""
    text = json.dumps(data, indent=2 if indent else None, ensure_ascii=False).replace("\n", "\r\n")
    frame = Frame(Entry(3, type, text, 1, step, 1.5))
    lines = LogLines().entry(frame).decode().split("\n")
    assert len(lines) == 2 and lines[1] == ""
    events = parse_events(LogEvents().entry(frame).decode())
    assert len(events) == 1 and events[0]["id"] == "3"
    for told in (lines[0], events[0]["data"]):
        assert json.loads(told) == {
            "seq": 3,
            "type": type,
            "attempt": 1,
            "step": step,
            "at": 1.5,
            "data": data,
        }


def test_half_a_surrogate_pair_does_not_end_the_stream() -> None:
    """A store that holds what is no text: the others' entries still arrive."""
    frame = Frame(Entry(1, "\ud800", '"\ud800"', 1, None, 0.0))
    assert json.loads(LogLines().entry(frame))["seq"] == 1
    assert b"id: 1" in LogEvents().entry(frame)


def test_the_snapshot_sets_the_cursor() -> None:
    """A browser that is cut off right after it comes back with the cursor it was given."""
    [event] = parse_events(LogEvents().snapshot(5, PAGE, {"status": "running"}, 0.5).decode())
    assert event["id"] == "5" and event["event"] == "snapshot" and event["retry"].isdigit()
    assert json.loads(event["data"]) == {
        "first": 1,
        "last": 7,
        "closed": False,
        "snapshot": {"status": "running"},
    }
    line = json.loads(LogLines().snapshot(5, PAGE, {"status": "running"}, 0.5))
    assert line["type"] == "snapshot" and "seq" not in line


def test_what_stands_around_entries_has_no_seq_and_no_id() -> None:
    """So that a user's own entry of the type `end` is told from the end, and the cursor stays."""
    sse, lines = LogEvents(), LogLines()
    for told in (sse.end(LogEnd.CLOSED, PAGE, {}), sse.gone(3, 9), sse.away(0.3)):
        for event in parse_events(told.decode()):
            assert "id" not in event and "seq" not in json.loads(event.get("data", "{}"))
    for told in (lines.end(LogEnd.SHUTDOWN, PAGE, {}), lines.gone(3, 9), lines.away(0.3)):
        assert told.count(b"\n") == 1 and "seq" not in json.loads(told)


def test_sent_away_is_not_an_end() -> None:
    """A browser gets no event at all, only the time to come back."""
    told = LogEvents().away(0.0).decode()
    assert told.startswith("retry: 500\n") and "event:" not in told and "data:" not in told


@given(luck=st.floats(0, 1))
def test_readers_do_not_come_back_all_at_once(luck: float) -> None:
    """Between half a second and three."""
    assert 500 <= retry_milliseconds(luck) <= 3000


def test_a_page_tells_where_to_read_on() -> None:
    """Behind its last entry, or where one was."""
    entries = [Entry(n, "t", str(n), 1, None, 0.0) for n in (4, 5)]
    page = json.loads(page_json(3, LogPage(entries, 1, 9, False), {"status": "x"}))
    assert [event["data"] for event in page["events"]] == [4, 5]
    assert (page["next"], page["shown"], page["first"], page["last"], page["closed"]) == (5, 2, 1, 9, False)
    assert json.loads(page_json(9, LogPage([], 1, 9, True), {}))["next"] == 9
