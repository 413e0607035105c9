"""The OpenClaw plugin's manifest, as far as it follows from the settings: one openclaw.json configures both.

OpenClaw checks the entry's `config` against the manifest's schema, and does not even start when a value does not
fit. So the schema says which keys there are and of what type their values are; what a value must be beside that
is checked by the service, whose refusal names the key and costs nothing but itself.

    python -m opencode_actors.openclaw_manifest        brings openclaw.plugin.json up to date
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from attrs import fields

from opencode_actors.openclaw_config import OF_THE_PLUGIN
from opencode_actors.settings import Settings
from opencode_actors.settings_knobs import Cpus, Size, key_of, knob_of, value_types

PLUGIN = Path(__file__).parent / "openclaw_plugin"
MANIFEST = PLUGIN / "openclaw.plugin.json"

_TYPES: dict[Any, object] = {
    Size: ["integer", "string"],
    Cpus: ["number", "string"],
    float: "number",
    int: "integer",
    bool: "boolean",
    str: "string",
    Path: "string",
}


def up_to_date(manifest: dict[str, Any]) -> dict[str, Any]:
    """The same with the schema of today's settings."""
    secrets = {"token": {"sensitive": True}} | {
        key_of(attribute.name): {"sensitive": True}
        for attribute in fields(Settings)
        if knob_of(attribute).secret
    }
    schema = {"type": "object", "additionalProperties": False, "properties": properties()}
    return manifest | {"uiHints": secrets, "configSchema": schema}


def properties() -> dict[str, dict[str, object]]:
    """Every key of the entry's `config`: the plugin's own, and the service's settings."""
    found: dict[str, dict[str, object]] = {key: dict(option) for key, option in OF_THE_PLUGIN.items()}
    types = value_types(Settings)
    for attribute in fields(Settings):
        knob = knob_of(attribute)
        meaning = knob.meaning + (f" ({knob.unit})" if knob.unit else "")
        found[key_of(attribute.name)] = {
            **_type_of(types[attribute.name]),
            "default": _as_json(attribute.default),
            "description": meaning + (f"; empty or 0: {knob.empty}" if knob.empty else ""),
        }
    return found


def _type_of(wanted: Any) -> dict[str, object]:
    if wanted in _TYPES:
        return {"type": _TYPES[wanted]}
    return {"type": "array", "items": {"type": "string"}}


def _as_json(default: object) -> object:
    if isinstance(default, Path):
        return str(default)
    return list(cast(tuple[str, ...], default)) if isinstance(default, tuple) else default


def text_of(manifest: dict[str, Any]) -> str:
    return json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    MANIFEST.write_text(text_of(up_to_date(json.loads(MANIFEST.read_text("utf-8")))), "utf-8")
