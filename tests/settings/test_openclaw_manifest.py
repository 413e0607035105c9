"""The manifest of the OpenClaw plugin says what the settings say: one openclaw.json configures both sides."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from opencode_actors.openclaw_config import OF_THE_PLUGIN
from opencode_actors.openclaw_manifest import MANIFEST, PLUGIN, properties, text_of, up_to_date
from opencode_actors.settings import Settings
from opencode_actors.settings_knobs import key_of, knobs
from opencode_actors.settings_sources import load_settings


def manifest() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(MANIFEST.read_text("utf-8"))
    return found


def test_the_shipped_manifest_is_the_one_of_todays_settings() -> None:
    assert MANIFEST.read_text("utf-8") == text_of(up_to_date(manifest())), (
        "run `python -m opencode_actors.openclaw_manifest`"
    )


def test_every_setting_can_be_written_into_openclaw_json() -> None:
    keys = set(manifest()["configSchema"]["properties"])
    assert keys == {key_of(name) for name in knobs(Settings)} | set(OF_THE_PLUGIN)


def test_no_option_of_the_plugin_is_a_setting_too() -> None:
    assert not set(OF_THE_PLUGIN) & {key_of(name) for name in knobs(Settings)}


def test_the_service_takes_the_plugins_own_options_for_no_mistake(tmp_path: Path) -> None:
    entry = {"autoStart": False, "token": "${NOT_SET_ANYWHERE}", "command": ["x"], "memory": "2g"}
    file = tmp_path / "openclaw.json"
    file.write_text(json.dumps({"plugins": {"entries": {"opencode": {"config": entry}}}}))
    loaded = load_settings(environment={"OPENCLAW_CONFIG_PATH": str(file), "HOME": str(tmp_path)})
    assert loaded.settings.memory == 2 << 30


def test_each_default_would_be_taken_by_the_service(tmp_path: Path) -> None:
    """What OpenClaw fills in may come back in its file one day."""
    entry = {key: option["default"] for key, option in properties().items() if key not in OF_THE_PLUGIN}
    file = tmp_path / "openclaw.json"
    file.write_text(json.dumps({"plugins": {"entries": {"opencode": {"config": entry}}}}))
    assert load_settings(environment={"OPENCLAW_CONFIG_PATH": str(file)}).settings == Settings()


def test_secrets_are_marked_as_such() -> None:
    hints = manifest()["uiHints"]
    assert set(hints) == {"token"} | {key_of(name) for name, knob in knobs(Settings).items() if knob.secret}
    assert all(hint == {"sensitive": True} for hint in hints.values())


@pytest.mark.parametrize("file", ["openclaw.plugin.json", "package.json"])
def test_the_plugin_has_the_packages_version(file: str) -> None:
    assert json.loads((PLUGIN / file).read_text("utf-8"))["version"] == version("opencode-actors")
