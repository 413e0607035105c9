"""The system: sessions and jobs as actors in one nursery, and the face that embedders see.

async with open_system(Settings()) as system:
    job = await system.start("fix the failing test", session="demo")
    async for notice in system.follow(job.id):
        ...
    result = await job.wait()
"""

from __future__ import annotations

import random
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import trio
from attrs import define, evolve, field, frozen

from opencode_actors.adapters.engine import open_engine
from opencode_actors.adapters.opencode import HttpOpenCode
from opencode_actors.containers import OWNER_LABEL, ModelAccess, SessionPlace, container_spec
from opencode_actors.errors import ActorGone, Busy, UnknownJob, UnknownSession, UsageError
from opencode_actors.kernel.actor import Actor
from opencode_actors.kernel.hub import Following, Hub
from opencode_actors.kernel.job_operations import JobOperations
from opencode_actors.kernel.policies import graces, job_policy, session_policy
from opencode_actors.kernel.servers import Connect, Servers
from opencode_actors.kernel.session_operations import SessionOperations
from opencode_actors.kernel.shells import JobShell, SessionShell
from opencode_actors.kernel.supervisor import Supervisor
from opencode_actors.machines import job as job_machine
from opencode_actors.machines import session as session_machine
from opencode_actors.machines.job_messages import (
    CancelJob,
    GetJob,
    JobEffect,
    JobMessage,
    JobOver,
    SessionFailed,
    StopForJob,
)
from opencode_actors.machines.job_state import JobState, new_job
from opencode_actors.machines.job_state import snapshot as job_snapshot
from opencode_actors.machines.names import directory_name, session_key
from opencode_actors.machines.notices import JobEnded, JobQueued, JobRecorded, Notice
from opencode_actors.machines.server_events import ConversationId
from opencode_actors.machines.session_messages import (
    Accepted,
    AddJob,
    CloseSession,
    GetSession,
    Refused,
    SessionEffect,
    SessionMessage,
)
from opencode_actors.machines.session_state import SessionState
from opencode_actors.machines.vocabulary import (
    Cause,
    Climb,
    Failure,
    JobId,
    JobSnapshot,
    JobStatus,
    Moment,
    SessionKey,
    SessionSnapshot,
)
from opencode_actors.ports import ContainerSpec, Engine, Prompt
from opencode_actors.settings import Settings
from opencode_actors.store.journal import open_journal
from opencode_actors.store.port import OutputSlice, Store
from opencode_actors.workdirs import make_directories

LONGEST_PROMPT = 4 << 20  # bytes; the models of today take less
_FINISHED_KEPT = 256
# Beyond the ladder's own graces, for the clean-up of what was just being made.
_SHUTDOWN_MARGIN = 15.0

JobActor = Actor[JobState, JobMessage, JobEffect]
SessionActor = Actor[SessionState, SessionMessage, SessionEffect]
