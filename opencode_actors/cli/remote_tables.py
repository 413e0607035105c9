"""Answers of the service for a person: tables on a terminal, plain lines with tabs in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from opencode_actors.cli.render import duration, one_line
from opencode_actors.cli.screen import harmless
from opencode_actors.machines import spending
from opencode_actors.settings_knobs import show_size

Document = dict[str, Any]


def output(text: str) -> None:
    _write(text)


def started(answer: Document) -> None:
    queued = f", {answer['ahead']} ahead of it" if answer["ahead"] else ""
    _lines(
        (
            ("job", answer["jobId"]),
            ("name", answer["name"] or ""),
            ("session", answer["sessionKey"]),
            ("status", answer["status"] + queued),
            ("follow it with", f"opencode-actors follow {answer['jobId']}"),
        )
    )


def forked(answer: Document) -> None:
    job, left_out, copied = answer["job"], answer["leftOut"], answer["copied"]
    rows = [
        ("session", answer["sessionKey"]),
        ("forked from", answer["forkedFrom"]),
        (
            "copied",
            f"{copied}, {answer['files']:,} files, {show_size(answer['bytes'])}" if copied else "before",
        ),
        ("workspace", answer["workspace"]),
        ("left out", f"job {left_out}, which is at work: only its files are here" if left_out else ""),
        ("job", job["jobId"] if job else ""),
        ("follow it with", f"opencode-actors follow {job['jobId']}" if job else ""),
    ]
    _lines((name, value) for name, value in rows if value)


def status(job: Document) -> None:
    metrics, tokens = job["metrics"], job["tokens"]
    taken = tokens["input"] + tokens["cacheRead"] + tokens["cacheWrite"]
    state = "cancelling" if job["cancelling"] else job["status"]
    rows = [
        ("job", job["jobId"]),
        ("name", job["name"]),
        ("session", job["sessionKey"]),
        ("status", f"{state} ({job['activityState']})" if job["status"] == "running" else state),
        ("elapsed", duration(job["elapsedSeconds"])),
        ("model", job["model"]),
        ("cost", cost(job) if job["costUsd"] != 0 or job["maxCostUsd"] else None),
        ("tokens", f"{taken:,} in, {tokens['output'] + tokens['reasoning']:,} out" if taken else None),
        ("output", _output_size(job)),
        ("cpu", f"{metrics['cpuPercent']:g} %" if metrics["cpuPercent"] is not None else None),
        ("memory", show_size(metrics["memoryBytes"]) if metrics["memoryBytes"] is not None else None),
        ("todos", f"{job['todoDone']} of {job['todoTotal']} done" if job["todoTotal"] else None),
        ("interrupted", f"for job {job['interruptedBy']}" if job["interruptedBy"] else None),
        ("ended by", _climb(job["climb"])),
        ("error", job["error"]),
        ("hint", job["hint"]),
    ]
    for asked in job["pending"]:
        rows += _asked(job["jobId"], asked)
    _lines((name, one_line(str(value))) for name, value in rows if value not in (None, ""))
    if job["tailOutput"]:
        _write("\n" + job["tailOutput"].rstrip() + "\n")


def _asked(job: str, asked: Document) -> list[tuple[str, str]]:
    options = f" ({' | '.join(asked['options'])})" if asked["options"] else ""
    is_permission = asked["kind"] == "permission"
    how = (
        "--reply once|always, or --reject"
        if is_permission
        else "ANSWER" + " ANSWER" * (asked["questions"] - 1)
    )
    return [
        ("asks", f"{asked['requestId']}: {asked['text']}{options}"),
        ("answer with", f"opencode-actors answer {job} {asked['requestId']} {how}"),
    ]


def cost(job: Document) -> str:
    most = job["maxCostUsd"] or 0.0
    bound = f" of at most {spending.dollars(most)}" if most and job["costKnown"] else ""
    return spending.in_words(job["costUsd"] or 0.0, known=job["costKnown"], most=most) + bound


def sessions(answer: Document) -> None:
    _table(
        ("session", "name", "status", "age", "last activity", "jobs", "active job", "queued", "workspace"),
        [
            (
                one["sessionKey"],
                one["name"] or "",
                one["status"] if one["resumable"] else f"{one['status']}, not kept",
                _ago(one["ageSeconds"]),
                _ago(one["lastActivitySecondsAgo"]),
                str(one["jobs"]),
                one["activeJob"] or "",
                str(len(one["queued"]) or ""),
                " ".join(part for part in (one["server"], one["workspace"]) if part),
            )
            for one in answer["sessions"]
        ],
        nothing="no sessions",
    )


def attached(answer: Document) -> None:
    _lines(
        (name, value)
        for name, value in (
            ("session", answer["sessionKey"]),
            ("server", f"{answer['server']}, OpenCode {answer['version']}"),
            ("directory", answer["directory"] or "the server's own"),
            ("conversation", answer["conversation"] or "a new one, with the first job"),
            *(("note", note) for note in answer["notes"]),
        )
    )


def conversations(answer: Document) -> None:
    _table(
        ("conversation", "title", "directory", "state"),
        [
            (
                one["conversation"],
                one["title"],
                one["directory"],
                one["state"] + (", this session's" if one["ours"] else ""),
            )
            for one in answer["conversations"]
        ],
        nothing="no conversations",
    )


def agents(answer: Document) -> None:
    _table(
        ("agent", "mode", ""),
        [(one["name"], one["mode"], one["description"]) for one in answer["agents"]],
        nothing="no agents",
    )


def models(answer: Document) -> None:
    _table(
        ("model", "", "price"),
        [(one["name"], one["title"], "" if one["priced"] else "not known") for one in answer["models"]],
        nothing="no models",
    )


def cleanup(answer: Document) -> None:
    rows = [(one["sessionKey"], "ended", "") for one in answer["ended"]]
    rows += [(one["sessionKey"], "kept", one["reason"]) for one in answer["kept"]]
    rows += [(path, "workspace deleted", "") for path in answer["deletedWorkspaces"]]
    rows += [(one["sessionKey"], "conversation forgotten", "") for one in answer["forgottenSessions"]]
    if answer["forgottenJobs"]:
        rows.append((f"{answer['forgottenJobs']} ended jobs", "forgotten", ""))
    _table(("session", "", "reason"), rows, nothing="nothing to clean up")


def closed(answer: Document) -> None:
    _lines((("session", answer["sessionKey"]), ("container ended by", answer["endedBy"] or "none that ran")))


def requests(answer: Document) -> None:
    _table(
        ("job", "name", "request", "for", "asks", "answer with"),
        [
            (
                one["jobId"],
                one["name"] or "",
                one["requestId"],
                duration(one["waitingSeconds"]),
                one["text"] + (f" ({' | '.join(one['options'])})" if one["options"] else ""),
                _asked(one["jobId"], one)[1][1],
            )
            for one in answer["requests"]
        ],
        nothing="no job asks anything",
    )


def statistics(answer: Document) -> None:
    jobs = f"{answer['jobs']} {'job' if answer['jobs'] == 1 else 'jobs'}"
    _write(f"{jobs} since {answer['since']}, {_spent(answer)}, {_mean(answer)}\n")
    for title, rows, name in (
        ("day", answer["byDay"], "day"),
        ("outcome", answer["byOutcome"], "status"),
        ("failed of", answer["byCause"], "cause"),
        ("model", answer["byModel"], "model"),
    ):
        if rows:
            _write("\n")
            _table(
                (title, "jobs", "cost", "mean duration"),
                [(one[name] or "none", str(one["jobs"]), _spent(one), _mean(one)) for one in rows],
                nothing="",
            )
    if answer["mostExpensive"]:
        _write("\n")
        _table(
            ("most expensive", "name", "cost", "day", "status", "session"),
            [
                (one["jobId"], one["name"] or "", _spent(one), one["day"], one["status"], one["sessionKey"])
                for one in answer["mostExpensive"]
            ],
            nothing="",
        )


def _spent(tally: Document) -> str:
    cost = tally["costUsd"]
    if cost is None:
        return "cost unknown"
    known = tally.get("costKnown", True)
    return spending.dollars(cost) if known else f"at least {spending.dollars(cost)}"


def _mean(tally: Document) -> str:
    return "none ran" if tally["meanSeconds"] is None else f"{duration(tally['meanSeconds'])} on average"


def chosen(answer: Document) -> None:
    _table(
        ("kind", "told", "by"),
        [(kind, "yes" if one["on"] else "no", one["by"]) for kind, one in answer["kinds"].items()],
        nothing="",
    )


def info(answer: Document) -> None:
    engine = answer["engine"]
    _lines(
        (
            ("service", f"{answer['service']} {answer['version']}, protocol {answer['protocol']}"),
            ("process", str(answer["pid"])),
            ("engine", f"{engine['kind']} {engine['version']}{', rootless' if engine['rootless'] else ''}"),
            ("image", answer["image"]),
            ("sessions", str(answer["sessions"])),
            ("jobs", str(answer["jobs"])),
        )
    )


def _output_size(job: Document) -> str:
    cut = ", cut at maxOutputSize" if job["outputTruncated"] else ""
    ago = job["lastOutputSecondsAgo"]
    last = f", the last {duration(ago)} ago" if ago is not None and job["status"] == "running" else ""
    return f"{show_size(job['outputSize'])}{last}{cut}"


def _climb(climb: Document | None) -> str | None:
    if climb is None or climb["endedBy"] is None:
        return None
    times = ", ".join(f"{one['rung']} {one['seconds']:.1f} s" for one in climb["seconds"])
    return f"{climb['endedBy']} ({times})"


def _ago(seconds: float | None) -> str:
    return "" if seconds is None else duration(seconds)


def _lines(rows: Iterable[tuple[str, str]]) -> None:
    if not sys.stdout.isatty():
        _write("".join(f"{name}\t{value}\n" for name, value in rows))
        return
    table = Table.grid(padding=(0, 2))
    for name, value in rows:
        table.add_row(Text(name, style="dim"), Text(value))
    Console(highlight=False).print(table)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]], *, nothing: str) -> None:
    if not sys.stdout.isatty():
        _write("".join("\t".join(row) + "\n" for row in rows))
        return
    if not rows:
        _write(nothing + "\n")
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in titles:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    Console(highlight=False).print(table)


def _write(text: str) -> None:
    sys.stdout.write(harmless(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()
