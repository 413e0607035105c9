# ruff: noqa: RUF009 - knob() makes an attrs field, once, at class creation
"""Every knob: its name, default, unit and meaning.

Names are camelCase where they are written down (openclaw.json, the table of all settings); the attribute
of the same meaning is snake_case. Durations are seconds, sizes are bytes. Where a value may come from, and
what wins, is in `settings_sources`.

A `Settings` that exists is usable: each value passed its own check, and the values fit together.
"""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from opencode_actors.settings_fit import misfits
from opencode_actors.settings_knobs import (
    Cpus,
    Size,
    absolute_path,
    chat_routes,
    environment_names,
    gap,
    http_url,
    ip_literal,
    knob,
    matching,
    network_word,
    notice_kinds,
    number,
    one_line,
    one_of,
    own_directory,
    permission_rules,
    secret_text,
    size,
    unix_socket,
    web_origins,
)

MIB = 1 << 20

# Node's timers hold 2^31 - 1 ms; a longer one fires at once.
LONGEST_PROVIDER_TIMEOUT = 2_147_483.0
LONGEST = 366 * 86_400.0
# Each message to a chat is a record, too: a thousandth of a second between two made 532 of them in a second.
SHORTEST_GAP = 10.0

WELL_KNOWN_PROVIDER_KEYS = (
    "ANTHROPIC_API_KEY",
    "OPENAI_API_KEY",
    "OPENROUTER_API_KEY",
    "GEMINI_API_KEY",
    "GOOGLE_GENERATIVE_AI_API_KEY",
    "GROQ_API_KEY",
    "MISTRAL_API_KEY",
    "DEEPSEEK_API_KEY",
    "XAI_API_KEY",
    "TOGETHER_API_KEY",
    "FIREWORKS_API_KEY",
    "CEREBRAS_API_KEY",
    "OPENCODE_API_KEY",
)

duration = number(above=0, at_most=LONGEST)
provider_duration = number(above=0, at_most=LONGEST_PROVIDER_TIMEOUT)


