"""A client whose connection breaks at any instant: it misses nothing, is told nothing twice, and what it asked
for twice is done once."""

from __future__ import annotations

import random
from typing import Any

import trio

from tests.door.room import Peer, a_peer
from tests.door.service import Service, a_service

DROPS = 200


async def test_a_follower_that_is_dropped_at_200_instants_misses_nothing_and_sees_nothing_twice() -> None:
    rng = random.Random(20)
    async with a_service() as service:
        async with a_peer(service.door) as peer:
            jobs = [(await peer.call("start", prompt="::words 400 rate=100"))["jobId"] for _ in range(3)]
        seen: list[Any] = []
        drops = 0
        while drops < DROPS:
            since = seen[-1]["seq"] if seen else 0
            with trio.move_on_after(rng.random() * 0.02):
                await follow_on(service, since, seen)
            drops += 1
        while sum(one["kind"] == "jobEnded" for one in seen) < len(jobs):
            with trio.move_on_after(0.5):
                await follow_on(service, seen[-1]["seq"], seen)
        seqs = [one["seq"] for one in seen]
        assert seqs == sorted(set(seqs))
        assert not [one for one in seen if one["kind"] == "missed"]
        async with a_peer(service.door) as peer:
            for job in jobs:
                text = "".join(one["text"] for one in seen if one["kind"] == "output" and one["jobId"] == job)
                output = await peer.call("output", job_id=job, limit=1 << 20)
                assert text == output["text"]
                assert len(text.split()) >= 400


async def follow_on(service: Service, since: int, seen: list[Any]) -> None:
    """Until it is cut off, wherever that is."""
    async with a_peer(service.door) as peer:
        await peer.call("follow", since=since)
        while True:
            seen.append((await peer.notice())["params"])


async def test_a_start_that_is_asked_for_again_after_a_drop_runs_its_prompt_once_P20() -> None:
    rng = random.Random(4)
    async with a_service() as service:
        for number in range(30):
            asked = {"prompt": f"::say {number}", "session_id": f"s{number % 4}", "key": f"key-{number}"}
            with trio.move_on_after(rng.random() * 0.004):
                async with a_peer(service.door) as peer:
                    await peer.call("start", **asked)
            async with a_peer(service.door) as peer:
                first = await peer.call("start", **asked)
                again = await peer.call("start", **asked)
                assert first["jobId"] == again["jobId"]
                await ended(peer, first["jobId"])
        prompts = [job.prompt for job in service.world.store.jobs()]
        assert sorted(prompts) == sorted(f"::say {number}" for number in range(30))


async def ended(peer: Peer, job: str) -> None:
    await peer.call("follow", job_id=job)
    while (await peer.notice())["method"] != "followEnded":
        pass


async def test_a_key_stands_for_one_prompt_only() -> None:
    async with a_service() as service, a_peer(service.door) as peer:
        await peer.call("start", prompt="::say one", key="k")
        refused = await peer.call("start", prompt="::say two", key="k")
        assert refused["data"]["cause"] == "usage"
