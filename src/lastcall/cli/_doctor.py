"""``lastcall doctor``: gathers, examines, prints, and answers the exit code.

0: nothing that will go wrong was found. 1: something was. 2: what could not be looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lastcall.cli._say import write
from lastcall.cli.doctor._checks import examine
from lastcall.cli.doctor._finding import Severity
from lastcall.cli.doctor._gather import gather
from lastcall.cli.doctor._report import dump, to_text

WELL, FOUND = 0, 1


def run_doctor(
    target: str,
    *,
    command: str | None,
    workers: int | None,
    manifests: Sequence[Path],
    jobs_target: str | None,
    kill_after: float | None,
    strict: bool,
    as_json: bool,
) -> int:
    """Raises `Unusable`."""
    facts = gather(
        target,
        command=command,
        workers=workers,
        manifests=manifests,
        jobs_target=jobs_target,
        kill_after=kill_after,
    )
    findings = examine(facts)
    write(dump(facts, findings) if as_json else to_text(facts, findings))
    bad = {Severity.ERROR, Severity.WARNING} if strict else {Severity.ERROR}
    return FOUND if any(finding.severity in bad for finding in findings) else WELL
