"""A run that was seen once, as a command that has it again, and that command as the same plan."""

from __future__ import annotations

import argparse
import shlex

from attrs import frozen

from opencode_actors.errors import UsageError
from opencode_actors.stress.plan import Plan, make_plan


@frozen(kw_only=True)
class Again:
    """`named` is the scenario as it was asked for, where one was, and `flags` are the other words that decide what a run is."""

    named: str | None = None
    flags: tuple[str, ...] = ()

    def command(self, plan: Plan) -> str:
        """What was left out of the plan is left out again."""
        whole = make_plan(plan.scenario, plan.seed)
        words = ["opencode-actors", "stress", self.named or plan.scenario.name, *self.flags]
        words += ["--replay", str(plan.seed)]
        if plan.jobs != whole.jobs:
            words += ["--jobs", ",".join(str(job.number) for job in plan.jobs)]
        if plan.faults != whole.faults:
            words += ["--faults", ",".join(str(fault.number) for fault in plan.faults)]
        return shlex.join(words)


def again_of(arguments: argparse.Namespace) -> Again:
    flags = () if arguments.world == "virtual" else ("--world", arguments.world)
    if arguments.world == "real":
        for name in ("engine", "image"):
            if getattr(arguments, name) is not None:
                flags = (*flags, f"--{name}", getattr(arguments, name))
        for pair in arguments.set:
            flags = (*flags, "--set", pair)
    return Again(named=arguments.scenario, flags=flags)


def check_parts(arguments: argparse.Namespace) -> None:
    """Raises `UsageError` where parts of a run are asked for, and not of which one."""
    parts = arguments.jobs is not None or arguments.faults is not None
    if parts and (arguments.replay is None or arguments.scenario is None):
        raise UsageError(
            "--jobs and --faults are parts of one run", hint="name its scenario, and its seed with --replay"
        )


def cut_down(plan: Plan, arguments: argparse.Namespace) -> Plan:
    """To the jobs and faults that are asked for. Raises `UsageError`."""
    if arguments.jobs is None and arguments.faults is None:
        return plan
    jobs = frozenset(job.number for job in plan.jobs)
    faults = frozenset(fault.number for fault in plan.faults)
    return plan.only(_numbers("--jobs", arguments.jobs, jobs), _numbers("--faults", arguments.faults, faults))


def _numbers(option: str, given: str | None, known: frozenset[int]) -> frozenset[int]:
    if given is None:
        return known
    try:
        numbers = frozenset(int(one) for one in given.split(",") if one.strip())
    except ValueError:
        raise UsageError(f"{option} {given} are no numbers", hint="such as 3,7; '' for none") from None
    if unknown := sorted(numbers - known):
        raise UsageError(f"{option}: the plan has no {', '.join(map(str, unknown))}")
    return numbers
