"""The text of a log on a terminal and in a pipe: what a person sees after steps have run again."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lastcall.cli._typist import Typist
from lastcall.streams import Entry, TextView


class Terminal:
    """As much of a terminal as is written to: characters, line ends, a wrapped line, up, erase below."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.lines: list[list[str]] = [[]]
        self.row = self.column = 0

    def write(self, text: str) -> None:
        rest = text
        while rest:
            if rest.startswith("\x1b["):
                end = next(n for n, char in enumerate(rest[2:], 2) if char.isalpha())
                self._control(rest[2:end], rest[end])
                rest = rest[end + 1 :]
                continue
            self._put(rest[0])
            rest = rest[1:]

    def _control(self, number: str, verb: str) -> None:
        if verb == "A":
            self.row = max(self.row - int(number), len(self.lines) - self.rows, 0)
        else:
            assert (verb, number) == ("J", "")
            del self.lines[self.row + 1 :]
            del self.lines[self.row][self.column :]

    def _put(self, char: str) -> None:
        if char == "\r":
            self.column = 0
            return
        if char == "\n" or self.column >= self.columns:
            self.row, self.column = self.row + 1, 0
            if self.row == len(self.lines):
                self.lines.append([])
        if char != "\n":
            line = self.lines[self.row]
            line[self.column :] = [char]
            self.column += 1

    @property
    def text(self) -> str:
        return "\n".join("".join(line) for line in self.lines)


def entries(*told: tuple[str, str | None, Any]) -> list[Entry]:
    return [
        Entry(seq, type, json.dumps(data), 1, step, 0.0) for seq, (type, step, data) in enumerate(told, 1)
    ]


def text(words: str, step: str | None = None, stream: str = "answer") -> tuple[str, str | None, Any]:
    return "stream.text", step, {"stream": stream, "text": words}


def reset(step: str) -> tuple[str, str | None, Any]:
    return "step.reset", step, {"step": step}


def test_a_step_that_runs_again_is_taken_off_the_screen() -> None:
    """What it had written is gone from the terminal, also over several rows; what it writes now stands."""
    terminal, told = Terminal(10, 24), list[str]()
    typist = Typist(terminal.write, told.append, size=(10, 24))
    typist.type(entries(text("Once upon a time\n"), text("there was a drago", "second"), reset("second")))
    assert terminal.text == "Once upon \na time\n"
    typist.type(entries(text("there was a cat", "second")))
    typist.finish()
    assert terminal.text == "Once upon \na time\nthere was \na cat\n" and told == []


def test_what_has_left_the_screen_is_said_to_be_void() -> None:
    """A text of more rows than the terminal has cannot be drawn anew: a line says how much of it is void."""
    terminal, told = Terminal(10, 3), list[str]()
    typist = Typist(terminal.write, told.append, size=(10, 3))
    typist.type(entries(text("kept "), text("1\n2\n3\n4\n", "s"), reset("s"), text("5", "s")))
    typist.finish()
    assert terminal.text == "kept 1\n2\n3\n4\n5\n"
    assert told == ["answer: the last 8 characters are taken back; what follows replaces them"]


def test_a_pipe_gets_the_text_alone() -> None:
    """Other events go to the other output and break no line; nothing of the text is changed."""
    out, told = list[str](), list[str]()
    typist = Typist(out.append, told.append)
    progress = ("progress", None, {"done": 1, "of": 2, "message": "half"})
    typist.type(
        entries(
            text("a\x1b[31m\t"), progress, text("b\n"), ("log", None, {"level": "info", "message": "x\ny"})
        )
    )
    typist.finish()
    assert "".join(out) == "a\x1b[31m\tb\n"
    assert told == ["progress: 1 of 2 half", "info: x y"]


def test_a_terminal_obeys_nobody_but_us() -> None:
    """Escape sequences in a text are shown, not carried out."""
    terminal = Terminal(40, 24)
    typist = Typist(terminal.write, print, size=(40, 24))
    typist.type(entries(text("red \x1b[31m, bell \x07")))
    assert terminal.text == "red \N{REPLACEMENT CHARACTER}[31m, bell \N{REPLACEMENT CHARACTER}"


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from("abc"), st.text("xy \n", min_size=1, max_size=9)),
            st.sampled_from("abc"),
        ),
        max_size=20,
    ),
    st.integers(1, 12),
)
def test_a_screen_that_is_large_enough_shows_what_a_reader_holds(
    happened: list[tuple[str, str] | str], columns: int
) -> None:
    """Whatever steps write and take back, of one stream and with nothing in between, the screen is the text."""
    terminal = Terminal(columns, 10_000)
    typist, view = Typist(terminal.write, print, size=(columns, 10_000)), TextView()
    for one in happened:
        entry = entries(reset(one) if isinstance(one, str) else text(one[1], one[0]))
        typist.type(entry)
        view.apply(entry)
    shown = Terminal(columns, 10_000)
    shown.write(view.text("answer"))
    assert terminal.text == shown.text
