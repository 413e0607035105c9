"""Servers that somebody else runs, and what servers offer, through the door."""

from __future__ import annotations

import json

import pytest

from opencode_actors.door.faults import Code
from tests.door.room import a_peer
from tests.door.service import a_service

URL = "http://127.0.0.1:4096"
SECRET = "a secret of theirs"
VARIABLE = "THEIR_PASSWORD"


@pytest.fixture(autouse=True)
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, SECRET)


async def test_a_session_is_attached_used_listed_and_detached() -> None:
    async with a_service() as service, a_peer(service.door) as peer:
        server = service.world.servers.start(URL, password=SECRET)
        attached = await peer.call("attach", name="far", url=URL, password_env=VARIABLE, directory="/srv/app")
        assert attached == {
            "sessionKey": "far",
            "server": URL,
            "version": "1.18.33",
            "directory": "/srv/app",
            "conversation": None,
            "notes": [],
        }
        started = await peer.call("start", prompt="::say hello", session_id="far")
        await service.system.wait(started["jobId"])
        (session,) = (await peer.call("sessions"))["sessions"]
        assert (session["server"], session["workspace"], session["image"]) == (URL, "/srv/app", None)
        listed = await peer.call("conversations", session_id=started["jobId"])
        assert listed["sessionKey"] == "far"
        (one,) = listed["conversations"]
        assert one["ours"]
        assert (one["directory"], one["state"]) == ("/srv/app", "idle")
        assert SECRET not in json.dumps([attached, session, one])
        gone = await peer.call("detach", session_id=started["name"])
        assert gone == {"sessionKey": "far", "server": URL, "detached": True}
        assert (await peer.call("sessions"))["sessions"] == []
        assert server.alive


async def test_what_cannot_be_attached_is_refused_without_its_secrets() -> None:
    async with a_service() as service, a_peer(service.door) as peer:
        service.world.servers.start(URL, password=SECRET)
        for params, code in (
            ({"url": f"http://opencode:{SECRET.replace(' ', '')}@127.0.0.1:4096"}, Code.USAGE),
            ({"url": "ftp://127.0.0.1:4096"}, Code.USAGE),
            ({"url": URL, "password_env": "ANTHROPIC_API_KEY"}, Code.USAGE),
            ({"url": URL, "password_file": "/etc/shadow"}, Code.USAGE),
            ({"url": URL}, Code.USAGE),  # the server wants a password
            ({"url": "http://127.0.0.1:4097"}, Code.ENGINE_UNAVAILABLE),
            ({"url": ""}, Code.INVALID_PARAMS),
        ):
            refused = await peer.call("attach", name="far", **params)
            assert refused["code"] == code, refused
            assert SECRET.replace(" ", "") not in json.dumps(refused)
        assert (await peer.call("detach", session_id="far"))["code"] == Code.UNKNOWN_SESSION
        assert (await peer.call("conversations", session_id="far"))["code"] == Code.UNKNOWN_SESSION
        assert (await peer.call("sessions"))["sessions"] == []


async def test_a_mode_and_rules_go_with_a_start_and_stay_with_the_session() -> None:
    async with a_service() as service, a_peer(service.door) as peer:
        config: dict[str, object] = {}
        begun: tuple[dict[str, object], ...] = (
            {"permission_mode": "plan"},
            {},
            {"permission_rules": ["bash:rm *=deny"]},
        )
        for params in begun:
            started = await peer.call("start", prompt="::say x", session_id="demo", **params)
            await service.system.wait(started["jobId"])
            (container,) = service.world.engine.containers.values()
            config = json.loads(container.spec.environment["OPENCODE_CONFIG_CONTENT"])["permission"]
            assert config["**"] == "deny"
        assert config["b*ash"] == {"rm *": "deny"}
        wrong: tuple[tuple[dict[str, object], Code], ...] = (
            ({"permission_mode": "sudo"}, Code.INVALID_PARAMS),
            ({"permission_rules": ["bash=perhaps"]}, Code.USAGE),
            ({"permission_rules": [1]}, Code.INVALID_PARAMS),
        )
        for params, code in wrong:
            assert (await peer.call("start", prompt="x", session_id="demo", **params))["code"] == code


async def test_agents_and_models_are_listed_and_wrong_ones_refused_with_the_nearest() -> None:
    async with a_service() as service, a_peer(service.door) as peer:
        agents = await peer.call("agents")
        assert agents["started"] is True
        assert "build" in [one["name"] for one in agents["agents"]]
        assert "title" not in [one["name"] for one in agents["agents"]]  # OpenCode's own helper
        started = await peer.call("start", prompt="::say hello", session_id="demo")
        await service.system.wait(started["jobId"])
        models = await peer.call("models", session_id="demo", match="DEMO")
        assert (models["sessionKey"], models["started"]) == ("demo", False)
        assert models["models"] == [{"name": "scripted/demo", "title": "", "priced": True}]
        assert (await peer.call("models", match="no such"))["models"] == []
        refused = await peer.call("start", prompt="x", session_id="demo", model="scripted/dmo")
        assert refused["code"] == Code.USAGE
        assert "nearest: scripted/demo" in refused["message"]
