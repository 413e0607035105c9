"""The plugin in OpenClaw's own gateway, against a door that does what the test says."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from tests.openclaw.conftest import PROFILES
from tests.openclaw.desk import PATIENCE, Desk
from tests.openclaw.gateway import GatewayError
from tests.openclaw.scripted_door import HangUp, Refusal

pytestmark = pytest.mark.openclaw

OPERATIONS = (
    "start", "status", "output", "cancel", "cleanup", "sessions", "answer", "respond",
    "resume", "fork", "requests", "statistics", "notify", "attach", "detach", "conversations", "agents", "models",
)  # fmt: skip
TOOLS = {f"opencode_{operation}" for operation in OPERATIONS}


def started(params: dict[str, Any]) -> dict[str, Any]:
    return {"jobId": "j-7", "sessionKey": "s-7", "status": "pending", "ahead": 0, "name": ""}


def call(tool: str, **arguments: object) -> str:
    return f"CALL:{tool} {json.dumps(arguments)};;"


# ---- what the model sees


@pytest.mark.parametrize("agent", ["main", *PROFILES])
async def test_the_model_sees_every_tool_whatever_its_profile(desk: Desk, agent: str) -> None:
    await desk.turn(f"agent:{agent}:tools", "what can you do?")
    offered = desk.provider.exchanges[-1].request.tools
    assert offered >= TOOLS


async def test_the_model_is_told_of_the_skill(desk: Desk) -> None:
    await desk.turn("agent:main:skill", "hello")
    text = json.dumps(desk.provider.exchanges[-1].request.body)
    assert "opencode-delegation" in text
    assert "when to ask the person" in text


# ---- calls


async def test_an_agents_start_says_who_asked(desk: Desk) -> None:
    desk.door.answers["start"] = started
    answer = await desk.turn(
        "agent:blue:start", call("opencode_start", prompt="build it", model="a/b", timeout=60)
    )
    (asked,) = desk.door.asked("start")
    assert asked.pop("key").startswith("openclaw:")
    assert asked == {
        "by": "agent",
        "prompt": "build it",
        "model": "a/b",
        "timeout": 60,
        "origin": {"session_key": "agent:blue:start", "agent_id": "blue", "channel": ""},
    }
    assert "j-7" in answer
    assert "do not poll" in answer


async def test_agents_tools_methods_and_http_share_one_connection(desk: Desk) -> None:
    """The gateway evaluates the plugin's module more than once, and the copies know nothing of each other."""
    desk.door.answers["start"] = started
    await desk.turn("agent:main:one", call("opencode_start", prompt="one"))
    await desk.gateway.invoke("opencode_start", prompt="two")
    await desk.client.request("opencode.start", prompt="three")
    (visitor,) = desk.door.visitors
    assert [one["params"]["prompt"] for one in visitor.asked if one["method"] == "start"] == [
        "one",
        "two",
        "three",
    ]


async def test_a_start_whose_connection_is_lost_is_asked_for_again_under_its_key_P20(desk: Desk) -> None:
    def hang_up_once(params: dict[str, Any]) -> dict[str, Any]:
        if len(desk.door.asked("start")) == 1:
            raise HangUp
        return started(params)

    desk.door.answers["start"] = hang_up_once
    answer = await desk.turn("agent:main:lost", call("opencode_start", prompt="once only"))
    first, second = desk.door.asked("start")
    assert first == second
    assert "j-7" in answer
    assert len(desk.door.visitors) == 2


async def test_an_answer_whose_connection_is_lost_is_not_given_twice(desk: Desk) -> None:
    def hang_up(params: dict[str, Any]) -> dict[str, Any]:
        raise HangUp

    desk.door.answers["answer"] = hang_up
    with pytest.raises(GatewayError, match="lost before it answered"):
        await desk.client.request("opencode.answer", job_id="j", request_id="r", answers=["x"])
    assert len(desk.door.asked("answer")) == 1


