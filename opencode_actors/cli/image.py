"""`opencode-actors image build` and `image show`."""

from __future__ import annotations

import argparse
import json
import sys

import trio

from opencode_actors.adapters.engine import engine_http_client, open_engine
from opencode_actors.cli.arguments import settings_of
from opencode_actors.cli.render import Action, Busy, Line, Tone
from opencode_actors.cli.screen import open_screen
from opencode_actors.cli.status import Status
from opencode_actors.doctor.checks import BUILD_IMAGE, describe_image
from opencode_actors.image import (
    BuildPhase,
    BuildProgress,
    ImageState,
    Target,
    build_image,
    load_context,
    show_image,
)
from opencode_actors.settings import Settings


def build(arguments: argparse.Namespace) -> Status:
    settings = settings_of(arguments).settings
    trio.run(_build, settings, Target(arguments.target), bool(arguments.rebuild))
    return Status.OK


def show(arguments: argparse.Namespace) -> Status:
    settings = settings_of(arguments).settings
    state = trio.run(_show, settings)
    if arguments.json:
        sys.stdout.write(json.dumps(document(state), indent=2) + "\n")
        return Status.OK
    sys.stdout.write(f"{describe_image(state)}\n{state.image.id}\n")
    if not state.current:
        sys.stdout.write(f"not what this version of opencode-actors builds; `{BUILD_IMAGE}` does\n")
    return Status.OK


def document(state: ImageState) -> dict[str, object]:
    return {
        "reference": state.image.reference,
        "id": state.image.id,
        "sizeBytes": state.image.size_bytes,
        "architecture": state.image.architecture,
        "opencodeVersion": state.opencode_version,
        "target": state.target,
        "current": state.current,
        "baseMadeHere": state.base_made_here,
    }


async def _build(settings: Settings, target: Target, rebuild: bool) -> None:  # noqa: FBT001 - trio.run takes no keywords
    screen = open_screen()
    try:
        async with (
            open_engine(runtime=settings.runtime, socket=settings.engine_socket) as engine,
            engine_http_client(engine.socket) as api,
        ):
            await build_image(
                api,
                reference=settings.image,
                context=load_context(),
                progress=lambda progress: screen.perform((action_of(progress),)),
                target=target,
                rebuild=rebuild,
            )
    finally:
        screen.close()


async def _show(settings: Settings) -> ImageState:
    async with (
        open_engine(runtime=settings.runtime, socket=settings.engine_socket) as engine,
        engine_http_client(engine.socket) as api,
    ):
        return await show_image(api, reference=settings.image, context=load_context())


def action_of(progress: BuildProgress) -> Action:
    if progress.phase in (BuildPhase.UP_TO_DATE, BuildPhase.DONE):
        return Line(progress.text, Tone.GOOD)
    stage = f"stage {progress.stage}/{progress.stages}, " if progress.stages > 1 else ""
    step = f"{stage}step {progress.step}/{progress.steps}: " if progress.steps else ""
    return Busy(step + progress.text)
