"""A client that follows and asks, and never reads: the door lets go of it at its bound, and nobody else notices."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import trio
from trio_websocket import ConnectionClosed, wrap_client_stream

from opencode_actors.door.frames import encode
from opencode_actors.door.limits import KIB, MIB

# Of answers, without what they say: more than waits for a client, and than a socket keeps of small segments.
_ANSWERS = 3 * MIB
_SEGMENT = 536
_BATCH = 64
# What a call asks is not known, so its answer is nothing but this and an error.
_ID = 250 * "i"
_CALLS = [{"jsonrpc": "2.0", "id": f"{_ID}{number}", "method": "nothing"} for number in range(_BATCH)]
# Seconds: after each batch, and until a frame that is half written is given up.
_LETS_OTHERS, _LET_GO_WITHIN = 0.01, 10.0


async def be_deaf(url: str, token: str) -> str | None:
    """Until the door lets go of it, or ends; what is wrong, if it does neither."""
    where, wrong = urlsplit(url), None
    try:
        with trio.socket.socket() as sock:
            # With those of loopback, which have 64 KiB, the door's socket would keep megabytes.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
            await sock.connect((where.hostname, where.port))
            async with trio.SocketStream(sock) as stream, trio.open_nursery() as nursery:
                websocket = await wrap_client_stream(
                    nursery,
                    stream,
                    where.netloc,
                    where.path or "/",
                    extra_headers=[(b"Authorization", f"Bearer {token}".encode())],
                    message_queue_size=1,  # behind it nothing is read any more
                )
                await websocket.send_message(encode({"jsonrpc": "2.0", "id": 0, "method": "follow"}))
                for _ in range(_ANSWERS // (_BATCH * len(_ID))):
                    await websocket.send_message(encode(_CALLS))
                    await trio.sleep(_LETS_OTHERS)
                with trio.move_on_after(_LET_GO_WITHIN):
                    while True:
                        await websocket.send_message(encode(_CALLS[0]))
                        await trio.sleep(_LETS_OTHERS)
                wrong = f"a client that reads none of {_ANSWERS} bytes is still let in"
                nursery.cancel_scope.cancel()
    except* (ConnectionClosed, OSError, trio.BrokenResourceError, trio.ClosedResourceError):
        wrong = None
    return wrong
