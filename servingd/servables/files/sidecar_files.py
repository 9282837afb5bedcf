"""Files beside a model that say how it is served: its batching, and what has no effect here."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

from google.protobuf.message import DecodeError

from servingd.config.batching import BatchingParameters
from servingd.config.saved_model import SavedModelOptions
from servingd.core.batching.batch_limits import BatchRules
from servingd.core.servable import RuledBatching
from servingd.errors import InvalidConfig, NotFound
from servingd.wire import protos
from servingd.wire.config.files import read_batching

BATCHING_FILE = "batching_params.pbtxt"
CONFIG_FILE = "assets.extra/saved_model_config.pb"

_log = logging.getLogger(__name__)


def batching_parameters(path: str, options: SavedModelOptions) -> BatchingParameters | None:
    """Return the batching parameters of the version under `path`; None: its calls are not batched.

    With `--enable_per_model_batching_parameters` they are those of its own file, if it has one, but
    the thread pool is that of all models, as in TensorFlow Serving. Raises InvalidConfig.
    """
    shared = options.batching
    if shared is None or not options.enable_per_model_batching:
        return shared
    file = Path(path, BATCHING_FILE)
    if file.exists() and not file.is_file():  # to open a FIFO would wait for a writer
        raise InvalidConfig(f"{file} is not a regular file")
    try:
        own = read_batching(str(file))
    except NotFound:
        return None
    return dataclasses.replace(
        own,
        num_batch_threads=shared.num_batch_threads,
        thread_pool_name=shared.thread_pool_name,
    )


def check_saved_model_config(path: str) -> None:
    """Log a warning if the version's `saved_model_config.pb` cannot be read; it has no effect."""
    file = Path(path, CONFIG_FILE)
    if file.exists() and not file.is_file():
        _log.warning("Failed to load saved model config: %s is not a regular file", file)
        return
    try:
        protos.SavedModelConfig.FromString(file.read_bytes())
    except FileNotFoundError:
        pass
    except (OSError, DecodeError) as error:
        _log.warning("Failed to load saved model config: %s: %s", file, error)


def ruled_batching(parameters: BatchingParameters | None) -> RuledBatching | None:
    """Return batching parameters as the core's rules; None where batching is off."""
    if parameters is None:
        return None
    return RuledBatching(
        rules=BatchRules(
            max_request_rows=parameters.max_batch_size,
            max_batch_rows=parameters.max_execution_batch_size,
            max_enqueued_batches=parameters.max_enqueued_batches,
            splits=parameters.enable_large_batch_splitting,
        ),
        hold_s=parameters.batch_timeout_micros / 1e6,
        allowed_rows=parameters.allowed_batch_sizes,
        pads_lengths=parameters.pad_variable_length_inputs,
        threads=parameters.num_batch_threads,
    )
