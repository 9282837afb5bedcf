"""All settings of a server: each field is a flag of the same name.

This dataclass is the one table: the command line, `servingd.yaml`, `--help`, the reference page and
the checks are made from it. TensorFlow Serving's flags are in the base class; here are our own.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from servingd.config.flag_fields import (
    at_least,
    count,
    ip_address,
    one_of,
    own_flag,
    tcp_port,
    whole,
)
from servingd.config.loads import are_devices, are_replicas, is_transition
from servingd.config.plugins import are_references
from servingd.config.saved_model import (
    MAP_LARGE_WEIGHTS,
    OPTIMIZE_MODELS,
    are_libraries,
    are_modules,
)
from servingd.config.tensorflow_serving_flags import TensorFlowServingFlags
from servingd.config.webhooks import are_webhooks
from servingd.errors import InvalidConfig

GRPC_TRANSPORTS = ("auto", "native", "grpcio")

_MAX_WORKERS = 256


def are_workers(value: object) -> str | None:
    """Check the number of workers; returns what is expected."""
    expected = f"a whole number from 1 to {_MAX_WORKERS}, or auto"
    number = str(value)
    known = number == "auto" or (number.isascii() and number.isdigit())
    return None if known and (number == "auto" or 1 <= int(number) <= _MAX_WORKERS) else expected


_MAX_MESSAGE = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig(TensorFlowServingFlags):
    """A server's configuration, checked; errors name the flag, the expected and the given value."""

    servingd_config_file: str = own_flag(
        "", "File with flags and models together, in YAML: servingd.yaml."
    )
    model_repository: str = own_flag(
        "",
        "Folder of which every subfolder is a model. Models that come and go while the "
        "server runs are followed.",
    )
    model_platform: str = own_flag(
        "tensorflow",
        "Servable type of the model of --model_base_path, or auto: told by the files of its "
        "versions.",
    )
    host: str = own_flag(
        "",
        "IP address at which all TCP ports listen, such as 127.0.0.1. Empty: every address.",
        ip_address,
    )
    grpc_transport: str = own_flag(
        "auto",
        "What carries gRPC: native (fast, without TLS), grpcio, or auto: native where it can "
        "be used, else grpcio.",
        one_of(*GRPC_TRANSPORTS),
    )
    rest_ssl_config_file: str = own_flag(
        "",
        "File with keys and certificates for TLS on the HTTP port: SSLConfig in text format. "
        "Empty: no TLS.",
    )
    admin_port: int = own_flag(
        0,
        "TCP port to which reloads and the profiler are confined, over gRPC. 0: they are on "
        "the public gRPC port.",
        tcp_port,
    )
    admin_rest_port: int = own_flag(
        0,
        "TCP port to which what administrators do over HTTP is confined: POST below "
        "/servingd/v1/. Pages, probes and metrics are there and on --rest_api_port. 0: the "
        "public HTTP port takes such calls.",
        tcp_port,
    )
    admin_token_file: str = own_flag(
        "",
        "File with the token that administrators' calls must carry, over HTTP and gRPC: "
        "`Authorization: Bearer TOKEN`. It is read again when it changes. Empty: they need "
        "none.",
    )
    workers: str = own_flag(
        "1",
        "Number of worker processes that answer calls on the same ports, under a supervisor. auto: "
        "one per CPU core, fewer where the models would not fit into memory. 1: no supervisor.",
        are_workers,
    )
    recycle_above: float = own_flag(
        0.0,
        "Share of a worker's memory, such as 0.5, that unloads may leave behind. A worker in which "
        "they leave more is replaced, without a failed call. It needs --workers. 0: never.",
        at_least(0),
    )
    max_connection_age_s: float = own_flag(
        0.0,
        "Seconds after which clients of gRPC are sent to a new connection, which may be another "
        "worker's. No call fails. 0: never.",
        at_least(0),
    )
    hold_calls_during_start: bool = own_flag(
        True,
        "Let calls wait until the first models have loaded. If false, they fail at once meanwhile.",
    )
    reload_timeout_s: float = own_flag(
        300.0, "Seconds that a reload waits for its new models, at most.", at_least(0)
    )
    load_timeout_s: float = own_flag(
        3600.0,
        "Seconds after which a load is given up and counts as failed. 0: never.",
        at_least(0),
    )
    request_log_max_bytes: int = own_flag(
        100 << 20,
        "Bytes at which a file of a request log is closed and the next one begun.",
        at_least(1),
    )
    request_log_max_files: int = own_flag(
        10, "Number of files of a request log that are kept. The oldest are deleted.", count
    )
    optimize_models: str = own_flag(
        "background",
        "Make faster graphs of SavedModels: background (a version serves its plain graph "
        "until the faster one is proven), wait (it is not available before that), or off.",
        one_of(*OPTIMIZE_MODELS),
    )
    cache_dir: str = own_flag(
        "",
        "Folder in which optimised graphs are kept. Empty: that of SERVINGD_CACHE_DIR, else "
        "one in the user's cache.",
    )
    map_large_weights: str = own_flag(
        "auto",
        "Let the processes that serve an optimised graph share its large tables, mapped from a "
        "file in the cache: auto (tables that are gathered from, and all large variables of large "
        "models), or off.",
        one_of(*MAP_LARGE_WEIGHTS),
    )
    inline_below_us: int = own_flag(
        200,
        "Microseconds below which a call, as measured for its size, runs at once on the "
        "transport's thread. Others go through a queue.",
        at_least(0),
    )
    merge_waiting_calls: bool = own_flag(
        True,
        "Run calls that wait at the same time as one, where the graph proves that their "
        "answers stay the same.",
    )
    check_input_shapes: bool = own_flag(
        False,
        "Refuse inputs whose shapes do not match the signature. If false, TensorFlow decides "
        "when it runs them.",
    )
    op_libraries: str = own_flag(
        "",
        "Shared libraries with operations of TensorFlow, separated by commas. They are "
        "loaded before any model.",
        are_libraries,
    )
    python_imports: str = own_flag(
        "",
        "Python modules that register operations of TensorFlow, separated by commas. They "
        "are imported before any model.",
        are_modules,
    )
    plugin: str = own_flag(
        "",
        "Servable types of your own, separated by commas: module:Class or path/file.py:Class, "
        "where the class is a servingd.servables.plugin.Platform. Their code runs in the server.",
        are_references,
    )
    allow_python_models: bool = own_flag(
        False,
        "Serve versions that consist of Python code (model.py), and others that run code when "
        "they are loaded. Whoever can write to a model's folder can then run code in the server.",
    )
    self_warm_up: bool = own_flag(
        True, "Keep a few requests in memory, and run them on a new version before it serves."
    )
    latency_goal_ms: float = own_flag(
        0.0,
        "Milliseconds within which calls are to be answered; batches are made as large as "
        "that permits. It holds for models without a goal of their own; 0: no goal.",
        at_least(0),
    )
    max_queue_s: float = own_flag(
        30.0,
        "Seconds beyond which a call is refused instead of waiting, if it has no deadline of "
        "its own.",
        at_least(0),
    )
    max_queue_mb: int = own_flag(
        0, "MiB of inputs that may wait for one signature. 0: a sixteenth of memory.", at_least(0)
    )
    max_streams: int = own_flag(
        256,
        "Number of answers in parts that may be open for one model, in each worker. Further calls "
        "are refused.",
        count,
    )
    jobs_mb: int = own_flag(
        64, "MiB of requests and results of jobs that are kept. New jobs are refused then.", count
    )
    job_age_s: float = own_flag(
        600.0,
        "Seconds that a job may take, and for which its result is then kept.",
        at_least(0),
    )
    job_webhooks: str = own_flag(
        "",
        "Addresses below which the ends of jobs may be told, separated by commas, such as "
        "https://host/path/. A job names one in the header x-servingd-webhook. Empty: none.",
        are_webhooks,
    )
    large_bodies_mb: int = own_flag(
        0,
        "MiB that the reading of large HTTP bodies may take, all together; others wait. 0: a "
        "sixteenth of memory.",
        at_least(0),
    )
    device: str = own_flag(
        "auto",
        "Where models are loaded: auto, a kind of device such as GPU, or devices such as "
        "GPU:0,GPU:1.",
        are_devices,
    )
    replicas: str = own_flag(
        "1",
        "Number of replicas of each model, or per_device: one on each of its devices.",
        are_replicas,
    )
    transition: str = own_flag(
        "auto",
        "How a new version takes over: availability_preserving (it loads while the old one "
        "serves), resource_preserving (the old one is unloaded first), or auto (the latter "
        "only if both do not fit).",
        is_transition,
    )
    ram_budget_mb: int = own_flag(
        0,
        "MiB of the host's memory that models may take. 0: most of what the machine or the "
        "control group has.",
        at_least(0),
    )
    device_memory_budget_mb: int = own_flag(
        0, "MiB of each device's own memory that models may take. 0: all of it.", at_least(0)
    )
    virtual_cpu_devices: int = own_flag(
        0,
        "Number of devices CPU:0, CPU:1 and so on that the CPU is shown as, to try placement "
        "out. 0: one.",
        whole(0, 64),
    )
    log_level: str = own_flag(
        "info",
        "info, or debug: with a line for each call that fails or is malformed.",
        one_of("info", "debug"),
    )
    log_format: str = own_flag(
        "text",
        "text: lines for people; json: an object per line, with the time's zone, the level, and "
        "model, version and request id as fields.",
        one_of("text", "json"),
    )
    drain_delay_s: float = own_flag(
        0.0,
        "Seconds for which a server that stops is not ready but still takes calls.",
        at_least(0),
    )
    drain_timeout_s: float = own_flag(
        20.0, "Seconds that a server that stops then waits for calls in flight.", at_least(0)
    )
    ready_when: str = own_flag(
        "all",
        "When the server is ready: all (every model is available), any (one is), or names of "
        "models, separated by commas.",
    )
    max_request_bytes: int = own_flag(
        _MAX_MESSAGE,
        "Bytes of a gRPC request, at most. For an HTTP body the limit is 256 MiB if that is less.",
        at_least(1),
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check = field.metadata["check"]
            value = getattr(self, field.name)
            expected = check(value) if check else None
            if expected is not None:
                raise InvalidConfig(f"--{field.name}: expected {expected}, got {value!r}")
        if self.host == "localhost":
            object.__setattr__(self, "host", "127.0.0.1")
        self._check_ports()
        self._check_models()
        self._check_credentials()
        self._check_tensorflow()

    def _check_ports(self) -> None:
        if self.port == 0 and not self.grpc_socket_path:
            raise InvalidConfig(
                "At least one of server_options.grpc_port or server_options.grpc_socket_path must "
                "be set."
            )
        if self.rest_api_port and self.rest_api_port == self.port:
            raise InvalidConfig(
                "server_options.http_port cannot be same as grpc_port. Please use a different "
                f"port for HTTP/REST API: both are {self.port}"
            )
        taken = {self.port: "port", self.rest_api_port: "rest_api_port"}
        for name in ("admin_port", "admin_rest_port"):
            port = getattr(self, name)
            if port and port in taken:
                raise InvalidConfig(
                    f"--{name}: expected a port of its own, got that of --{taken[port]}, {port}"
                )
            taken[port] = name

    def _check_models(self) -> None:
        if not (
            self.model_base_path
            or self.model_config_file
            or self.model_repository
            or self.servingd_config_file
        ):
            raise no_models("--model_repository or --servingd_config_file would do as well.")

    def _check_credentials(self) -> None:
        if self.use_alts_credentials and self.ssl_config_file:
            raise InvalidConfig(
                "Either use_alts_credentials must be false or ssl_config_file must be empty."
            )

    def _check_tensorflow(self) -> None:
        if self.thread_pool_factory_config_file:
            raise InvalidConfig(
                "--thread_pool_factory_config_file: no thread pool factory is registered, got "
                f"{self.thread_pool_factory_config_file!r}"
            )
        if self.platform_config_file:
            return
        if self.batching_parameters_file and not self.enable_batching:
            raise InvalidConfig(
                "server_options.batching_parameters_file is set without setting "
                "server_options.enable_batching to true."
            )
        if (
            self.tensorflow_session_parallelism > 0
            and self.tensorflow_intra_op_parallelism > 0
            and self.tensorflow_inter_op_parallelism > 0
        ):
            raise InvalidConfig(
                "Either configure server_options.tensorflow_session_parallelism or "
                "(server_options.tensorflow_intra_op_parallelism, "
                "server_options.tensorflow_inter_op_parallelism) separately. You cannot configure "
                "all."
            )


def no_models(hint: str) -> InvalidConfig:
    """Return TensorFlow Serving's error for a server without any model, with a hint added."""
    return InvalidConfig(
        "Both server_options.model_base_path and server_options.model_config_file are empty! "
        f"({hint})"
    )
