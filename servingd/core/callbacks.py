"""What stands in for a callback where there is none."""

from __future__ import annotations


def nothing(*arguments: object) -> None:
    """Do nothing, and return nothing."""
