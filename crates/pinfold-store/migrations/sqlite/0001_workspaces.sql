-- Times are milliseconds since the epoch, ids are text, JSON is text.

CREATE TABLE workspaces (
    id             TEXT   NOT NULL PRIMARY KEY,
    name           TEXT   NOT NULL,
    state          TEXT   NOT NULL,
    reason         TEXT,
    boot           BIGINT NOT NULL,
    image_id       TEXT   NOT NULL,
    image_name     TEXT   NOT NULL,
    spec           TEXT   NOT NULL,
    lineage        TEXT   NOT NULL,
    pid            BIGINT,
    start_time     BIGINT,
    uid_slot       BIGINT,
    secret         BLOB,
    created_at     BIGINT NOT NULL,
    started_at     BIGINT,
    expires_at     BIGINT,
    last_active_at BIGINT NOT NULL,
    base_snapshot  TEXT
);

-- A name belongs to one workspace until that is destroyed; what is left of it may still be removed.
CREATE UNIQUE INDEX workspaces_live_name ON workspaces (name)
    WHERE state NOT IN ('destroying', 'destroyed');
-- Two workspaces never share a range of host uids.
CREATE UNIQUE INDEX workspaces_uid_slot ON workspaces (uid_slot) WHERE uid_slot IS NOT NULL;

-- A snapshot outlives its workspace, so there is no foreign key to it.
CREATE TABLE snapshots (
    id               TEXT   NOT NULL PRIMARY KEY,
    name             TEXT   NOT NULL,
    state            TEXT   NOT NULL,
    workspace        TEXT   NOT NULL,
    workspace_name   TEXT   NOT NULL,
    boot             BIGINT NOT NULL,
    parent           TEXT,
    kind             TEXT   NOT NULL,
    image_id         TEXT   NOT NULL,
    image_name       TEXT   NOT NULL,
    spec             TEXT   NOT NULL,
    lineage          TEXT   NOT NULL,
    referenced_bytes BIGINT,
    exclusive_bytes  BIGINT,
    method           TEXT   NOT NULL,
    created_at       BIGINT NOT NULL
);

CREATE UNIQUE INDEX snapshots_name ON snapshots (workspace, name);

-- What happened. Rows are added at the end and only ever dropped from the beginning.
CREATE TABLE events (
    seq       INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at        BIGINT  NOT NULL,
    kind      TEXT    NOT NULL,
    object    TEXT    NOT NULL,
    principal TEXT    NOT NULL,
    detail    TEXT    NOT NULL
);

CREATE INDEX events_object ON events (object, seq);

CREATE TRIGGER events_never_change BEFORE UPDATE ON events
BEGIN
    SELECT RAISE(ABORT, 'events are never changed');
END;

CREATE TABLE meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);
