"""Terms, and what they weigh."""

from lastcall.demo.terms import corpus_terms, count_terms, inverse_frequencies, key_terms, weigh


def test_identifiers_are_split_into_words() -> None:
    """Snake case, camel case and acronyms give the same terms as prose."""
    counts = count_terms("shutdown_plan ShutdownPlan HTTPServer gracefulShutdownPlan2")
    assert counts["shutdown"] == 3
    assert counts["plan"] == 3
    assert counts["server"] == counts["graceful"] == 1


def test_text_without_spaces_gives_pairs_of_characters() -> None:
    """Chinese has no spaces: pairs of characters stand in for words."""
    assert count_terms("任务取消。任务")["任务"] == 2


def test_stop_words_of_prose_and_code_are_left_out() -> None:
    """What every file is full of tells nothing."""
    assert not count_terms("the and with self return def None import")


def test_a_rare_term_outweighs_a_common_one() -> None:
    """Said as often in one file, the term that others do not use is the key."""
    files = [{"common": 3, "rare": 3}, {"common": 3}, {"common": 3}]
    rarity = inverse_frequencies(files)
    assert key_terms(weigh(files[0], rarity), count=1) == ("rare",)


def test_terms_of_all_files_are_shared_by_some_and_not_by_all() -> None:
    """A term of one file speaks for that file only; without shared terms those must do."""
    weights = [{"topic": 0.5, "own": 0.9}, {"topic": 0.5, "mine": 0.9}]
    assert corpus_terms(weights, count=5) == ("topic",)
    assert corpus_terms([{"own": 0.9}], count=5) == ("own",)
    assert corpus_terms([], count=5) == ()


def test_no_words_at_all_is_no_division_by_zero() -> None:
    """An empty file has no terms and no weight."""
    assert weigh({}, inverse_frequencies([{}])) == {}
