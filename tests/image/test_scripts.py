"""What the shell scripts decide before they touch the machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

CONTAINER = Path(__file__).parents[2] / "container"


def bash(script: str) -> str:
    sources = f". {CONTAINER}/lib.sh; . {CONTAINER}/test-docker.sh; "
    ran = subprocess.run(
        ["/bin/bash", "-c", sources + script], capture_output=True, text=True, check=False, timeout=30
    )
    return ran.stdout + ran.stderr


@pytest.mark.parametrize(("installed", "asked_for"), [("true", ""), ("false", "docker.io\n")])
def test_a_docker_that_is_only_stopped_is_not_replaced(installed: str, asked_for: str) -> None:
    """docker.io conflicts with docker-ce: asking for it would remove the user's own."""
    assert bash(f"running_docker() {{ :; }}; has() {{ {installed}; }}; docker_packages") == asked_for


def test_a_system_whose_python_is_too_old_is_told_before_anything_is_installed() -> None:
    old = "is_root() { true; }; is_debian_like() { true; }; find_python() { :; }; python_is_old() { true; }; "
    said = bash(old + "apt_install() { echo installs; }; install_packages podman")
    assert "Debian 12, Ubuntu 24.04 or newer is needed" in said
    assert "installs" not in said
