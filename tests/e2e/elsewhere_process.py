"""A process that is there to be killed while a job runs elsewhere: `python -m tests.e2e.elsewhere_process GIVEN.json`.

It asks for the same each time that it runs, says when the job speaks, and ends when that has settled.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import trio

from opencode_actors import Leave, OutputAdded, Settings, open_system
from opencode_actors.testing.fake_engine import FakeEngine


async def work(given: dict[str, Any]) -> None:
    base = Path(given["base"])
    settings = Settings(sessions_dir=base / "sessions", workspaces_dir=base / "workspaces")
    async with open_system(settings, engine=FakeEngine(), leave=Leave.ALL) as system:
        after = system.position
        await system.attach("far", given["url"], password_env=given["variable"])
        job = await system.start(given["prompt"], session="far", name="the long one", key="k")
        async for notice in system.follow(job.id, since=after):
            if isinstance(notice, OutputAdded):
                break  # or it had ended before
        sys.stdout.write("spoke\n")
        sys.stdout.flush()
        await job.wait()


if __name__ == "__main__":
    trio.run(work, json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
