"""The methods over a whole system: fakes behind it, a real socket before it."""

from __future__ import annotations

from typing import Any

import pytest

from opencode_actors.door.faults import CloseCode, Code
from opencode_actors.machines.vocabulary import SessionKey
from tests.door.room import Peer, a_peer
from tests.door.service import a_service


async def until(peer: Peer, kind: str) -> Any:
    while True:
        told = await peer.notice()
        if told["params"]["kind"] == kind:
            return told["params"]


async def test_a_job_from_its_start_to_its_output() -> None:
    async with a_service() as service, a_peer(service.door) as peer:
        started = await peer.call("start", prompt="::say one two three", session_id="demo")
        assert started["sessionKey"] == "demo"
        assert started["status"] in ("pending", "running")
        subscription = (await peer.call("follow", job_id=started["jobId"]))["subscription"]
        told: list[Any] = []
        while not told or told[-1]["method"] == "notice":
            told.append(await peer.notice())
        kinds = [one["params"]["kind"] for one in told[:-1]]
        assert "jobQueued" in kinds
        assert kinds[-1] == "jobEnded"
        assert {one["params"]["subscription"] for one in told} == {subscription}
        ended = told[-2]["params"]["status"]
        assert ended["status"] == "completed"
        assert ended["tailOutput"].strip() == "one two three"
        text = "".join(one["params"].get("text", "") for one in told)
        assert text.strip() == "one two three"
        assert await peer.call("status", job_id=started["jobId"]) | {"seq": 0} == ended | {"seq": 0}
        output = await peer.call("output", job_id=started["jobId"], limit=5)
        assert output["text"] == "one t"
        assert output["hasMore"]
        rest = await peer.call("output", job_id=started["jobId"], offset=output["nextOffset"])
        assert (output["text"] + rest["text"]).strip() == "one two three"
        assert not rest["hasMore"]


async def test_a_running_job_is_cancelled_and_says_by_which_rung() -> None:
    async with a_service() as service, a_peer(service.door) as peer:
        job = (await peer.call("start", prompt="::hang", session_id="demo"))["jobId"]
        await peer.call("follow", job_id=job)
        await until(peer, "jobStarted")
        queued = await peer.call("respond", job_id=job, message="::say later")
        assert queued["sessionKey"] == "demo"
        assert queued["ahead"] == 1
        (session,) = (await peer.call("sessions"))["sessions"]
        assert session["activeJob"] == job
        assert session["queued"] == [queued["jobId"]]
        cancelled = await peer.call("cancel", job_id=job)
        assert cancelled["status"] == "cancelled"
        assert cancelled["climb"]["endedBy"] == "abort"
        assert await peer.call("cancel", job_id=job) | {"seq": 0} == cancelled | {"seq": 0}


async def test_a_clean_up_ends_what_is_idle_and_leaves_what_runs() -> None:
    async with a_service() as service, a_peer(service.door) as peer:
        idle = (await peer.call("start", prompt="::say hello", session_id="idle"))["jobId"]
        await service.system.wait(idle)
        job = (await peer.call("start", prompt="::hang", session_id="busy"))["jobId"]
        await peer.call("follow", job_id=job)
        await until(peer, "jobStarted")
        done = await peer.call("cleanup")
        assert done["ended"] == [{"sessionKey": "idle"}]
        assert [kept["sessionKey"] for kept in done["kept"]] == ["busy"]
        assert done["kept"][0]["reason"]
        assert done["deletedWorkspaces"] == []
        assert [one["sessionKey"] for one in (await peer.call("sessions"))["sessions"]] == ["busy"]
        gone = (await peer.call("cleanup", delete_workspaces=True))["deletedWorkspaces"]
        assert gone == [str(service.system.workspace(SessionKey("idle")))]


async def test_a_name_stands_for_its_job_wherever_one_is_named() -> None:
    async with a_service() as service, a_peer(service.door) as peer:
        started = await peer.call("start", prompt="::ask Which? | Blue", session_id="demo", name="the page")
        job = started["jobId"]
        await peer.call("follow", job_id="the page")
        asked = await until(peer, "inputWanted")
        status = await peer.call("status", job_id="the page")
        assert (status["jobId"], status["name"]) == (job, "the page")
        assert status["startedAt"] > 0
        taken = await peer.call("start", prompt="::say x", session_id="other", name="the page")
        assert taken["code"] == Code.USAGE
        assert job in taken["message"]
        answered = await peer.call(
            "answer", job_id="the page", request_id=asked["requestId"], answers=["Blue"]
        )
        assert answered == {"answered": True}
        ended = (await until(peer, "jobEnded"))["status"]
        assert ended["name"] == "the page"
        assert (await peer.call("output", job_id="the page"))["jobId"] == job
        assert (await peer.call("cancel", job_id="the page"))["jobId"] == job
        again = await peer.call("respond", job_id="the page", message="::say more", name="the page")
        assert again["sessionKey"] == "demo"
        await service.system.wait(again["jobId"])
        several = await peer.call("status", job_id="the page")
        assert several["code"] == Code.USAGE
        assert job in several["message"]
        assert again["jobId"] in several["message"]
        (session,) = (await peer.call("sessions"))["sessions"]
        assert (session["name"], session["jobs"]) == ("the page", 2)
        assert 0 <= session["lastActivitySecondsAgo"] <= session["ageSeconds"]


