"""Every knob: its name, default, unit and meaning.

Names are camelCase where they are written down (openclaw.json, environment, flags); the attribute of
the same meaning is snake_case. Durations are seconds. Where a value may come from, and what wins, is
in `settings_sources`.
"""

from __future__ import annotations

from pathlib import Path

from attrs import field, frozen


@frozen(kw_only=True)
class Settings:
    # the container
    image: str = "localhost/opencode-actors:latest"
    runtime: str = "podman"
    engine_socket: str = ""  # empty: the runtime's own places, in order
    memory: int = 1 << 30
    cpus: float = 1.0
    pids_limit: int = 512
    tmpfs_size: int = 512 << 20
    network: str = "bridge"
    apparmor_profile: str = ""

    # where things are kept
    sessions_dir: Path = Path("~/.openclaw/opencode-sessions")
    workspaces_dir: Path = Path("~/.openclaw/opencode-workspaces")

    # what a job runs with
    model: str = ""  # provider/model; empty: OpenCode's own default
    agent: str = ""
    git_user_name: str = ""
    git_user_email: str = ""
    opencode_config: str = ""  # the host's OpenCode config file; empty: where OpenCode looks for it
    opencode_auth: str = ""  # the host's auth.json; empty: where OpenCode keeps it

    # how long what may take
    startup_timeout: float = 30.0  # create and start of the container
    server_ready_timeout: float = 60.0  # from a started container to a healthy server
    idle_timeout: float = 120.0  # of true idleness of a running job
    job_timeout: float = 0.0  # the whole job; 0: no bound
    session_idle_timeout: float = 3600.0  # a container without work is stopped
    header_timeout: float = 120.0  # a provider's first byte
    chunk_timeout: float = 120.0  # between two pieces of a provider's answer
    abort_grace: float = 10.0
    stop_grace: float = 15.0
    kill_grace: float = 5.0
    remove_grace: float = 10.0

    # how much
    max_sessions: int = 8
    max_queued_jobs: int = 16  # per session
    max_output_size: int = 10 << 20  # bytes of one job's output; 0: unlimited
    max_provider_retries: int = 3

    # restarts
    max_restarts: int = 5
    restart_period: float = 600.0
    restart_delay: float = 0.5
    restart_factor: float = 2.0
    restart_delay_cap: float = 30.0
    restart_jitter: float = 0.5
    on_crash: str = "fail"

    # notifications to OpenClaw
    notify_webhook_url: str = "http://localhost:18789/hooks/agent"
    hooks_token: str = field(default="", repr=False)
