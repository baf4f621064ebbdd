"""What is done to a fleet comes from the seed alone, and can be carried out again."""

import json

from bench.fleet import plan
from bench.fleet.plan import KINDS, Options


def test_one_seed_is_one_plan() -> None:
    """Asked again it is the same, and another seed is another one."""
    assert plan.actions(Options(seed=7)) == plan.actions(Options(seed=7))
    assert plan.actions(Options(seed=7)) != plan.actions(Options(seed=8))


def test_a_short_play_meets_every_kind_once() -> None:
    """There is time for as many attacks as there are kinds: none of them comes twice before all have come."""
    actions = plan.actions(Options(seed=7, seconds=60.0))
    usual = {name for name, kind in KINDS.items() if not kind.rare}
    assert {action.what for action in actions[: len(usual)]} == usual


def test_sqlite_has_no_server_to_hurt() -> None:
    """On a file only the processes are attacked."""
    actions = plan.actions(Options(plan.SQLITE, seed=7))
    assert actions and not any(KINDS[action.what].of_database for action in actions)


def test_a_result_is_played_again() -> None:
    """The options and the plan come back from the file of a result as they were."""
    options = Options(seed=7, seconds=60.0)
    actions = plan.actions(options)
    assert plan.from_json(json.loads(json.dumps(plan.to_json(options, actions)))) == (options, actions)
