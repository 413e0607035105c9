"""The form of the journal's SQLite file, as the steps that lead from an empty file to it.

A file's `user_version` is the number of steps that it has taken. A step that was ever released stays as it
is; what is to be different is a new step at the end.
"""

from __future__ import annotations

import secrets
import sqlite3
from pathlib import Path
from typing import cast

from opencode_actors.errors import StoreError

_JOBS_AND_SESSIONS = """
CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE sessions (key TEXT PRIMARY KEY, conversation TEXT) WITHOUT ROWID;
CREATE TABLE jobs (id TEXT PRIMARY KEY, session TEXT NOT NULL, settled INTEGER NOT NULL, snapshot TEXT NOT NULL)
    WITHOUT ROWID;
CREATE INDEX unsettled ON jobs (id) WHERE settled = 0;
INSERT INTO about VALUES ('owner', '{owner}');
"""

# `number` is the order in which jobs were accepted. `since`, `accepted` and `begun` are what is needed to
# run a job or to follow it on; they are JSON, as the snapshot is.
# The body of a notice is JSON too, but for what stands elsewhere already: a piece of output is read from
# its file, the end of a job from the job. Notices of a job go with it.
_NOTICES = """
CREATE TABLE jobs_2 (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, session TEXT NOT NULL,
    settled INTEGER NOT NULL, snapshot TEXT NOT NULL, since INTEGER NOT NULL DEFAULT 0,
    accepted TEXT, begun TEXT, verdict TEXT, key TEXT, created REAL
);
INSERT INTO jobs_2 (id, session, settled, snapshot) SELECT id, session, settled, snapshot FROM jobs;
DROP TABLE jobs;
ALTER TABLE jobs_2 RENAME TO jobs;
CREATE INDEX unsettled ON jobs (number) WHERE settled = 0;
CREATE INDEX keyed ON jobs (key, number) WHERE key IS NOT NULL;
ALTER TABLE sessions ADD COLUMN container TEXT;
ALTER TABLE sessions ADD COLUMN url TEXT;
ALTER TABLE sessions ADD COLUMN password TEXT;
CREATE TABLE notices (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, job TEXT, session TEXT NOT NULL, kind TEXT NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX notices_of_job ON notices (job, seq) WHERE job IS NOT NULL;
CREATE INDEX notices_of_session ON notices (session, seq);
CREATE INDEX notices_of_session_itself ON notices (session, seq) WHERE job IS NULL;
CREATE TRIGGER notices_go_with_their_job AFTER DELETE ON jobs
    BEGIN DELETE FROM notices WHERE job = old.id; END;
INSERT INTO about VALUES ('no_progress', '0'), ('nothing', '0');
"""

# One row for each settled job that is to be announced, written with its end. It stays when all is done, so
# that a second record of the same end does not announce it again.
_OUTBOX = """
CREATE TABLE outbox (
    job TEXT PRIMARY KEY, session TEXT NOT NULL, aimed INTEGER NOT NULL, state TEXT NOT NULL,
    since REAL NOT NULL, due REAL NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
    last_offer INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX outbox_open ON outbox (due) WHERE state IN ('pending', 'claimed');
CREATE TRIGGER outbox_goes_with_its_job AFTER DELETE ON jobs
    BEGIN DELETE FROM outbox WHERE job = old.id; END;
"""

# A name is looked for among all jobs; what is told of a session is counted by the second index alone.
_NAMES = """
ALTER TABLE jobs ADD COLUMN name TEXT;
ALTER TABLE sessions ADD COLUMN image TEXT;
CREATE INDEX named ON jobs (name, number) WHERE name IS NOT NULL;
CREATE INDEX jobs_of_session ON jobs (session, name, created);
"""

