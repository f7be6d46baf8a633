"""What the machine has left; asked before something large is read."""

from __future__ import annotations


def available_memory() -> int | None:
    """Return how many bytes the machine can still give, None where the system does not tell."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            fields = dict(line.split(":", 1) for line in lines)
        return int(fields["MemAvailable"].split()[0]) << 10
    except (OSError, KeyError, ValueError):
        return None
