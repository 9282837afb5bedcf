"""An optimised graph that served on this machine before: a version of the same files starts on it.

That spares it its plain graph, the proof and the trials. They were there the first time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from servingd.servables.saved_model.files.meta_graph import Initialiser, MetaGraph
from servingd.servables.saved_model.optimise.child import GRAPH_FILE, REPORT_FILE
from servingd.servables.saved_model.optimise.merge_trial import warm_sizes
from servingd.servables.saved_model.optimise.tuning import Tuning, read_tuning
from servingd.servables.saved_model.session.opening import open_optimised
from servingd.servables.saved_model.session.options import SessionOptions
from servingd.servables.saved_model.session.session import RunningSession, measure


class Kept(NamedTuple):
    """Where it lies, what a session over it runs first, and how it is best run."""

    place: Path
    initialiser: Initialiser
    tuning: Tuning


def kept_in(place: Path, setting: str) -> Kept | None:
    """What is kept in a folder, if it has served in this setting. Raises OSError or ValueError."""
    tuning = read_tuning(place / GRAPH_FILE, setting)
    if tuning is None:
        return None
    report = json.loads((place / REPORT_FILE).read_text())
    return Kept(place, Initialiser(report["initialiser"], report["assets"]), tuning)


def open_kept(
    kept: Kept,
    source: str,
    options: Sequence[SessionOptions],
    meta_graph: MetaGraph,
    warm: Mapping[str, bool],
) -> list[RunningSession]:
    """A warm session for each of `options`, on as many threads as were best.

    `source` is the model's folder; `warm` tells which signatures may be run with made-up inputs.
    Raises what TensorFlow does, or a ServingError.
    """
    sessions: list[RunningSession] = []
    try:
        for each in options:
            sessions.append(
                open_optimised(
                    str(kept.place / GRAPH_FILE),
                    source,
                    kept.initialiser,
                    each._replace(threads=kept.tuning.threads),
                    meta_graph.signatures,
                )
            )
            _warm_up(sessions[-1], kept.tuning, meta_graph, warm)
    except BaseException:
        for session in sessions:
            session.close()
        raise
    return sessions


def _warm_up(
    session: RunningSession, tuning: Tuning, meta_graph: MetaGraph, warm: Mapping[str, bool]
) -> None:
    signatures = meta_graph.signatures
    session.slowest_s = measure(session, signatures, warm)
    session.mergeable = tuning.mergeable
    warm_sizes(session, signatures, tuning.mergeable.rows_worth)
    session.look(signatures, warm)
