"""The container image: made, checked and described through the engine's own API.

    context = load_context()                      # what the image is made of, and its hash
    image = await build_image(api, reference="localhost/opencode-actors:latest",
                              context=context, target=Target.STANDARD, progress=print_progress)
    state = await show_image(api, reference="localhost/opencode-actors:latest", context=context)

`api` is an `httpx.AsyncClient` bound to the engine's unix socket, whose base URL has no path; Podman and
Docker alike. `build_image` does nothing but look when the image is already the one that this package
would make (`rebuild=True` makes it again all the same), so calling it twice is cheap. Where the base
image can be had neither from the engine's store nor from a registry, it is made on this machine from
Debian's packages, and `progress` says so.

Raised: `EngineUnavailable` (nobody answers on the socket), `ImageMissing` (by `show_image`), and
`ImageBuildFailed` with the reason in plain words and the next step in `hint`.
"""

from opencode_actors.image.build import build_image
from opencode_actors.image.context import ImageContext, Target, load_context
from opencode_actors.image.progress import BuildPhase, BuildProgress
from opencode_actors.image.show import ImageState, show_image

__all__ = [
    "BuildPhase",
    "BuildProgress",
    "ImageContext",
    "ImageState",
    "Target",
    "build_image",
    "load_context",
    "show_image",
]
