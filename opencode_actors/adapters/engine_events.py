"""The engine's event stream: one JSON object a line, mapped to what this project waits for."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping

import httpx
from attrs import define, field

from opencode_actors.adapters.engine_dialect import carries, engine_event
from opencode_actors.adapters.engine_http import EngineWire
from opencode_actors.ports import EngineEvent

FOLLOWING = "follow its events"


@define
class EngineEventStream:
    """Iterates until the engine goes, which is `EngineUnavailable`; it holds nothing but the line it reads."""

    _response: httpx.Response = field(repr=False)
    _wire: EngineWire = field(repr=False)
    _labels: Mapping[str, str]
    _since_ns: int  # the stream was asked for from the second before on, so that nothing falls between
    _lines: AsyncIterator[str] = field(init=False, repr=False)
    _seen: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._lines = self._response.aiter_lines()

    def __aiter__(self) -> AsyncIterator[EngineEvent]:
        return self

    async def __anext__(self) -> EngineEvent:
        while True:
            event = self._parse(await self._line())
            if event is not None:
                self._seen += 1
                return event

    async def _line(self) -> str:
        try:
            return await anext(self._lines)
        except StopAsyncIteration:
            raise self._wire.lost("it ended the stream", FOLLOWING) from None
        except httpx.TransportError as error:
            raise self._wire.lost("the connection broke", FOLLOWING) from error

    def _parse(self, line: str) -> EngineEvent | None:
        if not line.strip():
            return None
        try:
            body = json.loads(line)
        except ValueError as error:
            raise self._wire.lost(f"it sent an event that is not JSON: {line[:80]!r}", FOLLOWING) from error
        when_and_event = engine_event(body)
        if when_and_event is None:
            return None
        when, event = when_and_event
        if when < self._since_ns or not carries(event.labels, self._labels):
            return None
        return event
