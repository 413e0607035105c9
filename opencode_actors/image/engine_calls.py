"""The few calls to the engine that images need, and what its silence, refusal or absence is called here.

Paths carry no version: both engines then answer in the newest form they speak, and what is read here is
the same in all of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Generator, Sequence
from contextlib import contextmanager
from urllib.parse import quote

import httpx

from opencode_actors.adapters.engine_dialect import error_text, image_info
from opencode_actors.adapters.engine_http import why_unreachable
from opencode_actors.errors import EngineRefused, EngineUnavailable, ImageMissing
from opencode_actors.image.progress import EngineLine, LineReader
from opencode_actors.ports import ImageInfo

# A build step prints nothing while it downloads: 60 MB over a slow line take minutes.
SILENCE = 1800.0
_ANSWER = 30.0

Body = bytes | AsyncIterable[bytes]


async def inspect_image(api: httpx.AsyncClient, reference: str) -> ImageInfo:
    """Raises `ImageMissing`."""
    with _named_errors():
        answer = await api.get(f"/images/{quote(reference, safe='/:@')}/json", timeout=_ANSWER)
    if answer.status_code == 404:
        raise ImageMissing(
            f"there is no image {reference} in the engine's store",
            hint="make it: opencode-actors image build",
        )
    _refuse_errors(answer)
    return image_info(reference, answer.json())


async def post_lines(
    api: httpx.AsyncClient,
    path: str,
    *,
    params: Sequence[tuple[str, str]],
    hear: Callable[[EngineLine], None],
    body: Body = b"",
    silence: float = SILENCE,
) -> None:
    """Posts, and tells `hear` each line that the engine answers, when it comes.

    An error that `body` raises while it is sent ends the call: the engine sees an upload that broke off,
    and makes nothing of it.
    """
    reader = LineReader()
    timeout = httpx.Timeout(_ANSWER, read=silence, write=silence)
    headers = {"Content-Type": "application/x-tar"}
    with _named_errors():
        async with api.stream(
            "POST", path, params=tuple(params), content=body, headers=headers, timeout=timeout
        ) as answer:
            if answer.is_error:
                await answer.aread()
                _refuse_errors(answer)
            async for data in answer.aiter_raw():
                for line in reader.feed(data):
                    hear(line)
    for line in reader.end():
        hear(line)


def _refuse_errors(answer: httpx.Response) -> None:
    if answer.is_error:
        text = error_text(answer.content)
        raise EngineRefused(f"the container engine refused: {text}", status=answer.status_code)


@contextmanager
def _named_errors() -> Generator[None]:
    try:
        yield
    except httpx.ConnectError as error:
        raise EngineUnavailable(
            f"no container engine answers: {why_unreachable(error)}",
            hint="opencode-actors doctor says what is missing",
        ) from error
    except httpx.TimeoutException as error:
        raise EngineUnavailable("the container engine took the request and then said nothing more") from error
    except httpx.TransportError as error:
        raise EngineUnavailable("the container engine broke off in the middle of its answer") from error
