"""Indexing: from queued jobs to published features, several videos at a time."""
