"""`opencode-actors stress`."""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

from attrs import define, field
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from opencode_actors.cli.arguments import settings_of
from opencode_actors.cli.status import Status
from opencode_actors.cli.stress_again import Again, again_of, check_parts, cut_down
from opencode_actors.errors import UsageError
from opencode_actors.stress.html import page
from opencode_actors.stress.local import run_local
from opencode_actors.stress.plan import Plan, make_plan
from opencode_actors.stress.real import run_real
from opencode_actors.stress.report import SHARES, Latency, Report
from opencode_actors.stress.report import Progress as Watched
from opencode_actors.stress.scenario import Scenario, load_scenario
from opencode_actors.stress.scenarios import BRIEF, BRISK, DEFAULTS
from opencode_actors.stress.shrink import shrink
from opencode_actors.stress.virtual import run_virtual

_USUAL = {"virtual": DEFAULTS, "local": (BRISK,), "real": (BRIEF,)}

_LARGEST_SEED = 1 << 32


def stress(arguments: argparse.Namespace) -> Status:
    scenarios = _scenarios(arguments.scenario, arguments.world)
    seeds = _seeds(arguments)
    check_parts(arguments)
    html = None if arguments.html is None else _writable(Path(arguments.html))
    command = again_of(arguments)
    screen = _screen(command, quiet=arguments.json)
    reports: list[Report] = []
    runs = _world(arguments)
    if arguments.seed is None and arguments.replay is None:
        # Now: a run that is broken off, or breaks, has it again, too.
        sys.stderr.write(f"seed {seeds[0]}\n")

    def again(plan: Plan) -> Report:
        screen.begin(plan)
        return runs(plan, watch=screen.watch)

    told = True
    try:
        with screen, _ended_as_by_ctrl_c():
            for seed in seeds:
                for scenario in scenarios:
                    report = again(cut_down(make_plan(scenario, seed), arguments))
                    if arguments.shrink and not report.passed:
                        report = shrink(report, again, watch=screen.smaller)
                    screen.ran(report)
                    reports.append(report)
    finally:
        # Of runs that are broken off, what there is.
        if reports:
            whole = len(reports) == len(seeds) * len(scenarios)
            told = html is None or _write(html, page(reports, command.command))
            _tell(reports, screen, command, whole=whole)
    if not told:
        return Status.ENVIRONMENT
    return Status.OK if all(report.passed for report in reports) else Status.FAILED


def _tell(reports: Sequence[Report], screen: Screen, command: Again, *, whole: bool) -> None:
    if not screen.quiet:
        screen.conclude(reports)
        return
    told = json.dumps(document(reports, command, whole=whole), indent=2, ensure_ascii=False)
    sys.stdout.write(told + "\n")


@contextmanager
def _ended_as_by_ctrl_c() -> Generator[None]:
    """SIGTERM and SIGHUP end a run as Ctrl-C does, which Python and trio know how to: each world is taken down in
    order, its service, its containers and its folder with it. One is enough: a further one does not hurry that."""

    def end(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_IGN)
        signal.raise_signal(signal.SIGINT)

    # A shell that runs this in the background of a script has SIGINT ignored, and trio would ignore it with Python.
    before = {signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler)}
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup wants it
            before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def document(reports: Sequence[Report], command: Again, *, whole: bool) -> dict[str, object]:
    return {
        "passed": whole and all(report.passed for report in reports),
        "whole": whole,
        "runs": [report.document() | {"again": command.command(report.plan)} for report in reports],
    }


def _scenarios(named: str | None, world: str) -> tuple[Scenario, ...]:
    if named is None:
        return _USUAL[world]
    for scenario in (*DEFAULTS, BRISK, BRIEF):
        if named == scenario.name:
            return (scenario,)
    path = Path(named)
    if not path.exists():
        names = ", ".join(f'"{scenario.name}"' for scenario in (*DEFAULTS, BRISK, BRIEF))
        raise UsageError(
            f"there is no file {named}, and no scenario of that name", hint=f"one of {names}, or a file"
        )
    return (load_scenario(path),)


class _Runs(Protocol):
    def __call__(self, plan: Plan, *, watch: Callable[[Watched], None]) -> Report: ...


def _world(arguments: argparse.Namespace) -> _Runs:
    """In the real one the settings say which engine and image, as for `run`. Raises `UsageError` where they would
    say nothing."""
    if arguments.world == "real":
        return partial(run_real, settings=settings_of(arguments).settings)
    for name, given in (("engine", arguments.engine), ("image", arguments.image), ("set", arguments.set)):
        if given:
            raise UsageError(
                f"--{name} is for --world real",
                hint="elsewhere a scenario has its settings with it, in [settings]",
            )
    return run_virtual if arguments.world == "virtual" else run_local


