-- When the file was last changed before its content was hashed (nanoseconds since the epoch): while it is the same, the
-- content need not be hashed again. NULL where it can't be relied on.
ALTER TABLE videos ADD COLUMN mtime_ns INTEGER;
