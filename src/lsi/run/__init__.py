"""What every stage of one run needs, and what identifies the run."""
