"""The analysis of one file, and the report over all of them."""

import json
from pathlib import Path
from random import Random

from lastcall.demo.analysis import analyse_file
from lastcall.demo.corpus import Skipped, Source, find_files, quoted
from lastcall.demo.report import Report, build_report, human_size
from lastcall.demo.summary import sentences, summarise

PROSE = (
    "# Harbour\n\nThe harbour master keeps a ledger of every vessel that enters the harbour. "
    "It was raining on that day and nobody felt like working much. "
    "Vessels without an entry in the ledger are turned away by the harbour master.\n\n"
    "- a list of vessels\n\n    code = [1]\n"
)


def report_on(path: Path) -> Report:
    corpus = find_files(path)
    results = [*corpus.skipped, *map(analyse_file, corpus.sources)]
    return build_report("root", results)


def source(path: Path) -> Source:
    return Source(quoted(path), path.name)


def test_a_file_is_counted_read_and_summarised(tmp_path: Path) -> None:
    """Lines, words, headings and the sentence that says most are those of the text."""
    (tmp_path / "a.md").write_text(PROSE)
    (file,) = report_on(tmp_path).files
    assert file.lines == PROSE.count("\n")
    assert file.words == len(PROSE.split())
    assert [heading.text for heading in file.headings] == ["Harbour"]
    assert file.summary[0].startswith("The harbour master keeps")
    assert not any("raining" in sentence for sentence in file.summary), file.summary


def test_files_that_vanish_or_are_folders_are_reported(tmp_path: Path) -> None:
    """Deleted between the listing and the reading, or replaced by a folder: reported, not raised."""
    gone = analyse_file(source(tmp_path / "gone"))
    folder = analyse_file(source(tmp_path))
    assert isinstance(gone, Skipped) and gone.why.startswith("cannot be read")
    assert isinstance(folder, Skipped) and folder.why.startswith("cannot be read")


def test_random_bytes_never_raise(tmp_path: Path) -> None:
    """Whatever the bytes and the ending: an analysis or a reason, and the report can be written as JSON."""
    random = Random(7)
    endings = [".py", ".md", ".rst", ".txt", ".json", ""]
    alphabets = [
        bytes(range(256)),
        bytes(range(32, 127)) + b"\n\n\n",
        b"#=-`\n ~.'\"",
        "a\ud7ff任 \n".encode(),
    ]
    for number in range(300):
        data = bytes(random.choices(random.choice(alphabets), k=random.randrange(400)))
        (tmp_path / f"{number}{random.choice(endings)}").write_bytes(data)
    report = report_on(tmp_path)
    assert len(report.files) + len(report.skipped) == 300
    json.dumps(report.to_json(), ensure_ascii=False).encode("utf-8")
    assert report.summary.encode("utf-8")


def test_escapes_in_a_docstring_do_not_reach_the_reader(tmp_path: Path) -> None:
    """A docstring that spells a terminal escape and half a character is shown without either."""
    (tmp_path / "a.py").write_text(
        '"""The module \\x1b[31m paints \\ud800 the whole terminal red, and every window beside it."""\n'
    )
    (file,) = report_on(tmp_path).files
    assert len(file.summary) == 1
    assert file.summary[0].isprintable()


def test_the_order_of_the_results_does_not_change_the_report(tmp_path: Path) -> None:
    """Tasks end in any order; the report is the same."""
    for number in range(12):
        (tmp_path / f"{number}.md").write_text(
            PROSE + f"\nNumber {number} is another harbour with other vessels.\n" * number
        )
    corpus = find_files(tmp_path)
    results = [analyse_file(source) for source in corpus.sources]
    shuffled = list(results)
    Random(3).shuffle(shuffled)
    assert build_report("r", results) == build_report("r", shuffled)


def test_identical_and_nearly_identical_files_are_told_apart(tmp_path: Path) -> None:
    """Two copies are one group, a copy with a change joins its original in the other."""
    words = " ".join(f"word{n}" for n in range(300))
    (tmp_path / "a.txt").write_text(words)
    (tmp_path / "b.txt").write_text(words)
    (tmp_path / "c.txt").write_text(words + " changed")
    (tmp_path / "empty1").write_text("")
    (tmp_path / "empty2").write_text("")
    report = report_on(tmp_path)
    assert report.identical == (("a.txt", "b.txt"),)
    assert [group.names for group in report.near_duplicates] == [("a.txt", "c.txt")]


def test_a_folder_without_text_has_a_report_too(tmp_path: Path) -> None:
    """Nothing to analyse is an answer, not a division by zero."""
    report = report_on(tmp_path)
    assert report.files_found == 0
    assert report.summary == "There is no text to speak of in root."


def test_a_summary_says_each_thing_once() -> None:
    """Of two sentences that say the same, one is enough."""
    candidates = sentences(
        [
            "The drain waits for every vessel inside the harbour. "
            "Every vessel inside the harbour the drain waits for. "
            "A lantern burns above the northern gate at night."
        ]
    )
    weights = {"drain": 3, "vessel": 3, "harbour": 3, "lantern": 2, "gate": 2}
    chosen = summarise(candidates, weights, count=2)
    assert chosen[0].startswith("The drain") and chosen[1].startswith("A lantern")


def test_sizes_are_written_for_people() -> None:
    """Bytes stay whole; the larger units have a digit more while they are small."""
    assert [human_size(n) for n in (0, 1023, 1536, 20 << 20)] == ["0 B", "1023 B", "1.5 KB", "20 MB"]
