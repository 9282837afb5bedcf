"""The platform `tensorflow`: what a SavedModel's folder looks like, and who loads it.

Where TF Lite is preferred, a version with such a model is its affair, whatever else lies there.
"""

from __future__ import annotations

from servingd.config.saved_model import SavedModelOptions
from servingd.core.completeness import Listing
from servingd.core.serving import Loader
from servingd.core.types import ServableId, VersionData
from servingd.servables.saved_model.files.completeness import what_is_missing
from servingd.servables.saved_model.files.meta_graph import FILE, TEXT_FILE
from servingd.servables.saved_model.loader import (
    Hooks,
    OnAttempt,
    OnFailure,
    OnPlacement,
    SavedModelLoader,
    WarmUp,
)
from servingd.servables.saved_model.optimise.optimiser import GraphOptimiser, OnGraphState
from servingd.servables.saved_model.session.run_watch import RunWatch
from servingd.servables.tensorflow.extensions import bring
from servingd.servables.tflite.platform import TfLite


class SavedModelPlatform:
    """Makes loaders for SavedModels, and owns what they share; see `core.serving.Platform`."""

    name = "tensorflow"

    def __init__(
        self,
        options: SavedModelOptions | None = None,
        on_graph_state: OnGraphState = lambda servable_id, state: None,
        warm_up: WarmUp = lambda servable_id, data, body: None,
        on_placement: OnPlacement = lambda servable_id, replicas: None,
        on_failure: OnFailure = lambda servable_id, device: None,
        on_attempt: OnAttempt = lambda path, seconds, succeeded: None,
    ) -> None:
        """`warm_up` runs a version's recorded requests on a session that is to take over."""
        self._options = options or SavedModelOptions()
        self._hooks = Hooks(on_graph_state, warm_up, on_placement, on_failure, on_attempt)
        self._tflite = TfLite(self._options) if self._options.prefer_tflite_model else None
        self._watch = RunWatch()
        self._optimiser = GraphOptimiser(
            self._options.cache_dir,
            self._options.optimize_models != "off",
            on_graph_state,
            extensions=self._options.extensions,
        )

    def prepare(self) -> None:
        """Load the operations that an operator named. Raises InvalidConfig naming the flag."""
        bring(self._options.extensions)

    def recognises(self, listing: Listing) -> bool:
        """Whether a version's folder holds a SavedModel, complete or not, or what is preferred."""
        if self._tflite is not None and self._tflite.recognises(listing):
            return True
        sizes = listing.sizes
        if FILE in sizes or TEXT_FILE in sizes:
            return True
        return any(name.startswith("variables/") for name in sizes)

    def missing(self, listing: Listing) -> str | None:
        """What a version still lacks, or None if it is complete."""
        if self._tflite is not None and self._tflite.recognises(listing):
            return self._tflite.missing(listing)
        return what_is_missing(listing, self._options.tags)

    def loader(self, servable_id: ServableId, data: VersionData) -> Loader:
        """A loader for one version."""
        if self._tflite is not None and self._tflite.is_at(data.path):
            return self._tflite.loader(data)
        return SavedModelLoader(
            servable_id, data, self._options, self._optimiser, self._hooks, self._watch
        )

    def stop(self) -> None:
        """End the optimiser, and from now on every run of a model."""
        self._watch.stop()
        self._optimiser.stop()
