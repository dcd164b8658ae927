"""The arithmetic of scoring, without parameters: one reference, and its faster twins when they come."""
