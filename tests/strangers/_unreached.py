"""What is not reached: what is said instead (by kinds), written by `run.py --write`."""

REASONS = {}

LINES = {}
