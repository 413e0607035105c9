"""Where settings come from, which one wins, and how each mistake is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from opencode_actors.errors import SettingsError
from opencode_actors.settings import Settings
from opencode_actors.settings_knobs import Cpus, Size, key_of, knobs, value_types
from opencode_actors.settings_sources import (
    LoadedSettings,
    SourceKind,
    environment_name,
    load_settings,
    parse_size,
)


def load(
    tmp_path: Path,
    *,
    file: str | bytes | None = None,
    flags: Mapping[str, str] | None = None,
    **environment: str,
) -> LoadedSettings:
    path = tmp_path / "openclaw.json"
    if file is not None:
        path.write_bytes(file.encode() if isinstance(file, str) else file)
        environment["OPENCLAW_CONFIG_PATH"] = str(path)
    return load_settings(environment={"HOME": str(tmp_path), **environment}, flags=flags)


def entry(**config: object) -> str:
    return json.dumps({"plugins": {"entries": {"opencode": {"enabled": True, "config": config}}}})


def refusal(tmp_path: Path, **sources: object) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, **sources)  # type: ignore[arg-type]
    return caught.value


def test_without_any_source_all_is_default(tmp_path: Path) -> None:
    loaded = load(tmp_path)
    assert loaded.settings == Settings()
    assert loaded.file is None
    assert loaded.warnings == ()
    assert {source.kind for source in loaded.sources.values()} == {SourceKind.DEFAULT}
    assert loaded.sources.keys() == knobs(Settings).keys()


def test_flag_beats_environment_beats_file(tmp_path: Path) -> None:
    file = entry(memory="2g", cpus="1.5", maxSessions=3)
    loaded = load(
        tmp_path,
        file=file,
        OPENCODE_ACTORS_CPUS="2",
        OPENCODE_ACTORS_MAX_SESSIONS="4",
        flags={"maxSessions": "5"},
    )
    assert loaded.settings.memory == 2 << 30
    assert loaded.settings.cpus == 2.0
    assert loaded.settings.max_sessions == 5
    assert (
        loaded.sources["memory"].place
        == f"plugins.entries.opencode.config.memory in {tmp_path}/openclaw.json"
    )
    assert loaded.sources["cpus"].place == "OPENCODE_ACTORS_CPUS"
    assert loaded.sources["max_sessions"].kind is SourceKind.FLAG


def test_the_file_is_json5(tmp_path: Path) -> None:
    file = """
    // OpenClaw's own file
    { plugins: { entries: { opencode: { config: { idleTimeout: 300, memory: '1536m', }, }, other: {}, }, }, }
    """
    settings = load(tmp_path, file=file).settings
    assert settings.idle_timeout == 300.0
    assert settings.memory == 1536 << 20


@pytest.mark.parametrize(
    "file",
    ["{}", '{"plugins": {}}', '{"plugins": {"entries": {}}}', '{"plugins": {"entries": {"opencode": {}}}}'],
)
def test_a_file_without_the_entry_is_no_mistake(tmp_path: Path, file: str) -> None:
    assert load(tmp_path, file=file).settings == Settings()


def test_the_file_is_looked_for_where_openclaw_looks(tmp_path: Path) -> None:
    state, home = tmp_path / "state", tmp_path / "home"
    for folder, sessions in ((state, 3), (home / ".openclaw", 4)):
        folder.mkdir(parents=True)
        (folder / "openclaw.json").write_text(entry(maxSessions=sessions))
    in_home = load_settings(environment={"HOME": str(home)})
    in_openclaw_home = load_settings(environment={"HOME": "/nowhere", "OPENCLAW_HOME": str(home)})
    in_state = load_settings(environment={"HOME": str(home), "OPENCLAW_STATE_DIR": str(state)})
    assert (in_home.settings.max_sessions, in_state.settings.max_sessions) == (4, 3)
    assert in_openclaw_home.settings.max_sessions == 4


def test_an_empty_variable_is_not_given(tmp_path: Path) -> None:
    assert load(tmp_path, OPENCODE_ACTORS_MODEL="").sources["model"].kind is SourceKind.DEFAULT


@pytest.mark.parametrize("name", ["OPENCODE_ACTORS_PROVIDER_SOCKET", "OPENCODE_ACTORS_TEST_DOCKER_SOCKET"])
def test_variables_of_the_image_and_of_tests_are_no_settings(tmp_path: Path, name: str) -> None:
    environment = {"HOME": str(tmp_path), name: "/run/some.sock"}
    assert load_settings(environment=environment).settings == Settings()


def test_every_setting_has_a_type_that_both_converters_know() -> None:
    known = {str, int, float, Path, Size, Cpus, tuple[str, ...]}
    assert set(value_types(Settings).values()) <= known


# ---- refusals


@pytest.mark.parametrize(
    ("config", "key", "says"),
    [
        ({"memroy": "1g"}, "memroy", "memory"),
        ({"idle_timeout": 5}, "idle_timeout", "idleTimeout"),
        ({"image": None}, "image", "must be a text, not null"),
        ({"image": 7}, "image", "must be a text, not 7"),
        ({"image": ""}, "image", "must be the name of an image"),
        ({"memory": True}, "memory", "not true"),
        ({"memory": "lots"}, "memory", 'not "lots"'),
        ({"memory": -1}, "memory", "at least 64 MiB"),
        ({"memory": 512}, "memory", "not 512 bytes"),
        ({"memory": 1.5}, "memory", "must be a size"),
        ({"cpus": True}, "cpus", "must be a number, not true"),
        ({"cpus": 0}, "cpus", "at least 0.01"),
        ({"cpus": "many"}, "cpus", "must be a number"),
        ({"idleTimeout": "120"}, "idleTimeout", 'must be a number, not "120"'),
        ({"idleTimeout": 0}, "idleTimeout", "more than 0"),
        ({"idleTimeout": -5}, "idleTimeout", "more than 0"),
        ({"idleTimeout": 10**400}, "idleTimeout", "finite"),
        ({"maxSessions": 2.5}, "maxSessions", "whole number"),
        ({"maxSessions": 0}, "maxSessions", "at least 1"),
        ({"restartJitter": 1.5}, "restartJitter", "at most 1"),
        ({"runtime": "lxc"}, "runtime", "podman or docker"),
        ({"onCrash": "retry"}, "onCrash", "must be fail"),
        ({"network": "host"}, "network", "publishes none"),
        ({"network": "a b"}, "network", "must be bridge"),
        ({"model": "gpt"}, "model", "provider/model"),
        ({"notifyWebhookUrl": "ftp://x"}, "notifyWebhookUrl", "http"),
        ({"notifyWebhookUrl": "http://[x"}, "notifyWebhookUrl", "URL"),
        ({"sessionsDir": "sessions"}, "sessionsDir", "absolute"),
        ({"sessionsDir": "/"}, "sessionsDir", "directory of its own"),
        ({"sessionsDir": "/a/../etc"}, "sessionsDir", ".."),
        ({"workspacesDir": "/a:b/c"}, "workspacesDir", "':'"),
        ({"passEnvironment": "KEY"}, "passEnvironment", "list of texts"),
        ({"passEnvironment": ["A=B"]}, "passEnvironment", "A=B"),
        ({"gitUserName": "a\nb"}, "gitUserName", "one line"),
        ({"restartDelay": 60}, "restartDelayCap", "less than restartDelay"),
        ({"runtime": "docker", "network": "pasta"}, "network", "Podman only"),
    ],
)
def test_a_wrong_value_is_refused_with_its_key_and_its_source(
    tmp_path: Path, config: dict[str, object], key: str, says: str
) -> None:
    error = refusal(tmp_path, file=entry(**config))
    assert error.key == key
    assert says in f"{error.message} {error.hint}"
    assert key in error.message


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_none_is_refused(tmp_path: Path, literal: str) -> None:
    file = '{"plugins": {"entries": {"opencode": {"config": {"idleTimeout": ' + literal + "}}}}}"
    assert "finite" in refusal(tmp_path, file=file).message


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999"])
def test_a_variable_that_is_no_finite_number_is_refused(tmp_path: Path, text: str) -> None:
    assert "finite" in refusal(tmp_path, OPENCODE_ACTORS_CPUS=text).message


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("{", "is not JSON5: line 1"),
        ("[]", "does not hold an object"),
        (b"\xff\xfe{}", "is not UTF-8"),
        ("[" * 100_000, "nested too deeply"),
        ('{"plugins": []}', "plugins in"),
        ('{"plugins": {"entries": {"opencode": {"config": 5}}}}', "plugins.entries.opencode.config in"),
        (b" " * (5 << 20), "larger than"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, file: str | bytes, says: str) -> None:
    error = refusal(tmp_path, file=file)
    assert says in error.message
    assert str(tmp_path / "openclaw.json") in error.message


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path, OPENCLAW_CONFIG_PATH=str(tmp_path / "no.json")).message


def test_a_directory_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path, OPENCLAW_CONFIG_PATH=str(tmp_path)).message


def test_an_unknown_variable_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    error = refusal(tmp_path, OPENCODE_ACTORS_MEMROY="1g")
    assert error.message.startswith("OPENCODE_ACTORS_MEMROY is not a setting")
    assert error.hint == "did you mean OPENCODE_ACTORS_MEMORY?"


def test_a_refusal_names_the_variable_and_the_flag(tmp_path: Path) -> None:
    assert "OPENCODE_ACTORS_MAX_SESSIONS" in refusal(tmp_path, OPENCODE_ACTORS_MAX_SESSIONS="x").message
    assert "OPENCODE_ACTORS_MAX_SESSIONS" in refusal(tmp_path, OPENCODE_ACTORS_MAX_SESSIONS="0").message
    assert "command line" in refusal(tmp_path, flags={"memory": "x"}).message


def test_a_secret_is_never_repeated(tmp_path: Path) -> None:
    error = refusal(tmp_path, OPENCODE_ACTORS_HOOKS_TOKEN="hunter2 hunter2")
    assert "hunter2" not in f"{error} {error.hint} {error!r}"
    assert "hunter2" not in repr(load(tmp_path, OPENCODE_ACTORS_HOOKS_TOKEN="hunter2"))


# ---- combinations


def test_a_restart_intensity_that_is_never_exhausted_is_refused(tmp_path: Path) -> None:
    error = refusal(
        tmp_path, file=entry(maxRestarts=5, restartPeriod=120, startupTimeout=10, serverReadyTimeout=20)
    )
    assert error.key == "restartPeriod"
    assert "too short to ever give up" in error.message


def test_the_default_intensity_can_give_up() -> None:
    Settings()


def test_directories_inside_each_other_are_refused(tmp_path: Path) -> None:
    for sessions, workspaces in (("/a/b", "/a/b/c"), ("/a/b/c", "/a/b"), ("/a/b", "/a/b")):
        error = refusal(tmp_path, file=entry(sessionsDir=sessions, workspacesDir=workspaces))
        assert error.key == "sessionsDir"


def test_a_job_timeout_alone_lowers_the_default_idle_timeout(tmp_path: Path) -> None:
    settings = load(tmp_path, flags={"jobTimeout": "30"}).settings
    assert (settings.job_timeout, settings.idle_timeout) == (30.0, 30.0)


def test_an_idle_timeout_beyond_the_job_timeout_is_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path, file=entry(idleTimeout=60), flags={"jobTimeout": "30"})
    assert error.key == "idleTimeout"
    assert "never be reached" in error.message


def test_little_memory_is_accepted_with_a_warning(tmp_path: Path) -> None:
    loaded = load(tmp_path, file=entry(memory="512m"))
    assert loaded.settings.memory == 512 << 20
    assert any(warning.startswith("memory:") for warning in loaded.warnings)


def test_an_embedder_is_held_to_the_same_types() -> None:
    with pytest.raises(SettingsError, match="must be a number, not true"):
        Settings(idle_timeout=True)
    with pytest.raises(SettingsError, match="must be a text, not null"):
        Settings(image=None)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="finite"):
        Settings(cpus=math.nan)


# ---- the hooks' token


def test_P16_the_hooks_token_comes_from_openclaws_own_config(tmp_path: Path) -> None:
    loaded = load(tmp_path, file='{"hooks": {"enabled": true, "token": "t-1"}}')
    assert loaded.settings.hooks_token == "t-1"
    assert loaded.sources["hooks_token"].place.startswith("hooks.token in ")
    own = load(tmp_path, file='{"hooks": {"token": "t-1"}}', OPENCODE_ACTORS_HOOKS_TOKEN="t-2")
    assert own.settings.hooks_token == "t-2"
    empty = load(tmp_path, file='{"hooks": {"token": "t-1"}, ' + entry(hooksToken="")[1:])
    assert empty.settings.hooks_token == "t-1"


def test_references_are_filled_in_as_openclaw_does(tmp_path: Path) -> None:
    loaded = load(tmp_path, file='{"hooks": {"token": "${TOKEN}"}}', TOKEN="from-env")
    assert loaded.settings.hooks_token == "from-env"
    loaded = load(tmp_path, file=entry(model="${PROVIDER}/m"), PROVIDER="acme")
    assert loaded.settings.model == "acme/m"
    error = refusal(tmp_path, file=entry(model="${PROVIDER}/m"))
    assert error.key == "model"
    assert "${PROVIDER} is used but not set" in error.message
    assert load(tmp_path, file=entry(gitUserName="$${NAME}")).settings.git_user_name == "${NAME}"


@pytest.mark.parametrize("token", ['"${NOT_SET}"', '{"source": "env", "id": "TOKEN"}', "5"])
def test_a_token_that_cannot_be_read_is_a_warning(tmp_path: Path, token: str) -> None:
    loaded = load(tmp_path, file='{"hooks": {"token": ' + token + "}}")
    assert loaded.settings.hooks_token == ""
    assert loaded.warnings[0].startswith("hooksToken: hooks.token in")


def test_P16_the_address_of_the_hooks_comes_from_openclaws_own_config(tmp_path: Path) -> None:
    usual = load(tmp_path, file='{"hooks": {"path": "/hooks"}, "gateway": {"port": 18789}}')
    assert usual.settings.notify_webhook_url == "http://localhost:18789/hooks/agent"
    assert usual.sources["notify_webhook_url"].kind is SourceKind.DEFAULT
    other = load(tmp_path, file='{"hooks": {"path": "my/hooks/"}, "gateway": {"port": 19000}}')
    assert other.settings.notify_webhook_url == "http://localhost:19000/my/hooks/agent"
    assert other.sources["notify_webhook_url"].place.startswith("gateway.port and hooks.path in ")
    url = "http://elsewhere:1/hooks/wake"
    own = load(tmp_path, file='{"gateway": {"port": 19000}}', OPENCODE_ACTORS_NOTIFY_WEBHOOK_URL=url)
    assert own.settings.notify_webhook_url == url


def test_P14_openclaws_token_is_not_sent_to_another_host(tmp_path: Path) -> None:
    file = '{"hooks": {"token": "t-1"}}'
    for url in ("http://127.0.0.1:1/hooks/wake", "http://[::1]:1/hooks/ci", "https://localhost/x"):
        here = load(tmp_path, file=file, OPENCODE_ACTORS_NOTIFY_WEBHOOK_URL=url)
        assert (here.settings.hooks_token, here.warnings) == ("t-1", ())
    for url in ("https://example.com/hooks/agent", "http://127.evil.example/hooks/agent"):
        there = load(tmp_path, file=file, OPENCODE_ACTORS_NOTIFY_WEBHOOK_URL=url)
        assert there.settings.hooks_token == ""
        clear = [text for text in there.warnings if text.startswith("notifyWebhookUrl: http://")]
        assert bool(clear) == url.startswith("http:")


@pytest.mark.parametrize(
    "file",
    [
        '{"gateway": {"port": "${PORT}"}}',
        '{"gateway": {"port": 99999}}',
        '{"gateway": {"port": true}, "hooks": {"path": "/"}}',
        '{"hooks": {"path": "/a b"}}',
        '{"hooks": {"path": 5}}',
    ],
)
def test_an_address_that_cannot_be_told_stays_the_usual_one(tmp_path: Path, file: str) -> None:
    assert load(tmp_path, file=file).settings.notify_webhook_url == "http://localhost:18789/hooks/agent"


# ---- sizes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1g", 1 << 30),
        ("1G", 1 << 30),
        ("512MiB", 512 << 20),
        ("512 mb", 512 << 20),
        ("512m", 512 << 20),
        ("1.5g", 3 << 29),
        ("64k", 65536),
        ("1048576", 1048576),
        ("1048576b", 1048576),
        ("0", 0),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["g", "-1g", "1gg", "1 2", "1e3", "٣g", "0x10", "1,5g", "." * 10_000])
def test_no_sizes(tmp_path: Path, text: str) -> None:
    assert "must be a size" in refusal(tmp_path, OPENCODE_ACTORS_MEMORY=text).message


# ---- nothing but SettingsError ever comes out


@settings(deadline=None)
@given(text=st.text())
@example(text="~\x00")
def test_any_text_is_taken_or_refused(text: str) -> None:
    for attribute in knobs(Settings):
        with suppress(SettingsError):
            load_settings(environment={"HOME": "/nowhere", environment_name(attribute): text})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)
@given(value=json_values, key=st.sampled_from([key_of(name) for name in knobs(Settings)]))
def test_any_json_value_is_taken_or_refused(
    tmp_path_factory: pytest.TempPathFactory, value: object, key: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "openclaw.json"
    path.write_text(entry(**{key: value}))
    with suppress(SettingsError):
        load_settings(environment={"HOME": "/nowhere", "OPENCLAW_CONFIG_PATH": str(path)})
