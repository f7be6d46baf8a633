"""What the user typed, read and checked: options, settings, data."""
