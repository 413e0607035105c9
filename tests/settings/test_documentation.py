"""The documentation of the settings is made from the settings."""

from __future__ import annotations

from pathlib import Path

from opencode_actors.cli.settings_table import markdown, rows
from opencode_actors.cli.status import Status
from opencode_actors.machines.vocabulary import Cause
from opencode_actors.settings import Settings
from opencode_actors.settings_knobs import knobs

DOCUMENT = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_documented_table_is_the_generated_one() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    table = text[text.index("| setting |") :]
    assert table == markdown(), (
        "run `opencode-actors settings --markdown` and put its output into docs/settings.md"
    )


def test_operators_are_told_of_every_cause_and_every_exit_status() -> None:
    text = (DOCUMENT.parent / "operations.md").read_text(encoding="utf-8")
    assert [cause.value for cause in Cause if f"| `{cause.value}` |" not in text] == []
    assert [status for status in Status if f"| {status.value} |" not in text] == []


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
