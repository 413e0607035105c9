"""`opencode-actors doctor`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable

import attrs
import trio
from rich.console import Console
from rich.table import Table
from rich.text import Text

from opencode_actors.cli import settings_table
from opencode_actors.cli.arguments import settings_of
from opencode_actors.cli.status import Status
from opencode_actors.doctor.checks import Finding, Level, examine, problem
from opencode_actors.doctor.facts import HostFacts, gather
from opencode_actors.errors import SettingsError

_STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "red"}


def doctor(arguments: argparse.Namespace) -> Status:
    facts: HostFacts | None = None
    try:
        loaded = settings_of(arguments)
    except SettingsError as error:
        # Without settings nothing else is worth a look; that they are broken is the finding.
        findings = problem("settings", error.message, error.hint)
    else:
        facts = trio.run(gather, loaded, os.environ)
        findings = examine(facts)
    if arguments.json:
        sys.stdout.write(json.dumps(document(facts, findings), indent=2) + "\n")
    elif sys.stdout.isatty():
        _print_table(findings)
    else:
        sys.stdout.writelines(line + "\n" for line in plain_lines(findings))
    return status_of(findings)


def status_of(findings: Iterable[Finding]) -> Status:
    return Status.FAILED if any(finding.level is Level.PROBLEM for finding in findings) else Status.OK


def document(facts: HostFacts | None, findings: Iterable[Finding]) -> dict[str, object]:
    findings = tuple(findings)
    info = facts.engine.info if facts else None
    return {
        "ok": status_of(findings) is Status.OK,
        "checks": [
            {"name": finding.name, "level": finding.level.value, "text": finding.text, "fix": finding.fix}
            for finding in findings
        ],
        "engine": attrs.asdict(info, value_serializer=_serialized) if info else None,
        "settings": settings_table.document(facts.loaded) if facts else None,
    }


def _serialized(_owner: object, _attribute: object, value: object) -> object:
    return getattr(value, "value", value)


def plain_lines(findings: Iterable[Finding]) -> list[str]:
    lines: list[str] = []
    for finding in findings:
        lines.append(f"{finding.level.value:<8} {finding.name}: {finding.text}")
        if finding.fix:
            lines.append(f"         mend: {finding.fix}")
    return lines


def _print_table(findings: Iterable[Finding]) -> None:
    console = Console(highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for finding in findings:
        text = Text(finding.text)
        if finding.fix:
            text.append(f"\n→ {finding.fix}", style="bold")
        table.add_row(Text(finding.level.value, style=_STYLES[finding.level]), Text(finding.name), text)
    console.print(table)
