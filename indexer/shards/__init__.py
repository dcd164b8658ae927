"""The index in memory: shards of at most some 65,536 segments, each with its table, its features and a coarse index."""
