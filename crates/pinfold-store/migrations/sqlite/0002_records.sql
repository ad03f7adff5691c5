-- What the control plane knows besides workspaces: principals, tokens, sessions, buckets. Each kind
-- is read whole at the start and kept in memory, so nothing is looked up in here by its content.

CREATE TABLE records (
    kind TEXT NOT NULL,
    id   TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (kind, id)
) WITHOUT ROWID;
