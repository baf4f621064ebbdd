"""Whether Kubernetes looks away in time, and at the right page."""

from __future__ import annotations

from collections.abc import Iterator

from lastcall.cli.doctor._facts import Facts
from lastcall.cli.doctor._finding import ERROR, WARNING, Check, Finding


def _probes(facts: Facts) -> Iterator[Finding]:
    if facts.app.plan is None:
        return
    ready = ("/readyz", f"{facts.app.prefix}/readyz")
    for pod in facts.pods:
        if pod.server is not None and not pod.server.serves:
            continue
        if pod.liveness is not None and pod.liveness.path in ready:
            yield Finding(
                "liveness-asks-readiness",
                ERROR,
                pod.where,
                f"the liveness probe asks {pod.liveness.path}, which is 503 from the signal on: after "
                f"{pod.liveness.notices_after_seconds:g} s the drain is killed",
                "livenessProbe: path: /livez",
                pod.liveness.notices_after_seconds,
            )
        if pod.readiness is None:
            yield Finding(
                "no-readiness-probe",
                WARNING,
                pod.where,
                "without an HTTP readiness probe a new pod gets requests before its app has started",
                "readinessProbe: httpGet: path: /readyz",
            )
        elif pod.readiness.path not in ready:
            yield Finding(
                "readiness-asks-elsewhere",
                WARNING,
                pod.where,
                f"the readiness probe asks {pod.readiness.path}, which knows nothing of the shutdown",
                "readinessProbe: httpGet: path: /readyz",
            )


def _time_to_look_away(facts: Facts) -> Iterator[Finding]:
    for pod in facts.pods:
        plan, server = facts.app.plan, pod.server
        if (
            plan is None
            or pod.pre_stop_seconds
            or pod.pre_stop_seconds is None
            or pod.kind in ("Job", "CronJob")
        ):
            continue
        if server is not None and (not server.serves or (plan.notice and server.can_delay)):
            continue
        if server is None and plan.notice:
            continue
        yield Finding(
            "no-time-to-look-away",
            WARNING,
            pod.where,
            "SIGTERM comes at the moment in which balancers are told, not when they have heard: for a second or two "
            "new connections go to a closed listener",
            "lifecycle: preStop: sleep: seconds: 3, or ShutdownPlan(notice=3) under uvicorn",
        )


CHECKS: tuple[Check, ...] = (
    _probes,
    _time_to_look_away,
)
