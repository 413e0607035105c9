"""`opencode-actors run`: one prompt, its answer as it comes, and nothing left behind."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import AsyncIterator

import trio
from attrs import define, field, frozen

from opencode_actors.cli.arguments import settings_of
from opencode_actors.cli.explain import of_job
from opencode_actors.cli.render import (
    Answer,
    Busy,
    Line,
    Tone,
    View,
    document,
    show,
    summary,
)
from opencode_actors.cli.screen import Screen, SilentAnswer, open_screen, write
from opencode_actors.cli.status import Status
from opencode_actors.errors import UsageError
from opencode_actors.kernel.hub import Following, NoticesMissed
from opencode_actors.kernel.opening import open_system
from opencode_actors.kernel.system import Job, System
from opencode_actors.machines.names import session_key
from opencode_actors.machines.notices import JobEnded, OutputAdded
from opencode_actors.machines.vocabulary import JobSnapshot
from opencode_actors.model_access import ChosenModel, open_model_access
from opencode_actors.ports import ContainerId
from opencode_actors.settings_sources import LoadedSettings

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@frozen(kw_only=True)
class Wish:
    """What was asked for on the command line, beside the settings."""

    prompt: str
    session: str | None


def run(arguments: argparse.Namespace) -> Status:
    loaded = settings_of(arguments)
    if arguments.session is not None:
        session_key(arguments.session)  # refused before anything is started
    wish = Wish(prompt=_prompt(arguments.prompt), session=arguments.session)
    beside = open_screen()
    screen = SilentAnswer(beside=beside) if arguments.json else beside
    try:
        return trio.run(_run, loaded, wish, screen)
    finally:
        screen.close()


def _prompt(given: str) -> str:
    """Refused here when it is empty: nothing has been started yet."""
    prompt = given
    if given == "-":
        try:
            prompt = sys.stdin.buffer.read().decode()
        except UnicodeDecodeError as error:
            raise UsageError(f"the prompt on stdin is not UTF-8 text (byte {error.start})") from None
    if not prompt.strip():
        raise UsageError("the prompt is empty", hint="say what is to be done")
    return prompt


async def _run(loaded: LoadedSettings, wish: Wish, screen: Screen) -> Status:
    run = Run(screen=screen)
    with trio.open_signal_receiver(*_SIGNALS) as signals:
        async with trio.open_nursery() as nursery:
            run.everything = nursery.cancel_scope
            nursery.start_soon(run.obey, signals)
            for warning in loaded.warnings:
                await write(screen, (Line(f"warning: {warning}", Tone.WARNING),))
            async with open_model_access(loaded.settings, os.environ) as chosen:
                await run.one_job(chosen, wish)
                run.concluded = True
            nursery.cancel_scope.cancel()
    if not run.concluded:
        screen.perform((Line("cancelled", Tone.WARNING),))
    return run.status


@define
class Run:
    """One prompt on its way. A first signal cancels it, a second kills its container, a third gives up."""

    screen: Screen
    everything: trio.CancelScope | None = None
    status: Status = Status.CANCELLED
    concluded: bool = False
    _system: System | None = None
    _job: Job | None = None
    _view: View = field(factory=View)

    async def one_job(self, chosen: ChosenModel, wish: Wish) -> None:
        settings = chosen.settings
        if chosen.remark:
            await write(self.screen, (Line(chosen.remark, Tone.WARNING),))
        await write(self.screen, (Busy(f"connecting to {settings.runtime}"),))
        async with open_system(settings, access=chosen.access) as system:
            self._system = system
            job = self._job = await system.start(wish.prompt, session=wish.session)
            try:
                await self._show(system.follow(job.id))
                reader_gone = False
            except BrokenPipeError:
                reader_gone = True
            if reader_gone:
                # `run … | head`: nobody reads on, so nobody wants the rest.
                line = Line("cancelling: nobody reads the output any more", Tone.WARNING)
                await write(self.screen, (line,))
                await job.cancel()
                raise BrokenPipeError
            final = await job.wait()
            await write(self.screen, (Busy("stopping the container"),))
        await self._conclude(final, chosen, system)

    async def _show(self, following: Following) -> None:
        """Writes the answer to its last byte: what the notices left out is read from the output file."""
        position = 0
        async for notice in following:
            if isinstance(notice, NoticesMissed):
                continue
            if isinstance(notice, OutputAdded):
                await self._fill_gap(position, notice.offset)
                position = notice.offset + len(notice.text.encode(errors="replace"))
            if isinstance(notice, JobEnded):
                await self._fill_gap(position, notice.snapshot.output_bytes)
            self._view, actions = show(self._view, notice)
            await write(self.screen, actions)

    async def _fill_gap(self, start: int, end: int) -> None:
        """A terminal that was held for long misses notices; the file has every word."""
        while start < end and self._job is not None:
            part = await self._job.output(offset=start, limit=min(end - start, 64 << 10))
            if part.next_offset <= start:
                return
            start = part.next_offset
            self._view = View(at_line_start=part.text.endswith("\n"))
            await write(self.screen, (Answer(part.text),))

    async def _conclude(self, final: JobSnapshot, chosen: ChosenModel, system: System) -> None:
        workspace = system.workspace(final.session)
        await write(self.screen, summary(final, chosen.settings, workspace=workspace))
        if isinstance(self.screen, SilentAnswer):
            made = document(final, chosen.settings, workspace=workspace, output=self.screen.answer)
            sys.stdout.write(json.dumps(made, indent=2) + "\n")
        self.status = of_job(final)

    # ---- signals

    async def obey(self, signals: AsyncIterator[int]) -> None:
        count = 0
        async with trio.open_nursery() as nursery:
            async for _ in signals:
                count += 1
                job, system = self._job, self._system
                if job is None or system is None or count > 2:
                    self._give_up()
                elif count == 1:
                    nursery.start_soon(job.cancel)
                else:
                    nursery.start_soon(self._kill, system, job)

    async def _kill(self, system: System, job: Job) -> None:
        await write(self.screen, (Line("killing the container", Tone.BAD),))
        for session in await system.sessions():
            if session.key == job.session and session.container is not None:
                await system.engine.kill(ContainerId(session.container))

    def _give_up(self) -> None:
        """Leaves the system, which ends its containers on the way out, within its own budget."""
        if self.everything is not None:
            self.everything.cancel()
