"""Weights on disk: our folder, the layouts that others publish, and the way from one to another."""
