"""The gate: what users pass is checked here, once, and nowhere behind it."""
