"""The front door: JSON-RPC 2.0 over a websocket, for whoever is not a trio program in this process.

`frames`, `calls`, `commands`, `results`, `faults`, `gate` and `backlog` are pure; `connection` and `serving`
have the sockets; `methods` does what is asked for. The protocol is in docs/protocol.md.
"""
