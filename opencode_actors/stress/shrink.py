"""A failing plan into a small one: jobs and faults are dropped for as long as the same rule is broken."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from opencode_actors.stress.plan import Plan
from opencode_actors.stress.report import Report

T = TypeVar("T")

# A run takes up to a second, and whoever waits has patience for a minute.
MOST_RUNS = 120


def shrink(
    report: Report, again: Callable[[Plan], Report], *, watch: Callable[[Report], None] = lambda _: None
) -> Report:
    """The smallest that was found, by delta debugging: halves first, then quarters, then single ones. `watch` is
    told of each smaller one."""
    if report.passed:
        return report
    rule, runs = report.violations[0].rule, 0

    def tried(plan: Plan) -> Report | None:
        nonlocal runs
        if runs >= MOST_RUNS:
            return None
        runs += 1
        found = again(plan)
        if not any(violation.rule == rule for violation in found.violations):
            return None
        watch(found)
        return found

    before = None
    while before != (size := (len(report.plan.jobs), len(report.plan.faults))):
        before = size
        report = _fewer(report, tried, of_jobs=False)
        report = _fewer(report, tried, of_jobs=True)
    return report


def _fewer(report: Report, tried: Callable[[Plan], Report | None], *, of_jobs: bool) -> Report:
    chunk = max(1, len(_numbers(report.plan, of_jobs=of_jobs)) // 2)
    while True:
        numbers, at = _numbers(report.plan, of_jobs=of_jobs), 0
        while at < len(numbers):
            left = numbers[:at] + numbers[at + chunk :]
            found = tried(_only(report.plan, left, of_jobs=of_jobs)) if left or not of_jobs else None
            if found is None:
                at += chunk
            else:
                report, numbers = found, left
        if chunk == 1:
            return report
        chunk //= 2


def _numbers(plan: Plan, *, of_jobs: bool) -> list[int]:
    return [one.number for one in (plan.jobs if of_jobs else plan.faults)]


def _only(plan: Plan, left: list[int], *, of_jobs: bool) -> Plan:
    jobs = left if of_jobs else _numbers(plan, of_jobs=True)
    faults = _numbers(plan, of_jobs=False) if of_jobs else left
    return plan.only(frozenset(jobs), frozenset(faults))
