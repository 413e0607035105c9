"""Who commits on this host, as git itself says it."""

from __future__ import annotations

import shutil
import subprocess

import trio
from attrs import frozen

GIT_WITHIN = 5.0


@frozen(kw_only=True)
class GitIdentity:
    """Empty where the host has none."""

    name: str = ""
    email: str = ""


async def host_git_identity() -> GitIdentity:
    """The user's own identity, not that of a repository that the caller happens to stand in."""
    if shutil.which("git") is None:
        return GitIdentity()
    command = ["git", "config", "--global", "--null", "--get-regexp", r"^user\.(name|email)$"]
    with trio.move_on_after(GIT_WITHIN):
        done = await trio.run_process(command, capture_stdout=True, stderr=subprocess.DEVNULL, check=False)
        return parse_identity(done.stdout)
    return GitIdentity()


def parse_identity(output: bytes) -> GitIdentity:
    """`key\\nvalue\\0` for each; the last one of a key counts."""
    found: dict[str, str] = {}
    for entry in output.decode(errors="replace").split("\0"):
        key, _, value = entry.partition("\n")
        found[key] = value.strip()
    return GitIdentity(name=found.get("user.name", ""), email=found.get("user.email", ""))
