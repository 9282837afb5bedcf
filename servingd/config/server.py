"""All settings of a server: each field is a flag of the same name.

This dataclass is the one table: the command line, `servingd.yaml`, `--help`, the reference page and
the checks are made from it. Names and defaults are TensorFlow Serving's where it has the flag.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from servingd.config.flag_fields import (
    are_channel_arguments,
    at_least,
    count,
    flag,
    int32,
    int64,
    one_of,
    own_flag,
    tcp_port,
    whole,
)
from servingd.config.loads import are_devices, are_replicas, is_transition
from servingd.config.saved_model import OPTIMIZE_MODELS, are_libraries, are_modules
from servingd.errors import InvalidConfig
from servingd.machine.cpus import cpus

GRPC_TRANSPORTS = ("auto", "native", "grpcio")

_MAX_MESSAGE = 2**31 - 1

_XLA = "a model that asks for XLA may always compile with it"


def _each_cpu() -> int:
    """one per CPU core"""  # noqa: D403, D415 -- shown as the default
    return cpus()


def _four_each_cpu() -> int:
    """four per CPU core"""  # noqa: D403, D415 -- shown as the default
    return 4 * cpus()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """A server's configuration, checked; errors name the flag, the expected and the given value."""

    # TensorFlow Serving's, in the order of its table ---------------------------------------------

    port: int = flag(8500, "gRPC TCP port; 0 disables it", tcp_port)
    grpc_socket_path: str = flag("", "gRPC also on this Unix socket")
    rest_api_port: int = flag(0, "HTTP port; 0 disables it", tcp_port)
    rest_api_num_threads: int = flag(_four_each_cpu, "threads for large HTTP bodies", count)
    rest_api_timeout_in_ms: int = flag(
        30_000, "longest run of a REST inference; 0 or below: no limit", int32
    )
    rest_api_enable_cors_support: bool = flag(False, "answer browsers of other origins")
    enable_batching: bool = flag(False, "merge calls that come together")
    allow_version_labels_for_unavailable_models: bool = flag(
        False, "a new label may point to a version that is not available yet"
    )
    batching_parameters_file: str = flag(
        "", "text-format BatchingParameters; needs --enable_batching"
    )
    enable_per_model_batching_parameters: bool = flag(
        False,
        "batching_params.pbtxt in a version's folder replaces those of the file",
    )
    model_config_file: str = flag(
        "", "text-format ModelServerConfig with the models to serve; before --model_base_path"
    )
    model_config_file_poll_wait_seconds: int = flag(
        0, "apply that file again at this interval; 0 or below: read it once", int32
    )
    model_name: str = flag("default", "name of the one model at --model_base_path")
    model_base_path: str = flag("", "folder of the one model's versions")
    num_load_threads: int = flag(0, "loads at a time; 0: two", at_least(0))
    num_unload_threads: int = flag(0, "unloads at a time; 0: one", at_least(0))
    max_num_load_retries: int = flag(5, "retries after a failed load", at_least(0))
    load_retry_interval_micros: int = flag(60_000_000, "pause between them; below 0: none", int64)
    file_system_poll_wait_seconds: int = flag(
        1, "look at the models' folders at least so often; 0: once; below: on events only", int32
    )
    flush_filesystem_caches: bool = flag(
        True, "flush caches after loads", no_effect="files are read without a cache of ours"
    )
    tensorflow_session_parallelism: int = flag(
        0, "threads of a session, within and between operations; 0: chosen by measurement", int32
    )
    tensorflow_session_config_file: str = flag(
        "", "text-format tensorflow.ConfigProto; flags that are set count more than it"
    )
    tensorflow_intra_op_parallelism: int = flag(0, "threads within an operation; 0: open", int32)
    tensorflow_inter_op_parallelism: int = flag(0, "threads between operations; 0: open", int32)
    use_alts_credentials: bool = flag(False, "Google's ALTS on the gRPC port; not with SSL")
    ssl_config_file: str = flag("", "text-format SSLConfig: TLS on the gRPC port")
    platform_config_file: str = flag(
        "", "text-format PlatformConfigMap: replaces all flags about TensorFlow models"
    )
    per_process_gpu_memory_fraction: float = flag(
        0.0, "share of a GPU's memory to take; 0: TensorFlow's choice", at_least(0)
    )
    saved_model_tags: str = flag("serve", "tags of the meta graph to load, with commas")
    grpc_channel_arguments: str = flag("", "key=value,key=value for gRPC", are_channel_arguments)
    grpc_max_threads: int = flag(_four_each_cpu, "threads of the transport grpcio", count)
    enable_model_warmup: bool = flag(True, "replay a version's recorded calls before it serves")
    num_request_iterations_for_warmup: int = flag(
        0, "replay each recorded call so often; 0 or below: once", int32
    )
    version: bool = flag(False, "print versions and exit")
    monitoring_config_file: str = flag(
        "", "text-format MonitoringConfig: Prometheus metrics on the HTTP port"
    )
    remove_unused_fields_from_bundle_metagraph: bool = flag(
        True, "keep only signatures in memory", no_effect="nothing else is kept in any case"
    )
    prefer_tflite_model: bool = flag(False, "serve a version's model.tflite if it has one")
    num_tflite_pools: int = flag(_each_cpu, "pools of TF Lite interpreters", count)
    num_tflite_interpreters_per_pool: int = flag(1, "interpreters in each of them", count)
    enable_signature_method_name_check: bool = flag(
        False, "refuse a signature whose method is not the call's"
    )
    xla_cpu_compilation_enabled: bool = flag(
        False, "let models compile with XLA, on CPUs", no_effect=_XLA
    )
    xla_gpu_compilation_enabled: bool = flag(
        False, "let models compile with XLA, on GPUs", no_effect=_XLA
    )
    enable_profiler: bool = flag(True, "serve TensorFlow's profiler on the gRPC port")
    thread_pool_factory_config_file: str = flag(
        "", "text-format ThreadPoolFactoryConfig; there is no factory: any use is an error"
    )
    mixed_precision: str = flag(
        "",
        "bfloat16",
        no_effect="graphs run with the precision that they were exported with",
    )
    skip_initialize_tpu: bool = flag(
        False, "leave TPUs alone", no_effect="TPUs are never initialized"
    )
    enable_grpc_healthcheck_service: bool = flag(
        False, "serve grpc.health.v1", no_effect="the health service is always there"
    )
    enable_serialization_as_tensor_content: bool = flag(
        False, "answer Predict with tensor_content instead of typed fields"
    )

    # servingd's own -------------------------------------------------------------------------------

    servingd_config_file: str = own_flag("", "servingd.yaml: flags and models in one file")
    model_repository: str = own_flag("", "folder in which every subfolder is a model, watched")
    grpc_transport: str = own_flag(
        "auto", "gRPC transport: auto, native or grpcio", one_of(*GRPC_TRANSPORTS)
    )
    rest_ssl_config_file: str = own_flag("", "text-format SSLConfig: TLS on the HTTP port")
    admin_port: int = own_flag(
        0, "gRPC port of reload and profiler alone; 0: on the public ports", tcp_port
    )
    hold_calls_during_start: bool = own_flag(
        True,
        "calls that come while the first models load wait for them; false: they fail at once",
    )
    reload_timeout_s: float = own_flag(
        300.0, "longest wait of a reload for its new models", at_least(0)
    )
    load_timeout_s: float = own_flag(
        3600.0, "a load that takes longer is given up and counts as failed; 0: none is", at_least(0)
    )
    request_log_max_bytes: int = own_flag(
        100 << 20, "a request log file of this size is rotated", at_least(1)
    )
    request_log_max_files: int = own_flag(10, "request log files that are kept", count)
    optimize_models: str = own_flag(
        "background",
        "variables to constants: off, background (swap when proven) or wait (not available before)",
        one_of(*OPTIMIZE_MODELS),
    )
    cache_dir: str = own_flag("", "optimised graphs; empty: SERVINGD_CACHE_DIR or the user's cache")
    inline_below_us: int = own_flag(
        200, "a call measured below this runs in the transport's thread", at_least(0)
    )
    merge_waiting_calls: bool = own_flag(
        True, "run calls that wait together together, where that is proven to be right"
    )
    check_input_shapes: bool = own_flag(
        False, "refuse inputs whose shapes differ from the signature's; else TensorFlow judges"
    )
    op_libraries: str = own_flag(
        "",
        "shared libraries with operations, with commas; loaded before any model",
        are_libraries,
    )
    python_imports: str = own_flag(
        "",
        "Python modules that register operations, with commas; imported before any model",
        are_modules,
    )
    self_warm_up: bool = own_flag(
        True, "keep a few requests in memory; new versions answer them before they serve"
    )
    latency_goal_ms: float = own_flag(
        0.0, "latency goal of all models that have none of their own; 0: none", at_least(0)
    )
    max_queue_s: float = own_flag(
        30.0, "a call without a deadline is refused if it would wait longer", at_least(0)
    )
    max_queue_mb: int = own_flag(
        0, "MiB of inputs that may wait for one signature; 0: a sixteenth of memory", at_least(0)
    )
    large_bodies_mb: int = own_flag(
        0,
        "MiB for reading large HTTP bodies, all together; others wait; 0: a sixteenth of memory",
        at_least(0),
    )
    device: str = own_flag(
        "auto", "where models are loaded: auto, GPU, or names as GPU:0,GPU:1", are_devices
    )
    replicas: str = own_flag(
        "1", "of each model: a number, or per_device for one on each of its devices", are_replicas
    )
    transition: str = own_flag(
        "auto",
        "availability_preserving (old and new version beside each other), resource_preserving "
        "(the old one goes first) or auto (the latter only if they do not fit beside each other)",
        is_transition,
    )
    ram_budget_mb: int = own_flag(
        0, "memory of the host for models; 0: most of the machine's or control group's", at_least(0)
    )
    device_memory_budget_mb: int = own_flag(
        0, "memory of each device for models; 0: all that it has", at_least(0)
    )
    virtual_cpu_devices: int = own_flag(
        0, "devices CPU:0 to CPU:N-1 instead of CPU:0 alone, to try placement out", whole(0, 64)
    )
    log_level: str = own_flag(
        "info",
        "debug has a line for each call that fails, and for each malformed one",
        one_of("info", "debug"),
    )
    drain_delay_s: float = own_flag(0.0, "at stop: not ready for so long first", at_least(0))
    drain_timeout_s: float = own_flag(
        20.0, "at stop: then so long for calls in flight", at_least(0)
    )
    ready_when: str = own_flag("all", "ready when all models are, any is, or those of a list are")
    max_request_bytes: int = own_flag(
        _MAX_MESSAGE, "largest gRPC request; REST: at most 256 MiB", at_least(1)
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check = field.metadata["check"]
            value = getattr(self, field.name)
            expected = check(value) if check else None
            if expected is not None:
                raise InvalidConfig(f"--{field.name}: expected {expected}, got {value!r}")
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
        for other in ("port", "rest_api_port"):
            if self.admin_port and self.admin_port == getattr(self, other):
                raise InvalidConfig(
                    f"--admin_port: expected a port of its own, got that of --{other}, "
                    f"{self.admin_port}"
                )

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
