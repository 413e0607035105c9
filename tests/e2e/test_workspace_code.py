"""Code in a workspace, with the real server: that it is run is OpenCode's doing, and that it is said is ours."""

from __future__ import annotations

import json
import logging

import pytest
import trio

from opencode_actors import JobStatus
from opencode_actors.machines.names import session_key
from tests.contract.engines import within

from .rig import PLENTY, eventually, open_rig

pytestmark = [pytest.mark.opencode, pytest.mark.image, pytest.mark.podman]

MODULE = """
import {writeFileSync} from "fs"
writeFileSync("/workspace/ran-NAME", "")
export default {id: "NAME", setup() {}}
"""


@within(PLENTY)
async def test_P14_plugins_of_a_workspace_are_run_by_the_server_and_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Should a later server leave them alone, this fails, and what is said of it can be taken back."""
    caplog.set_level(logging.WARNING)
    async with open_rig("podman") as rig, rig.system() as system:
        workspace = system.workspace(session_key("demo"))
        plugins = workspace / ".opencode" / "plugin"
        plugins.mkdir(parents=True)
        (plugins / "folder.js").write_text(MODULE.replace("NAME", "folder"))
        (workspace / "config.js").write_text(MODULE.replace("NAME", "config"))
        (workspace / "opencode.json").write_text(json.dumps({"plugin": ["/workspace/config.js"]}))
        for path in (workspace, *workspace.rglob("*")):
            path.chmod(0o777)
        ended = await (await system.start("::say hello", session="demo")).wait()
        assert ended.status is JobStatus.COMPLETED, ended
        with trio.fail_after(60):
            await eventually(
                lambda: all((workspace / f"ran-{name}").exists() for name in ("folder", "config"))
            )
    (said,) = [record.getMessage() for record in caplog.records if "runs by itself" in record.getMessage()]
    assert said.startswith(
        "the workspace of session demo has code that OpenCode runs by itself: opencode.json, "
    )
    assert ".opencode/plugin/folder.js" in said
