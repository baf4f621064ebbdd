"""Whether the app is protected at all, and who kills it when. The order that must hold everywhere is

the plan's total  <  the server's limit  <=  the time until SIGKILL
"""

from __future__ import annotations

from collections.abc import Iterator

from lastcall import ShutdownPlan
from lastcall.cli._fit import SPARE_SECONDS, kill_after_seconds, phases
from lastcall.cli.doctor._facts import Facts
from lastcall.cli.doctor._finding import ERROR, NOTE, WARNING, Check, Finding
from lastcall.cli.doctor._manifest import Pod

KILL_AFTER = "LASTCALL_KILL_AFTER_SECONDS"


def _installed(facts: Facts) -> Iterator[Finding]:
    if facts.app.plan is None:
        yield Finding(
            "no-lastcall",
            ERROR,
            facts.app.target,
            "lastcall is not installed in this app: at a stop its tasks are killed or cancelled by the server, "
            "streams may keep it alive for ever, and nobody is told",
            "call install(app, TaskManager()) right after the app is made",
        )


def _grace_period(facts: Facts) -> Iterator[Finding]:
    for pod in facts.pods:
        plan = _plan_in(facts, pod)
        if plan is None:
            continue
        before = pod.pre_stop_seconds or 0.0
        needed = before + plan.total_seconds
        figures = f"{_pre_stop(pod)}the plan takes up to {plan.total_seconds:g} s ({phases(plan)})"
        change = f"terminationGracePeriodSeconds: {kill_after_seconds(plan) + int(-(-before // 1))}, or a smaller plan"
        if pod.grace_seconds <= needed:
            yield Finding(
                "grace-period-too-short",
                ERROR,
                pod.where,
                f"SIGKILL comes {pod.grace_seconds:g} s after the pod is told to go, but {figures}: what is still "
                "at work then is lost without a word",
                change,
                pod.grace_seconds,
            )
        elif pod.grace_seconds < needed + SPARE_SECONDS:
            yield Finding(
                "grace-period-without-spare",
                WARNING,
                pod.where,
                f"SIGKILL comes {pod.grace_seconds:g} s after the pod is told to go, and {figures}: less than "
                f"{SPARE_SECONDS} s are left for the app's own shutdown and the report",
                change,
                pod.grace_seconds,
            )
        if pod.pre_stop_seconds is None:
            yield Finding(
                "pre-stop-unknown",
                NOTE,
                pod.where,
                "its preStop hook counts against the grace period, and how long it takes cannot be read",
                f"make sure that it ends within {max(0.0, pod.grace_seconds - kill_after_seconds(plan)):g} s",
            )


def _kill_after_told(facts: Facts) -> Iterator[Finding]:
    for pod in facts.pods:
        left = pod.grace_seconds - (pod.pre_stop_seconds or 0.0)
        told = pod.environment.get(KILL_AFTER)
        if told is None:
            yield Finding(
                "kill-after-untold",
                NOTE,
                pod.where,
                "the app does not know when it will be killed, and cannot warn when its plan outgrows that",
                f"set {KILL_AFTER} to {left:g}: the grace period less the preStop hook",
            )
        elif told != f"{left:g}":
            yield Finding(
                "kill-after-differs",
                WARNING,
                pod.where,
                f"{KILL_AFTER} is {told}, and the pod is killed {left:g} s after SIGTERM: the app warns too late, or "
                "for nothing",
                f"set {KILL_AFTER} to {left:g}",
            )


def _kill_after_given(facts: Facts) -> Iterator[Finding]:
    limit, plan = facts.kill_after_seconds, facts.app.plan
    if limit is not None and plan is not None and limit <= plan.total_seconds:
        yield Finding(
            "killed-before-plan",
            ERROR,
            facts.app.target,
            f"it is killed {limit:g} s after the signal, but the plan takes up to {plan.total_seconds:g} s "
            f"({phases(plan)})",
            f"grant it {kill_after_seconds(plan)} s, or make the plan smaller",
            limit,
        )


def _plan_in(facts: Facts, pod: Pod) -> ShutdownPlan | None:
    if pod.server is not None and not pod.server.serves:
        return pod.server.plan
    return facts.app.plan


def _pre_stop(pod: Pod) -> str:
    return f"the preStop hook takes {pod.pre_stop_seconds:g} s of it and " if pod.pre_stop_seconds else ""


CHECKS: tuple[Check, ...] = (
    _installed,
    _grace_period,
    _kill_after_told,
    _kill_after_given,
)
