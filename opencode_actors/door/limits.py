"""What the door takes of one peer, and of all of them. docs/protocol.md has the same figures."""

from __future__ import annotations

from attrs import frozen

KIB, MIB = 1 << 10, 1 << 20


@frozen(kw_only=True)
class Limits:
    """Sizes are bytes, durations seconds. Tests give smaller ones."""

    # One message. `values` bounds what it can grow to: 8 MiB of `[[],[],…` would be 170 MB of lists.
    message: int = 8 * MIB
    batch: int = 64
    nesting: int = 64
    values: int = 20_000

    # One connection
    in_flight: int = 64
    subscriptions: int = 1024
    backlog: int = 8 * MIB
    # How many notices wait to be written at one time; the rest waits where it is bounded already.
    slots: int = 8

    # All of them
    connections: int = 128
    handshakes: int = 64
    all_subscriptions: int = 16_384
    # Calls that go on when their connection has gone, because half of them is worse than all.
    lasting_calls: int = 1024

    # Time
    handshake_within: float = 10.0
    ping_every: float = 15.0
    pong_within: float = 30.0
    close_within: float = 5.0

    # What may be asked for at one time
    output: int = MIB