# The output of an open job, cut where its kind or the server's part changes, so that a later process knows
# which of the server's words are told. A settled job tells no more.
_SPANS = """
CREATE TABLE spans (
    job TEXT NOT NULL, start INTEGER NOT NULL, upto INTEGER NOT NULL, kind TEXT NOT NULL, part TEXT NOT NULL,
    at INTEGER NOT NULL, PRIMARY KEY (job, start)
) WITHOUT ROWID;
CREATE TRIGGER spans_go_with_the_end AFTER UPDATE OF settled ON jobs WHEN new.settled
    BEGIN DELETE FROM spans WHERE job = new.id; END;
CREATE TRIGGER spans_go_with_their_job AFTER DELETE ON jobs
    BEGIN DELETE FROM spans WHERE job = old.id; END;
CREATE INDEX housed ON sessions (key) WHERE container IS NOT NULL;
"""

# Which sessions may have something on the disk, for whoever cleans up: those that never will again are many.
_DIRECTORIES = """
ALTER TABLE sessions ADD COLUMN has_data INTEGER NOT NULL DEFAULT 1;
ALTER TABLE sessions ADD COLUMN has_workspace INTEGER NOT NULL DEFAULT 1;
INSERT OR IGNORE INTO sessions (key) SELECT session FROM jobs;
CREATE INDEX with_data ON sessions (key) WHERE has_data = 1;
CREATE INDEX with_workspace ON sessions (key) WHERE has_workspace = 1;
CREATE TRIGGER directories_come_with_a_job AFTER INSERT ON jobs BEGIN
    INSERT INTO sessions (key) VALUES (new.session)
    ON CONFLICT (key) DO UPDATE SET has_data = 1, has_workspace = 1 WHERE has_data = 0 OR has_workspace = 0;
END;
"""

# The jobs of a session in their order, the last one first of all.
_IN_ORDER = """
CREATE INDEX jobs_in_order ON jobs (session, number);
"""

# A session that was forked off another one, and the message before which its conversation ends.
_FORKS = """
ALTER TABLE sessions ADD COLUMN source TEXT;
ALTER TABLE sessions ADD COLUMN before TEXT;
"""

# Which ended jobs are too old is read from the index alone: their snapshots are large, and many.
_ENDED = """
CREATE INDEX ended ON jobs (number, created, key, session, id) WHERE settled = 1;
"""

# A person's word on what a session's or a channel's chats are told.
_CHOICES = """
CREATE TABLE choices (
    scope TEXT NOT NULL, name TEXT NOT NULL, matter TEXT NOT NULL, wanted INTEGER NOT NULL,
    PRIMARY KEY (scope, name, matter)
) WITHOUT ROWID;
"""

