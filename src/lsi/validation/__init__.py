"""The only gate for what users pass."""
