"""The table of all settings: for people, for programs, and for the documentation."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import cast

from attrs import fields, frozen
from rich.console import Console
from rich.table import Table
from rich.text import Text

from opencode_actors.cli.arguments import settings_of
from opencode_actors.cli.status import Status
from opencode_actors.settings import Settings
from opencode_actors.settings_knobs import Knob, key_of, knob_of, knobs, show_size
from opencode_actors.settings_sources import LoadedSettings, environment_name


@frozen(kw_only=True)
class Row:
    key: str
    variable: str
    default: str
    unit: str
    meaning: str


def rows() -> tuple[Row, ...]:
    made: list[Row] = []
    for attribute in fields(Settings):
        knob = knob_of(attribute)
        unit = "" if knob.unit == "bytes" else knob.unit
        meaning = knob.meaning
        if knob.empty:
            word = "0" if isinstance(attribute.default, int | float) else "empty"
            meaning += f"; {word}: {knob.empty}"
        made.append(
            Row(
                key=key_of(attribute.name),
                variable=environment_name(attribute.name),
                default=shown(attribute.default, knob),
                unit=unit,
                meaning=meaning,
            )
        )
    return tuple(made)


def shown(value: object, knob: Knob) -> str:
    if knob.secret:
        return "(set)" if value else ""
    if knob.unit == "bytes" and isinstance(value, int):
        return show_size(value) if value else "0"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return ", ".join(cast(tuple[str, ...], value))
    return str(value)


def markdown() -> str:
    """The table of docs/settings.md."""
    lines = ["| setting | default | unit | meaning |", "|---|---|---|---|"]
    lines += [
        f"| `{row.key}` | {f'`{row.default}`' if row.default else ''} | {row.unit} | {row.meaning} |"
        for row in rows()
    ]
    return "\n".join(lines) + "\n"


def settings(arguments: argparse.Namespace) -> Status:
    if arguments.markdown:
        sys.stdout.write(markdown())
        return Status.OK
    loaded = settings_of(arguments)
    if arguments.json:
        sys.stdout.write(json.dumps(document(loaded), indent=2) + "\n")
    else:
        _print_table(loaded)
    return Status.OK


def document(loaded: LoadedSettings) -> dict[str, object]:
    values: dict[str, object] = {}
    for attribute in fields(Settings):
        knob = knob_of(attribute)
        value: object = getattr(loaded.settings, attribute.name)
        if knob.secret:
            value = "(set)" if value else ""
        elif isinstance(value, Path):
            value = str(value)
        values[key_of(attribute.name)] = {"value": value, "source": str(loaded.sources[attribute.name])}
    return {
        "file": str(loaded.file) if loaded.file else None,
        "settings": values,
        "warnings": list(loaded.warnings),
    }


def _print_table(loaded: LoadedSettings) -> None:
    console = Console(highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("setting", "value", "meaning", "source"):
        table.add_column(title, overflow="fold", no_wrap=title == "setting")
    for row, (name, knob) in zip(rows(), knobs(Settings).items(), strict=True):
        value = f"{shown(getattr(loaded.settings, name), knob)} {row.unit}".strip()
        cells = (row.key, value, row.meaning, str(loaded.sources[name]))
        table.add_row(*(Text(cell) for cell in cells))
    console.print(table)
    for warning in loaded.warnings:
        console.print(Text(f"warning: {warning}", style="yellow"), soft_wrap=True)
