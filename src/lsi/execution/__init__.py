"""Blocks of work: where they are computed, and how their results are kept."""
