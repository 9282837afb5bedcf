"""TensorFlow Serving's `BatchingParameters` as the rules of a queue."""

from __future__ import annotations

from servingd.config.batching import BatchingParameters
from servingd.core.batching.queue import BatchRules
from servingd.core.interfaces import RuledBatching


def ruled(parameters: BatchingParameters | None) -> RuledBatching | None:
    """The rules; None where nobody has asked for batching."""
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
