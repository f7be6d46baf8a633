"""Many epochs of many heads at a time, as differences from the full-data head."""