async def test_a_session_that_runs_with_another_image_says_so() -> None:
    async with a_service() as service, a_peer(service.door) as peer:
        service.world.engine.images.add("localhost/other:1")
        started = await peer.call("start", prompt="::say x", session_id="demo", image="localhost/other:1")
        await service.system.wait(started["jobId"])
        (session,) = (await peer.call("sessions"))["sessions"]
        assert session["image"] == "localhost/other:1"
        refused = await peer.call("start", prompt="::say x", session_id="demo", image="localhost/third:1")
        assert refused["code"] == Code.USAGE
        assert "localhost/other:1" in refused["message"]


async def test_a_job_that_costs_more_than_it_may_is_ended_and_says_so() -> None:
    async with a_service() as service, a_peer(service.door) as peer:
        prompt = "::say begun\n::bash true\n::hang"
        job = (await peer.call("start", prompt=prompt, session_id="demo", max_cost_usd=1e-6))["jobId"]
        await peer.call("follow", job_id=job)
        ended = (await until(peer, "jobEnded"))["status"]
        assert (ended["status"], ended["cause"]) == ("failed", "budget")
        assert ended["costUsd"] > ended["maxCostUsd"] == 1e-6
        assert ended["costKnown"] is True
        assert "begun" in ended["tailOutput"]


async def test_a_failure_says_what_it_was() -> None:
    async with a_service() as service, a_peer(service.door) as peer:
        job = (await peer.call("start", prompt="::status 401"))["jobId"]
        await peer.call("follow", job_id=job)
        ended = (await until(peer, "jobEnded"))["status"]
        assert (ended["status"], ended["cause"]) == ("failed", "auth")
        assert ended["error"]
        assert ended["hint"]


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("status", {"job_id": "job_0"}, Code.UNKNOWN_JOB),
        ("output", {"job_id": "job_0"}, Code.UNKNOWN_JOB),
        ("cancel", {"job_id": "job_0"}, Code.UNKNOWN_JOB),
        ("follow", {"job_id": "job_0"}, Code.UNKNOWN_JOB),
        ("follow", {"job_id": "job_0", "session_id": "demo"}, Code.USAGE),
        ("start", {"prompt": "  "}, Code.USAGE),
        ("start", {"prompt": "x", "session_id": "../etc"}, Code.USAGE),
        ("start", {"prompt": "x", "model": "no-provider"}, Code.USAGE),
        ("respond", {"message": "x"}, Code.USAGE),
        ("respond", {"message": "x", "job_id": "job_0"}, Code.UNKNOWN_JOB),
        ("ack", {"id": "1"}, Code.USAGE),
    ],
)
async def test_what_cannot_be_is_refused_with_the_reason(
    method: str, params: dict[str, object], code: Code
) -> None:
    async with a_service() as service, a_peer(service.door) as peer:
        answer = await peer.call(method, **params)
        assert answer["code"] == code
        assert answer["data"]["cause"] == code.name.lower()


async def test_a_job_of_another_session_is_not_shown() -> None:
    async with a_service() as service, a_peer(service.door) as peer:
        job = (await peer.call("start", prompt="::say x", session_id="demo"))["jobId"]
        assert (await peer.call("status", job_id=job, session_id="othr"))["code"] == Code.UNKNOWN_SESSION
        await peer.call("start", prompt="::say x", session_id="other")
        assert (await peer.call("status", job_id=job, session_id="other"))["code"] == Code.UNKNOWN_JOB
        assert (await peer.call("status", job_id=job, session_id="demo"))["jobId"] == job


async def test_a_door_tells_what_it_is() -> None:
    async with a_service() as service, a_peer(service.door) as peer:
        info = await peer.call("info")
        assert (info["service"], info["protocol"]) == ("opencode-actors", 1)
        assert info["limits"]["messageBytes"] == 8 << 20
        assert set(await peer.call("ping")) == {"now", "seq"}


ORIGIN = {"session_key": "agent:main:main", "agent_id": "main", "channel": "cli"}


