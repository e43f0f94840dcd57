-- What a run is and how it stands. `seq` is the order of arrival and the key of the other tables.
CREATE TABLE runs (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    id         TEXT NOT NULL UNIQUE,
    name       TEXT NOT NULL,
    runner     TEXT NOT NULL,
    executor   TEXT,
    deployment TEXT,
    labels     TEXT,
    key        TEXT,
    created    INTEGER NOT NULL,          -- microseconds, as all times here
    state      TEXT NOT NULL,             -- the name in `status`, for queries
    attempt    INTEGER NOT NULL,
    rank       INTEGER NOT NULL,
    status     TEXT NOT NULL,             -- core::Status
    finished   INTEGER,                   -- set once, with the outcome
    first_sent TEXT,                      -- core::Incarnation, set once
    stop       TEXT,                      -- who asked, and with what grace
    removed    INTEGER NOT NULL DEFAULT 0 -- the runner knows that the outcome is stored
) STRICT;
CREATE INDEX runs_queued ON runs (runner, seq) WHERE first_sent IS NULL AND finished IS NULL;
CREATE INDEX runs_open ON runs (runner, seq) WHERE removed = 0;
CREATE INDEX runs_by_state ON runs (state, seq);
CREATE INDEX runs_by_runner ON runs (runner, seq);
CREATE INDEX runs_finished ON runs (finished) WHERE finished IS NOT NULL;

-- Apart from `runs`, so that a change of status does not write it again.
CREATE TABLE specs (
    run  INTEGER PRIMARY KEY,
    spec TEXT NOT NULL                    -- core::RunSpec: references, never values
) STRICT;

-- How far a run's log is stored.
CREATE TABLE logs (
    run    INTEGER PRIMARY KEY,
    cursor TEXT NOT NULL,                 -- the runner's, behind the last item
    size   INTEGER NOT NULL               -- bytes of data, and 1 for each gap
) STRICT;

-- Where a run's log lies in the segment files.
CREATE TABLE extents (
    run     INTEGER NOT NULL,
    number  INTEGER NOT NULL,
    start   INTEGER NOT NULL,             -- the log's size before it
    size    INTEGER NOT NULL,
    segment INTEGER NOT NULL,
    offset  INTEGER NOT NULL,
    length  INTEGER NOT NULL,
    crc     INTEGER NOT NULL,
    cursor  TEXT NOT NULL,                -- the runner's, behind it
    PRIMARY KEY (run, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX extents_by_segment ON extents (segment);

CREATE TABLE runners (
    agent     TEXT PRIMARY KEY,
    epoch     INTEGER NOT NULL,
    state     TEXT NOT NULL,
    seq       INTEGER NOT NULL,
    hello     TEXT NOT NULL,              -- host, software, capabilities
    since     INTEGER NOT NULL,
    last_seen INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
