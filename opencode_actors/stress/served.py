"""The service that a stress run in the real world kills: `serve`, but for the model.

    python -m opencode_actors.stress.served LEAVE PROVIDER_SOCKET

Its settings come from the environment, as those of `serve`; what answers in its containers is the provider that
listens on this socket, and lives on when the service does not.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from opencode_actors.cli.log import log_to_stderr
from opencode_actors.cli.serve import address_of, serve_until_told
from opencode_actors.containers import PROVIDER_URL_INSIDE, ModelAccess
from opencode_actors.errors import OpencodeActorsError
from opencode_actors.machines.vocabulary import Leave
from opencode_actors.model_access import ChosenModel
from opencode_actors.settings import Settings
from opencode_actors.settings_sources import load_settings
from opencode_actors.testing.provider import provider_config


@asynccontextmanager
async def _scripted(settings: Settings, socket: Path) -> AsyncGenerator[ChosenModel]:
    access = ModelAccess(provider_socket=socket, config={"provider": provider_config(PROVIDER_URL_INSIDE)})
    yield ChosenModel(settings=settings, access=access)


def main() -> int:
    loaded = load_settings(environment=os.environ)
    address = address_of(loaded.settings, insecure=False)
    model = _scripted(loaded.settings, Path(sys.argv[2]))
    with log_to_stderr(as_json=False):
        try:
            return trio.run(serve_until_told, loaded, address, model, Leave(sys.argv[1]))
        except* OpencodeActorsError as group:
            sys.stderr.write(f"error: {group.exceptions[0]}\n")
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