async def test_a_cancelled_call_leaves_its_job_alone(desk: Desk) -> None:
    desk.door.answers["start"] = started
    desk.door.held["start"] = trio.Event()
    session = "agent:aborting:one"
    run = await desk.say(session, call("opencode_start", prompt="long"))
    with trio.fail_after(PATIENCE):
        await desk.door.until(lambda: bool(desk.door.asked("start")))
        await desk.client.request("chat.abort", sessionKey=session, runId=run)
        await desk.client.request("agent.wait", runId=run, timeoutMs=PATIENCE * 1000)
    desk.door.held.pop("start").set()
    await desk.client.request("opencode.sessions")  # answered after whatever an abort might have sent
    assert desk.door.asked("cancel") == []
    assert len(desk.door.asked("start")) == 1


async def test_a_refusal_reaches_the_model_with_its_hint(desk: Desk) -> None:
    def refuse(params: dict[str, Any]) -> dict[str, Any]:
        raise Refusal(-32001, "no job is called j-9", cause="", hint="opencode_sessions lists them")

    desk.door.answers["status"] = refuse
    answer = await desk.turn("agent:main:refused", call("opencode_status", job_id="j-9"))
    assert "no job is called j-9" in answer
    assert "hint: opencode_sessions lists them" in answer


async def test_a_long_output_comes_in_pages_that_openclaw_does_not_cut_P19(desk: Desk) -> None:
    whole = "".join(f"line {number:06}\n" for number in range(5_000))

    def output(params: dict[str, Any]) -> dict[str, Any]:
        offset = params.get("offset", 0)
        end = min(len(whole), offset + params["limit"])
        return {
            "jobId": "j-1",
            "text": whole[offset:end],
            "offset": offset,
            "nextOffset": end,
            "hasMore": end < len(whole),
            "outputSize": len(whole),
            "status": "completed",
        }

    desk.door.answers["output"] = output
    await desk.turn("agent:main:pages", call("opencode_output", job_id="j-1", limit=65536))
    page, _, told_where = desk.last_tool_result().rpartition("[bytes ")
    assert page
    assert whole.startswith(page)
    assert (
        told_where
        == f"0 to {len(page)} of {len(whole)} of j-1, which is completed; more: offset {len(page)}]"
    )
    await desk.turn("agent:main:end", call("opencode_output", job_id="j-1", offset=len(whole) - 100))
    assert desk.last_tool_result() == (
        f"{whole[-100:]}[bytes 59900 to 60000 of 60000 of j-1, which is completed; the end]"
    )


async def test_a_caller_of_a_tool_cannot_pass_for_somebody_else(desk: Desk) -> None:
    desk.door.answers["start"] = started
    forged = {"session_key": "agent:red:main", "agent_id": "red", "channel": ""}
    await desk.gateway.invoke("opencode_start", session="agent:main:forger", prompt="x", origin=forged)
    (asked,) = desk.door.asked("start")
    assert asked["origin"]["session_key"] == "agent:main:forger"


# ---- chat and gateway


async def test_a_chat_command_is_answered_without_the_model(desk: Desk) -> None:
    desk.door.answers["start"] = started
    before = len(desk.provider.exchanges)
    session = "agent:chatting:main"
    await desk.client.request(
        "chat.send", sessionKey=session, message="/opencode start --agent plan mend it", idempotencyKey="c1"
    )
    with trio.fail_after(PATIENCE):
        await desk.door.until(lambda: bool(desk.door.asked("start")))
        while "j-7 is pending in session s-7." not in await desk.last_word(session):  # noqa: ASYNC110
            await trio.sleep(0.1)
    (asked,) = desk.door.asked("start")
    assert (asked["prompt"], asked["agent"]) == ("mend it", "plan")
    assert asked["origin"]["session_key"] == session
    assert len(desk.provider.exchanges) == before


