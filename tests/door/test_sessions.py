"""Sessions through the door: closed, made usable again, cleaned up."""

from __future__ import annotations

from attrs import evolve

from opencode_actors.door.faults import Code
from opencode_actors.machines.vocabulary import JobStatus, SessionKey
from tests.door.room import a_peer
from tests.door.service import NO_WEBHOOK, Service, a_service


async def spoken_in(service: Service, session: str) -> None:
    await (await service.system.start("::say hello", session=session, name=f"job in {session}")).wait()


async def test_a_session_is_closed_by_any_of_its_names_and_goes_on_later() -> None:
    async with a_service() as service, a_peer(service.door) as peer:
        await spoken_in(service, "demo")
        assert await peer.call("close", session_id="job in demo") == {"sessionKey": "demo", "endedBy": "stop"}
        assert (await peer.call("sessions"))["sessions"] == []
        assert service.world.engine.containers == {}
        assert (await peer.call("close", session_id="demo"))["code"] == Code.UNKNOWN_SESSION
        refused = await peer.call("close", session_id="dema")
        assert refused["code"] == Code.UNKNOWN_SESSION
        assert "'demo'" in refused["data"]["hint"]
        assert (await peer.call("resume", session_id="demo"))["sessionKey"] == "demo"


async def test_a_quarantined_session_is_reset_once_its_cause_is_seen_to() -> None:
    impatient = evolve(NO_WEBHOOK, abort_grace=0.1, stop_grace=0.1, kill_grace=0.1, remove_grace=0.1)
    async with a_service(impatient) as service, a_peer(service.door) as peer:
        engine = service.world.engine
        job = (await peer.call("start", prompt="::hang", session_id="demo", name="stuck"))["jobId"]
        await peer.call("follow", job_id=job)
        while (await peer.notice())["params"]["kind"] != "jobStarted":
            pass
        for verb in ("stop", "kill", "remove"):
            engine.lie(verb)
        next(iter(engine.containers.values())).spawn("sleep")
        await peer.call("cancel", job_id=job)
        (before,) = (await peer.call("sessions"))["sessions"]
        assert before["status"] == "quarantined"
        assert before["error"]
        engine.be_honest()
        after = await peer.call("reset", session_id="stuck")
        assert after["sessionKey"] == "demo"
        assert after["status"] != "quarantined"
        assert after.keys() == before.keys()
        again = await peer.call("start", prompt="::say again", session_id="demo")
        assert (await service.system.wait(again["jobId"])).status is JobStatus.COMPLETED
        assert (await peer.call("reset", session_id="nobody"))["code"] == Code.UNKNOWN_SESSION


async def test_a_clean_up_keeps_what_was_used_lately_and_deletes_what_it_is_told_to() -> None:
    async with a_service() as service, a_peer(service.door) as peer:
        await spoken_in(service, "demo")
        folder = service.system.workspace(SessionKey("demo"))
        young = await peer.call("cleanup", delete_data=True, delete_workspaces=True, older_than=3600)
        assert young["kept"] == [{"sessionKey": "demo", "reason": "it was used lately"}]
        assert (young["ended"], young["deletedWorkspaces"]) == ([], [])
        done = await peer.call("cleanup", delete_data=True)
        assert done["ended"] == [{"sessionKey": "demo"}]
        assert len(done["deletedWorkspaces"]) == 1
        assert str(folder) not in done["deletedWorkspaces"]
        (ended,) = (await peer.call("sessions", all=True))["sessions"]
        assert not ended["resumable"]
        assert (await peer.call("cleanup", older_than=-1))["data"]["field"] == "older_than"
