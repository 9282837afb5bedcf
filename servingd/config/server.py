"""Everything that can be said about a server: each field is a flag of the same name.

This dataclass is the one table: the command line, `--help` and the checks are made from it. Names
and defaults are TensorFlow Serving's where it has the flag.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from servingd.config.saved_model import OPTIMIZE_MODELS
from servingd.errors import InvalidConfig

GRPC_TRANSPORTS = ("auto", "native", "grpcio")

_MAX_MESSAGE = 2**31 - 1


def _flag(default: Any, text: str, check: Callable[[Any], str | None] | None = None) -> Any:
    return dataclasses.field(default=default, metadata={"help": text, "check": check})


def _one_of(*choices: str) -> Callable[[Any], str | None]:
    expected = f"one of {', '.join(choices)}"
    return lambda value: None if value in choices else expected


def _at_least(least: float) -> Callable[[Any], str | None]:
    return lambda value: None if value >= least else f"a number of at least {least:g}"


def _port(value: int) -> str | None:
    return None if 0 <= value < 65536 else "a port between 0 and 65535"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """A server's configuration, checked; errors name the flag, what was expected and what came."""

    port: int = _flag(8500, "gRPC TCP port; 0 disables it", _port)
    rest_api_port: int = _flag(0, "HTTP port; 0 disables it", _port)
    model_name: str = _flag("default", "name of the one model at --model_base_path")
    model_base_path: str = _flag("", "folder of the one model's versions")
    model_config_file: str = _flag("", "text-format ModelServerConfig with the models to serve")
    model_repository: str = _flag("", "folder in which every subfolder is a model, watched")
    file_system_poll_wait_seconds: int = _flag(
        1, "look at the models' folders at least so often; 0: once; below: on events only"
    )
    max_num_load_retries: int = _flag(5, "retries after a failed load", _at_least(0))
    load_retry_interval_micros: int = _flag(60_000_000, "pause between them; below 0: none")
    num_load_threads: int = _flag(0, "loads at a time; 0: two", _at_least(0))
    num_unload_threads: int = _flag(0, "unloads at a time; 0: one", _at_least(0))
    saved_model_tags: str = _flag("serve", "tags of the meta graph to load, with commas")
    grpc_transport: str = _flag(
        "auto", "gRPC carrier: auto, native or grpcio", _one_of(*GRPC_TRANSPORTS)
    )
    optimize_models: str = _flag(
        "background",
        "variables to constants: off, background (swap when proven) or wait (not available before)",
        _one_of(*OPTIMIZE_MODELS),
    )
    cache_dir: str = _flag("", "optimised graphs; empty: SERVINGD_CACHE_DIR or the user's cache")
    inline_below_us: int = _flag(
        200, "a call measured below this runs in the carrier's thread", _at_least(0)
    )
    drain_delay_s: float = _flag(0.0, "at stop: not ready for so long first", _at_least(0))
    drain_timeout_s: float = _flag(20.0, "at stop: then so long for calls in flight", _at_least(0))
    ready_when: str = _flag("all", "ready when all models are, any is, or those of a list are")
    max_request_bytes: int = _flag(
        _MAX_MESSAGE, "largest gRPC request; REST: at most 256 MiB", _at_least(1)
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check = field.metadata["check"]
            value = getattr(self, field.name)
            expected = check(value) if check else None
            if expected is not None:
                raise InvalidConfig(f"--{field.name}: expected {expected}, got {value!r}")
        if self.port == 0:
            raise InvalidConfig(
                "At least one of server_options.grpc_port or server_options.grpc_socket_path must "
                "be set."
            )
        if not (self.model_base_path or self.model_config_file or self.model_repository):
            raise InvalidConfig(
                "Both server_options.model_base_path and server_options.model_config_file are "
                "empty! (--model_repository would do as well.)"
            )
        if self.rest_api_port == self.port:
            raise InvalidConfig(
                "server_options.http_port cannot be same as grpc_port. Please use a different "
                f"port for HTTP/REST API: both are {self.port}"
            )