async def test_a_message_that_interrupts_a_resume_and_a_fork_come_from_agent_chat_and_gateway(
    desk: Desk,
) -> None:
    forked = {
        "sessionKey": "b",
        "forkedFrom": "a",
        "copied": "directory",
        "files": 2,
        "leftOut": None,
        "job": None,
    }
    desk.door.answers |= {"respond": started, "resume": started, "fork": lambda _: forked}
    session = "agent:main:talking"
    calls = (
        call("opencode_respond", session_id="a", message="use tabs", interrupt=True),
        call("opencode_resume", session_id="a"),
        call("opencode_fork", session_id="a", name="b"),
    )
    for one in calls:
        await desk.turn(session, one)
    assert '"forkedFrom": "a"' in desk.last_tool_result()
    await desk.client.request("opencode.respond", session_id="a", message="use tabs", interrupt=True)
    await desk.client.request("opencode.resume", session_id="a")
    await desk.client.request("opencode.fork", session_id="a", name="b")
    typed = ("interrupt a use tabs", "resume a", "fork --name b a")
    for number, words in enumerate(typed):
        message = f"/opencode {words}"
        await desk.client.request(
            "chat.send", sessionKey=session, message=message, idempotencyKey=f"t{number}"
        )
    with trio.fail_after(PATIENCE):
        await desk.door.until(
            lambda: all(len(desk.door.asked(one)) == 3 for one in ("respond", "resume", "fork"))
        )
    wanted: dict[str, dict[str, Any]] = {
        "respond": {"session_id": "a", "message": "use tabs", "interrupt": True},
        "resume": {"session_id": "a"},
        "fork": {"session_id": "a", "name": "b"},
    }
    for operation, params in wanted.items():
        for asked in desk.door.asked(operation):
            assert {key: asked[key] for key in asked if key not in ("key", "origin", "by")} == params
            assert asked["key"].startswith("openclaw:")


async def test_what_is_new_comes_in_pieces_to_an_agent_and_to_a_program(desk: Desk) -> None:
    async def hear(subscription: str) -> None:
        await desk.door.until(lambda: len(desk.door.asked("follow")) == int(subscription[-1]))
        visitor = await desk.until_attended()
        for told in (
            {"seq": 5, "kind": "output", "outputKind": "text", "text": "I mix "},
            {"seq": 6, "kind": "output", "outputKind": "text", "text": "the colours."},
        ):
            notice = {"subscription": subscription, **told}
            await visitor.connection.send_message(
                json.dumps({"jsonrpc": "2.0", "method": "notice", "params": notice})
            )

    desk.door.answers["follow"] = lambda _: {"subscription": f"sub_{len(desk.door.asked('follow'))}"}
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear, "sub_1")
            said = (await desk.gateway.invoke("opencode_follow", job_id="paint", since=4)).text
        assert "I mix the colours.\\n[go on with since 6]" in said
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear, "sub_2")
            news = await desk.client.request("opencode.follow", session_id="wall", wait=60)
        await desk.door.until(lambda: len(desk.door.asked("unfollow")) == 2)
    assert (news["text"], news["since"], news["over"]) == ("I mix the colours.", 6, False)
    assert desk.door.asked("follow") == [{"job_id": "paint", "since": 4}, {"session_id": "wall"}]
    assert desk.door.asked("unfollow") == [{"subscription": "sub_1"}, {"subscription": "sub_2"}]


async def test_a_session_is_closed_and_reset_by_an_agent_and_by_a_program(desk: Desk) -> None:
    desk.door.answers["close"] = lambda _: {"sessionKey": "demo", "endedBy": "stop"}
    desk.door.answers["reset"] = lambda _: {"sessionKey": "demo", "status": "ready"}
    with trio.fail_after(PATIENCE):
        assert "demo" in (await desk.gateway.invoke("opencode_close", session_id="demo")).text
        assert (await desk.client.request("opencode.reset", session_id="demo"))["status"] == "ready"
        await desk.gateway.invoke("opencode_cleanup", delete_data=True, older_than=60)
        await desk.client.request("opencode.info")
    assert desk.door.asked("close") == desk.door.asked("reset") == [{"session_id": "demo"}]
    assert desk.door.asked("cleanup") == [{"delete_data": True, "older_than": 60}]


