"""Files in which people and tools exchange what to keep."""
