"""Whether settings fit together, and which of them will probably be regretted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opencode_actors.errors import SettingsError
from opencode_actors.machines.restart import RestartPolicy
from opencode_actors.settings_knobs import is_on_this_host, show_size

if TYPE_CHECKING:  # a `Settings` asks this file whether it may be
    from opencode_actors.settings import Settings

# OpenCode's server needs 458 MB after one prompt and was OOM-killed at 512 MB in three runs of three.
MEMORY_THAT_HOLDS = 1 << 30


def restart_policy(settings: Settings) -> RestartPolicy:
    return RestartPolicy(
        max_restarts=settings.max_restarts,
        period=settings.restart_period,
        delay=settings.restart_delay,
        factor=settings.restart_factor,
        delay_cap=settings.restart_delay_cap,
        jitter=settings.restart_jitter,
    )


def warnings_of(settings: Settings) -> tuple[str, ...]:
    """What is accepted, and will probably be regretted. Each begins with the key it is about."""
    found: list[str] = []
    if settings.memory < MEMORY_THAT_HOLDS:
        found.append(
            f"memory: {show_size(settings.memory)} is less than OpenCode needs: its server takes about 460 MB "
            f"after one prompt and is killed at 512 MB; 1g holds"
        )
    if settings.tmpfs_size > settings.memory:
        found.append(
            f"tmpfsSize: {show_size(settings.tmpfs_size)} is more than memory ({show_size(settings.memory)}), "
            f"and what lies in /tmp counts as memory"
        )
    bounded = 0 < settings.job_timeout <= settings.idle_timeout
    if max(settings.header_timeout, settings.chunk_timeout) > settings.idle_timeout and not bounded:
        found.append(
            "idleTimeout: shorter than headerTimeout or chunkTimeout, so a silent model provider is reported as "
            "an idle job and not as the provider's fault"
        )
    if settings.server_lost_after > settings.idle_timeout:
        found.append(
            "serverLostAfter: longer than idleTimeout, so a server that is out of reach is reported as an idle job"
        )
    if 0 < settings.job_timeout < settings.idle_timeout:
        found.append("idleTimeout: longer than jobTimeout, so it is never reached")
    url = settings.notify_webhook_url
    if url.startswith("http:") and not is_on_this_host(url):
        found.append(
            "notifyWebhookUrl: http:// to another host carries the token for everybody to read; use https://"
        )
    return tuple(found)


def misfits(settings: Settings) -> tuple[SettingsError, ...]:
    """Values that are well each by itself, and not beside one another."""
    return tuple(
        problem
        for problem in (
            _delays_grow(settings),
            _restarts_end(settings),
            _directories_apart(settings),
            _network_exists(settings),
        )
        if problem is not None
    )


def _restarts_end(settings: Settings) -> SettingsError | None:
    policy = restart_policy(settings)
    slowest_crash = settings.startup_timeout + settings.server_ready_timeout
    if policy.can_give_up(slowest_crash=slowest_crash):
        return None
    needed = policy.longest_delays() + policy.max_restarts * slowest_crash
    return SettingsError(
        "restartPeriod",
        f"restartPeriod of {settings.restart_period:g} s is too short to ever give up: {settings.max_restarts} "
        f"restarts can take {needed:.0f} s with their delays and slow starts, so the count would never be reached",
        hint=f"set restartPeriod above {needed:.0f}, or lower maxRestarts, startupTimeout or serverReadyTimeout",
    )


def _delays_grow(settings: Settings) -> SettingsError | None:
    if settings.restart_delay <= settings.restart_delay_cap:
        return None
    return SettingsError(
        "restartDelayCap",
        f"restartDelayCap ({settings.restart_delay_cap:g} s) is less than restartDelay ({settings.restart_delay:g} s)",
        hint="set restartDelayCap to at least restartDelay",
    )


def _directories_apart(settings: Settings) -> SettingsError | None:
    sessions, workspaces = settings.sessions_dir, settings.workspaces_dir
    if not (sessions.is_relative_to(workspaces) or workspaces.is_relative_to(sessions)):
        return None
    return SettingsError(
        "sessionsDir",
        f"sessionsDir ({sessions}) and workspacesDir ({workspaces}) lie inside each other, so agents could read the "
        f"credentials of every session",
        hint="choose two directories side by side",
    )


def _network_exists(settings: Settings) -> SettingsError | None:
    if settings.runtime != "docker" or settings.network not in ("slirp4netns", "pasta"):
        return None
    return SettingsError(
        "network",
        f"network {settings.network} exists with Podman only, and runtime is docker",
        hint="set network to bridge",
    )
