"""A process that is there to be killed: `python -m tests.e2e.service_process SETTINGS.json`.

It asks for the same work each time that it runs, under the same keys, and ends when all of it has settled.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import trio

from opencode_actors import Leave, ModelAccess, Settings, open_system
from opencode_actors.containers import PROVIDER_URL_INSIDE
from opencode_actors.testing.provider import MODEL, provider_config


async def work(given: dict[str, Any]) -> None:
    base = Path(given["base"])
    settings = Settings(
        runtime=given["runtime"],
        engine_socket=given["engine_socket"],
        sessions_dir=base / "sessions",
        workspaces_dir=base / "workspaces",
        model=MODEL,
    )
    access = ModelAccess(
        provider_socket=base / "provider" / "provider.sock",
        config={"provider": provider_config(PROVIDER_URL_INSIDE)},
    )
    async with open_system(settings, access=access, leave=Leave.ALL) as system:
        jobs = [
            await system.start(prompt, session=session, key=f"{session} {number}")
            for number, (session, prompt) in enumerate(given["work"])
        ]
        for job in jobs:
            await job.wait()
    sys.stdout.write("settled\n")


if __name__ == "__main__":
    trio.run(work, json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
