"""Questions that take many runs of scoring or training to answer."""