async def test_the_end_of_a_chats_job_is_given_to_who_attends_until_it_is_acknowledged() -> None:
    async with a_service() as service, a_peer(service.door) as first:
        assert await first.call("attend", name="gateway") == {"attending": "gateway"}
        job = (await first.call("start", prompt="::say done", origin=ORIGIN))["jobId"]
        told = (await first.notice())["params"]
        assert (told["jobId"], told["kind"], told["origin"]) == (job, "completed", ORIGIN)
        async with a_peer(service.door) as second:
            assert (await second.call("ack", id=told["id"]))["code"] == Code.USAGE
            await second.call("attend", name="gateway")
            assert await first.close_code() == CloseCode.REPLACED
            again = (await second.notice())["params"]
            assert again == told
            assert await second.call("ack", id=told["id"]) == {}
            quiet = (await second.call("start", prompt="::say nobody asked"))["jobId"]
            await ended(second, quiet)
            assert not [one for one in second.notices if one["method"] == "deliver"]


async def test_a_question_is_given_to_who_attends_and_answered_on_the_way_back_C7() -> None:
    async with a_service() as service, a_peer(service.door) as first:
        job = (await first.call("start", prompt="::ask Which? | Red | Blue", origin=ORIGIN, name="paint"))[
            "jobId"
        ]
        await first.call("follow", job_id=job)
        asked = await until(first, "inputWanted")
        async with a_peer(service.door) as second:
            await second.call("attend", name="gateway")
            told = (await second.notice())["params"]
            assert (told["kind"], told["jobId"], told["name"]) == ("waiting", job, "paint")
            assert told["origin"] == ORIGIN
            assert asked["requestId"] in told["text"]
            assert await second.call("ack", id=told["id"]) == {}
            await second.call("answer", job_id=job, request_id=asked["requestId"], answers=["Blue"])
            end = (await second.notice())["params"]
            assert (end["kind"], end["id"]) == ("completed", job)


async def ended(peer: Peer, job: str) -> None:
    await peer.call("follow", job_id=job)
    while (await peer.notice())["method"] != "followEnded":
        pass


async def test_a_message_that_interrupts_goes_first_and_the_turn_says_for_whom() -> None:
    async with a_service() as service, a_peer(service.door) as peer:
        await peer.call("start", prompt="::say begun\n::hang", session_id="demo", name="it")
        waits = await peer.call("respond", session_id="demo", message="::say later")
        await peer.call("follow", job_id="it")
        await until(peer, "output")
        first = await peer.call("respond", session_id="it", message="::say instead", interrupt=True)
        assert (first["sessionKey"], first["name"]) == ("demo", "say-instead")
        assert first["ahead"] in (0, 1)
        ended = (await until(peer, "jobEnded"))["status"]
        assert (ended["status"], ended["interruptedBy"]) == ("cancelled", first["jobId"])
        assert ended["tailOutput"].strip() == "begun"
        for one in (first, waits):
            await service.system.wait(one["jobId"])
            assert (await peer.call("status", job_id=one["name"]))["interruptedBy"] is None


async def test_a_session_that_ended_is_resumed_by_the_name_of_one_of_its_jobs() -> None:
    async with a_service() as service, a_peer(service.door) as peer:
        started = await peer.call("start", prompt="::say the login test")
        await service.system.wait(started["jobId"])
        await peer.call("cleanup")
        assert (await peer.call("sessions"))["sessions"] == []
        resumed = await peer.call("resume", job_id=started["name"], message="::hang")
        assert resumed["sessionKey"] == started["sessionKey"] == "say-login-test"
        refused = await peer.call("resume", session_id="say-login-test")
        assert refused["code"] == Code.USAGE
        assert resumed["jobId"] in refused["message"]
        unknown = await peer.call("resume", session_id="say-logn-test")
        assert unknown["code"] == Code.UNKNOWN_SESSION
        assert "'say-login-test'" in unknown["data"]["hint"]
        assert (await peer.call("respond", session_id="say-logn-test", message="x")) == unknown
        assert (await peer.call("follow", session_id="say-logn-test"))["code"] == Code.UNKNOWN_SESSION


async def test_a_fork_says_what_was_copied_and_what_was_left_out() -> None:
    async with a_service() as service, a_peer(service.door) as peer:
        first = await peer.call("start", prompt="::say one", session_id="demo", name="it")
        await service.system.wait(first["jobId"])
        workspace = service.system.workspace(SessionKey("demo"))
        (workspace / ".git").mkdir(parents=True)
        (workspace / "a.txt").write_text("four")
        running = await peer.call("start", prompt="::say begun\n::hang", session_id="demo")
        await peer.call("follow", job_id=running["jobId"])
        await until(peer, "output")
        forked = await peer.call("fork", job_id="it", name="branch", message="::say other")
        job = forked.pop("job")
        assert job["sessionKey"] == "branch"
        assert forked == {
            "sessionKey": "branch",
            "forkedFrom": "demo",
            "copied": "git repository",
            "files": 1,
            "bytes": 4,
            "workspace": str(service.system.workspace(SessionKey("branch"))),
            "leftOut": running["jobId"],
        }
        assert (await service.system.wait(job["jobId"])).failure is None
        taken = await peer.call("fork", session_id="demo", name="branch")
        assert taken["code"] == Code.USAGE
        first, again = [
            await peer.call("fork", session_id="demo", message="::say x", key="k") for _ in range(2)
        ]
        assert (again["sessionKey"], again["job"]["jobId"]) == (first["sessionKey"], first["job"]["jobId"])
        assert [again[name] for name in ("copied", "files", "bytes")] == [None, None, None]