# By local days, and without a tie to the jobs, which do not stay for ever. What has settled before is counted here;
# its end is when it was accepted and the time that it took.
_TOTALS = """
CREATE TABLE totals (
    day TEXT NOT NULL, model TEXT NOT NULL, outcome TEXT NOT NULL, cause TEXT NOT NULL, jobs INTEGER NOT NULL,
    ran INTEGER NOT NULL, seconds REAL NOT NULL, cost REAL NOT NULL, unpriced INTEGER NOT NULL,
    tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL, PRIMARY KEY (day, model, outcome, cause)
) WITHOUT ROWID;
CREATE TABLE dearest (
    day TEXT NOT NULL, job TEXT NOT NULL, name TEXT NOT NULL, session TEXT NOT NULL, model TEXT NOT NULL,
    outcome TEXT NOT NULL, cost REAL NOT NULL, PRIMARY KEY (day, job)
) WITHOUT ROWID;
CREATE TEMP TABLE past AS SELECT
    id, session, COALESCE(name, '') AS name, created + json_extract(snapshot, '$.elapsed_seconds') AS at,
    date(created + json_extract(snapshot, '$.elapsed_seconds'), 'unixepoch', 'localtime') AS day,
    COALESCE(json_extract(snapshot, '$.model'), '') AS model, json_extract(snapshot, '$.status') AS outcome,
    COALESCE(json_extract(snapshot, '$.failure.cause'), '') AS cause, json_extract(snapshot, '$.started_at') AS started,
    COALESCE(json_extract(snapshot, '$.cost_usd'), 0.0) AS cost, COALESCE(json_extract(snapshot, '$.cost_known'), 1) AS known,
    COALESCE(json_extract(snapshot, '$.tokens.input'), 0) + COALESCE(json_extract(snapshot, '$.tokens.cache_read'), 0)
        + COALESCE(json_extract(snapshot, '$.tokens.cache_write'), 0) AS tokens_in,
    COALESCE(json_extract(snapshot, '$.tokens.output'), 0) + COALESCE(json_extract(snapshot, '$.tokens.reasoning'), 0) AS tokens_out
    FROM jobs WHERE settled AND created IS NOT NULL AND json_valid(snapshot);
INSERT INTO totals SELECT day, model, outcome, cause, COUNT(*), COUNT(started),
    SUM(COALESCE(MAX(0.0, at - started), 0.0)), SUM(cost), SUM(NOT known), SUM(tokens_in), SUM(tokens_out)
    FROM past WHERE day IS NOT NULL GROUP BY day, model, outcome, cause;
INSERT INTO dearest SELECT day, id, name, session, model, outcome, cost FROM
    (SELECT *, ROW_NUMBER() OVER (PARTITION BY day ORDER BY cost DESC, id) AS place FROM past
        WHERE cost > 0 AND day IS NOT NULL)
    WHERE place <= 5;
DROP TABLE past;
"""

# Where a server is that somebody else runs, and where its password is, in JSON.
_ATTACHED = """
ALTER TABLE sessions ADD COLUMN server TEXT;
CREATE INDEX attached ON sessions (key) WHERE server IS NOT NULL;
"""

# What was asked for in a session last, in JSON.
_HABITS = """
ALTER TABLE sessions ADD COLUMN habits TEXT;
"""

# What tells what is too old without a look at each job and each file. `newest` is the number of a session's newest job,
# `outputs` has the sizes of ended jobs' outputs, and what is `to_remove` was forgotten with its job, until its file is
# certain to be gone: a process may end between the two. Of jobs that ended before, the size is what they said of it.
_SIZES = """
ALTER TABLE sessions ADD COLUMN newest INTEGER;
UPDATE sessions SET newest = (SELECT MAX(number) FROM jobs WHERE session = sessions.key);
CREATE INDEX by_newest ON sessions (newest) WHERE newest IS NOT NULL;
CREATE TRIGGER newest_comes_with_a_job AFTER INSERT ON jobs BEGIN
    INSERT INTO sessions (key, newest) VALUES (new.session, new.number)
    ON CONFLICT (key) DO UPDATE SET newest = excluded.newest;
END;
CREATE TRIGGER newest_goes_with_its_job AFTER DELETE ON jobs BEGIN
    UPDATE sessions SET newest = (SELECT MAX(number) FROM jobs WHERE session = old.session)
        WHERE key = old.session AND newest = old.number;
END;
CREATE TABLE outputs (number INTEGER PRIMARY KEY, bytes INTEGER NOT NULL);
INSERT INTO outputs SELECT number, json_extract(snapshot, '$.output_bytes') FROM jobs
    WHERE settled AND json_valid(snapshot) AND json_extract(snapshot, '$.output_bytes') > 0;
CREATE TABLE to_remove (job TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TRIGGER outputs_go_with_their_job AFTER DELETE ON jobs BEGIN
    DELETE FROM outputs WHERE number = old.number;
    INSERT OR IGNORE INTO to_remove VALUES (old.id);
END;
"""

