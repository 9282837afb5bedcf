"""Flags of other model servers, and the flags here that correspond to them."""

from __future__ import annotations

from collections.abc import Mapping

_METRICS = "metrics are at /metrics of --rest_api_port"

OTHER_NAMES: Mapping[str, str] = {
    "grpc_port": "port",
    "http_port": "rest_api_port",
    "rest_port": "rest_api_port",
    "rest_api": "rest_api_port",
    "name": "model_name",
    "model": "model_base_path",
    "model_dir": "model_base_path",
    "model_path": "model_base_path",
    "path": "model_base_path",
    "models": "model_repository",
    "models_dir": "model_repository",
    "model_store": "model_repository",
    "config": "model_config_file",
    "config_file": "model_config_file",
    "config_path": "model_config_file",
    "model_config": "model_config_file",
    "bind": "host",
    "address": "host",
    "bind_address": "host",
    "grpc_bind_address": "host",
    "rest_bind_address": "host",
    "target_device": "device",
    "log_verbose": "log_level",
    "verbose": "log_level",
    "debug": "log_level",
    "v": "log_level",
    "file_system_poll_interval": "file_system_poll_wait_seconds",
}
"""The flag here, by the name there, with underscores."""

NOT_HERE: Mapping[str, str] = {
    "metrics_port": _METRICS,
    "allow_metrics": _METRICS,
    "metrics_enable": _METRICS,
    "batch_size": "--enable_batching with --batching_parameters_file says how calls are batched",
}
"""Flags with no counterpart here, and what to use in their place."""
