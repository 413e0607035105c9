"""Builds the image through the engine's build API, unless it already stands."""

from __future__ import annotations

import json

import httpx
import trio

from opencode_actors.errors import EngineRefused, ImageBuildFailed, ImageMissing
from opencode_actors.image.base import ensure_base
from opencode_actors.image.context import CONTAINERFILE, LABEL_CONTEXT, ImageContext, Target
from opencode_actors.image.engine_calls import inspect_image, post_lines
from opencode_actors.image.hints import hint_for
from opencode_actors.image.progress import BuildLog, BuildPhase, BuildProgress, Report
from opencode_actors.image.show import show_image
from opencode_actors.ports import ImageInfo


async def build_image(
    api: httpx.AsyncClient,
    *,
    reference: str,
    context: ImageContext,
    progress: Report,
    target: Target = Target.STANDARD,
    rebuild: bool = False,
) -> ImageInfo:
    """Returns the image that stands under `reference` when this is over.

    Does nothing but look when it is current, unless `rebuild`. Raises `ImageBuildFailed`,
    `EngineUnavailable`, `EngineRefused`. The engine keeps its layers, so that a build that failed half-way
    goes on from there.
    """
    if not rebuild:
        standing = await _current_image(api, reference, context, target)
        if standing is not None:
            text = f"{reference} is up to date"
            progress(BuildProgress(phase=BuildPhase.UP_TO_DATE, text=text))
            return standing
    base = await ensure_base(api, reference=context.base, make_base=context.make_base, report=progress)
    await _build(api, reference, context, target, base, progress)
    image = await inspect_image(api, reference)
    text = f"{reference} is built: {image.size_bytes / 1e6:.0f} MB"
    progress(BuildProgress(phase=BuildPhase.DONE, text=text))
    return image


async def _current_image(
    api: httpx.AsyncClient, reference: str, context: ImageContext, target: Target
) -> ImageInfo | None:
    try:
        state = await show_image(api, reference=reference, context=context)
    except ImageMissing:
        state = None
    await trio.lowlevel.checkpoint()
    return state.image if state is not None and state.is_current(target) else None


async def _build(
    api: httpx.AsyncClient, reference: str, context: ImageContext, target: Target, base: str, progress: Report
) -> None:
    log = BuildLog(report=progress)
    params = [
        ("dockerfile", CONTAINERFILE),
        ("t", reference),
        ("target", target.value),
        ("buildargs", json.dumps({"BASE": base})),
        ("rm", "1"),
        ("forcerm", "1"),
        ("labels", json.dumps({LABEL_CONTEXT: context.hash})),
    ]
    try:
        await post_lines(api, "/build", params=params, hear=log.hear, body=context.archive())
    except EngineRefused as error:
        raise ImageBuildFailed(log.failure(error.message), hint=hint_for(error.message)) from error
    if log.error:
        raise ImageBuildFailed(log.failure(log.error), hint=hint_for(log.printed + log.error))
    if not log.built:
        raise ImageBuildFailed(log.failure("the engine ended its answer before the image was built"))
