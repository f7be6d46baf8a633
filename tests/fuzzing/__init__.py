"""Broken and hostile input by the thousand: every case has to end well, or in an `LsiError`."""
