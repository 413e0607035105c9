"""What stands in the engine's store, and whether it is what this package would build."""

from __future__ import annotations

import httpx
from attrs import frozen

from opencode_actors.image.context import (
    BASE_MADE_HERE,
    LABEL_BASE,
    LABEL_CONTEXT,
    LABEL_OPENCODE,
    LABEL_TARGET,
    ImageContext,
    Target,
)
from opencode_actors.image.engine_calls import inspect_image
from opencode_actors.ports import ImageInfo


@frozen(kw_only=True)
class ImageState:
    """`current`: built from the files that this package carries. An image of other makers is not."""

    image: ImageInfo
    current: bool
    opencode_version: str  # empty when the image does not say
    target: str
    base_made_here: bool  # from Debian's packages, because no registry had it

    def is_current(self, target: Target) -> bool:
        return self.current and self.target == target.value


async def show_image(api: httpx.AsyncClient, *, reference: str, context: ImageContext) -> ImageState:
    """Raises `ImageMissing`, `EngineUnavailable`."""
    return image_state(await inspect_image(api, reference), context)


def image_state(image: ImageInfo, context: ImageContext) -> ImageState:
    return ImageState(
        image=image,
        current=image.labels.get(LABEL_CONTEXT) == context.hash,
        opencode_version=image.labels.get(LABEL_OPENCODE, ""),
        target=image.labels.get(LABEL_TARGET, ""),
        base_made_here=image.labels.get(LABEL_BASE) == BASE_MADE_HERE,
    )
