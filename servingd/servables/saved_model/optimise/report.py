"""What the optimiser's child tells of a graph that it made, beside the graph."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from servingd.servables.saved_model.files.mapped_weights import (
    MappedWeights,
    check_weights,
    weights_from_json,
)
from servingd.servables.saved_model.files.meta_graph import Initialiser
from servingd.servables.saved_model.optimise.child import REPORT_FILE, Declined


class Report(NamedTuple):
    """What a session over the graph needs."""

    initialiser: Initialiser
    reads: Mapping[str, str]
    """What the plain graph reads for variables that stay, by what takes it."""
    weights: MappedWeights | None
    """The variables that stay and lie in a file beside the graph."""


def read_report(folder: Path) -> Report:
    """Return the report in a folder. Raises Declined if there is no graph; OSError, ValueError."""
    found: dict[str, Any] = json.loads((folder / REPORT_FILE).read_text())
    if not found["optimised"]:
        raise Declined(found["reason"])
    weights = found.get("weights")
    return Report(
        Initialiser(found["initialiser"], found["assets"]),
        found.get("values", {}),
        weights_from_json(weights) if weights else None,
    )


def check_kept(folder: Path, cancelled: Callable[[], bool]) -> None:
    """Read the weights of a graph that was kept, if it has a file of them: all of the file.

    It ends when `cancelled` returns True.

    Raises Declined if there is no graph; OSError or ValueError.
    """
    if (weights := read_report(folder).weights) is not None:
        check_weights(folder, weights, cancelled)
