"""Scores: identification, pixel metrics, statistics, and their summary. Pure functions on arrays."""
