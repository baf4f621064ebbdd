"""The checks, as one table: pure functions from facts to findings, each finding with its figures and what helps."""

from __future__ import annotations

from lastcall.cli.doctor import _limits, _probes, _servers, _store
from lastcall.cli.doctor._facts import Facts
from lastcall.cli.doctor._finding import Check, Finding, Severity

CHECKS: tuple[Check, ...] = (*_limits.CHECKS, *_servers.CHECKS, *_probes.CHECKS, *_store.CHECKS)


def examine(facts: Facts) -> list[Finding]:
    """Everything that was found, the worst first."""
    found = [finding for check in CHECKS for finding in check(facts)]
    return sorted(found, key=lambda finding: list(Severity).index(finding.severity))
