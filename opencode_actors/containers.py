"""What a session's container is made of: settings and a session's own things into a `ContainerSpec`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from attrs import field, frozen

from opencode_actors.machines.permissions import agents_config_of, config_of, rule_of, writes_nothing
from opencode_actors.machines.vocabulary import SessionKey
from opencode_actors.ports import ContainerSpec, Mount, Permissions
from opencode_actors.settings import Settings

OWNER_LABEL = "io.opencode-actors.owner"
SESSION_LABEL = "io.opencode-actors.session"

WORKSPACE = "/workspace"
DATA = "/data"
AUTH_FILE = Path("opencode/auth.json")  # below the data directory
DATABASE = Path("opencode/opencode.db")  # the same

_PROVIDER_FOLDER = "/run/opencode-actors/provider"

# The image's entry script forwards this address to the mounted socket.
PROVIDER_URL_INSIDE = "http://127.0.0.1:4097/v1"


@frozen(kw_only=True)
class ModelAccess:
    """How the containers reach a model: what of the host's OpenCode they are given.

    `environment` are provider keys by name; `auth_file` and `config_file` are copied into each session's own
    data directory, for the user inside cannot read the host's; `provider_socket` is the unix socket of a provider on this host,
    reachable inside as `PROVIDER_URL_INSIDE`; `config` is merged over everything else. `providers` are the ids
    of those that the host's own things make usable, for OpenCode's patience with them is bounded too.
    """

    environment: Mapping[str, str] = field(factory=dict[str, str], repr=False)
    auth_file: Path | None = None
    config_file: Path | None = None
    provider_socket: Path | None = None
    config: Mapping[str, object] = field(factory=dict[str, object], repr=False)
    providers: tuple[str, ...] = ()
    git_name: str = ""
    git_email: str = ""


@frozen(kw_only=True)
class HostAgents:
    """Those that the host's config says something of, by where it says so: under `agent`, or under `mode`, as it
    was before."""

    agents: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()


NO_AGENTS = HostAgents()


@frozen(kw_only=True)
class SessionPlace:
    """Where a session's things are on the host."""

    key: SessionKey
    container_name: str
    data: Path
    workspace: Path
    owner: str


def config_copy(config_file: Path) -> Path:
    """Where the host's config is below the data directory, next to `AUTH_FILE`."""
    return AUTH_FILE.with_name(f"host-opencode{config_file.suffix}")


def container_spec(
    settings: Settings,
    access: ModelAccess,
    place: SessionPlace,
    *,
    password: str,
    permissions: Permissions | None = None,
    agents: HostAgents = NO_AGENTS,
) -> ContainerSpec:
    """Without `permissions` they are those of the settings. Who may only read has a workspace that cannot be
    written to, whatever a command does."""
    wanted = effective(settings, permissions)
    mounts = [
        Mount(source=place.workspace, target=WORKSPACE, read_only=writes_nothing(wanted)),
        Mount(source=place.data, target=DATA),
    ]
    environment = {
        **access.environment,
        **_git_identity(settings, access),
        "OPENCODE_SERVER_PASSWORD": password,
        "OPENCODE_CONFIG_CONTENT": json.dumps(_config(settings, access, wanted, agents)),
    }
    if access.config_file is not None:
        environment["OPENCODE_CONFIG"] = f"{DATA}/{config_copy(access.config_file)}"
    if access.provider_socket is not None:
        # The folder, not the socket: a provider that starts again makes a new socket in it.
        folder = access.provider_socket.parent
        mounts.append(Mount(source=folder, target=_PROVIDER_FOLDER, read_only=True))
        inside = f"{_PROVIDER_FOLDER}/{access.provider_socket.name}"
        environment["OPENCODE_ACTORS_PROVIDER_SOCKET"] = inside
    return ContainerSpec(
        name=place.container_name,
        image=settings.image,
        labels={OWNER_LABEL: place.owner, SESSION_LABEL: place.key},
        environment=environment,
        mounts=tuple(mounts),
        memory_bytes=settings.memory,
        cpus=settings.cpus,
        pids=settings.pids_limit,
        tmpfs_bytes=settings.tmpfs_size,
        network=settings.network,
        apparmor_profile=settings.apparmor_profile,
    )


def _git_identity(settings: Settings, access: ModelAccess) -> dict[str, str]:
    identity: dict[str, str] = {}
    if name := settings.git_user_name or access.git_name:
        identity |= {"GIT_AUTHOR_NAME": name, "GIT_COMMITTER_NAME": name}
    if email := settings.git_user_email or access.git_email:
        identity |= {"GIT_AUTHOR_EMAIL": email, "GIT_COMMITTER_EMAIL": email}
    return identity


def _config(
    settings: Settings, access: ModelAccess, permissions: Permissions, host: HostAgents
) -> dict[str, object]:
    """What wins over the baked-in config, the host's and the workspace's."""
    questions = settings.questions == "ask"
    config: dict[str, object] = {
        "autoupdate": False,
        "share": "disabled",
        "snapshot": False,
        "permission": config_of(permissions, questions=questions, directory=WORKSPACE),
        **access.config,
    }
    for key, names in (("agent", host.agents), ("mode", host.modes)):
        last = agents_config_of(permissions, questions=questions, directory=WORKSPACE, legacy=key == "mode")
        if agents := _with_last_word(_table(config.get(key)), names, last):
            config[key] = agents
    if settings.model:
        config |= {"model": settings.model, "small_model": settings.model}
    _bound_providers(config, settings, access.providers)
    return config


def _with_last_word(
    agents: dict[str, object], names: tuple[str, ...], last: dict[str, object]
) -> dict[str, object]:
    """To name one is to make it, so only those are named that there are anyway."""
    for name in (*names, *agents):
        agent = _table(agents.get(name))
        agents[name] = {**agent, "permission": {**_table(agent.get("permission")), **last}}
    return agents


def effective(settings: Settings, permissions: Permissions | None) -> Permissions:
    """With the mode, and before its rules the rules, of the settings where nothing else is asked for."""
    if permissions is not None and permissions.mode is not None:
        return permissions
    rules = (
        *(rule_of(text) for text in settings.permission_rules),
        *(permissions.rules if permissions else ()),
    )
    return Permissions(mode=settings.permissions, rules=rules)


def _bound_providers(config: dict[str, object], settings: Settings, usable: tuple[str, ...]) -> None:
    """OpenCode waits 300 s for a silent provider, and does so six times.

    It merges these options into what the host's config says of a provider. To name one is to enable it, with
    or without a key, so only those are named that are usable anyway.
    """
    timeouts = {
        "headerTimeout": int(settings.header_timeout * 1000),
        "chunkTimeout": int(settings.chunk_timeout * 1000),
    }
    providers = _table(config.get("provider"))
    chosen = (settings.model.partition("/")[0],) if settings.model else ()
    for name in (*providers, *usable, *chosen):
        provider = _table(providers.get(name))
        providers[name] = {**provider, "options": {**timeouts, **_table(provider.get("options"))}}
    if providers:
        config["provider"] = providers


def _table(value: object) -> dict[str, object]:
    return dict(cast(dict[str, object], value)) if isinstance(value, dict) else {}
