"""What a session's container is made of: a table in which nothing may be missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
from attrs import evolve

from opencode_actors.containers import ModelAccess, SessionPlace, container_spec
from opencode_actors.machines.vocabulary import SessionKey
from opencode_actors.ports import ContainerSpec, Mount
from opencode_actors.settings import Settings

PASSWORD = "very-secret"
PLACE = SessionPlace(
    key=SessionKey("demo"),
    container_name="actors-demo",
    data=Path("/host/data"),
    workspace=Path("/host/workspace"),
    owner="me",
)
SETTINGS = Settings(
    image="an/image",
    memory=3 << 30,
    cpus=2.5,
    pids_limit=77,
    tmpfs_size=5 << 20,
    network="a-network",
    apparmor_profile="a-profile",
    model="acme/large",
    header_timeout=7.5,
    chunk_timeout=8,
)
ACCESS = ModelAccess(
    environment={"ACME_KEY": "key"},
    config_file=Path("/host/opencode.jsonc"),
    provider_socket=Path("/host/provider/provider.sock"),
    config={"provider": {"mine": {"name": "Mine", "options": {"baseURL": "http://x", "chunkTimeout": 1}}}},
    providers=("groq", "acme"),
    git_name="A B",
    git_email="a@example.com",
)
BOUNDED = {"options": {"headerTimeout": 7500, "chunkTimeout": 8000}}


def spec_of(settings: Settings = SETTINGS, access: ModelAccess = ACCESS) -> ContainerSpec:
    return container_spec(settings, access, PLACE, password=PASSWORD)


def config_of(spec: ContainerSpec) -> dict[str, Any]:
    return cast(dict[str, Any], json.loads(spec.environment["OPENCODE_CONFIG_CONTENT"]))


def test_everything_is_handed_on() -> None:
    spec = spec_of()
    assert evolve(spec, environment={}) == ContainerSpec(
        name="actors-demo",
        image="an/image",
        labels={"io.opencode-actors.owner": "me", "io.opencode-actors.session": "demo"},
        environment={},
        mounts=(
            Mount(source=Path("/host/workspace"), target="/workspace"),
            Mount(source=Path("/host/data"), target="/data"),
            Mount(source=Path("/host/provider"), target="/run/opencode-actors/provider", read_only=True),
        ),
        memory_bytes=3 << 30,
        cpus=2.5,
        pids=77,
        tmpfs_bytes=5 << 20,
        network="a-network",
        apparmor_profile="a-profile",
    )
    assert {name: text for name, text in spec.environment.items() if name != "OPENCODE_CONFIG_CONTENT"} == {
        "ACME_KEY": "key",
        "GIT_AUTHOR_NAME": "A B",
        "GIT_COMMITTER_NAME": "A B",
        "GIT_AUTHOR_EMAIL": "a@example.com",
        "GIT_COMMITTER_EMAIL": "a@example.com",
        "OPENCODE_SERVER_PASSWORD": PASSWORD,
        "OPENCODE_CONFIG": "/data/opencode/host-opencode.jsonc",
        "OPENCODE_ACTORS_PROVIDER_SOCKET": "/run/opencode-actors/provider/provider.sock",
    }
    assert config_of(spec) == {
        "autoupdate": False,
        "share": "disabled",
        "snapshot": False,
        "permission": {"*": "allow", "q*uestion": "allow"},
        "model": "acme/large",
        "small_model": "acme/large",
        "provider": {
            "mine": {
                "name": "Mine",
                "options": {"baseURL": "http://x", "headerTimeout": 7500, "chunkTimeout": 1},
            },
            "groq": BOUNDED,
            "acme": BOUNDED,
        },
    }


def test_p1_p2_what_is_asked_for_is_what_the_settings_say() -> None:
    deaf = config_of(spec_of(evolve(SETTINGS, questions="deny")))
    assert deaf["permission"] == {"*": "allow", "q*uestion": "deny"}
    asking = config_of(spec_of(evolve(SETTINGS, permissions="ask")))["permission"]
    assert next(iter(asking.items())) == ("**", "ask")
    assert {action for tool, action in asking.items() if tool != "**"} == {"allow"}
    assert {"r*ead", "g*rep", "q*uestion"} < asking.keys()


def test_what_there_is_not_leaves_no_trace() -> None:
    spec = spec_of(Settings(), ModelAccess())
    assert [mount.target for mount in spec.mounts] == ["/workspace", "/data"]
    assert sorted(spec.environment) == ["OPENCODE_CONFIG_CONTENT", "OPENCODE_SERVER_PASSWORD"]
    assert not {"model", "small_model", "provider"} & set(config_of(spec))


def test_the_password_is_in_one_variable_and_nowhere_else() -> None:
    spec = spec_of()
    assert [name for name, text in spec.environment.items() if PASSWORD in text] == [
        "OPENCODE_SERVER_PASSWORD"
    ]
    assert PASSWORD not in repr(spec)


def test_a_provider_cannot_take_the_servers_variables_over() -> None:
    access = ModelAccess(environment={"OPENCODE_SERVER_PASSWORD": "x", "OPENCODE_CONFIG_CONTENT": "{}"})
    spec = spec_of(SETTINGS, access)
    assert spec.environment["OPENCODE_SERVER_PASSWORD"] == PASSWORD
    assert config_of(spec)["share"] == "disabled"


def test_the_settings_git_identity_wins_over_the_hosts() -> None:
    spec = spec_of(evolve(SETTINGS, git_user_name="C D", git_user_email="c@example.com"))
    assert {spec.environment[f"GIT_{who}_NAME"] for who in ("AUTHOR", "COMMITTER")} == {"C D"}
    assert {spec.environment[f"GIT_{who}_EMAIL"] for who in ("AUTHOR", "COMMITTER")} == {"c@example.com"}


@pytest.mark.parametrize(
    ("settings", "access", "expected"),
    [
        (evolve(SETTINGS, model=""), ModelAccess(providers=("groq", "xai")), {"groq", "xai"}),
        (evolve(SETTINGS, model=""), ModelAccess(config={"provider": {"mine": {}}}), {"mine"}),
        (SETTINGS, ModelAccess(), {"acme"}),
    ],
)
def test_no_usable_provider_may_be_silent_for_long(
    settings: Settings, access: ModelAccess, expected: set[str]
) -> None:
    assert config_of(spec_of(settings, access))["provider"] == dict.fromkeys(expected, BOUNDED)
