"""Leave-one-out for pairs: two heads, symmetric InfoNCE."""
