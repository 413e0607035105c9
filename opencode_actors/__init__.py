"""Runs OpenCode agents in rootless containers and supervises them, as actors in one trio process."""

from opencode_actors.containers import ModelAccess
from opencode_actors.errors import (
    Busy,
    EngineError,
    EngineUnavailable,
    ImageMissing,
    OpencodeActorsError,
    OpenCodeError,
    SettingsError,
    StoreError,
    UnknownJob,
    UnknownSession,
    UsageError,
)
from opencode_actors.kernel.opening import open_system
from opencode_actors.kernel.system import Job, System
from opencode_actors.machines.notices import Notice
from opencode_actors.machines.vocabulary import (
    ActivityState,
    Cause,
    Climb,
    Failure,
    JobId,
    JobSnapshot,
    JobStatus,
    Rung,
    SessionKey,
    SessionSnapshot,
    SessionStatus,
)
from opencode_actors.settings import Settings

__all__ = [
    "ActivityState",
    "Busy",
    "Cause",
    "Climb",
    "EngineError",
    "EngineUnavailable",
    "Failure",
    "ImageMissing",
    "Job",
    "JobId",
    "JobSnapshot",
    "JobStatus",
    "ModelAccess",
    "Notice",
    "OpenCodeError",
    "OpencodeActorsError",
    "Rung",
    "SessionKey",
    "SessionSnapshot",
    "SessionStatus",
    "Settings",
    "SettingsError",
    "StoreError",
    "System",
    "UnknownJob",
    "UnknownSession",
    "UsageError",
    "open_system",
]
