"""The platform `tensorflow`: what a SavedModel's folder looks like, and who loads it.

Where TF Lite is preferred, a version with such a model is its affair, whatever else lies there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TypeAlias

from google.protobuf.message import DecodeError

from servingd.config.saved_model import SavedModelOptions
from servingd.core.estimates import Estimate
from servingd.core.interfaces import Loader, Servable
from servingd.core.publish import Listing
from servingd.core.types import ANYWHERE, Placement, ServableId, VersionData
from servingd.errors import DataLoss
from servingd.servables.saved_model.beside import batching_of, check_saved_model_config
from servingd.servables.saved_model.completeness import what_is_missing
from servingd.servables.saved_model.estimate import estimate
from servingd.servables.saved_model.graph_safety import keeps_state, reachable_ops
from servingd.servables.saved_model.meta_graph import FILE, MetaGraph, read_meta_graph
from servingd.servables.saved_model.optimiser import GraphOptimiser, Improvement, OnGraphState
from servingd.servables.saved_model.row_wise import rows_worth_merging
from servingd.servables.saved_model.servable import SavedModelServable
from servingd.servables.saved_model.sessions import open_plain
from servingd.servables.saved_model.tensorflow import SessionOptions, give_memory_back
from servingd.servables.saved_model.width import WORTH_A_LOOK_S
from servingd.servables.tflite.platform import TfLite
from servingd.wire import protos

WarmUp: TypeAlias = Callable[[ServableId, VersionData, Servable], None]


class SavedModelPlatform:
    """Makes loaders for SavedModels, and owns what they share; see `core.interfaces.Platform`."""

    name = "tensorflow"

    def __init__(
        self,
        options: SavedModelOptions | None = None,
        on_graph_state: OnGraphState = lambda servable, state: None,
        warm_up: WarmUp = lambda servable, data, body: None,
    ) -> None:
        """`warm_up` runs a version's recorded requests on a session that is to take over."""
        self._options = options or SavedModelOptions()
        self._on_graph_state = on_graph_state
        self._warm_up = warm_up
        self._tflite = TfLite(self._options) if self._options.prefer_tflite_model else None
        self._optimiser = GraphOptimiser(
            self._options.cache_dir, self._options.optimize_models != "off", on_graph_state
        )

    def recognises(self, listing: Listing) -> bool:
        """Whether a version's folder holds a SavedModel, complete or not, or what is preferred."""
        if self._tflite is not None and self._tflite.recognises(listing):
            return True
        return FILE in listing.sizes or any(n.startswith("variables/") for n in listing.sizes)

    def missing(self, listing: Listing) -> str | None:
        """What a version still lacks, or None if it is complete."""
        if self._tflite is not None and self._tflite.recognises(listing):
            return self._tflite.missing(listing)
        return what_is_missing(listing, self._options.tags)

    def loader(self, servable: ServableId, data: VersionData) -> Loader:
        """A loader for one version."""
        if self._tflite is not None and self._tflite.is_at(data.path):
            return self._tflite.loader(data)
        return SavedModelLoader(
            servable, data, self._options, self._optimiser, self._on_graph_state, self._warm_up
        )

    def stop(self) -> None:
        """End the optimiser."""
        self._optimiser.stop()


class SavedModelLoader:
    """Loads one SavedModel; see `core.interfaces.Loader`."""

    def __init__(
        self,
        servable: ServableId,
        data: VersionData,
        options: SavedModelOptions,
        optimiser: GraphOptimiser,
        on_graph_state: OnGraphState,
        warm_up: WarmUp,
    ) -> None:
        self._id = servable
        self._data = data
        self._path = data.path
        self._options = options
        self._optimiser = optimiser
        self._on_graph_state = on_graph_state
        self._warm_up = warm_up
        self._improvement: Improvement | None = None
        self._put_off: Improvement | None = None
        """What is to be done when there is memory for it."""

    def estimate(self) -> Estimate:
        """What the version takes, by the sizes of its files."""
        return estimate(self._path, self._options)

    def load(self, placement: Placement = ANYWHERE) -> Servable:
        """Open the session in this thread, warm it, and hand it to the optimiser."""
        tags = self._options.tags
        meta_graph = read_meta_graph(self._path, tags)
        batching = batching_of(self._path, self._options)
        check_saved_model_config(self._path)
        warm = _may_be_run(meta_graph)
        said = self._options.intra_op_threads
        opening = SessionOptions(max(1, said), self._options.session_config)
        session = open_plain(self._path, tags, opening, meta_graph, warm)
        try:
            heavy = session.slowest_s >= WORTH_A_LOOK_S
        except BaseException:
            session.close()
            raise
        servable = SavedModelServable(meta_graph, session, batching, warm)
        self._on_graph_state(self._id, "plain")
        merges = self._options.merge_waiting_calls and batching is None
        threads = _cores() if heavy and not said else opening.threads
        improves = self._options.optimize_models != "off" or threads > opening.threads
        if improves:
            improvement = Improvement(
                self._id,
                self._path,
                tags,
                meta_graph,
                warm,
                threads,
                opening,
                servable,
                merges=merges,
            )
            if placement.may_grow:
                self._improve(improvement)
            else:
                self._put_off = improvement
        if merges and not (improves and placement.may_grow):
            session.rows_worth = rows_worth_merging(session, meta_graph.signatures, warm)
        return servable

    def grow(self) -> None:
        """Hand the session to the optimiser now: there was no memory for it before."""
        improvement, self._put_off = self._put_off, None
        if improvement is not None:
            self._improve(improvement)

    def _improve(self, improvement: Improvement) -> None:
        self._improvement = improvement
        if self._options.optimize_models == "wait":
            self._optimiser.submit(improvement)
            improvement.over.wait()
            return
        # Unlike above, the version is warmed up on its first session: the new one needs its own.
        improvement.warm_up = lambda body: self._warm_up(self._id, self._data, body)
        self._optimiser.submit(improvement)

    def unload(self, servable: Servable) -> None:
        """Free the session and give its memory back to the system."""
        self._put_off = None
        if self._improvement is not None:
            self._optimiser.cancel(self._improvement)
        servable.close()
        self._improvement = None
        self._on_graph_state(self._id, "")
        del servable
        give_memory_back()


def _may_be_run(meta_graph: MetaGraph) -> Mapping[str, bool]:
    """Which signatures may be called with made-up inputs: those that leave nothing behind."""
    try:
        graph = protos.Graph.FromString(meta_graph.graph_def)
    except DecodeError as error:
        raise DataLoss(f"the graph does not parse: {error}") from error
    return {
        name: not any(
            keeps_state(op)
            for op in reachable_ops(graph, [s.tensor_name for s in signature.outputs.values()])
        )
        for name, signature in meta_graph.signatures.items()
    }


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