@frozen(kw_only=True)
class Settings:
    """One value for each knob; what exists is usable. Raises `SettingsError` for what cannot be."""

    # the container
    image: str = knob(
        "localhost/opencode-actors:latest",
        "the container image that jobs run in",
        check=matching(r"[A-Za-z0-9][A-Za-z0-9._:/@-]*", "the name of an image"),
    )
    runtime: str = knob("podman", "the container engine: podman or docker", check=one_of("podman", "docker"))
    engine_socket: str = knob(
        "", "the engine's unix socket", empty="the engine's usual places, in order", check=unix_socket
    )
    memory: Size = knob(
        1 << 30, "memory limit of a container, swap included", unit="bytes", check=size(at_least=64 * MIB)
    )
    cpus: Cpus = knob(
        1.0, "CPU limit of a container, in cores", unit="cores", check=number(at_least=0.01, at_most=4096)
    )
    pids_limit: int = knob(
        512,
        "how many processes and threads a container may have",
        unit="processes",
        check=number(at_least=16, at_most=4_194_304),
    )
    tmpfs_size: Size = knob(
        512 * MIB, "size of a container's /tmp, which is memory", unit="bytes", check=size(at_least=MIB)
    )
    network: str = knob(
        "bridge", "the container's network: bridge, or one the engine knows by name", check=network_word
    )
    apparmor_profile: str = knob(
        "", "AppArmor profile of a container", empty="the engine's default", check=one_line
    )

    # where things are kept
    sessions_dir: Path = knob(
        Path("~/.openclaw/opencode-sessions"),
        "each session's own OpenCode data, credentials included",
        check=own_directory,
    )
    workspaces_dir: Path = knob(
        Path("~/.openclaw/opencode-workspaces"), "each session's working directory", check=own_directory
    )

    # what a job runs with
    model: str = knob(
        "",
        "the model, as provider/model",
        empty="OpenCode's own default",
        check=matching(r"[^\s/]+/[^\s]+", "provider/model", or_empty=True),
    )
    agent: str = knob(
        "",
        "the OpenCode agent that answers",
        empty="OpenCode's own default",
        check=matching(r"[^\s]+", "one word", or_empty=True),
    )
    git_user_name: str = knob(
        "", "name on the agent's commits", empty="the host's git identity", check=one_line
    )
    git_user_email: str = knob(
        "", "address on the agent's commits", empty="the host's git identity", check=one_line
    )
    opencode_config: str = knob(
        "", "the host's OpenCode config file", empty="where OpenCode looks for it", check=absolute_path
    )
    opencode_auth: str = knob(
        "", "the host's auth.json of OpenCode", empty="where OpenCode keeps it", check=absolute_path
    )
    pass_environment: tuple[str, ...] = knob(
        WELL_KNOWN_PROVIDER_KEYS,
        "environment variables with provider keys that containers are given when they are set",
        empty="none",
        check=environment_names,
    )

    questions: str = knob(
        "ask",
        "whether agents may ask questions: ask, and they wait for an answer; deny, and they have no such tool",
        check=one_of("ask", "deny"),
    )
    permissions: str = knob(
        "allow",
        "what agents may do in their container: allow, all of it; ask, before commands, edits and web access; plan, "
        "read and nothing else",
        check=one_of("allow", "ask", "plan"),
    )
    permission_rules: tuple[str, ...] = knob(
        (),
        "rules that go before what permissions says, each as TOOL:PATTERN=ACTION (allow, ask or deny), for example "
        "bash:git push*=deny; the last one that matches holds",
        empty="none",
        check=permission_rules,
    )
    on_unanswered: str = knob(
        "reject",
        "what becomes of a question or permission after questionTimeout: reject, the agent is told that nobody "
        "answered, and goes on; fail, the job ends",
        check=one_of("reject", "fail"),
    )

    # how long what may take
    startup_timeout: float = knob(30.0, "creating and starting a container", unit="s", check=duration)
    server_ready_timeout: float = knob(
        60.0, "from a started container to a healthy server", unit="s", check=duration
    )
    server_lost_after: float = knob(
        60.0,
        "how long a server that somebody else runs (attach) may be out of reach before its jobs fail",
        unit="s",
        check=duration,
    )
    idle_timeout: float = knob(
        120.0, "a running job without any sign of life is failed after this", unit="s", check=duration
    )
    question_timeout: float = knob(
        300.0,
        "a question or permission that nobody answers",
        unit="s",
        empty="waits for ever",
        check=number(at_least=0, at_most=LONGEST),
    )
    job_timeout: float = knob(
        0.0, "a whole job, busy or not", unit="s", empty="no bound", check=number(at_least=0, at_most=LONGEST)
    )
    remind_after: float = knob(
        600.0,
        "a job that runs for this long is reported as still running, to followers and to the chat that asked for "
        "it; then after growing gaps",
        unit="s",
        empty="never",
        check=gap(SHORTEST_GAP, LONGEST),
    )
    report_every: float = knob(
        0.0,
        "how often the chat that asked for a job is told how far it is, by its list of todos; a job may ask for its own",
        unit="s",
        empty="never",
        check=gap(SHORTEST_GAP, LONGEST),
    )
    session_idle_timeout: float = knob(
        3600.0, "a container without work is stopped after this", unit="s", check=duration
    )
    header_timeout: float = knob(120.0, "a model provider's first byte", unit="s", check=provider_duration)
    chunk_timeout: float = knob(
        120.0, "between two pieces of a model provider's answer", unit="s", check=provider_duration
    )
    abort_grace: float = knob(
        10.0, "cancelling: how long OpenCode's own abort may take", unit="s", check=duration
    )
    stop_grace: float = knob(
        15.0, "cancelling: how long a container's stop may take", unit="s", check=duration
    )
    kill_grace: float = knob(
        5.0, "cancelling: how long a container's kill may take", unit="s", check=duration
    )
    remove_grace: float = knob(
        10.0, "cancelling: how long a container's forced removal may take", unit="s", check=duration
    )

    # how much
    max_sessions: int = knob(
        8, "sessions with a container at one time", unit="sessions", check=number(at_least=1, at_most=10_000)
    )
    max_session_disk: Size = knob(
        2 << 30,
        "OpenCode data kept of one session: above it the tools' saved output and the logs go, oldest first, and "
        "when that is not enough the session takes no more jobs",
        unit="bytes",
        empty="unlimited",
        check=size(at_least=16 * MIB, zero_allowed=True),
    )
    min_free_disk: Size = knob(
        512 * MIB,
        "free space that sessionsDir and workspacesDir must have when a job is started",
        unit="bytes",
        empty="not checked",
        check=size(at_least=MIB, zero_allowed=True),
    )
    recycle_memory_share: float = knob(
        0.8,
        "between two jobs a container that uses more than this share of memory is replaced by a new one",
        empty="never",
        check=number(at_least=0, at_most=1),
    )
    max_queued_jobs: int = knob(
        16, "jobs that wait in one session", unit="jobs", check=number(at_least=1, at_most=100_000)
    )
    max_output_size: Size = knob(
        10 * MIB,
        "output kept of one job",
        unit="bytes",
        empty="unlimited",
        check=size(at_least=1024, zero_allowed=True),
    )
    keep_jobs: int = knob(
        10_000,
        "ended jobs that are remembered with their output, the newest; the last one of each session is, too",
        unit="jobs",
        empty="all",
        check=number(at_least=0, at_most=10_000_000),
    )
    keep_jobs_for: float = knob(
        0.0,
        "an ended job is remembered for this long",
        unit="s",
        empty="as long as keepJobs says",
        check=number(at_least=0, at_most=10 * 366 * 86_400),
    )
    keep_outputs: Size = knob(
        10 << 30,
        "output kept of all ended jobs together: above it the oldest jobs are forgotten",
        unit="bytes",
        empty="unlimited",
        check=size(at_least=MIB, zero_allowed=True),
    )
    keep_sessions: int = knob(
        1_000,
        "sessions that can be resumed, those that were used last: of others the conversation is removed, and the "
        "files stay",
        unit="sessions",
        empty="all",
        check=number(at_least=0, at_most=1_000_000),
    )
    keep_sessions_for: float = knob(
        0.0,
        "a session that had no job for this long is forgotten in the same way",
        unit="s",
        empty="as long as keepSessions says",
        check=number(at_least=0, at_most=10 * 366 * 86_400),
    )
    max_provider_retries: int = knob(
        3,
        "how often OpenCode may retry a provider's error",
        unit="retries",
        check=number(at_least=0, at_most=1000),
    )

    # restarts
    max_restarts: int = knob(
        5,
        "restarts of a crashed container within restartPeriod, then it is given up",
        unit="restarts",
        check=number(at_least=0, at_most=100),
    )
    restart_period: float = knob(600.0, "what maxRestarts is counted in", unit="s", check=duration)
    restart_delay: float = knob(
        0.5, "wait before the first restart", unit="s", check=number(at_least=0, at_most=LONGEST)
    )
    restart_factor: float = knob(
        2.0, "how much longer each next wait is", check=number(at_least=1, at_most=100)
    )
    restart_delay_cap: float = knob(30.0, "longest wait before a restart", unit="s", check=duration)
    restart_jitter: float = knob(
        0.5, "random part added to a wait, as a share of it", check=number(at_least=0, at_most=1)
    )
    on_crash: str = knob(
        "fail",
        "what becomes of a job whose container crashed: fail, and the next one has a new container; or resume: "
        "the agent is asked to go on in a new one, in the same conversation",
        check=one_of("fail", "resume"),
    )

    # the front door of the service
    door_host: str = knob("127.0.0.1", "the address that `serve` listens on", check=ip_literal)
    door_port: int = knob(
        18790,
        "the port that `serve` listens on",
        empty="any free one",
        check=number(at_least=0, at_most=65_535),
    )
    door_origins: tuple[str, ...] = knob(
        (), "web pages whose scripts may connect, by their Origin", empty="none", check=web_origins
    )
    door_tls_certificate: str = knob(
        "", "PEM file of the certificate to serve TLS with", empty="no TLS", check=absolute_path
    )
    door_tls_key: str = knob(
        "", "PEM file of its key", empty="in the certificate's file", check=absolute_path
    )

    # notifications to OpenClaw
    notify_webhook_url: str = knob(
        "http://localhost:18789/hooks/agent",
        "where a service announces that a job has settled; one that ends in /hooks/agent or /hooks/wake is "
        "OpenClaw's, and its port and path are taken from openclaw.json where they are not the usual ones",
        empty="no announcement",
        check=http_url,
    )
    hooks_token: str = knob(
        "",
        "the token for notifyWebhookUrl; without one nothing is sent",
        empty="hooks.token of openclaw.json, for an address on this host",
        secret=True,
        check=secret_text,
    )
    # OpenClaw takes up to 15 s to admit a run, and says so then.
    notify_timeout: float = knob(20.0, "one attempt to announce a settled job", unit="s", check=duration)
    notify_give_up: float = knob(
        86_400.0,
        "an announcement that could not be delivered for this long is given up",
        unit="s",
        check=duration,
    )

    notify_kinds: tuple[str, ...] = knob(
        (),
        "what the chat that asked for a job is told of it, where that is not the usual: text, and text is told; -running, "
        "and that is not; telegram:-report, for the chats of one channel. There are completed, failed, cancelled, limit, "
        "waiting, running, report (usually told), answered, started, text, tool (usually not), and all",
        empty="the usual",
        check=notice_kinds,
    )
    notify_every: float = knob(
        15.0,
        "a chat that is told text or tool gets at most one message of a job in so long, with all of it joined",
        unit="s",
        check=duration,
    )
    max_auto_answers: int = knob(
        10,
        "how often in a row a chat's agent is woken by what its jobs ask, without a word of a person; then the "
        "person is told, and not the agent",
        unit="times",
        empty="always the person",
        check=number(at_least=0, at_most=1_000_000),
    )
    routes: tuple[str, ...] = knob(
        (),
        "which chat is told of the jobs that no chat asked for, by the directory that they work in: "
        "~/code/shop=agent:main:main, with @telegram behind it when a channel is to be named; a directory that ends "
        "in * is the beginning of several; the longest that fits wins",
        empty="none is told",
        check=chat_routes,
    )

    def __attrs_post_init__(self) -> None:
        for problem in misfits(self):
            raise problem
