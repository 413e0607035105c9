"""From what an engine or a tool printed to what the user can do about it."""

from __future__ import annotations

import re

# In this order: a full disk also breaks downloads, and a refused certificate is no missing network.
_HINTS = (
    (
        r"no space left on device|disk quota exceeded",
        (
            "the disk is full: `podman system df` and `docker system df` say what the engines hold, "
            "`podman image prune` and `docker builder prune` give back what nothing uses"
        ),
    ),
    (
        r"self.signed certificate|CERTIFICATE_VERIFY_FAILED|unable to get local issuer|certificate signed by unknown",
        (
            "your network has a certificate authority of its own: put its certificate (*.crt) into "
            "/usr/local/share/ca-certificates, remove the base image from the engine, and build again"
        ),
    ),
    (r"the target 'full' needs it", "build the target `standard`, which has everything but Go and TinyGo"),
    (
        (
            r"temporary failure (?:in name resolution|resolving)|no such host|could not resolve|EAI_AGAIN|ENOTFOUND|"
            r"network is unreachable|connection timed out|ETIMEDOUT|failed to fetch"
        ),
        (
            "the build has no network: see whether this machine reaches Debian's, Python's and npm's package "
            "registries, and whether the engine's containers do"
        ),
    ),
    (
        r"operation not permitted|permission denied|newuidmap|subuid",
        (
            "run as root, or give your user subordinate ids: apt-get install uidmap, and a line for it in "
            "/etc/subuid and /etc/subgid"
        ),
    ),
    (r"NO_PUBKEY|signatures couldn't be verified", "apt-get install debian-archive-keyring"),
)


def hint_for(printed: str) -> str:
    """The empty string when nothing better can be said than what was printed."""
    return next((hint for pattern, hint in _HINTS if re.search(pattern, printed, re.IGNORECASE)), "")
