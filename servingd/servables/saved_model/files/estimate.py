"""Estimates what a SavedModel will take in memory, from the sizes of its files.

Factors were measured on convolutional, dense, embedding, recurrent and frozen models. Weights are
counted as they lie on disk: some exporters write them twice, and then the estimate is too high by
as much; the first load that is measured corrects it. A graph takes many times the bytes of its
file, as nodes, kernels and plans; the constants in it take a few times theirs, as message, graph,
session and, packed, in kernels.
"""

from __future__ import annotations

from dataclasses import replace
from mmap import ACCESS_READ, mmap
from pathlib import Path

from servingd.config.saved_model import SavedModelOptions
from servingd.core.resources.footprints import NOTHING, Estimate, Footprint
from servingd.servables.saved_model.files.graph_bytes import constant_bytes
from servingd.servables.saved_model.files.meta_graph import FILE, TEXT_FILE
from servingd.servables.saved_model.files.weights import MAX_WEIGHT_BYTES, kept_bytes

_BASE = 1 << 20
_GRAPH = 48
"""Bytes of memory, per session, per byte of `saved_model.pb` without its constants."""
_CONSTANTS = 7
_CONSTANTS_LOADING = 14
"""Bytes of memory per byte of constants in it, after the load and during it."""
_TEXT = 3
"""Bytes of a graph in text format per byte in binary format, at least."""
_ASSETS = 4
"""Bytes of memory per byte of assets: a hash table takes so much."""
_PLAIN_WEIGHTS = 1.1
_FROZEN_WEIGHTS = 5.5
"""Bytes per byte of variables, once frozen: graph, session and kernels hold copies."""
_SWAP_WEIGHTS = 16
"""Bytes per byte of variables during optimisation: one plain and two frozen sessions."""
_LOADING = 1.1

_CHILD = 768 << 20
"""Bytes that the optimiser's child takes before it opens a model: TensorFlow, and its allocator."""
_CHILD_WEIGHTS = 22
"""Bytes that it takes per byte of variables (21 were seen): graphs, messages and two sessions."""
_CHILD_KEPT = 4
"""Bytes that it takes per byte of variables that stay variables (3.1 were seen)."""
_CHILD_MAPPED = 2.5
"""The same where they are mapped: once in its session (1.1 were seen), and once in the file."""
_CHILD_REST = 3
"""What it takes of what one session of the graph takes, without variables."""

_ACCELERATOR_WEIGHTS = 1.1
"""Bytes on an accelerator per byte of variables: graphs are not frozen there."""
_ACCELERATOR_WORK = 64 << 20
"""Bytes that libraries take on an accelerator for their work."""


def estimate(path: str, options: SavedModelOptions) -> Estimate:
    """Return what the version under `path` takes. Raises OSError."""
    folder = Path(path)
    constants, rest = _graph(folder)
    return estimate_of(_weights(folder), kept_bytes(path), constants, rest, options)


def estimate_of(
    weights: int, kept: int, constants: int, rest: int, options: SavedModelOptions
) -> Estimate:
    """Return what a version takes by its bytes of variables, of those that stay, and of constants.

    `rest` is what a session takes besides variables.
    """
    plain = round(_PLAIN_WEIGHTS * weights) + rest
    loading = round(_LOADING * (plain - _CONSTANTS * constants)) + _CONSTANTS_LOADING * constants
    nothing = not weights + rest
    if options.optimize_models == "off" or weights - kept > MAX_WEIGHT_BYTES or nothing:
        return _estimate(weights, plain, loading)
    frozen = round(_FROZEN_WEIGHTS * (weights - kept)) + rest
    swap = _SWAP_WEIGHTS * (weights - kept) + kept + 2 * rest
    growth = max(
        swap, _child_bytes(weights, kept, rest, options.map_from_bytes > 0)
    )  # the child has ended when sessions are swapped
    found = _estimate(weights, plain, loading, growth, max(plain, frozen))
    if not kept:
        return found
    if not options.map_from_bytes:
        return _estimate(weights, plain, loading, growth, frozen + round(_PLAIN_WEIGHTS * kept))
    # All replicas map the same pages, and so do other processes; here they count in full.
    return replace(found, grown=replace(found.grown, shared=_BASE + kept, replica=frozen))


def child_bytes(path: str, maps: bool = True) -> int:
    """Return the bytes that the optimiser's child may take for the version under `path`.

    They are part of the growth that `estimate` tells, and so of what is reserved. `maps`: it writes
    large variables to a file. Raises OSError.
    """
    folder = Path(path)
    return _child_bytes(_weights(folder), kept_bytes(path), _graph(folder)[1], maps)


def _child_bytes(weights: int, kept: int, rest: int, maps: bool) -> int:
    stay = round((_CHILD_MAPPED if maps else _CHILD_KEPT) * kept)
    return _CHILD + _CHILD_WEIGHTS * (weights - kept) + stay + _CHILD_REST * rest


def _weights(folder: Path) -> int:
    return _bytes(folder, "variables/variables.data-*")


def _graph(folder: Path) -> tuple[int, int]:
    """Return the bytes of constants, and what a session takes besides variables."""
    graph = _bytes(folder, FILE) or _bytes(folder, TEXT_FILE) // _TEXT
    constants = _constants(folder / FILE)
    nodes = _GRAPH * (graph - constants) + _ASSETS * _bytes(folder, "assets/**/*")
    return constants, nodes + _CONSTANTS * constants


def _estimate(weights: int, steady: int, peak: int, growth: int = 0, grown: int = 0) -> Estimate:
    there = round(_ACCELERATOR_WEIGHTS * weights) + _ACCELERATOR_WORK
    return Estimate(
        steady=Footprint(_BASE, steady, there),
        peak=Footprint(_BASE, peak, there),
        growth=Footprint(0, growth, 0) if growth else NOTHING,
        grown=Footprint(_BASE, grown, there) if growth else NOTHING,
        least=Footprint(0, weights // 2, weights // 2),  # some exporters write them twice
        on_devices=True,
        measurable=True,
    )


def _constants(file: Path) -> int:
    """Return the bytes of constants in a graph; 0 if there is no such file."""
    try:
        with file.open("rb") as opened, mmap(opened.fileno(), 0, access=ACCESS_READ) as content:
            return constant_bytes(content)
    except (FileNotFoundError, ValueError):  # none, or an empty one
        return 0


def _bytes(folder: Path, pattern: str) -> int:
    return sum(file.stat().st_size for file in folder.glob(pattern) if file.is_file())
