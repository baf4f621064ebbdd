"""Near-duplicates: the estimate against the exact answer, and the groups."""

import subprocess
import sys
from random import Random

from lastcall.demo.similar import SHINGLE_WORDS, near_duplicates, similarity, sketch


def text(seed: int, length: int = 600) -> list[str]:
    random = Random(seed)
    return [f"w{random.randrange(5000)}" for _ in range(length)]


def exact(one: list[str], other: list[str]) -> float:
    a, b = ({tuple(words[at : at + SHINGLE_WORDS]) for at in range(len(words) - 4)} for words in (one, other))
    return len(a & b) / len(a | b)


def test_the_estimate_is_close_to_the_exact_share() -> None:
    """Texts that share more and more of their words: the sketch is within 0.15 of the truth each time."""
    base, foreign = text(1, 2000), text(2, 2000)
    for shared in range(0, 2001, 200):
        other = base[:shared] + foreign[shared:]
        assert abs(similarity(sketch(base), sketch(other)) - exact(base, other)) < 0.15


def test_copies_with_small_changes_are_found_among_strangers() -> None:
    """Thirty unrelated files and three versions of one: exactly the three are grouped."""
    original = text(100)
    sketches = {f"other{n}": sketch(text(n)) for n in range(30)}
    sketches |= {"v1": sketch(original), "v2": sketch([*original, "new", "end"]), "v3": sketch(original[10:])}
    (group,) = near_duplicates(sketches)
    assert group.names == ("v1", "v2", "v3")
    assert 0.9 < group.similarity <= 1


def test_a_thousand_copies_are_one_group_in_bounded_time() -> None:
    """Every file equal: comparing all pairs would be half a million comparisons."""
    same = sketch(text(1))
    (group,) = near_duplicates({f"{n:04}": same for n in range(1000)})
    assert len(group.names) == 1000


def test_short_texts_are_not_compared() -> None:
    """Two licence headers are alike by accident."""
    assert sketch(["a", "b", "c"]) == ()
    assert near_duplicates({"a": (), "b": ()}) == ()


def test_every_process_computes_the_same_sketch() -> None:
    """Python's own hash differs from process to process; ours must not."""
    program = "from lastcall.demo.similar import sketch; print(sketch([str(n * n) for n in range(99)]))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {f"{sketch([str(n * n) for n in range(99)])}\n"}
