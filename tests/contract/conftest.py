"""The fixtures of the contract tests: each side's own stand in a module of their own."""

from __future__ import annotations

from .engines import bench, limits, podman_service, real_bench, real_limits, real_runtime, runtime
from .servers import real_opencode, server_bench, server_opening

__all__ = [
    "bench",
    "limits",
    "podman_service",
    "real_bench",
    "real_limits",
    "real_opencode",
    "real_runtime",
    "runtime",
    "server_bench",
    "server_opening",
]
