"""Versions with a `model.tflite`: what makes them complete, and who loads them.

No platform of its own: `tensorflow` prefers such a file to a SavedModel where that is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from servingd.config.batching import BatchingParameters
from servingd.config.saved_model import SavedModelOptions
from servingd.core.calls import Completion
from servingd.core.completeness import Listing
from servingd.core.resources.estimates import Estimate, Footprint
from servingd.core.serving import Servable
from servingd.core.shapes import explained
from servingd.core.types import ANYWHERE, Placement, Signature, Tensors, VersionData
from servingd.errors import DeadlineExceeded, ServingError
from servingd.machine.cpus import cpus
from servingd.servables.file_errors import error_of_file
from servingd.servables.sidecar_files import batching_parameters, ruled_batching
from servingd.servables.tensorflow.runtime import give_memory_back
from servingd.servables.tflite.interpreters import Pool
from servingd.servables.tflite.model_file import FILE, what_is_wrong

_INTERPRETER_BYTES = 1 << 20
"""What an interpreter takes besides; models with large activations take more."""


class TfLite:
    """What the platform `tensorflow` asks of versions with a TF Lite model."""

    def __init__(self, options: SavedModelOptions) -> None:
        self._options = options

    def recognises(self, listing: Listing) -> bool:
        """Whether a version has such a file."""
        return FILE in listing.sizes

    def is_at(self, path: str) -> bool:
        """Whether the version under `path` has such a file now."""
        return os.path.lexists(os.path.join(path, FILE))

    def missing(self, listing: Listing) -> str | None:
        """What its file still lacks, or None if it is whole. Raises OSError."""
        reason = what_is_wrong(listing.read(FILE))
        return None if reason is None else f"{FILE}: {reason}"

    def loader(self, data: VersionData) -> TfLiteLoader:
        """A loader for one version."""
        return TfLiteLoader(data.path, self._options)


class TfLiteLoader:
    """Loads one model; see `core.serving.Loader`."""

    def __init__(self, path: str, options: SavedModelOptions) -> None:
        self._path = path
        self._options = options

    def estimate(self) -> Estimate:
        """The file, which all interpreters share, and something for each of them."""
        size = os.stat(os.path.join(self._path, FILE)).st_size
        return Estimate(steady=Footprint(size * 6 // 5 + self._interpreters * _INTERPRETER_BYTES))

    def cancel(self) -> None:
        """A load under way takes its short time."""

    def grow(self) -> None:
        """It stays what it is."""

    def load(self, placement: Placement = ANYWHERE) -> Servable:
        """Read the file, and make all interpreters."""
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
    """Answers calls with all outputs of a signature; see `core.serving.Servable`."""

    def __init__(self, pool: Pool, batching: BatchingParameters | None = None) -> None:
        self.ruled_batching = ruled_batching(batching)
        self.signatures: Mapping[str, Signature] = pool.signatures
        self.metadata = self.signatures
        self._pool = pool

    def rows_worth_merging(self, signature: str) -> int:
        """Nothing is merged unless rules say so."""
        return 0

    def why_not_merged(self, signature: str) -> str:
        """Nobody has looked through its graph."""
        return "TF Lite models are merged by batching parameters alone"

    def may_be_repeated(self, signature: str) -> bool:
        """Interpreters take turns: nobody could rely on what one of them keeps."""
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