async def test_an_agent_chooses_several_for_one_question(desk: Desk) -> None:
    with trio.fail_after(PATIENCE):
        chosen = [["Red", "Blue"], ["Later"]]
        await desk.gateway.invoke("opencode_answer", job_id="j-9", request_id="q-9", choices=chosen)
    assert desk.door.asked("answer")[0]["answers"] == [["Red", "Blue"], ["Later"]]
    assert "choices" not in desk.door.asked("answer")[0]


async def test_a_gateway_method_says_what_was_wrong(desk: Desk) -> None:
    def refuse(params: dict[str, Any]) -> dict[str, Any]:
        raise Refusal(-32602, "prompt is missing", field="prompt", hint="give a prompt")

    desk.door.answers["start"] = refuse
    with pytest.raises(GatewayError) as caught:
        await desk.client.request("opencode.start")
    assert caught.value.error["code"] == "INVALID_REQUEST"
    assert "prompt is missing" in caught.value.error["message"]
    assert caught.value.error["details"]["field"] == "prompt"


# ---- notices


def delivery(session: str, job: str, kind: str = "completed", text: str = "") -> dict[str, Any]:
    return {
        "id": f"{job}-{kind}",
        "kind": kind,
        "jobId": job,
        "sessionKey": "s-1",
        "name": "",
        "origin": {"session_key": session, "agent_id": session.split(":")[1], "channel": ""},
        "text": text,
    }


async def test_each_notice_wakes_the_session_that_asked_and_no_other_P16(desk: Desk) -> None:
    for agent in ("blue", "red"):
        await desk.door.deliver(**delivery(f"agent:{agent}:work", f"job-of-{agent}", text=f"{agent} is done"))
    for agent, other in (("blue", "red"), ("red", "blue")):
        told = await desk.until_model_is_told(f"job-of-{agent}")
        body = json.dumps(told.request.body)
        assert f"> {agent} is done" in body
        assert f"session=agent:{agent}:work" in body
        assert f"job-of-{other}" not in body
    with trio.fail_after(PATIENCE):
        await desk.door.until(lambda: len(desk.door.acknowledged) == 2)


async def test_a_notice_is_told_once_though_its_acknowledgement_was_lost(desk: Desk) -> None:
    def hang_up_once(params: dict[str, Any]) -> dict[str, Any]:
        if len(desk.door.asked("ack")) == 1:
            raise HangUp
        return {}

    desk.door.answers["ack"] = hang_up_once
    notice = delivery("agent:again:main", "job-told-once")
    with trio.fail_after(PATIENCE):
        await desk.door.deliver(**notice)
        await desk.door.until(lambda: len(desk.door.asked("ack")) == 1)
        await desk.until_attended()
        await desk.door.deliver(**notice)
        await desk.door.until(lambda: len(desk.door.asked("ack")) == 2)
    await desk.turn("agent:again:main", "what is new?")
    told = [
        one for one in desk.provider.exchanges if "OpenCode job job-told-once" in json.dumps(one.request.body)
    ]
    assert len(told) == 1


async def test_forty_notices_at_once_are_all_told(desk: Desk) -> None:
    """OpenClaw keeps 20 events of a session and forgets older ones without a word."""
    session = "agent:busy:main"
    jobs = [f"job-{number:03}" for number in range(40)]
    for job in jobs:
        await desk.door.deliver(**delivery(session, job, text=f"the text of {job}"))
    with trio.fail_after(PATIENCE):
        await desk.door.until(lambda: len(desk.door.acknowledged) == len(jobs))
    await desk.turn(session, "what is new?")
    told = "\n".join(json.dumps(exchange.request.body) for exchange in desk.provider.exchanges)
    assert [job for job in jobs if job not in told] == []


