"""Datasets written again after decisions, in the format that they came in."""
