"""`opencode-actors run`: one prompt, its answer as it comes, and nothing left behind."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import AsyncIterator

import trio
from attrs import define, evolve, field, frozen

from opencode_actors.cli.arguments import settings_of
from opencode_actors.cli.explain import of_job
from opencode_actors.cli.render import (
    Action,
    Busy,
    Line,
    Tone,
    View,
    document,
    missed,
    show,
    summary,
)
from opencode_actors.cli.screen import Screen, SilentAnswer, open_screen, write
from opencode_actors.cli.status import Status
from opencode_actors.errors import ContainerMissing, EngineError, StoreError, UnknownJob, UsageError
from opencode_actors.kernel.hub import Following, NoticesMissed
from opencode_actors.kernel.opening import open_system
from opencode_actors.kernel.system import Job, System
from opencode_actors.machines.names import session_key
from opencode_actors.machines.vocabulary import JobSnapshot
from opencode_actors.model_access import ChosenModel, open_model_access
from opencode_actors.ports import ContainerId
from opencode_actors.settings_sources import LoadedSettings, SourceKind

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@frozen(kw_only=True)
class Wish:
    """What was asked for on the command line, beside the settings."""

    prompt: str
    session: str | None
    max_cost_usd: float | None


def run(arguments: argparse.Namespace) -> Status:
    loaded = _for_nobody(settings_of(arguments))
    if arguments.session is not None:
        session_key(arguments.session)  # refused before anything is started
    wish = Wish(
        prompt=prompt_of(arguments.prompt), session=arguments.session, max_cost_usd=arguments.max_cost_usd
    )
    beside = open_screen()
    screen = SilentAnswer(beside=beside) if arguments.json else beside
    try:
        return trio.run(_run, loaded, wish, screen)
    finally:
        screen.close()


def _for_nobody(loaded: LoadedSettings) -> LoadedSettings:
    """Nobody can answer a question here, so agents have no such tool, unless it was asked for."""
    if loaded.sources["questions"].kind is not SourceKind.DEFAULT:
        return loaded
    return evolve(loaded, settings=evolve(loaded.settings, questions="deny"))


def prompt_of(given: str) -> str:
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
                await run.say(Line(f"warning: {warning}", Tone.WARNING))
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
    _missed: int = 0
    _writing: trio.Lock = field(factory=trio.Lock)

    async def say(self, *actions: Action) -> None:
        """One at a time: a signal is answered while the answer is written, and a screen has one state."""
        async with self._writing:
            await write(self.screen, actions)

    async def one_job(self, chosen: ChosenModel, wish: Wish) -> None:
        settings = chosen.settings
        if chosen.remark:
            await self.say(Line(chosen.remark, Tone.WARNING))
        await self.say(Busy(f"connecting to {settings.runtime}"))
        async with open_system(settings, access=chosen.access) as system:
            self._system = system
            job = self._job = await system.start(
                wish.prompt, session=wish.session, max_cost_usd=wish.max_cost_usd
            )
            try:
                await self._show(system.follow(job.id))
                reader_gone = False
            except BrokenPipeError:
                reader_gone = True
            if reader_gone:
                # `run … | head`: nobody reads on, so nobody wants the rest.
                await self.say(Line("cancelling: nobody reads the output any more", Tone.WARNING))
                await job.cancel()
                raise BrokenPipeError
            final = await job.wait()
            await self.say(Busy("stopping the container"))
        await self._conclude(final, chosen, system)

    async def _show(self, following: Following) -> None:
        async for notice in following:
            if isinstance(notice, NoticesMissed):
                # Not read again from the output file: that has the tools' lines among the model's words.
                self._missed += notice.count
                continue
            self._view, actions = show(self._view, notice)
            await self.say(*actions)

    async def _conclude(self, final: JobSnapshot, chosen: ChosenModel, system: System) -> None:
        workspace = system.workspace(final.session)
        if self._missed:
            await self.say(missed(self._missed, final, chosen.settings))
        await self.say(*summary(final, chosen.settings, workspace=workspace))
        if isinstance(self.screen, SilentAnswer):
            made = document(
                final,
                chosen.settings,
                workspace=workspace,
                output=self.screen.answer,
                notices_missed=self._missed,
            )
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
                    nursery.start_soon(self._cancel, job)
                else:
                    # beside each other: a terminal that is held must not keep the container alive
                    nursery.start_soon(self.say, Line("killing the container", Tone.BAD))
                    nursery.start_soon(self._kill, system, job)

    async def _cancel(self, job: Job) -> None:
        try:
            await job.cancel()
        except UnknownJob:
            pass  # it has ended meanwhile, and is forgotten
        except StoreError as error:
            await self.say(Line(f"cancelling the job failed: {error.message}", Tone.WARNING))

    async def _kill(self, system: System, job: Job) -> None:
        """The cancelling goes on beside it, and may be first: what fails here is told, and ends nothing."""
        try:
            for session in await system.sessions():
                if session.key == job.session and session.container is not None:
                    await system.engine.kill(ContainerId(session.container))
        except ContainerMissing:
            pass  # which was wanted
        except EngineError as error:
            await self.say(Line(f"killing the container failed: {error.message}", Tone.WARNING))

    def _give_up(self) -> None:
        """Leaves the system, which ends its containers on the way out, within its own budget."""
        if self.everything is not None:
            self.everything.cancel()
