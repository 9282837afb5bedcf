"""An optimised graph that served on this machine before: a version of the same files starts on it.

It needs no plain graph, no comparison and no trials: they were passed the first time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from servingd.servables.saved_model.files.mapped_weights import open_weights
from servingd.servables.saved_model.files.meta_graph import MetaGraph
from servingd.servables.saved_model.merging.trial import warm_up_sizes
from servingd.servables.saved_model.optimise.child import GRAPH_FILE
from servingd.servables.saved_model.optimise.report import Report, read_report
from servingd.servables.saved_model.optimise.tuning import Tuning, read_tuning
from servingd.servables.saved_model.session.opening import NO_VALUES, open_optimised
from servingd.servables.saved_model.session.options import SessionOptions
from servingd.servables.saved_model.session.session import RunningSession
from servingd.servables.saved_model.session.warm_up import slowest_run_s


class CachedGraph(NamedTuple):
    """An optimised graph in the cache, with what a session over it needs."""

    folder: Path
    report: Report
    tuning: Tuning


def read_cached_graph(folder: Path, settings_digest: str) -> CachedGraph | None:
    """Return the graph cached in `folder`; None if it has not served with these settings.

    Nor is there one whose variables the plain graph would have to give. Raises OSError, Declined or
    ValueError, also if the file of its weights is not what was written.
    """
    tuning = read_tuning(folder / GRAPH_FILE, settings_digest)
    if tuning is None:
        return None
    report = read_report(folder)
    if report.reads:
        return None
    if report.weights is not None:
        os.close(open_weights(folder, report.weights))
    return CachedGraph(folder, report, tuning)


def open_cached(
    cached: CachedGraph,
    source: str,
    options: Sequence[SessionOptions],
    meta_graph: MetaGraph,
    safe_to_run: Mapping[str, bool],
) -> list[RunningSession]:
    """Open a warm session for each of `options`, with the threads of the graph's tuning.

    `source` is the model's folder; `safe_to_run` says which signatures may be run on synthetic
    inputs. Raises what TensorFlow does, or a ServingError.
    """
    sessions: list[RunningSession] = []
    try:
        for each in options:
            sessions.append(
                open_optimised(
                    str(cached.folder / GRAPH_FILE),
                    source,
                    cached.report.initialiser,
                    each._replace(threads=cached.tuning.threads),
                    meta_graph.signatures,
                    cached.report.weights or NO_VALUES,
                )
            )
            _warm_up(sessions[-1], cached.tuning, meta_graph, safe_to_run)
    except BaseException:
        for session in sessions:
            session.close()
        raise
    return sessions


def _warm_up(
    session: RunningSession, tuning: Tuning, meta_graph: MetaGraph, safe_to_run: Mapping[str, bool]
) -> None:
    signatures = meta_graph.signatures
    session.slowest_s = slowest_run_s(session, signatures, safe_to_run)
    session.mergeable = tuning.mergeable
    warm_up_sizes(session, signatures, tuning.mergeable.rows_worth)
    session.trace_devices(signatures, safe_to_run)
