"""The scripted model provider, asked as OpenCode asks it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from opencode_actors.testing.provider import Outcome, ScriptedProvider, open_provider, provider_config
from opencode_actors.testing.provider_demo import DEMO_FILE, demo_script
from opencode_actors.testing.provider_script import CallTool, ChatRequest, Say, Step, read_request, words
from tests.contract.engines import within

TOOLS = [{"type": "function", "function": {"name": name}} for name in ("bash", "write")]


@pytest.fixture
async def provider() -> AsyncGenerator[ScriptedProvider, None]:
    async with open_provider(port=0) as provider:
        yield provider


def body(*messages: Mapping[str, Any], stream: bool = True, tools: bool = True) -> dict[str, Any]:
    return {"model": "demo", "messages": messages, "stream": stream, "tools": TOOLS if tools else []}


def user(text: str) -> Mapping[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": text}]}


CALLED: Mapping[str, Any] = {"role": "assistant", "content": None, "tool_calls": []}


def result(text: str) -> Mapping[str, Any]:
    return {"role": "tool", "content": text}


async def ask(provider: ScriptedProvider, asked: Mapping[str, Any], session: str = "ses_1") -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        url = f"{provider.base_url}/chat/completions"
        return await client.post(url, json=asked, headers={"x-session-id": session})


def chunks(answer: httpx.Response) -> Sequence[Any]:
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def told(answer: httpx.Response, name: str = "content") -> str:
    choices = [chunk["choices"][0]["delta"] for chunk in chunks(answer) if chunk["choices"]]
    return "".join(choice.get(name, "") for choice in choices)


def calls(answer: httpx.Response) -> Sequence[tuple[str, Any]]:
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks(answer) if chunk["choices"]]
    functions = [call["function"] for delta in deltas for call in delta.get("tool_calls", [])]
    return [(function["name"], json.loads(function["arguments"])) for function in functions]


@within()
async def test_an_answer_streams_word_by_word_and_ends_with_its_usage(provider: ScriptedProvider) -> None:
    answer = await ask(provider, body(user("::say hello big world")))
    assert answer.status_code == 200
    assert told(answer) == "hello big world"
    *pieces, end, usage = chunks(answer)
    assert len(pieces) == 3
    assert end["choices"][0]["finish_reason"] == "stop"
    assert usage["usage"]["completion_tokens"] == 3
    assert usage["usage"]["prompt_tokens"] > 0


@within()
async def test_an_answer_that_does_not_stream_is_the_same(provider: ScriptedProvider) -> None:
    answer = await ask(provider, body(user("::think hm\n::say hello\n::bash ls"), stream=False))
    (choice,) = answer.json()["choices"]
    assert choice["message"]["content"] == "hello"
    assert choice["message"]["reasoning_content"] == "hm"
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "bash"
    assert choice["finish_reason"] == "tool_calls"


@within()
async def test_after_a_tools_result_comes_the_next_step(provider: ScriptedProvider) -> None:
    asked = user("::bash one\n::bash two\n::say then\n::write a.txt some text")
    first = await ask(provider, body(asked))
    assert [call["command"] for _, call in calls(first)] == ["one", "two"]
    second = await ask(provider, body(asked, CALLED, result("1"), result("2")))
    assert told(second) == "then"
    assert calls(second) == [("write", {"filePath": "a.txt", "content": "some text"})]
    third = await ask(provider, body(asked, CALLED, result("1"), result("2"), CALLED, result("written")))
    assert told(third) == "done: written"
    fourth = await ask(provider, body(asked, CALLED, result("1"), user("::say anew")))
    assert told(fourth) == "anew"


@within()
async def test_nobodys_script_is_a_demonstration(provider: ScriptedProvider) -> None:
    first = await ask(provider, body(user("write me a compiler")))
    assert "scripted demo model" in told(first)
    assert "write me a compiler" in told(first)
    ((name, arguments),) = calls(first)
    assert name == "bash"
    assert DEMO_FILE in arguments["command"]
    second = await ask(provider, body(user("write me a compiler"), CALLED, result("Written by …")))
    assert "Written by …" in told(second)
    assert calls(second) == []


def test_the_servers_own_requests_are_no_prompts() -> None:
    title = read_request(
        body({"role": "system", "content": "You are a title generator."}, user("::hang"), tools=False),
        session="ses_1",
    )
    summary = read_request(body(user("::hang"), tools=False), session="ses_1")
    for request in (title, summary):
        (step,) = demo_script(request)
        assert isinstance(step, Say)


@within()
async def test_a_refusal_holds_for_as_many_tries_as_it_says(provider: ScriptedProvider) -> None:
    asked = body(user("::status 429 times=2 retry-after=7\n::say at last"))
    first, second, third = [await ask(provider, asked) for _ in range(3)]
    assert [first.status_code, second.status_code, third.status_code] == [429, 429, 200]
    assert first.headers["retry-after"] == "7"
    assert first.json()["error"]["message"] == "Rate limit reached"
    assert told(third) == "at last"
    assert [exchange.attempt for exchange in provider.exchanges] == [1, 2, 3]
    assert (await ask(provider, asked, session="ses_2")).status_code == 429


@within()
async def test_a_dropped_connection_breaks_in_mid_stream(provider: ScriptedProvider) -> None:
    asked = body(user("::words 3\n::drop times=1\n::say end"))
    with pytest.raises(httpx.RemoteProtocolError):
        await ask(provider, asked)
    assert told(await ask(provider, asked)) == "word0 word1 word2 end"
    outcomes = [Outcome.DROPPED, Outcome.ANSWERED]
    await provider.wait_until(lambda exchanges: [exchange.outcome for exchange in exchanges] == outcomes)


@within()
async def test_the_odd_answers(provider: ScriptedProvider) -> None:
    assert "half of" in (await ask(provider, body(user("::garble")))).text
    assert "overloaded" in (await ask(provider, body(user("::error overloaded")))).text
    cut = await ask(provider, body(user("::say a\n::finish length")))
    assert chunks(cut)[-2]["choices"][0]["finish_reason"] == "length"
    assert told(await ask(provider, body(user("::empty")))) == ""
    assert len(told(await ask(provider, body(user("::text 10000 chunk=100"))))) == 10_000
    assert told(await ask(provider, body(user('::echo "a\\u2028b"')))) == "a\u2028b"


@pytest.mark.parametrize("script", ["::hang", "::words 2\n::hang", "::words 1000000 rate=100"])
@within()
async def test_a_client_that_hangs_up_is_noticed(provider: ScriptedProvider, script: str) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, provider, body(user(script)))
        await provider.wait_until(lambda exchanges: len(exchanges) == 1)
        assert provider.exchanges[0].outcome is Outcome.RUNNING
        nursery.cancel_scope.cancel()
    await provider.wait_until(lambda exchanges: exchanges[0].outcome is Outcome.HUNG_UP)
    assert provider.statistics()["running"] == 0


@within()
async def test_one_connection_serves_many_requests(provider: ScriptedProvider) -> None:
    async with httpx.AsyncClient(trust_env=False, base_url=provider.base_url) as client:
        for _ in range(3):
            answer = await client.post("/chat/completions", json=body(user("::say hello")))
            assert told(answer) == "hello"
            assert (await client.get("/models")).json()["data"][0]["id"] == "demo"
        assert provider.statistics()["connections"] == 1


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "says"),
    [
        ("GET", "/nothing", b"", 404, "/v1/nothing"),
        ("POST", "/chat/completions", b"no JSON", 400, "JSON"),
        ("POST", "/chat/completions", b"[]", 400, "JSON"),
        ("POST", "/chat/completions", json.dumps(body(user("::dance"))).encode(), 400, "dance"),
        ("POST", "/chat/completions", json.dumps(body(user("::words many"))).encode(), 400, "words"),
    ],
)
@within()
async def test_what_it_cannot_answer_it_refuses(
    provider: ScriptedProvider, method: str, path: str, content: bytes, status: int, says: str
) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.request(method, provider.base_url + path, content=content)
    assert answer.status_code == status
    assert says in answer.json()["error"]["message"]


@within()
async def test_nonsense_ends_its_own_connection_only(provider: ScriptedProvider) -> None:
    port = int(provider.base_url.rpartition(":")[2].partition("/")[0])
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"\x00\x01\x02 nonsense\r\n\r\n")
        while await stream.receive_some():
            pass
    assert told(await ask(provider, body(user("::say still here")))) == "still here"


@within()
async def test_a_script_of_ones_own(tmp_path: Path) -> None:
    """On a unix socket, and over the file that a killed one left."""

    def script(request: ChatRequest) -> Sequence[Step]:
        return (words(f"{request.session} asks {request.prompt}"), CallTool(name="x", arguments="{}"))

    path = tmp_path / "provider.sock"
    path.write_text("left behind")
    async with open_provider(unix_socket=path, script=script) as provider:
        assert provider.base_url == "http://127.0.0.1:4097/v1"
        transport = httpx.AsyncHTTPTransport(uds=str(path))
        async with httpx.AsyncClient(transport=transport) as client:
            headers = {"x-session-id": "ses_9"}
            url = "http://provider/v1/chat/completions"
            answer = await client.post(url, json=body(user("what")), headers=headers)
        assert told(answer) == "ses_9 asks what"
        assert provider.exchanges[0].request.prompt == "what"
    assert not path.exists()


def test_its_configuration_has_limits_and_prices() -> None:
    config = provider_config("http://127.0.0.1:1/v1", options={"headerTimeout": 5})
    scripted: Any = config["scripted"]
    assert scripted["options"]["baseURL"] == "http://127.0.0.1:1/v1"
    assert scripted["options"]["headerTimeout"] == 5
    model = scripted["models"]["demo"]
    assert model["limit"]["context"] > 0
    assert model["cost"]["output"] > 0