async def test_a_question_wakes_the_agent_and_its_answer_goes_back(desk: Desk) -> None:
    session = "agent:asked:main"
    answer = call("opencode_answer", job_id="j-3", request_id="q-1", answers=["Blue"])
    await desk.turn(session, "remember: " + answer.replace("CALL:", "THEN:"))
    await desk.door.deliver(**delivery(session, "j-3", "waiting", "Which colour? Blue | Red"))
    with trio.fail_after(PATIENCE):
        await desk.door.until(lambda: bool(desk.door.asked("answer")))
    assert desk.door.asked("answer") == [
        {"job_id": "j-3", "request_id": "q-1", "answers": ["Blue"], "by": "agent"}
    ]


# ---- words for the person


async def test_a_word_for_the_person_stands_in_the_chat_and_wakes_no_agent_C6(desk: Desk) -> None:
    session = "agent:person:main"
    await desk.turn(session, "hello")
    before = len(desk.provider.exchanges)
    report = delivery(session, "j-5", "report", "it (j-5): 2 min\n3 of 7 todos are done") | {"to": "person"}
    await desk.door.deliver(**report)
    with trio.fail_after(PATIENCE):
        await desk.door.until(lambda: desk.door.asked("ack") == [{"id": "j-5-report"}])
    assert await desk.last_word(session) == report["text"]
    assert len(desk.provider.exchanges) == before
    # Told again, for its acknowledgement may have been lost, it is not said again.
    await desk.door.drop_all()
    await desk.until_attended()
    await desk.door.deliver(**report)
    with trio.fail_after(PATIENCE):
        await desk.door.until(lambda: len(desk.door.asked("ack")) == 2)
    history = await desk.client.request("chat.history", sessionKey=session)
    assert json.dumps(history).count("3 of 7 todos are done") == 1


async def test_a_question_for_a_person_who_was_never_there_wakes_the_agent(desk: Desk) -> None:
    asked = delivery("agent:fresh:main", "j-6", "waiting", "j-6 asks, and waits for you") | {"to": "person"}
    await desk.door.deliver(**asked)
    await desk.until_model_is_told("j-6 asks, and waits for you")


async def chatted(desk: Desk, session: str, message: str, words: str) -> str:
    """A person's command in a chat, and what it is answered."""
    await desk.client.request(
        "chat.send", sessionKey=session, message=message, idempotencyKey=f"{session} {message}"
    )
    with trio.fail_after(PATIENCE):
        while words not in (last := await desk.last_word(session)):  # noqa: ASYNC110
            await trio.sleep(0.1)
    return last


async def test_a_chat_follows_a_job_until_it_goes_on_in_the_background_C3(desk: Desk) -> None:
    session = "agent:following:main"
    desk.door.answers["status"] = lambda _: {"jobId": "j-8", "name": "paint", "status": "running"}
    desk.door.answers["follow"] = lambda _: {"subscription": "sub_1"}
    before = len(desk.provider.exchanges)
    await chatted(desk, session, "/opencode follow paint", "Following paint (j-8)")
    visitor = await desk.until_attended()
    for seq, text in enumerate(("I mix ", "the colours.\n", "Now I paint."), start=1):
        notice = {"subscription": "sub_1", "seq": seq, "kind": "output", "outputKind": "text", "text": text}
        await visitor.connection.send_message(
            json.dumps({"jsonrpc": "2.0", "method": "notice", "params": notice})
        )
    with trio.fail_after(PATIENCE):
        while (said := await desk.last_word(session)) != "paint:\n> I mix the colours.\n> Now I paint.":
            assert said.startswith(("Following", "paint:"))
            await trio.sleep(0.1)
    await chatted(desk, session, "/opencode background", "goes on in the background")
    assert desk.door.asked("unfollow") == [{"subscription": "sub_1"}]
    assert len(desk.provider.exchanges) == before


