"""Versions with a `model.tflite`: when they are complete, and their loader.

They are no platform of their own: with `--prefer_tflite_model`, the platform `tensorflow` prefers
such a file to a SavedModel.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from servingd.config.batching import BatchingParameters
from servingd.config.saved_model import SavedModelOptions
from servingd.core.call_protocols import Completion
from servingd.core.resources.footprints import Estimate, Footprint
from servingd.core.servable import Servable
from servingd.core.shapes import explained
from servingd.core.types import ANYWHERE, Placement, Signature, Tensors, VersionData
from servingd.core.version_files import Listing
from servingd.errors import DeadlineExceeded, ServingError
from servingd.machine.cpus import cpus
from servingd.servables.files.file_errors import error_of_file
from servingd.servables.files.sidecar_files import batching_parameters, ruled_batching
from servingd.servables.tensorflow_runtime.runtime import give_memory_back
from servingd.servables.tflite.interpreters import Pool
from servingd.servables.tflite.model_file import FILE, find_damage

_INTERPRETER_BYTES = 1 << 20
"""Bytes that an interpreter takes besides the file; models with large activations take more."""


class TfLite:
    """Handles versions with a TF Lite model, for the platform `tensorflow`."""

    def __init__(self, options: SavedModelOptions) -> None:
        self._options = options

    def recognises(self, listing: Listing) -> bool:
        """Return whether a version has such a file."""
        return FILE in listing.sizes

    def is_at(self, path: str) -> bool:
        """Return whether the version under `path` has such a file now."""
        return os.path.lexists(os.path.join(path, FILE))

    def missing(self, listing: Listing) -> str | None:
        """Return what its file still lacks, or None if it is whole. Raises OSError."""
        reason = find_damage(listing.read(FILE))
        return None if reason is None else f"{FILE}: {reason}"

    def loader(self, data: VersionData) -> TfLiteLoader:
        """Return a loader for one version."""
        return TfLiteLoader(data.path, self._options)


class TfLiteLoader:
    """Loads one model; see `core.servable.Loader`."""

    def __init__(self, path: str, options: SavedModelOptions) -> None:
        self._path = path
        self._options = options

    def estimate(self) -> Estimate:
        """Return the size of the file, which all interpreters share, and of each interpreter."""
        size = os.stat(os.path.join(self._path, FILE)).st_size
        return Estimate(steady=Footprint(size * 6 // 5 + self._interpreters * _INTERPRETER_BYTES))

    def cancel(self) -> None:
        """Do nothing: a load ends soon by itself."""

    def grow(self) -> None:
        """Do nothing: it does not grow."""

    def load(self, placement: Placement = ANYWHERE) -> Servable:
        """Read the file, and make all interpreters. Raises a ServingError."""
        options = self._options
        batching = batching_parameters(self._path, options)
        try:
            # Not mapped: whoever writes to the file must not reach a model that serves.
            content = Path(self._path, FILE).read_bytes()
        except OSError as error:
            raise error_of_file(error) from error
        return TfLiteServable(Pool(content, self._interpreters), batching)

    @property
    def _interpreters(self) -> int:
        pools = self._options.num_tflite_pools or cpus()
        return pools * self._options.num_tflite_interpreters_per_pool

    def unload(self, servable: Servable) -> None:
        """Free the interpreters and give their memory back to the system."""
        servable.close()
        del servable
        give_memory_back()


class TfLiteServable:
    """Answers calls with all outputs of a signature; see `core.servable.Servable`."""

    def __init__(self, pool: Pool, batching: BatchingParameters | None = None) -> None:
        self.ruled_batching = ruled_batching(batching)
        self.signatures: Mapping[str, Signature] = pool.signatures
        self.metadata = self.signatures
        self._pool = pool

    def rows_worth_merging(self, signature: str) -> int:
        """Return 0: calls are merged by batching parameters alone."""
        return 0

    def why_not_merged(self, signature: str) -> str:
        """Return why calls are not merged."""
        return "TF Lite models are merged by batching parameters alone"

    def may_be_repeated(self, signature: str) -> bool:
        """Return True: interpreters take turns, so that no call can rely on another's state."""
        return True

    def run(self, signature: Signature, inputs: Tensors, done: Completion) -> None:
        """Run in this thread, as soon as an interpreter is free."""
        with self._pool.borrow(done.deadline) as interpreter:
            if not done.alive():
                raise DeadlineExceeded("nobody waits for the answer any more")
            try:
                outputs = interpreter.run(signature.name, inputs)
            except ServingError as error:
                raise explained(error, signature, inputs) from error
        done.succeed(outputs)

    def close(self) -> None:
        """Free the interpreters."""
        self._pool.close()
