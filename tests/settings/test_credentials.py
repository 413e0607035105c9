"""Whether a host has provider credentials; keys themselves are never repeated."""

from __future__ import annotations

from pathlib import Path

from opencode_actors.credentials import find_credentials
from opencode_actors.settings import Settings

KEY = "sk-very-secret"


def home(tmp_path: Path, files: dict[str, str]) -> dict[str, str]:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return {"HOME": str(tmp_path)}


def test_nothing_is_found_on_a_bare_host(tmp_path: Path) -> None:
    found = find_credentials(Settings(), home(tmp_path, {}))
    assert not found.found
    assert str(tmp_path / ".local/share/opencode/auth.json") in found.looked_at
    assert str(tmp_path / ".config/opencode/opencode.json") in found.looked_at


def test_a_login_is_found(tmp_path: Path) -> None:
    auth = '{"acme": {"type": "api", "key": "' + KEY + '"}, "empty": {}}'
    found = find_credentials(Settings(), home(tmp_path, {".local/share/opencode/auth.json": auth}))
    assert found.logins == ("acme",)
    assert KEY not in f"{found!r} {found}"


def test_an_empty_auth_file_is_no_login(tmp_path: Path) -> None:
    assert not find_credentials(Settings(), home(tmp_path, {".local/share/opencode/auth.json": "{}"})).found


def test_a_configured_provider_is_found_also_in_jsonc(tmp_path: Path) -> None:
    config = '{ // mine\n "provider": {"acme": {"options": {"apiKey": "' + KEY + '"}}},}'
    found = find_credentials(Settings(), home(tmp_path, {".config/opencode/opencode.jsonc": config}))
    assert found.configured_providers == ("acme",)
    assert KEY not in f"{found!r} {found}"


def test_a_config_without_a_provider_is_none(tmp_path: Path) -> None:
    config = '{"theme": "dark", "provider": []}'
    assert not find_credentials(Settings(), home(tmp_path, {".config/opencode/opencode.json": config})).found


def test_a_variable_counts_only_when_it_is_passed_on(tmp_path: Path) -> None:
    environment = {**home(tmp_path, {}), "OPENAI_API_KEY": KEY, "ANTHROPIC_API_KEY": ""}
    found = find_credentials(Settings(), environment)
    assert found.variables == ("OPENAI_API_KEY",)
    assert KEY not in f"{found!r} {found}"
    assert not find_credentials(Settings(pass_environment=()), environment).found


def test_xdg_and_settings_say_where_to_look(tmp_path: Path) -> None:
    elsewhere = home(tmp_path, {"data/opencode/auth.json": '{"acme": {"type": "api"}}'})
    assert find_credentials(Settings(), {**elsewhere, "XDG_DATA_HOME": str(tmp_path / "data")}).found
    named = Settings(opencode_auth=str(tmp_path / "data/opencode/auth.json"))
    assert find_credentials(named, elsewhere).found


def test_a_broken_file_is_a_problem_and_not_an_error(tmp_path: Path) -> None:
    found = find_credentials(Settings(), home(tmp_path, {".local/share/opencode/auth.json": "{"}))
    assert not found.found
    assert "auth.json is not JSON5" in found.problems[0]


def test_every_usable_provider_is_named_once(tmp_path: Path) -> None:
    files = {
        ".local/share/opencode/auth.json": '{"acme": {"type": "api"}, "groq": {"type": "api"}}',
        ".config/opencode/opencode.json": '{"provider": {"acme": {"name": "Acme"}, "mine": {"name": "Mine"}}}',
    }
    variables = {"GEMINI_API_KEY": KEY, "OPENCODE_API_KEY": KEY, "OTHER_KEY": KEY}
    settings = Settings(pass_environment=tuple(variables))
    found = find_credentials(settings, {**home(tmp_path, files), **variables})
    assert found.providers == ("acme", "groq", "mine", "google", "opencode", "opencode-go")


def test_each_well_known_variable_has_its_provider(tmp_path: Path) -> None:
    for variable in Settings().pass_environment:
        assert find_credentials(Settings(), {**home(tmp_path, {}), variable: KEY}).providers, variable


def test_references_may_stand_outside_of_strings(tmp_path: Path) -> None:
    config = '{"provider": {"acme": {"options": {"apiKey": "{env:KEY}", "timeout": {env:TIMEOUT}}}}}'
    found = find_credentials(Settings(), home(tmp_path, {".config/opencode/opencode.json": config}))
    assert found.configured_providers == ("acme",)
    assert found.problems == ()


def test_a_reference_excuses_nothing_else(tmp_path: Path) -> None:
    config = '{"provider": {"acme": {"options": {"apiKey": "{env:KEY}"}}}'
    found = find_credentials(Settings(), home(tmp_path, {".config/opencode/opencode.json": config}))
    assert "opencode.json is not JSON5" in found.problems[0]


def test_an_empty_config_is_none_and_no_problem(tmp_path: Path) -> None:
    found = find_credentials(Settings(), home(tmp_path, {".config/opencode/opencode.json": ""}))
    assert (found.found, found.problems) == (False, ())
