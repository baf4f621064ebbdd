"""The suite that every engine of `lastcall.jobs` must pass.

Who runs it: whoever writes an engine. Derive from `Harness`, say how an engine object is made, and run every case on a
harness of its own, over an empty store:

    from lastcall.testing.conformance import Harness, cases

    class MyHarness(Harness):
        def __init__(self, path):
            super().__init__()
            self.path = path

        def make(self):
            return MyEngine(self.path, clock=self.clock)

    @pytest.mark.parametrize("case", cases(), ids=str)
    def test_my_engine(case, tmp_path):
        asyncio.run(case.run(MyHarness(tmp_path / "jobs")))

The cases are plain `assert`s and need no test framework (but not `python -O`); under pytest,
`pytest.register_assert_rewrite("lastcall.testing.conformance")` in a `conftest.py` makes their failures tell more.
An engine with `transact` must also pass `transaction_cases()`, one with `submit_within` `connection_cases()`, for which
its harness has a `transaction`.

General layout:
    _harness.py     what a case is given: two engine objects on one store, and a clock
    _watch.py       every change of a status that is seen must stand in the table of `jobs/_state.py`
    _support.py     small helpers of the cases
    _life.py ...    the cases, a file for each group of verbs
"""

from ._cases import Case as Case
from ._cases import cases as cases
from ._cases import connection_cases as connection_cases
from ._cases import transaction_cases as transaction_cases
from ._harness import Harness as Harness
from ._harness import UserTransaction as UserTransaction

__all__ = ["Case", "Harness", "UserTransaction", "cases", "connection_cases", "transaction_cases"]