# What is too old is found without a walk over all jobs: `kept` is how many have ended and what their outputs come to, and
# `used` when the newest job of a session came. One index has sessions in that order, one those that never had a job.
_USED = """
CREATE TABLE kept (ended INTEGER NOT NULL, bytes INTEGER NOT NULL);
INSERT INTO kept SELECT
    (SELECT COUNT(*) FROM jobs WHERE settled = 1), (SELECT COALESCE(SUM(bytes), 0) FROM outputs);
CREATE TRIGGER kept_grows_with_an_end AFTER UPDATE OF settled ON jobs WHEN new.settled <> old.settled
    BEGIN UPDATE kept SET ended = ended + new.settled - old.settled; END;
CREATE TRIGGER kept_grows_with_an_ended_job AFTER INSERT ON jobs WHEN new.settled
    BEGIN UPDATE kept SET ended = ended + 1; END;
CREATE TRIGGER kept_shrinks_with_a_job AFTER DELETE ON jobs WHEN old.settled
    BEGIN UPDATE kept SET ended = ended - 1; END;
CREATE TRIGGER kept_grows_with_an_output AFTER INSERT ON outputs
    BEGIN UPDATE kept SET bytes = bytes + new.bytes; END;
CREATE TRIGGER kept_follows_an_output AFTER UPDATE OF bytes ON outputs
    BEGIN UPDATE kept SET bytes = bytes + new.bytes - old.bytes; END;
CREATE TRIGGER kept_shrinks_with_an_output AFTER DELETE ON outputs
    BEGIN UPDATE kept SET bytes = bytes - old.bytes; END;
CREATE INDEX ended_by_age ON jobs (created) WHERE settled = 1;
ALTER TABLE sessions ADD COLUMN used REAL;
UPDATE sessions SET used = (SELECT MAX(created) FROM jobs WHERE session = sessions.key);
CREATE TRIGGER used_comes_with_a_job AFTER INSERT ON jobs WHEN new.created IS NOT NULL BEGIN
    INSERT INTO sessions (key, used) VALUES (new.session, new.created)
    ON CONFLICT (key) DO UPDATE SET used = MAX(COALESCE(used, 0.0), excluded.used);
END;
CREATE TRIGGER used_goes_with_its_job AFTER DELETE ON jobs BEGIN
    UPDATE sessions SET used = (SELECT MAX(created) FROM jobs WHERE session = old.session)
        WHERE key = old.session AND used = old.created;
END;
CREATE INDEX by_use ON sessions (COALESCE(used, 0.0), key) WHERE newest IS NOT NULL AND server IS NULL;
CREATE INDEX unspoken ON sessions (key)
    WHERE newest IS NULL AND server IS NULL AND (conversation IS NOT NULL OR has_data = 1);
"""

MIGRATIONS = (
    _JOBS_AND_SESSIONS,
    _NOTICES,
    _OUTBOX,
    _NAMES,
    _SPANS,
    _DIRECTORIES,
    _IN_ORDER,
    _FORKS,
    _ENDED,
    _CHOICES,
    _TOTALS,
    _ATTACHED,
    _HABITS,
    _SIZES,
    _USED,
)


def migrate(database: sqlite3.Connection, path: Path) -> None:
    """Each step is one transaction: a process that dies half-way leaves what was there before it."""
    version = check_version(database, path)
    for number, step in enumerate(MIGRATIONS[version:], start=version + 1):
        database.executescript(script(step, number))


def check_version(database: sqlite3.Connection, path: Path) -> int:
    """How many steps it has taken. Raises `StoreError` when those are none of ours."""
    (version,) = cast(tuple[int], database.execute("PRAGMA user_version").fetchone())
    if not 0 <= version <= len(MIGRATIONS):
        raise StoreError(
            f"{path} was written by another version of opencode-actors "
            f"(format {version}, this one reads {len(MIGRATIONS)})",
            hint="use the version that wrote it, or choose another sessionsDir",
        )
    return version


def script(step: str, number: int) -> str:
    owner = secrets.token_hex(4)
    return f"BEGIN IMMEDIATE;{step.format(owner=owner)}PRAGMA user_version = {number};\nCOMMIT;"
