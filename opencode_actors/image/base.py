"""The image that ours starts from: the engine's own, pulled, or made here from Debian's packages."""

from __future__ import annotations

import subprocess
from functools import partial
from pathlib import Path
from typing import Self, cast

import httpx
import trio
from attrs import define, field

from opencode_actors.errors import EngineError, EngineRefused, ImageBuildFailed, ImageMissing
from opencode_actors.image.context import BASE_MADE_HERE, LABEL_BASE, OWN_BASE
from opencode_actors.image.engine_calls import inspect_image, post_lines
from opencode_actors.image.hints import hint_for
from opencode_actors.image.progress import BuildPhase, BuildProgress, EngineLine, Report, visible_lines

# 30 MB; a registry behind a firewall that drops packets never answers at all.
PULL_WITHIN = 300.0
_CHUNK = 1 << 18
_KEPT_LINES = 12
_EXIT_NO_TOOL = 69


async def ensure_base(api: httpx.AsyncClient, *, reference: str, make_base: Path, report: Report) -> str:
    """What the engine's store has to start from: `reference`, or what the script `make_base` makes instead.

    One that was made here before is used again: a registry that is out of reach may take minutes to say so.
    """
    for standing in (reference, OWN_BASE):
        if await _has(api, standing):
            return standing
    report(BuildProgress(phase=BuildPhase.PULL_BASE, text=f"pulling {reference}"))
    why = await _pull(api, reference)
    if not why:
        return reference
    text = (
        f"{reference} cannot be pulled ({why}): making an equal image on this machine"
        f" from Debian's packages ({OWN_BASE}), which takes about half a minute"
    )
    report(BuildProgress(phase=BuildPhase.MAKE_BASE, text=text))
    await _make(api, OWN_BASE, make_base, report)
    return OWN_BASE


async def _has(api: httpx.AsyncClient, reference: str) -> bool:
    try:
        await inspect_image(api, reference)
    except ImageMissing:
        found = False
    else:
        found = True
    await trio.lowlevel.checkpoint()
    return found


async def _pull(api: httpx.AsyncClient, reference: str) -> str:
    """The empty string, or why it could not be had. Podman answers 200 and tells the error in the body."""
    answer = _Answer()
    name, _, tag = reference.rpartition(":")
    try:
        with trio.fail_after(PULL_WITHIN):
            params = [("fromImage", name), ("tag", tag)]
            await post_lines(api, "/images/create", params=params, hear=answer.hear)
    except EngineRefused as error:  # so says Docker
        answer.error = error.message
    except trio.TooSlowError:
        answer.error = f"no registry answered within {PULL_WITHIN:g} s"
    await trio.lowlevel.checkpoint()
    return answer.error


async def _make(api: httpx.AsyncClient, reference: str, script: Path, report: Report) -> None:
    answer = _Answer()
    params = [
        ("fromSrc", "-"),
        ("repo", reference),  # with its tag: Podman 4.3 does not read the parameter `tag` here
        ("message", "made on this machine from Debian's packages, because it could not be pulled"),
        ("changes", 'CMD ["bash"]'),
        ("changes", f"LABEL {LABEL_BASE}={BASE_MADE_HERE}"),
    ]
    failure: EngineError | None = None
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        maker = _Maker(process=await nursery.start(run, ["sh", str(script)]), report=report)
        nursery.start_soon(maker.listen)
        try:
            await post_lines(api, "/images/create", params=params, hear=answer.hear, body=maker)
        except EngineError as error:
            failure = error
        nursery.cancel_scope.cancel()  # the script has ended, or nobody takes what it makes any more
    if failure is None and answer.error:
        failure = ImageBuildFailed(
            f"the engine could not import the base image made here: {answer.error}",
            hint=hint_for(answer.error),
        )
    if failure is not None:
        raise failure


@define
class _Answer:
    error: str = ""

    def hear(self, line: EngineLine) -> None:
        self.error = line.error or self.error


@define(kw_only=True)
class _Maker:
    """The script that makes the base, as the body of a request: iterating gives its archive.

    Iterating raises when the script failed, so that half a base is never imported.
    """

    process: trio.Process
    report: Report
    _said: list[str] = field(factory=list[str], init=False)
    _all_heard: trio.Event = field(factory=trio.Event, init=False)

    async def listen(self) -> None:
        rest = b""
        async for data in cast("trio.abc.ReceiveStream", self.process.stderr):
            *lines, rest = (rest + data).split(b"\n")
            for line in visible_lines(b"\n".join(lines).decode(errors="replace")):
                self._said = [*self._said[-_KEPT_LINES + 1 :], line]
                if line.startswith("I: "):  # how both programs mark what they are about to do
                    self.report(BuildProgress(phase=BuildPhase.MAKE_BASE, text=line[3:]))
        self._all_heard.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        data = await cast("trio.abc.ReceiveStream", self.process.stdout).receive_some(_CHUNK)
        if data:
            return bytes(data)
        if exit_code := await self.process.wait():
            await self._all_heard.wait()
            raise self._failure(exit_code)
        raise StopAsyncIteration

    def _failure(self, exit_code: int) -> ImageBuildFailed:
        said = "\n".join(f"    {line}" for line in self._said)
        if exit_code == _EXIT_NO_TOOL:
            return ImageBuildFailed(
                f"the base image can neither be pulled nor made on this machine:\n{said}",
                hint="apt-get install --no-install-recommends mmdebstrap debian-archive-keyring",
            )
        return ImageBuildFailed(
            f"the base image could not be made on this machine (exit code {exit_code}):\n{said}",
            hint=hint_for(said),
        )
