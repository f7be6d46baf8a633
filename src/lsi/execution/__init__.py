"""Blocks of work: who does them, what is kept of them, and where."""
