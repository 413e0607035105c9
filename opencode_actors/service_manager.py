"""systemd's side of a service: saying that it is ready, alive, or ending; one datagram each.

Nothing is said where nobody listens: `$NOTIFY_SOCKET` names who does.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress

import trio
from attrs import define

_MICROSECONDS = 1_000_000


@define
class ServiceManager:
    """`watchdog` is how often it has to hear that we live, in seconds; 0 for never."""

    address: str = ""
    watchdog: float = 0.0

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> ServiceManager:
        address = environment.get("NOTIFY_SOCKET", "")
        for_us = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        period = environment.get("WATCHDOG_USEC", "")
        seconds = int(period) / _MICROSECONDS if for_us and period.isdecimal() else 0.0
        return cls(address, seconds)

    def say(self, *lines: str) -> None:
        """A manager that has gone is no reason to fail."""
        if not self.address:
            return
        where = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        with suppress(OSError), socket.socket(socket.AF_UNIX, kind) as to:
            to.sendto("\n".join(lines).encode(), where)

    async def keep_alive(self) -> None:
        """A trio loop that does not turn any more does not say so, and is started anew by the manager."""
        while self.watchdog:
            self.say("WATCHDOG=1")
            await trio.sleep(self.watchdog / 2)
