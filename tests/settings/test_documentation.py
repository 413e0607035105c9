"""The documentation of the settings is made from the settings."""

from __future__ import annotations

from pathlib import Path

from opencode_actors.cli.settings_table import markdown, rows
from opencode_actors.settings import Settings
from opencode_actors.settings_knobs import knobs

DOCUMENT = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_documented_table_is_the_generated_one() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    table = text[text.index("| setting |") :]
    assert table == markdown(), (
        "run `opencode-actors settings --markdown` and put its output into docs/settings.md"
    )


def test_every_setting_has_a_meaning_and_a_row() -> None:
    assert len(rows()) == len(knobs(Settings))
    assert all(row.meaning for row in rows())


def test_the_upstream_plugins_options_are_all_there() -> None:
    upstream = (
        "image runtime startupTimeout serverReadyTimeout idleTimeout memory cpus network sessionsDir "
        "workspacesDir sessionIdleTimeout apparmorProfile maxOutputSize notifyWebhookUrl hooksToken model"
    )
    assert set(upstream.split()) <= {row.key for row in rows()}


def test_no_variable_stands_for_two_settings() -> None:
    assert len({row.variable for row in rows()}) == len(rows())
