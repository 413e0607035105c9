"""A real engine that ends nothing but by SIGKILL."""

from __future__ import annotations

from typing import Self

import trio
from attrs import define, evolve

from opencode_actors.adapters.engine import DockerApiEngine
from opencode_actors.ports import ContainerId, ContainerSpec


@define(repr=False)
class GentleEngine(DockerApiEngine):
    """Its stop is SIGTERM and patience without end, and its containers do not hear that."""

    @classmethod
    def of(cls, engine: DockerApiEngine) -> Self:
        return cls(engine._wire, engine._info, engine._service)

    async def create(self, spec: ContainerSpec) -> ContainerId:
        deaf = "trap '' TERM; opencode-actors-entrypoint & while :; do wait; done"
        return await DockerApiEngine.create(self, evolve(spec, command=("sh", "-c", deaf)))

    async def stop(self, container: ContainerId, *, grace: float) -> None:
        del grace
        await self.kill(container, signal="SIGTERM")
        await trio.sleep_forever()
