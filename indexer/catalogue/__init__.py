"""The catalogue: one SQLite file, the only truth of an index. database.py opens it; the rest reads and writes it."""
