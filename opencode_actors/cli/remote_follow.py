"""`opencode-actors follow`: what happens, as it happens, also across a restart of the service."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import trio
from attrs import define, field

from opencode_actors.cli import remote_tables as tables
from opencode_actors.cli.render import Action, Answer, Busy, Line, Tone, View, duration, one_line, show
from opencode_actors.cli.screen import Screen, open_screen, write
from opencode_actors.cli.status import Status
from opencode_actors.door.client import Client, open_client
from opencode_actors.door.reading import notice_of
from opencode_actors.errors import NoService

Document = dict[str, Any]

# A service that is restarted is away for a few seconds.
_PATIENCE = 60.0
_LOOK_EVERY = 0.5


@define
class Following:
    """`since` is the number of the last notice that was shown: after a drop it goes on from there."""

    folder: Path
    screen: Screen | None  # None: one JSON document a line
    job: str | None = None
    session: str | None = None
    since: int | None = None
    _view: View = field(factory=View)
    _connected: bool = False

    async def run(self) -> Status:
        """Until what is followed is over. Raises `NoService` when there is none, or no more."""
        while True:
            try:
                async with open_client(self.folder) as client:
                    self._connected = True
                    return await self._follow(client)
            except NoService as lost:
                if not self._connected:
                    raise
                await self._wait_for_it(lost)

    async def _wait_for_it(self, lost: NoService) -> None:
        await self._say(Line(lost.message, Tone.WARNING), Busy("waiting for the service"))
        with trio.move_on_after(_PATIENCE):
            while True:
                try:
                    async with open_client(self.folder):
                        return
                except NoService as still:
                    lost = still
                await trio.sleep(_LOOK_EVERY)
        raise lost

    async def _follow(self, client: Client) -> Status:
        if self.job is not None:  # of a name the id: it may be another job's by the time of a drop
            self.job = (await client.call("status", job_id=self.job))["jobId"]
        await client.call("follow", job_id=self.job, session_id=self.session, since=self.since)
        ended: Document | None = None
        while True:
            message = await client.told()
            if message["method"] == "followEnded":
                return await self._conclude(ended)
            told: Document = message["params"]
            self.since = told.get("seq") or self.since
            if self.screen is None:
                await trio.to_thread.run_sync(_print, told)
            else:
                self._view, actions = shown(self._view, told)
                await self._say(*actions)
            if told["kind"] == "jobEnded" and told["jobId"] == self.job:
                ended = told["status"]

    async def _say(self, *actions: Action) -> None:
        if self.screen is not None:
            await write(self.screen, actions)

    async def _conclude(self, job: Document | None) -> Status:
        if job is None:
            return Status.OK
        await self._say(*summary(job))
        return {"completed": Status.OK, "cancelled": Status.CANCELLED}.get(job["status"], Status.FAILED)


async def follow(
    folder: Path, *, job: str | None, session: str | None, since: int | None, as_json: bool
) -> Status:
    screen = None if as_json else open_screen()
    try:
        return await Following(folder, screen, job, session, since).run()
    finally:
        if screen is not None:
            screen.close()


def _print(told: Document) -> None:
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


# ---- what is shown


def shown(view: View, told: Document) -> tuple[View, tuple[Action, ...]]:
    match told["kind"]:
        case "missed":
            text = f"{told['count']} notices are not kept any more; `opencode-actors output` has all that was said"
            return view, (Line(text, Tone.WARNING),)
        case "inputWanted":
            return _end_line(
                view, Line(f"the agent asks: {one_line(told['text'])}", Tone.WARNING), _how(told)
            )
        case "jobEnded":
            return _end_line(view)
        case _:
            notice = notice_of(told)
            return (view, ()) if notice is None else show(view, notice)


def _how(told: Document) -> Line:
    options = ", ".join(told.get("options") or ())
    choices = f" ({one_line(options)})" if options else ""
    return Line(f"answer with `opencode-actors answer {told['jobId']} {told['requestId']} …`{choices}")


def _end_line(view: View, *lines: Line) -> tuple[View, tuple[Action, ...]]:
    return View(), (*(() if view.at_line_start else (Answer("\n"),)), *lines)


def summary(job: Document) -> tuple[Line, ...]:
    figures = [job["model"]] if job["model"] else []
    figures.append(tables.cost(job))
    figures.append(f"session {job['sessionKey']}")
    took, tail = duration(job["elapsedSeconds"]), " · ".join(figures)
    if job["status"] == "completed":
        return (Line(f"completed in {took} · {tail}", Tone.GOOD),)
    if job["status"] == "cancelled":
        word = "interrupted" if job["interruptedBy"] else "cancelled"
        return (Line(f"{word} after {took} · {tail}", Tone.WARNING),)
    return (
        Line(f"failed ({job['cause']}) after {took} · {tail}", Tone.BAD),
        Line(f"error: {one_line(job['error'] or '')}", Tone.BAD),
        Line(f"hint: {one_line(job['hint'] or '')}"),
    )
