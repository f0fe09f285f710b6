"""Checks of arguments, before anything is sent."""

from __future__ import annotations

from trapgate.errors import BadArgument


def checked_seconds(name: str, value: float | None) -> None:
    """Refuses what is no time limit."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0):
        raise BadArgument(f"{name} is {value!r}; give a number of seconds, not negative, or None to wait forever")


def checked_count(name: str, value: int) -> None:
    """Refuses what is no count."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 64:
        raise BadArgument(f"{name} is {value!r}; give a number, not negative")
