"""A report as one page that needs nothing but itself: figures, plots drawn as SVG, traces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape

from opencode_actors.stress.plan import Plan
from opencode_actors.stress.report import SHARES, Latency, Report
from opencode_actors.stress.timeline import Span

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --bar: #3b7dd8; --bad: #c0392b; --good: #27894b; --fault: #d9822b; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; }
th, td { text-align: left; padding: .2rem 1rem .2rem 0; border-bottom: 1px solid var(--line); }
td.figure { text-align: right; font-variant-numeric: tabular-nums; }
pre { overflow-x: auto; border-left: 3px solid var(--bad); padding: .5rem 1rem; font-size: 13px; }
.good { color: var(--good); } .bad { color: var(--bad); }
svg { width: 100%; height: auto; } svg text { font: 11px system-ui, sans-serif; fill: currentColor; }
"""
_WIDTH = 1000
_ROW = 18
_LEFT = 150


def page(reports: Sequence[Report], again: Callable[[Plan], str]) -> str:
    """`again` is the command that has a run again."""
    passed = all(report.passed for report in reports)
    title = f"Stress: {'all rules hold' if passed else 'rules are broken'}"
    body = "\n".join(_report(report, again(report.plan)) for report in reports)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n'
        f'<body><h1 class="{_tone(passed)}">{title}</h1>\n{body}\n</body></html>\n'
    )


def _report(report: Report, command: str) -> str:
    verdict = "all rules hold" if report.passed else f"{len(report.violations)} rules are broken"
    about = f"world {escape(report.world)}, seed {report.plan.seed}, {report.took:,.0f} s"
    parts = [
        f"<h2>{escape(report.plan.scenario.name)}</h2>",
        f"<p>{about}: <strong class='{_tone(report.passed)}'>{verdict}</strong></p>",
        f"<p>Again: <code>{escape(command)}</code></p>",
        _timeline(report),
        _table(("how jobs ended", "jobs"), report.ends),
        _table(("faults that hit", "times"), report.hits),
        _table(("faults that found nothing to hit", "times"), report.missed),
        _listed("Not in this world", report.cannot),
        _listed("Not looked at", report.unchecked),
        _table(("refused", "jobs"), report.refused),
        _table(("memory of its process", "MiB"), {what: size >> 20 for what, size in report.memory.items()}),
        _latencies(report.latencies),
        *(_violation(str(v.rule), v.text, v.trace) for v in report.violations),
    ]
    return "\n".join(part for part in parts if part)


def _listed(what: str, names: Sequence[str]) -> str:
    return f"<p>{what}: {escape(', '.join(names))}</p>" if names else ""


def _tone(passed: bool) -> str:  # noqa: FBT001 - a word for a verdict
    return "good" if passed else "bad"


def _table(head: tuple[str, str], figures: Mapping[str, int]) -> str:
    if not figures:
        return ""
    rows = "".join(
        f'<tr><td>{escape(name)}</td><td class="figure">{count}</td></tr>' for name, count in figures.items()
    )
    return f"<table><tr><th>{head[0]}</th><th>{head[1]}</th></tr>{rows}</table>"


def _violation(rule: str, text: str, trace: Iterable[str]) -> str:
    lines = escape("\n".join(trace))
    return f'<h3 class="bad">{escape(rule)}</h3><p>{escape(text)}</p><pre>{lines}</pre>'


# ---- plots


def _timeline(report: Report) -> str:
    """What ran when: a row for each session, faults above them."""
    if not report.spans:
        return ""
    rows = sorted({span.row for span in report.spans})
    whole = max(report.took, 1.0)
    height = _ROW * (len(rows) + 1) + 20
    drawn = [_span(span, rows.index(span.row), whole) for span in report.spans]
    labels = [f'<text x="0" y="{_ROW * index + 13}">{escape(row)}</text>' for index, row in enumerate(rows)]
    axis = [
        f'<text x="{_at(whole * share, whole):.1f}" y="{height - 6}" text-anchor="middle">{whole * share:,.0f} s</text>'
        for share in (0.0, 0.25, 0.5, 0.75)
    ]
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img">{"".join((*labels, *drawn, *axis))}</svg>'


def _at(seconds: float, whole: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - 10) * seconds / whole


def _span(span: Span, row: int, whole: float) -> str:
    left = _at(span.begin, whole)
    width = max(1.5, _at(span.end, whole) - left)
    return (
        f'<rect x="{left:.1f}" y="{_ROW * row + 3}" width="{width:.1f}" height="{_ROW - 6}" rx="2" '
        f'fill="var(--{span.tone})" opacity="0.75"><title>{escape(span.title)}</title></rect>'
    )


def _latencies(latencies: Sequence[Latency]) -> str:
    """A table, and beside each row its distribution on a logarithmic scale from 1 ms."""
    if not latencies:
        return ""
    head = "".join(f"<th>{name}</th>" for name, _ in SHARES)
    rows = "".join(
        f"<tr><td>{escape(latency.name)}</td>"
        f'<td class="figure">{len(latency.values)}</td>'
        + "".join(f'<td class="figure">{latency.share(share):.3f}</td>' for _, share in SHARES)
        + f"<td>{_distribution(latency)}</td></tr>"
        for latency in latencies
    )
    return f"<table><tr><th>seconds</th><th>count</th>{head}<th>0.001 … 1000 s</th></tr>{rows}</table>"


_BINS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


def _distribution(latency: Latency) -> str:
    counts = [0] * (len(_BINS) + 1)
    for value in latency.values:
        counts[sum(value > edge for edge in _BINS)] += 1
    most = max(counts)
    bars = "".join(
        f'<rect x="{12 * index}" y="{24 - 24 * count / most:.1f}" width="10" '
        f'height="{24 * count / most:.1f}" fill="var(--bar)"/>'
        for index, count in enumerate(counts)
    )
    width = 12 * len(counts)
    return f'<svg viewBox="0 0 {width} 24" style="width: {width}px" role="img">{bars}</svg>'
