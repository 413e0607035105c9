"""What a stress run does about processes that nobody else ends."""

from __future__ import annotations

import subprocess
from uuid import uuid4

from opencode_actors.stress.processes import end_monitors, living


def test_a_monitor_that_podman_left_ends_with_the_container_that_never_began() -> None:
    marker = f"opencode-actors-{uuid4().hex}"
    waiting = f"echo {marker}; exec sleep 4711.25"
    with (
        subprocess.Popen([marker, "4711.5"], executable="sleep") as other,
        subprocess.Popen(
            ["/usr/bin/conmon", "-c", f"({waiting}) & wait", "-n", marker],
            executable="sh",
            stdout=subprocess.PIPE,
        ) as monitor,
    ):
        assert monitor.stdout is not None
        assert monitor.stdout.readline()  # its child is there
        try:
            end_monitors(marker)
            assert monitor.wait() == -9
            assert monitor.stdout.read() == b""  # and has ended
            assert other.poll() is None
            assert living(marker) == (f"{marker} 4711.5",)
        finally:
            other.kill()