async def test_sessions_that_have_ended_are_listed_when_all_are_asked_for() -> None:
    async with a_service() as service, a_peer(service.door) as peer:
        started = await peer.call("start", prompt="::say one", session_id="demo", name="it")
        await service.system.wait(started["jobId"])
        await peer.call("fork", session_id="demo", name="branch")
        open_ones = await peer.call("sessions")
        cleaned = await peer.call("cleanup")
        assert (cleaned["forgottenSessions"], cleaned["forgottenJobs"]) == ([], 0)
        assert (await peer.call("sessions"))["sessions"] == []
        everything = (await peer.call("sessions", all=True))["sessions"]
        assert [(one["sessionKey"], one["status"], one["resumable"]) for one in everything] == [
            ("demo", "ended", True),
            ("branch", "ended", True),
        ]
        assert [one["forkedFrom"] for one in everything] == [None, "demo"]
        assert everything[0].keys() == open_ones["sessions"][0].keys()


async def test_all_that_is_asked_stands_in_one_list() -> None:
    async with a_service() as service, a_peer(service.door) as peer:
        assert await peer.call("requests") == {"requests": []}
        jobs: list[str] = []
        for name in ("paint", "build"):
            prompt = "::ask Which colour? | Red | Blue"
            started = await peer.call("start", prompt=prompt, name=name, session_id=name)
            jobs.append(started["jobId"])
            await peer.call("follow", job_id=started["jobId"])
            await until(peer, "inputWanted")
        asked = (await peer.call("requests"))["requests"]
        assert [(one["jobId"], one["name"], one["kind"]) for one in asked] == [
            (jobs[0], "paint", "question"),
            (jobs[1], "build", "question"),
        ]
        assert asked[0]["waitingSeconds"] > asked[1]["waitingSeconds"] >= 0
        for one in asked:
            await peer.call(
                "answer", job_id=one["name"], request_id=one["requestId"], answers="Red", by="agent"
            )
        assert await peer.call("requests") == {"requests": []}


async def test_what_is_told_is_chosen_by_session_or_by_channel_C6() -> None:
    async with a_service() as service, a_peer(service.door) as peer:
        for name in ("demo", "other"):
            await peer.call("start", prompt="::say x", session_id=name)
        chosen = await peer.call("notify", session_id="demo", on=["text", "tool"], off="running")
        assert chosen["kinds"]["text"] == {"on": True, "by": "session"}
        assert chosen["kinds"]["running"] == {"on": False, "by": "session"}
        assert (await peer.call("notify", session_id="other"))["kinds"]["text"] == {
            "on": False,
            "by": "default",
        }
        await peer.call("notify", channel="telegram", on=["all"])
        assert (await peer.call("notify", channel="telegram"))["kinds"]["started"]["by"] == "channel"
        job = (await peer.call("start", prompt="::say x", session_id="demo"))["jobId"]
        back = await peer.call("notify", job_id=job, reset=["text"])
        assert (back["sessionKey"], back["kinds"]["text"]["by"]) == ("demo", "default")
        for params, said in (
            ({"session_id": "demo", "on": ["finished"]}, "'finished'"),
            ({"on": ["text"]}, "nothing is named"),
            ({"session_id": "demo", "channel": "x", "on": ["text"]}, "not for both"),
            ({"session_id": "demo", "on": ["text"], "off": ["text"]}, "twice"),
            ({"channel": "no such thing", "on": ["text"]}, "cannot be a channel"),
        ):
            refused = await peer.call("notify", **params)
            assert said in refused["message"]


async def test_statistics_are_of_whole_days_C8() -> None:
    async with a_service() as service, a_peer(service.door) as peer:
        for prompt in ("::say one", "::status 401"):
            job = (await peer.call("start", prompt=prompt, session_id="demo"))["jobId"]
            await service.system.wait(job)
        found = await peer.call("statistics")
        assert (found["days"], found["jobs"], len(found["byDay"])) == (7, 2, 1)
        assert {one["status"]: one["jobs"] for one in found["byOutcome"]} == {"completed": 1, "failed": 1}
        assert [one["cause"] for one in found["byCause"]] == ["auth"]
        refused = await peer.call("statistics", days=0)
        assert refused["data"]["field"] == "days"
