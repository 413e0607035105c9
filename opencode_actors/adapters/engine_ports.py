"""Free ports of 127.0.0.1 for an engine that chooses badly.

Podman looks for a free port when a container is created and takes it when it starts: of eight containers
created at once, two got the same one (measured), and by the next start anybody's outgoing connection may
have it. So the port is chosen here, from below the range that the kernel gives to outgoing connections
(32768 and up), and no two containers of this process get the same.
"""

from __future__ import annotations

import socket
from collections import deque
from random import Random

from attrs import define, field

from opencode_actors.errors import EngineRefused

FIRST, LAST = 20_000, 32_000
# More than the containers that may be between their creation and their start.
_REMEMBERED = 1_000
_ATTEMPTS = 2_000


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@define
class FreePorts:
    first: int = FIRST
    last: int = LAST
    _random: Random = field(factory=Random, repr=False)
    _given: deque[int] = field(factory=lambda: deque[int](maxlen=_REMEMBERED), repr=False)

    def take(self) -> int:
        for _ in range(_ATTEMPTS):
            port = self._random.randrange(self.first, self.last)
            if port not in self._given and is_free(port):
                self._given.append(port)
                return port
        raise EngineRefused(
            f"no free port between {self.first} and {self.last} on 127.0.0.1 in {_ATTEMPTS} attempts",
            status=409,
            hint="`ss -ltn` shows who listens there.",
        )
