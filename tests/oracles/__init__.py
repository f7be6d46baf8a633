"""Slow, dense, obvious implementations that the library is held against; none imports the library."""
