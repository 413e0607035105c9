"""Drives a system through hours of trouble, and holds it to its rules: docs/stress.md says how.

from opencode_actors.stress import Scenario, run_stress

report = await run_stress(Scenario(jobs=20), open_my_system, settings=settings, seed=7)
assert report.passed, report.violations
"""

from opencode_actors.stress.findings import Violation
from opencode_actors.stress.report import Latency, Report
from opencode_actors.stress.run import run_stress
from opencode_actors.stress.scenario import Arrival, FaultKind, FaultPlan, Scenario, Talk, load_scenario
from opencode_actors.stress.weather import Weather
from opencode_actors.stress.wire import Wire

__all__ = [
    "Arrival",
    "FaultKind",
    "FaultPlan",
    "Latency",
    "Report",
    "Scenario",
    "Talk",
    "Violation",
    "Weather",
    "Wire",
    "load_scenario",
    "run_stress",
]
