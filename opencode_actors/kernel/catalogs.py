"""Which agents and models there are: asked of a session's server, of any that runs, or of one started for it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio
from attrs import define, frozen

from opencode_actors.errors import OpenCodeError, UsageError
from opencode_actors.kernel.sessions import Sessions
from opencode_actors.kernel.surroundings import Surroundings
from opencode_actors.machines.names import session_key
from opencode_actors.machines.offers import objection
from opencode_actors.machines.vocabulary import SessionKey, SessionStatus
from opencode_actors.ports import Catalog, Endpoint

# A container that is started for nothing but this question.
_FOR_THE_QUESTION = session_key("catalog")


@frozen(kw_only=True)
class Offered:
    """What `session`'s server offers; `started` when it was started to be asked."""

    session: SessionKey
    catalog: Catalog
    started: bool = False


@define(eq=False, kw_only=True)
class Catalogs:
    surroundings: Surroundings
    sessions: Sessions

    async def ask(self, key: SessionKey | None) -> Offered:
        """Raises `UsageError` when no server can be started, and `OpenCodeError`."""
        asked = key if key is not None else self._running()
        if asked is not None and (asked in self.sessions.attachments or self.sessions.is_up(asked)):
            return Offered(session=asked, catalog=await self._fetch(await self.sessions.endpoint(asked)))
        wanted = key or _FOR_THE_QUESTION
        async with self._started(wanted):
            catalog = await self._fetch(await self.sessions.endpoint(wanted))
        return Offered(session=wanted, catalog=catalog, started=True)

    async def check(self, key: SessionKey, *, model: str | None, agent: str | None) -> None:
        """Raises `UsageError` for what the session's server, as far as it is known already, does not have. What
        is not known yet is looked at before the prompt is sent."""
        endpoint = self.sessions.endpoint_if_up(key)
        known = self.surroundings.servers.offered(endpoint) if endpoint is not None else None
        if endpoint is None or known is None or not objection(known, model=model, agent=agent):
            await trio.lowlevel.checkpoint()
            return
        try:
            fresh = await self._fetch(endpoint)
        except OpenCodeError:
            return  # it is looked at again before the prompt is sent
        wrong = objection(fresh, model=model, agent=agent)
        if wrong:
            raise UsageError(wrong, hint="`agents` and `models` list what there is; nothing was sent")

    def _running(self) -> SessionKey | None:
        """Containers are set up alike; somebody else's server is asked only by its name."""
        keys = (key for key in self.sessions.open_keys() if key not in self.sessions.attachments)
        return next((key for key in keys if self.sessions.is_up(key)), None)

    @asynccontextmanager
    async def _started(self, key: SessionKey) -> AsyncGenerator[None]:
        status, why = await self.sessions.wake(key)
        if status is not SessionStatus.READY:
            raise UsageError(
                f"no server could be started to be asked: {why}",
                hint="`opencode-actors doctor` looks at the host",
            )
        try:
            yield
        finally:
            if key == _FOR_THE_QUESTION:
                self.surroundings.nursery.start_soon(
                    self.sessions.retire_if_open, key, "it was started to be asked what there is"
                )

    async def _fetch(self, endpoint: Endpoint) -> Catalog:
        async with self.surroundings.servers.client(endpoint) as server:
            catalog = await server.warm_up()
        self.surroundings.servers.offers(endpoint, catalog)
        return catalog
