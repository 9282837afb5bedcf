"""The platform `tensorflow`: what a SavedModel's folder looks like, and who loads it.

With `--prefer_tflite_model` a version that holds a TF Lite model is loaded as such, whatever else
lies in its folder, as TensorFlow Serving does.
"""

from __future__ import annotations

from servingd.config.saved_model import SavedModelOptions
from servingd.core.servable import Loader
from servingd.core.types import ServableId, VersionData
from servingd.core.version_files import Listing
from servingd.servables.saved_model.files.completeness import what_is_missing
from servingd.servables.saved_model.files.meta_graph import FILE, TEXT_FILE
from servingd.servables.saved_model.listener import NO_LISTENER, SavedModelListener
from servingd.servables.saved_model.loader import SavedModelLoader
from servingd.servables.saved_model.optimise.child_process import ChildProcess
from servingd.servables.saved_model.optimise.optimiser import GraphOptimiser
from servingd.servables.saved_model.session.run_watch import RunWatch
from servingd.servables.tensorflow_runtime.extensions import load_extensions
from servingd.servables.tflite.servable import TfLite


class SavedModelPlatform:
    """Makes loaders for SavedModels, and owns what they share; see `core.servable.Platform`."""

    name = "tensorflow"

    def __init__(
        self,
        options: SavedModelOptions | None = None,
        listener: SavedModelListener = NO_LISTENER,
    ) -> None:
        """Start nothing yet, and import no TensorFlow."""
        self._options = options or SavedModelOptions()
        self._listener = listener
        self._tflite = TfLite(self._options) if self._options.prefer_tflite_model else None
        self._watch = RunWatch()
        self._optimiser = GraphOptimiser(
            self._options.cache_dir,
            self._options.optimize_models != "off",
            listener,
            ChildProcess(
                self._options.extensions,
                may_idle=self._options.optimize_models != "wait",
                map_from_bytes=self._options.map_from_bytes,
            ),
        )

    def prepare(self) -> None:
        """Load the operations that an operator named. Raises InvalidConfig naming the flag."""
        load_extensions(self._options.extensions)

    def recognises(self, listing: Listing) -> bool:
        """Return whether a version holds a SavedModel, complete or not, or a preferred model."""
        if self._tflite is not None and self._tflite.recognises(listing):
            return True
        sizes = listing.sizes
        if FILE in sizes or TEXT_FILE in sizes:
            return True
        return any(name.startswith("variables/") for name in sizes)

    def missing(self, listing: Listing) -> str | None:
        """Return what a version still lacks, or None if it is complete."""
        if self._tflite is not None and self._tflite.recognises(listing):
            return self._tflite.missing(listing)
        return what_is_missing(listing, self._options.tags)

    def loader(self, servable_id: ServableId, data: VersionData) -> Loader:
        """Return a loader for one version."""
        if self._tflite is not None and self._tflite.is_at(data.path):
            return self._tflite.loader(data)
        return SavedModelLoader(
            servable_id, data, self._options, self._optimiser, self._listener, self._watch
        )

    def stop(self) -> None:
        """End the optimiser, and every run of a model: those under way, and those that begin."""
        self._watch.stop()
        self._optimiser.stop()