async def test_a_persons_command_and_a_persons_message_say_that_somebody_is_there_C13(desk: Desk) -> None:
    session = "agent:there:main"
    await chatted(desk, session, "/opencode sessions", "There are no sessions")
    assert desk.door.asked("present")[0]["origin"]["session_key"] == session
    await desk.client.request(
        "chat.send", sessionKey="agent:there:other", message="go on, please", idempotencyKey="p2"
    )
    with trio.fail_after(PATIENCE):
        await desk.door.until(
            lambda: {"origin": {"session_key": "agent:there:other"}} in desk.door.asked("present")
        )


async def test_agents_and_persons_sign_what_they_answer_C13(desk: Desk) -> None:
    question = {"requestId": "q-9", "kind": "question", "text": "Which?"}
    asking: dict[str, Any] = {"jobId": "j-9", "pending": [question]}
    desk.door.answers["status"] = lambda _: asking
    session = "agent:main:signing"
    forged = call("opencode_answer", job_id="j-9", request_id="q-9", answers=["Red"], by="person")
    await desk.turn(session, forged.replace(', "by": "person"', ""))
    await chatted(desk, session, "/opencode answer j-9 Blue", "Done.")
    await chatted(desk, session, "/opencode reject j-9 not now", "Done.")
    with trio.fail_after(PATIENCE):
        await desk.door.until(lambda: len(desk.door.asked("answer")) == 3)
    assert [(one["by"], one.get("answers"), one.get("message")) for one in desk.door.asked("answer")] == [
        ("agent", ["Red"], None),
        ("person", ["Blue"], None),
        ("person", None, "not now"),
    ]
    await desk.gateway.invoke("opencode_answer", job_id="j-9", request_id="q-9", answers=["x"], by="person")
    assert desk.door.asked("answer")[-1]["by"] == "agent"


async def test_what_a_chat_is_told_is_chosen_in_the_chat_C6(desk: Desk) -> None:
    session = "agent:choosing:main"
    desk.door.answers["notify"] = lambda params: {
        "sessionKey": "s-1",
        "channel": params.get("channel"),
        "kinds": {"text": {"on": True, "by": "session"}, "running": {"on": False, "by": "session"}},
    }
    said = await chatted(
        desk, session, "/opencode notify paint +text -running", "Told, for session s-1: text"
    )
    assert said.endswith("Not told: running")
    assert desk.door.asked("notify") == [{"job_id": "paint", "on": ["text"], "off": ["running"]}]
    whole = {"jobs": 2, "costUsd": None, "costKnown": False, "meanSeconds": 61.0}
    desk.door.answers["statistics"] = lambda _: {"days": 7, "since": "2026-11-20", **whole}
    text = await chatted(desk, session, "/opencode statistics", "cost unknown")
    assert text.splitlines()[0] == "2 jobs in 7 days: cost unknown, 1 min 1 s on average"
    desk.door.answers["requests"] = lambda _: {"requests": []}
    await chatted(desk, session, "/opencode requests", "No job asks anything.")


# ---- the connection


async def test_it_comes_back_by_itself_when_the_service_was_gone(desk: Desk) -> None:
    await desk.door.drop_all()
    with trio.fail_after(PATIENCE):
        await desk.door.until(lambda: len(desk.door.visitors) == 2 and desk.door.visitors[1].attends != "")
    first, second = desk.door.visitors
    assert first.attends == second.attends


async def test_what_is_wrong_with_the_service_shows_in_openclaws_health(desk: Desk) -> None:
    token = desk.door.sessions_dir / "door.token"
    right = token.read_text()
    token.write_text("another-token")
    await desk.door.drop_all()
    failed = await desk.gateway.invoke("opencode_status", job_id="j")
    assert failed.status_code == 500
    assert desk.door.refused > 0
    health = json.dumps(await desk.client.request("health", probe=True))
    assert "the opencode service cannot be reached" in health
    assert "HTTP 401" in health
    token.write_text(right)
    await desk.until_attended()
    health = json.dumps(await desk.client.request("health", probe=True))
    assert "the opencode service cannot be reached" not in health
