"""References to servable types of other people's: the flag `--plugin`."""

from __future__ import annotations

import re

_REFERENCE = re.compile(r"(?P<module>[^:,]+\.py|[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<name>[^\W\d]\w*)")


def references_in(text: str) -> tuple[str, ...]:
    """Return the references in a text with commas."""
    return tuple(part for part in (each.strip() for each in text.split(",")) if part)


def are_references(text: str) -> str | None:
    """Check for `module:Class` and `path/file.py:Class`, with commas."""
    for reference in references_in(text):
        if not _REFERENCE.fullmatch(reference):
            return f"module:Class or path/file.py:Class, with commas ({reference!r} is neither)"
    return None
