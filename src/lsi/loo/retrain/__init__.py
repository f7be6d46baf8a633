"""Leave-one-out by training again."""
