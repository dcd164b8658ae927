-- The progress of jobs in frames and seconds of video, which frames stand for a video, and sums over all jobs.
ALTER TABLE videos ADD COLUMN sampling TEXT NOT NULL DEFAULT 'exact';   -- 'exact' or 'keyframes'
ALTER TABLE jobs ADD COLUMN frames_done INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN seconds_done REAL NOT NULL DEFAULT 0;       -- of video, in the encoded segments
ALTER TABLE jobs ADD COLUMN seconds_total REAL NOT NULL DEFAULT 0;      -- of video; 0 until it was probed
ALTER TABLE jobs ADD COLUMN working_since REAL;                         -- NULL for jobs of older formats, see jobs.py
ALTER TABLE jobs ADD COLUMN updated_at REAL;                            -- when its progress was last reported
CREATE INDEX jobs_succeeded ON jobs (finished_at) WHERE status = 'succeeded';

-- What all jobs of a status come to, so that a long queue never has to be counted. The triggers keep it up to date.
CREATE TABLE job_sums (
    status     TEXT PRIMARY KEY,
    jobs       INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,            -- of their videos' files; a video's size goes with its hash and never changes
    ended      INTEGER NOT NULL             -- jobs that ended with this status since the queue was last empty
);
INSERT INTO job_sums
    SELECT column1, COUNT(j.id), COALESCE(SUM(v.size_bytes), 0), 0
    FROM (VALUES ('queued'), ('running'), ('succeeded'), ('failed'), ('cancelled'))
    LEFT JOIN jobs AS j ON j.status = column1 LEFT JOIN videos AS v ON v.id = j.video_id GROUP BY column1;

CREATE TRIGGER job_added AFTER INSERT ON jobs BEGIN
    UPDATE job_sums SET ended = 0
    WHERE NOT EXISTS (SELECT 1 FROM job_sums WHERE status IN ('queued', 'running') AND jobs > 0);
    UPDATE job_sums SET jobs = jobs + 1,
        size_bytes = size_bytes + (SELECT size_bytes FROM videos WHERE id = NEW.video_id)
    WHERE status = NEW.status;
END;

CREATE TRIGGER job_changed_status AFTER UPDATE OF status ON jobs WHEN OLD.status <> NEW.status BEGIN
    UPDATE job_sums SET ended = 0
    WHERE NOT EXISTS (SELECT 1 FROM job_sums WHERE status IN ('queued', 'running') AND jobs > 0);
    UPDATE job_sums SET jobs = jobs - 1,
        size_bytes = size_bytes - (SELECT size_bytes FROM videos WHERE id = OLD.video_id)
    WHERE status = OLD.status;
    UPDATE job_sums SET jobs = jobs + 1, ended = ended + (NEW.finished_at IS NOT NULL),
        size_bytes = size_bytes + (SELECT size_bytes FROM videos WHERE id = NEW.video_id)
    WHERE status = NEW.status;
END;
