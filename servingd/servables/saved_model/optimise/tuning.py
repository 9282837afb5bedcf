"""How a graph is best run on this machine: found by trying, and kept for the next version of it."""

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
from servingd.servables.saved_model.row_wise.analysis import REVISION, Mergeable

FILE = "tuning.json"

_MOST = 64


class Tuning(NamedTuple):
    """What was found out by running a graph."""

    optimised: bool
    """Whether the graph was the optimised one."""
    threads: int
    """How many an operation gets."""
    mergeable: Mergeable
    """What may be merged, and up to how many rows a run gets cheaper."""


class Tunings:
    """The tunings of the kinds of graphs that were used last. Used by one thread."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Tuning] = OrderedDict()

    def find(self, kind: str) -> Tuning | None:
        """That of a graph of this kind, if one was tried."""
        if kind in self._known:
            self._known.move_to_end(kind)
        return self._known.get(kind)

    def keep(self, kind: str, tuning: Tuning) -> None:
        """Remember it, in the place of the one that was not used for the longest time."""
        self._known[kind] = tuning
        self._known.move_to_end(kind)
        if len(self._known) > _MOST:
            self._known.popitem(last=False)


def setting(options: SavedModelOptions, replicas: int, cores: int, merges: bool) -> str:
    """What a tuning depends on besides the graph."""
    sessions = (options.intra_op_threads, options.virtual_cpu_devices, options.session_config)
    return _digest(sessions, replicas, cores, merges, REVISION)


def kind_of(graph: Any, signatures: Mapping[str, Signature], weights: int, setting: str) -> str:
    """What versions of a model have in common of which only the weights' values differ.

    `graph` is a `tensorflow.GraphDef` or a twin with its nodes' types. Names are not compared:
    those of functions differ from one training to the next.
    """
    types = Counter(node.op for node in graph.node)
    for function in graph.library.function:
        types.update(node.op for node in function.node_def)
    return _digest(
        sorted(types.items()),
        sorted((name, _specs(s.inputs), _specs(s.outputs)) for name, s in signatures.items()),
        weights,
        setting,
    )


def _specs(side: Mapping[str, TensorSpec]) -> list[tuple[str, str, str]]:
    return sorted((alias, spec.data_type.name, str(spec.shape)) for alias, spec in side.items())


def _digest(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def read_tuning(graph: Path, setting: str) -> Tuning | None:
    """What was found out about the graph in a file, in this setting; None if nothing was.

    Of a file that was changed or replaced since, nothing is known.
    """
    try:
        found = json.loads(graph.with_name(FILE).read_text())
        if found["setting"] != setting or found["graph"] != _state(graph):
            return None
        rows = {name: int(each) for name, each in found["rows"].items()}
        refused = {name: str(reason) for name, reason in found["refused"].items()}
        return Tuning(True, int(found["threads"]), Mergeable(rows, refused))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_tuning(graph: Path, setting: str, tuning: Tuning) -> None:
    """Put it beside the graph that it was found out about. Whoever cannot, does without."""
    new = graph.with_name(f".{FILE}.{os.getpid()}")
    with contextlib.suppress(OSError):
        found = {
            "graph": _state(graph),
            "setting": setting,
            "threads": tuning.threads,
            "rows": dict(tuning.mergeable.rows_worth),
            "refused": dict(tuning.mergeable.refused),
        }
        new.write_text(json.dumps(found))
        new.replace(graph.with_name(FILE))


def _state(file: Path) -> list[int]:
    """Size and time of change: a digest takes so long that other models' calls feel it."""
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]
