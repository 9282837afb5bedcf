"""The results of the row-wise analysis, and of the trial after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class RowWiseVerdict(NamedTuple):
    """Whether a signature's calls may be merged by its graph; if not, why."""

    row_wise: bool
    reason: str = ""


class Mergeable(NamedTuple):
    """The signatures whose calls may be merged, after a trial on a session."""

    rows_worth: Mapping[str, int]
    """By signature, up to how many rows a run gets cheaper per row."""
    refused: Mapping[str, str]
    """By signature, why its calls are not merged."""


NOT_TRIED = Mergeable({}, {})
"""Of a session before its trial: nothing is merged."""
