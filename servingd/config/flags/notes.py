"""Find the flags that were set and have no effect, for the log at start-up."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from servingd.config.flag_fields import default_of
from servingd.config.flags.parser import FLAGS
from servingd.config.server import ServerConfig

REPLACED_BY_PLATFORM_CONFIG = (
    "enable_batching",
    "batching_parameters_file",
    "enable_per_model_batching_parameters",
    "tensorflow_session_parallelism",
    "tensorflow_session_config_file",
    "tensorflow_intra_op_parallelism",
    "tensorflow_inter_op_parallelism",
    "per_process_gpu_memory_fraction",
    "saved_model_tags",
    "enable_model_warmup",
    "num_request_iterations_for_warmup",
    "remove_unused_fields_from_bundle_metagraph",
    "prefer_tflite_model",
    "num_tflite_pools",
    "num_tflite_interpreters_per_pool",
    "mixed_precision",
)
"""Flags without effect if --platform_config_file is set, as in TensorFlow Serving."""

_NEEDS_REST = ("rest_api_num_threads", "rest_api_timeout_in_ms", "rest_api_enable_cors_support")
_NEEDS_HTTP = ("monitoring_config_file", "rest_ssl_config_file")
"""The administrators' HTTP port has these as well."""


def notes(config: ServerConfig, given: Collection[str]) -> list[str]:
    """Return one line for each flag of `given` that is not at its default and has no effect."""
    reasons = _reasons(config)
    return [
        f"--{name} has no effect: {reasons[name]}"
        for name, field in FLAGS.items()
        if name in given and name in reasons and getattr(config, name) != default_of(field)
    ]


def _reasons(config: ServerConfig) -> Mapping[str, str]:
    """Return why flags have no effect; a more specific reason replaces a general one."""
    reasons = {
        name: field.metadata["no_effect"]
        for name, field in FLAGS.items()
        if field.metadata["no_effect"]
    }
    if not config.rest_api_port:
        without = _NEEDS_REST if config.admin_rest_port else (*_NEEDS_REST, *_NEEDS_HTTP)
        reasons |= dict.fromkeys(without, "--rest_api_port is 0: there is no HTTP")
    if config.platform_config_file:
        replaced = "--platform_config_file replaces it"
        reasons |= dict.fromkeys(REPLACED_BY_PLATFORM_CONFIG, replaced)
    for source in ("model_repository", "model_config_file"):
        if getattr(config, source):
            names = ("model_name", "model_base_path", "model_repository")
            others = [name for name in names if name != source]
            reasons |= dict.fromkeys(others, f"--{source} says which models are served")
    if not config.model_config_file:
        reasons["model_config_file_poll_wait_seconds"] = "--model_config_file is not set"
    if not config.enable_batching:
        reasons["enable_per_model_batching_parameters"] = "--enable_batching is not set"
    return reasons