def _seeds(arguments: argparse.Namespace) -> range:
    given = arguments.seed if arguments.replay is None else arguments.replay
    if arguments.replay is not None and arguments.runs is not None:
        raise UsageError("--replay is one run, and --runs says how many", hint="--seed begins with a seed")
    if arguments.seed is not None and arguments.replay is not None:
        raise UsageError("--seed and --replay both say which seed", hint="--replay is one run of the seed")
    try:
        first = random.SystemRandom().randrange(_LARGEST_SEED) if given is None else int(given)
        runs = 1 if arguments.runs is None else int(arguments.runs)
    except ValueError:
        raise UsageError("seeds and runs are whole numbers") from None
    if runs < 1:
        raise UsageError(f"{runs} runs show nothing", hint="give 1 or more")
    return range(first, first + runs)


def _writable(path: Path) -> Path:
    """Found out before the runs, not after them."""
    was_there = path.exists()
    try:
        path.touch()
        if not was_there:
            path.unlink()
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None
    return path


def _write(path: Path, text: str) -> bool:
    """Whether it could: what else there is to tell is told all the same."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        sys.stderr.write(f"error: {path} cannot be written: {error.strerror}\n")
        return False
    return True


# ---- what is seen of it


@define
class Screen:
    """Nobody watches, or a program reads: one plain line for each run."""

    quiet: bool = False
    again: Again = field(factory=Again)

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def begin(self, plan: Plan) -> None:
        pass

    def watch(self, watched: Watched) -> None:
        pass

    def smaller(self, report: Report) -> None:
        pass

    def ran(self, report: Report) -> None:
        if not self.quiet:
            sys.stdout.write(in_line(report) + "\n")
            sys.stdout.flush()

    def conclude(self, reports: Iterable[Report]) -> None:
        for report in reports:
            for line in broken_lines(report, self.again):
                sys.stdout.write(line + "\n")


@define
class TerminalScreen(Screen):
    """A person watches: where the run is, then a table."""

    _console: Console = field(factory=lambda: Console(highlight=False))
    _progress: Progress = field(init=False)
    _task: TaskID | None = None

    def __attrs_post_init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[figures]}", style="dim"),
            console=self._console,
            transient=True,
        )

    def __enter__(self) -> Screen:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, plan: Plan) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
        name = f"{plan.scenario.name}, seed {plan.seed}"
        self._task = self._progress.add_task(name, total=max(plan.over_at, 1.0), figures="")

    def watch(self, watched: Watched) -> None:
        if self._task is not None:
            figures = f"{watched.ended} of {watched.jobs} jobs, {watched.faults} faults, {watched.at:.0f} s"
            self._progress.update(self._task, completed=watched.at, figures=figures)

    def smaller(self, report: Report) -> None:
        self._console.print(
            Text(f"still with {len(report.plan.jobs)} jobs and {len(report.plan.faults)} faults", style="dim")
        )

    def ran(self, report: Report) -> None:
        style = "green" if report.passed else "red"
        self._console.print(Text(in_line(report), style=style))

    def conclude(self, reports: Iterable[Report]) -> None:
        reports = tuple(reports)
        self._console.print(_latency_table(reports))
        for report in reports:
            for line in broken_lines(report, self.again):
                self._console.print(Text(line), soft_wrap=True)


def _screen(again: Again, *, quiet: bool) -> Screen:
    of_a_terminal = sys.stdout.isatty() and not quiet
    return TerminalScreen(again=again) if of_a_terminal else Screen(quiet=quiet, again=again)


def in_line(report: Report) -> str:
    verdict = "ok    " if report.passed else "BROKEN"
    ends = ", ".join(f"{count} {name}" for name, count in report.ends.items())
    refused = sum(report.refused.values())
    return (
        f"{verdict} {report.plan.scenario.name}, {report.world}, seed {report.plan.seed}: "
        f"{report.took:.0f} s, {sum(report.hits.values())} faults, {ends or 'no job'}"
        + (f", {refused} refused" if refused else "")
        + (f"; not in this world: {', '.join(report.cannot)}" if report.cannot else "")
    )


def broken_lines(report: Report, again: Again) -> list[str]:
    """Each broken rule with its trace, and the command that has it again."""
    lines: list[str] = []
    for violation in report.violations:
        lines += ["", f"{violation.rule}: {violation.text}", *violation.trace]
    if lines:
        faults = ", ".join(f"{fault.kind.value} at {fault.at:.3f}" for fault in report.plan.faults)
        lines += [
            "",
            f"{len(report.plan.jobs)} jobs, and faults {faults or 'none'}; to have it again:",
            again.command(report.plan),
        ]
    return lines


def _latency_table(reports: Iterable[Report]) -> Table:
    """Over all runs."""
    values: dict[str, list[float]] = {}
    for report in reports:
        for latency in report.latencies:
            values.setdefault(latency.name, []).extend(latency.values)
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("seconds")
    for name in ("count", *(name for name, _ in SHARES)):
        table.add_column(name, justify="right")
    for name, found in sorted(values.items()):
        latency = Latency(name=name, values=tuple(sorted(found)))
        table.add_row(name, str(len(found)), *(f"{latency.share(share):.3f}" for _, share in SHARES))
    return table
