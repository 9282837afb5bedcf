"""How a graph is best run on this machine: measured once, and reused for later versions of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import Counter, OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from servingd.config.saved_model import SavedModelOptions
from servingd.core.types import Signature, TensorSpec
from servingd.servables.saved_model.files.mapped_weights import FILE as WEIGHTS_FILE
from servingd.servables.saved_model.merging.row_wise.rules import REVISION
from servingd.servables.saved_model.merging.row_wise.verdicts import Mergeable

FILE = "tuning.json"
"""Written beside the optimised graph that it is about."""

_MAX_TUNINGS = 64
"""Kinds of graphs that are remembered; the least recently used one goes first."""


class Tuning(NamedTuple):
    """The settings that were found best by running a graph."""

    optimised: bool
    """Whether the graph was the optimised one."""
    threads: int
    """Intra-op threads of a session."""
    mergeable: Mergeable
    """Which signatures' calls may be merged, and up to how many rows that pays."""


class TuningCache:
    """The tunings of the kinds of graphs that were used last, in memory. Used by one thread."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Tuning] = OrderedDict()

    def find(self, kind: str) -> Tuning | None:
        """Return the tuning of graphs of this kind, if there is one."""
        if kind in self._known:
            self._known.move_to_end(kind)
        return self._known.get(kind)

    def store(self, kind: str, tuning: Tuning) -> None:
        """Remember a tuning; the least recently used one is forgotten."""
        self._known[kind] = tuning
        self._known.move_to_end(kind)
        if len(self._known) > _MAX_TUNINGS:
            self._known.popitem(last=False)


def settings_digest(options: SavedModelOptions, replicas: int, cores: int, may_merge: bool) -> str:
    """Return a digest of what a tuning depends on besides the graph: the operator's settings."""
    sessions = (options.intra_op_threads, options.virtual_cpu_devices, options.session_config)
    return _digest(sessions, replicas, cores, may_merge, REVISION)


def graph_kind(
    graph: Any, signatures: Mapping[str, Signature], weights: int, settings_digest: str
) -> str:
    """Return a digest that versions of a model share if only the values of their weights differ.

    `graph` is a `tensorflow.GraphDef`, or a `servingd.Graph` with its nodes' types; `weights` are
    bytes. Names are not compared: those of functions differ from one training to the next.
    """
    types = Counter(node.op for node in graph.node)
    for function in graph.library.function:
        types.update(node.op for node in function.node_def)
    return _digest(
        sorted(types.items()),
        sorted((name, _specs(s.inputs), _specs(s.outputs)) for name, s in signatures.items()),
        weights,
        settings_digest,
    )


def _specs(side: Mapping[str, TensorSpec]) -> list[tuple[str, str, str]]:
    return sorted((alias, spec.data_type.name, str(spec.shape)) for alias, spec in side.items())


def _digest(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def read_tuning(graph: Path, settings_digest: str) -> Tuning | None:
    """Return the tuning of the graph in a file with these settings; None if there is none.

    A tuning of a file that was changed or replaced since does not count.
    """
    try:
        found = json.loads(graph.with_name(FILE).read_text())
        if found["setting"] != settings_digest or found["graph"] != _state(graph):
            return None
        rows = {name: int(each) for name, each in found["rows"].items()}
        refused = {name: str(reason) for name, reason in found["refused"].items()}
        return Tuning(True, int(found["threads"]), Mergeable(rows, refused))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_tuning(graph: Path, settings_digest: str, tuning: Tuning) -> None:
    """Write a tuning beside its graph. Failures are ignored: it is measured again then."""
    new = graph.with_name(f".{FILE}.{os.getpid()}")
    with contextlib.suppress(OSError):
        found = {
            "graph": _state(graph),
            "setting": settings_digest,
            "threads": tuning.threads,
            "rows": dict(tuning.mergeable.rows_worth),
            "refused": dict(tuning.mergeable.refused),
        }
        new.write_text(json.dumps(found))
        new.replace(graph.with_name(FILE))


def _state(graph: Path) -> list[int]:
    """Return sizes and times of change: a digest takes so long that other models' calls feel it.

    They are those of the graph, and of its weights where they are a file of their own.
    """
    weights = graph.with_name(WEIGHTS_FILE)
    found = [file.stat() for file in (graph, weights) if file is graph or file.exists()]
    return [number for status in found for number in (status.st_size, status.st_mtime_ns)]
