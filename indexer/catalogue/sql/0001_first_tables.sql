-- The catalogue: the one truth of an index. migrations.py runs the files of this folder in the order of their numbers.
-- Times are UTC epoch seconds; inside a video, seconds from its first frame. JSON and text are UTF-8; paths are bytes.

CREATE TABLE state (
    key   TEXT PRIMARY KEY,      -- 'seq': the last number of the change feed; 'model': the bound ModelSpec as JSON
    value TEXT NOT NULL
);
INSERT INTO state (key, value) VALUES ('seq', '0');

-- A removed video stays as a tombstone (removed_at set), so that readers of the change feed learn of it.
CREATE TABLE videos (
    id            TEXT PRIMARY KEY,
    sha256        TEXT NOT NULL UNIQUE,
    seq           INTEGER UNIQUE,             -- its newest change; NULL until it was first searchable
    title         TEXT NOT NULL,
    path          BLOB NOT NULL,              -- os.fsencode: names need not be UTF-8
    is_managed    INTEGER NOT NULL,
    size_bytes    INTEGER NOT NULL,
    metadata      TEXT NOT NULL,              -- a JSON object
    status        TEXT NOT NULL CHECK (status IN ('pending', 'ready', 'failed')),
    created_at    REAL NOT NULL,
    indexed_at    REAL,
    removed_at    REAL,
    num_segments  INTEGER NOT NULL DEFAULT 0,
    error_code    TEXT,
    error_message TEXT,
    duration_s    REAL,                       -- from here on: MediaInfo, NULL until it was probed
    fps           REAL,
    width         INTEGER,
    height        INTEGER,
    rotation_deg  INTEGER,
    codec         TEXT,
    container     TEXT,
    has_audio     INTEGER
);
CREATE INDEX videos_newest ON videos (created_at, id) WHERE removed_at IS NULL;

-- AUTOINCREMENT: the id of a deleted segment never comes back, so an old reader can't mistake one for another.
CREATE TABLE segments (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    video_id    TEXT NOT NULL REFERENCES videos (id),
    position    INTEGER NOT NULL,
    start_s     REAL NOT NULL,
    end_s       REAL NOT NULL,
    fingerprint TEXT NOT NULL,                -- of the model that made the features
    times       BLOB NOT NULL,                -- (n,) float64 little-endian
    pooled      BLOB NOT NULL,                -- (D,) float16 little-endian
    frames      BLOB NOT NULL,                -- (n, D) float16 little-endian
    crc32       INTEGER NOT NULL,             -- of the row's numbers, see segments.py
    UNIQUE (video_id, position)
);

CREATE TABLE jobs (
    number              INTEGER PRIMARY KEY AUTOINCREMENT,   -- the order of arrival
    id                  TEXT NOT NULL UNIQUE,
    kind                TEXT NOT NULL,
    video_id            TEXT NOT NULL REFERENCES videos (id),
    status              TEXT NOT NULL CHECK (status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    stage               TEXT NOT NULL,
    progress_done       INTEGER NOT NULL DEFAULT 0,
    progress_total      INTEGER NOT NULL DEFAULT 0,
    attempt             INTEGER NOT NULL DEFAULT 0,           -- only ever rises: with owner it fences a late worker out
    max_attempts        INTEGER NOT NULL,
    created_at          REAL NOT NULL,
    started_at          REAL,
    finished_at         REAL,
    not_before          REAL NOT NULL,                        -- a retry waits until then
    error_code          TEXT,
    error_message       TEXT,
    owner               TEXT,
    lease_expires_at    REAL,
    is_cancel_requested INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX jobs_open ON jobs (number) WHERE status IN ('queued', 'running');
CREATE INDEX jobs_of_video ON jobs (video_id, number);
CREATE UNIQUE INDEX jobs_one_running ON jobs (video_id) WHERE status = 'running';
