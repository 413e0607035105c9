"""Settings into the policies that the machines decide by."""

from __future__ import annotations

from attrs import evolve

from opencode_actors.machines.cancellation import Graces
from opencode_actors.machines.job_state import JobPolicy
from opencode_actors.machines.session_state import SessionPolicy
from opencode_actors.machines.vocabulary import OnCrash, OnUnanswered
from opencode_actors.settings import Settings
from opencode_actors.settings_fit import restart_policy


def graces(settings: Settings) -> Graces:
    return Graces(
        abort=settings.abort_grace,
        stop=settings.stop_grace,
        kill=settings.kill_grace,
        remove=settings.remove_grace,
    )


def job_policy(
    settings: Settings,
    *,
    timeout: float | None,
    max_cost_usd: float = 0.0,
    report_every: float | None = None,
    elsewhere: str = "",
) -> JobPolicy:
    return JobPolicy(
        idle_timeout=settings.idle_timeout,
        job_timeout=settings.job_timeout if timeout is None else timeout,
        max_cost_usd=max_cost_usd,
        remind_after=settings.remind_after,
        report_every=settings.report_every if report_every is None else report_every,
        max_output_size=settings.max_output_size,
        max_provider_retries=settings.max_provider_retries,
        question_timeout=settings.question_timeout,
        on_unanswered=OnUnanswered(settings.on_unanswered),
        on_crash=OnCrash(settings.on_crash),
        graces=graces(settings),
        elsewhere=elsewhere,
    )


def session_policy(settings: Settings, *, elsewhere: str = "") -> SessionPolicy:
    policy = _session_policy(settings)
    if not elsewhere:
        return policy
    lost = settings.server_lost_after
    return evolve(policy, elsewhere=elsewhere, lost_after=lost, server_ready_timeout=lost)


def _session_policy(settings: Settings) -> SessionPolicy:
    return SessionPolicy(
        startup_timeout=settings.startup_timeout,
        server_ready_timeout=settings.server_ready_timeout,
        session_idle_timeout=settings.session_idle_timeout,
        max_queued_jobs=settings.max_queued_jobs,
        memory=settings.memory,
        recycle_memory_share=settings.recycle_memory_share,
        max_disk=settings.max_session_disk,
        restart=restart_policy(settings),
        graces=graces(settings),
    )
