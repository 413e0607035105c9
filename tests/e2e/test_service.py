"""The service as it runs: a process of its own, its clients on the command line, jobs in real containers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from opencode_actors.containers import OWNER_LABEL
from tests.e2e.rig import PLENTY, owner_in, short_folder

pytestmark = [pytest.mark.podman, pytest.mark.image]


@frozen
class Place:
    """A home of its own: nothing of this host's settings or logins is found from it."""

    base: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "XDG_RUNTIME_DIR")}
        return {
            **kept,
            "HOME": str(self.base),
            "OPENCODE_ACTORS_SESSIONS_DIR": str(self.base / "sessions"),
            "OPENCODE_ACTORS_WORKSPACES_DIR": str(self.base / "workspaces"),
            "OPENCODE_ACTORS_DOOR_PORT": "0",
        }

    def client(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "opencode_actors.cli", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PLENTY,
            check=False,
        )

    def answer(self, *arguments: str) -> Any:
        done = self.client(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def serve(self, *options: str) -> subprocess.Popen[str]:
        """Returns when it listens."""
        service = subprocess.Popen(
            [sys.executable, "-m", "opencode_actors.cli", "serve", *options],
            env=self.environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert service.stderr is not None
        for line in service.stderr:
            if "listening on" in line:
                return service
        raise AssertionError(f"it ended with {service.wait()}")


@pytest.fixture
def place() -> Generator[Place]:
    with short_folder() as base:
        yield Place(base)


def end(service: subprocess.Popen[str]) -> str:
    """What it logs until its end."""
    service.send_signal(signal.SIGTERM)
    _, log = service.communicate(timeout=PLENTY)
    assert service.returncode == 0, log
    return log


def test_without_a_service_a_client_says_what_to_start(place: Place) -> None:
    done = place.client("sessions")
    assert done.returncode == 3
    assert "no service runs" in done.stderr
    assert "opencode-actors serve" in done.stderr


def test_jobs_through_the_door_and_an_end_that_leaves_nothing(place: Place) -> None:
    service = place.serve()
    try:
        followed = place.client("start", "--follow", "--session", "demo", "say hello")
        assert followed.returncode == 0, followed.stderr
        assert "The command ran in the container" in followed.stdout
        assert "completed in " in followed.stderr
        job = place.answer("start", "::hang", "--session", "demo")["jobId"]
        (session,) = place.answer("sessions")["sessions"]
        assert session["sessionKey"] == "demo"
        cancelled = place.answer("cancel", job)
        assert cancelled["status"] == "cancelled"
        assert place.client("status", "job_0").returncode == 2
        assert place.answer("info")["pid"] == service.pid
        assert containers_of(place)
    finally:
        log = end(service)
    assert f"job {job} of session demo cancelled" in log
    assert not (place.base / "sessions" / "door.json").exists()
    assert (place.base / "sessions" / "door.token").exists()
    assert containers_of(place) == []


def containers_of(place: Place) -> list[str]:
    label = f"label={OWNER_LABEL}={owner_in(place.base / 'sessions')}"
    listing = ["podman", "ps", "-a", "--filter", label, "--format", "{{.Names}}"]
    return subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split()


def test_a_second_service_is_told_who_has_the_place(place: Place) -> None:
    service = place.serve()
    try:
        second = place.client("serve")
        assert second.returncode == 3
        assert f"process {service.pid}" in second.stderr
    finally:
        end(service)


def test_p18_a_service_that_is_killed_follows_its_job_on_and_its_follower_hears_the_end(place: Place) -> None:
    """The demo model dies with it, so OpenCode asks the next one again, from the beginning."""
    service = place.serve()
    job = place.answer("start", "::words 300 rate=50", "--session", "demo")["jobId"]
    follower = subprocess.Popen(
        [sys.executable, "-m", "opencode_actors.cli", "follow", job, "--json"],
        env=place.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    told: list[Any] = []
    assert follower.stdout is not None
    for line in follower.stdout:
        told.append(json.loads(line))
        if told[-1]["kind"] == "output":
            break
    service.kill()
    service.communicate(timeout=PLENTY)
    service = place.serve()
    try:
        rest, complaints = follower.communicate(timeout=PLENTY)
        told += [json.loads(line) for line in rest.splitlines()]
        assert follower.returncode == 0, complaints
        assert place.answer("status", job)["status"] == "completed"
        assert told[-1]["kind"] == "jobEnded"
        seqs = [one["seq"] for one in told]
        assert seqs == sorted(set(seqs))
        said = "".join(one["text"] for one in told if one["kind"] == "output")
        assert said == "".join(f"word{n} " for n in range(300))
        assert place.client("output", job).stdout == said
        again = place.client("start", "--follow", "--session", "demo", "::say still there")
        assert again.stdout.strip() == "still there"
    finally:
        end(service)
    assert containers_of(place) == []


def test_a_service_that_is_told_to_end_leaves_its_jobs_at_work_and_its_next_start_follows_them(
    place: Place,
) -> None:
    service = place.serve()
    job = place.answer("start", "::say a\n::bash sleep 5; echo rested\n::say b", "--session", "demo")["jobId"]
    waiting = place.answer("start", "::say next", "--session", "demo")["jobId"]
    (container,) = wait_for_containers(place)
    log = end(service)
    assert "left to the next start, at work: demo" in log
    assert containers_of(place) == [container]
    service = place.serve()
    try:
        for one in (job, waiting):
            assert place.client("follow", one).returncode == 0
        assert place.client("output", waiting).stdout.strip() == "next"
        said = place.client("output", job).stdout
        assert said.startswith("a\n[bash] ")
        assert said.endswith(")\nb")
    finally:
        end(service)
    assert containers_of(place) == []


def test_a_service_that_is_to_stop_its_sessions_does(place: Place) -> None:
    service = place.serve("--stop-sessions")
    job = place.answer("start", "::hang", "--session", "demo")["jobId"]
    wait_for_containers(place)
    end(service)
    assert containers_of(place) == []
    service = place.serve()
    try:
        status = place.answer("status", job)
        assert (status["status"], status["cause"]) == ("failed", "closed")
    finally:
        end(service)


def wait_for_containers(place: Place) -> list[str]:
    while not (found := containers_of(place)):
        time.sleep(0.1)
    return found
