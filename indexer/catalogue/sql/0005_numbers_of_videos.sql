-- number: a short name of the video, given when it is added and kept for ever; filters and vectors in memory use it.
-- features_seq: the change that brought its features. A later seq with the same features_seq is a new title or metadata.
ALTER TABLE videos ADD COLUMN number INTEGER;
ALTER TABLE videos ADD COLUMN features_seq INTEGER;
UPDATE videos SET number = rowid, features_seq = seq;
CREATE UNIQUE INDEX videos_number ON videos (number);
CREATE INDEX videos_published ON videos (number, features_seq, num_segments)
    WHERE removed_at IS NULL AND num_segments > 0;
