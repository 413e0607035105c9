"""What is posted to OpenClaw's webhooks, and what a hostile receiver can do to one attempt (P16)."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio

from opencode_actors.adapters.openclaw_hooks import HttpWebhook, retry_after
from opencode_actors.ports import HookAnswer, HookRequest
from tests.receiver import (
    Behaviour,
    answering,
    dripping,
    open_receiver,
    repeating,
    saying,
    silent,
)

NOW = 1_760_000_000.0
# What a test waits for that must come, and what one waits for that must not come.
PATIENT, IMPATIENT = 60.0, 0.3


def request_to(url: str) -> HookRequest:
    return HookRequest(url=url, key="job_1", body={"text": "héllo \ud800"})


@asynccontextmanager
async def webhook(within: float = PATIENT) -> AsyncGenerator[HttpWebhook]:
    made = HttpWebhook(token="t-1", within=within, wall=lambda: NOW)
    try:
        yield made
    finally:
        await made.aclose()


async def answer_of(behaviour: Behaviour, *, within: float = PATIENT) -> HookAnswer:
    """And the connection is closed afterwards, whatever happened."""
    async with open_receiver(behaviour) as receiver, webhook(within) as hook:
        answer = await hook.post(request_to(receiver.url))
        await receiver.wait_closed(1)
        assert receiver.connections == 1
    return answer


async def test_P16_a_request_carries_the_token_and_the_key_of_its_job() -> None:
    async with open_receiver(answering(200, b'{"ok": true}')) as receiver, webhook() as hook:
        answer = await hook.post(request_to(f"{receiver.url}/wake"))
    assert answer == HookAnswer(status=200, said="HTTP 200")
    (received,) = receiver.received
    assert received.path == "/hooks/wake"
    assert received.headers["authorization"] == "Bearer t-1"
    assert received.headers["idempotency-key"] == "job_1"
    assert received.headers["content-type"] == "application/json"
    assert received.body == {"text": "héllo \ud800"}
    assert "t-1" not in repr(hook)


async def test_P16_a_refusal_is_told_in_the_gateways_own_words() -> None:
    body = b'{"ok": false, "error": "sessionKey must start with one of: hook:"}'
    answer = await answer_of(answering(400, body))
    assert answer == HookAnswer(status=400, said="HTTP 400: sessionKey must start with one of: hook:")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "HTTP 500"),
        (b"Not\r\n\tFound\x00", "HTTP 500: Not Found"),
        (b'["a"]', 'HTTP 500: ["a"]'),
        (b'{"error": {"code": 1}}', 'HTTP 500: {"error": {"code": 1}}'),
        (b"\xff\xfe", "HTTP 500: \ufffd\ufffd"),
        (b"[" * 4000, "HTTP 500: " + "[" * 199 + "…"),
    ],
)
async def test_whatever_an_answer_says_becomes_one_short_line(body: bytes, said: str) -> None:
    assert (await answer_of(answering(500, body))).said == said


async def test_a_receiver_that_never_answers_has_one_deadline() -> None:
    answer = await answer_of(silent, within=IMPATIENT)
    assert answer == HookAnswer(status=None, said="no answer within 0.3 s")


@pytest.mark.parametrize(
    ("beginning", "piece"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n", id="headers"),
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n", id="informational answers"),
    ],
)
async def test_a_receiver_that_drips_has_no_longer_one(beginning: bytes, piece: bytes) -> None:
    answer = await answer_of(dripping(beginning, piece), within=IMPATIENT)
    assert answer.status is None


async def test_headers_without_end_are_cut_off() -> None:
    answer = await answer_of(repeating(b"HTTP/1.1 200 OK\r\n", b"x: " + b"y" * 1000 + b"\r\n"))
    assert answer.status is None
    assert answer.said.startswith("what answers there")


async def test_a_success_is_one_when_its_head_is_there() -> None:
    """A body that never ends, or never begins, holds nobody."""
    endless = repeating(b"HTTP/1.1 200 OK\r\n\r\n", b"y" * 65536)
    assert (await answer_of(endless)).status == 200
    none = saying(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n")
    assert (await answer_of(none)).status == 200


async def test_a_body_without_end_is_read_no_further_than_is_said() -> None:
    endless = repeating(b"HTTP/1.1 503 X\r\nretry-after: 7\r\n\r\n", b"y" * 65536)
    answer = await answer_of(endless)
    assert answer == HookAnswer(status=503, said="HTTP 503: " + "y" * 199 + "…", retry_after=7.0)


async def test_a_status_stands_when_its_body_breaks_off_or_never_comes() -> None:
    broken = saying(b"HTTP/1.1 400 X\r\ncontent-length: 100\r\n\r\nno")
    assert (await answer_of(broken)).status == 400
    dripped = dripping(b"HTTP/1.1 401 X\r\ncontent-length: 99999\r\n\r\n", b"n")
    assert await answer_of(dripped, within=IMPATIENT) == HookAnswer(status=401, said="HTTP 401")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"HTTP/1.1 20", id="half a status"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", id="another protocol"),
        pytest.param(b"\x16\x03\x01" + bytes(200), id="TLS"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", id="a wrong header"),
    ],
)
async def test_garbage_is_no_answer(data: bytes) -> None:
    answer = await answer_of(saying(data))
    assert answer.status is None
    assert answer.said


async def test_P16_a_redirect_is_not_followed() -> None:
    async with open_receiver(answering(200)) as elsewhere:
        answer = await answer_of(answering(307, headers=f"location: {elsewhere.url}\r\n"))
        assert elsewhere.connections == 0
    assert answer == HookAnswer(status=307, said=f"HTTP 307, a redirect to {elsewhere.url}")


async def test_where_nothing_listens_is_said_so() -> None:
    async with open_receiver(silent) as receiver:
        url = receiver.url
    async with webhook() as hook:
        answer = await hook.post(request_to(url))
    assert answer.status is None
    assert answer.said.startswith("it cannot be reached (")


async def test_a_name_that_leads_nowhere_and_a_port_that_speaks_no_tls_are_no_answer() -> None:
    async with open_receiver(silent) as receiver, webhook() as hook:
        for url in ("http://no-such-host.invalid/", receiver.url.replace("http:", "https:")):
            answer = await hook.post(request_to(url))
            assert answer.status is None
            assert answer.said


async def test_a_cancelled_attempt_lets_go_of_its_connection() -> None:
    async with open_receiver(silent) as receiver, webhook() as hook:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hook.post, request_to(receiver.url))
            await receiver.wait(1)
            nursery.cancel_scope.cancel()
        await receiver.wait_closed(1)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("9" * 400, float("9" * 12)),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("٣", None),
        (time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(NOW + 90)), 90.0),
        (time.strftime("%a, %d %b %Y %H:%M:%S -0000", time.gmtime(NOW + 90)), 90.0),
        (time.strftime("%a, %d %b %Y %H:%M:%S", time.gmtime(NOW + 90)), 90.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Fri, 99 Foo 2026 99:99:99 GMT", None),
    ],
)
def test_P16_retry_after_is_understood_in_both_its_forms(text: str, seconds: float | None) -> None:
    assert retry_after(text, NOW) == seconds
