"""The flags of TensorFlow Serving, in the order of its own table, with its names and defaults."""

from __future__ import annotations

from dataclasses import dataclass

from servingd.config.flag_fields import (
    are_channel_arguments,
    at_least,
    count,
    flag,
    int32,
    int64,
    tcp_port,
)
from servingd.machine.cpus import cpus

_XLA = "a model that asks for XLA may always compile with it"


def _each_cpu() -> int:
    """one per CPU core"""  # noqa: D403, D415 -- shown as the default
    return cpus()


def _four_each_cpu() -> int:
    """four per CPU core"""  # noqa: D403, D415 -- shown as the default
    return 4 * cpus()


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFlowServingFlags:
    """What TensorFlow Serving can be told; `ServerConfig` checks it."""

    port: int = flag(8500, "TCP port for gRPC. 0: none.", tcp_port)
    grpc_socket_path: str = flag(
        "", "Path of a Unix socket on which gRPC is served in addition. Empty: none."
    )
    rest_api_port: int = flag(
        0, "TCP port for HTTP: the REST API, probes, metrics and status. 0: none.", tcp_port
    )
    rest_api_num_threads: int = flag(
        _four_each_cpu, "Number of threads that read and write large HTTP bodies.", count
    )
    rest_api_timeout_in_ms: int = flag(
        30_000, "Milliseconds after which a REST inference fails. 0 or below: no limit.", int32
    )
    rest_api_enable_cors_support: bool = flag(
        False, "Let pages of other origins call the REST API from a browser."
    )
    enable_batching: bool = flag(
        False,
        "Run calls of one signature that come together as one batch, by the batching parameters.",
    )
    allow_version_labels_for_unavailable_models: bool = flag(
        False, "Accept a new label for a version that is not available yet."
    )
    batching_parameters_file: str = flag(
        "",
        "File with the batching parameters: BatchingParameters in text format. Needs "
        "--enable_batching.",
    )
    enable_per_model_batching_parameters: bool = flag(
        False,
        "Take a version's batching parameters from batching_params.pbtxt in its folder, "
        "instead of from the file for all models.",
    )
    model_config_file: str = flag(
        "",
        "File with the models to serve: ModelServerConfig in text format. Counts more than "
        "--model_base_path.",
    )
    model_config_file_poll_wait_seconds: int = flag(
        0,
        "Seconds after which the configuration file is read and applied again. 0 or below: "
        "it is read once.",
        int32,
    )
    model_name: str = flag("default", "Name of the model at --model_base_path.")
    model_base_path: str = flag("", "Folder with the versions of a single model.")
    num_load_threads: int = flag(0, "The most versions that load at a time. 0: two.", at_least(0))
    num_unload_threads: int = flag(
        0, "The most versions that unload at a time. 0: one.", at_least(0)
    )
    max_num_load_retries: int = flag(5, "How often a load that failed is tried again.", at_least(0))
    load_retry_interval_micros: int = flag(
        60_000_000, "Microseconds between two tries of a load. Below 0: none.", int64
    )
    file_system_poll_wait_seconds: int = flag(
        1,
        "Seconds after which the models' folders are looked at again, even without an event. "
        "0: they are looked at once; below 0: after events only.",
        int32,
    )
    flush_filesystem_caches: bool = flag(
        True,
        "Flush the file system's caches after loads.",
        no_effect="files are read without a cache of ours",
    )
    tensorflow_session_parallelism: int = flag(
        0,
        "Number of threads of a session, both within and between operations. 0: what "
        "measurements show to be fast.",
        int32,
    )
    tensorflow_session_config_file: str = flag(
        "",
        "File with settings of sessions: tensorflow.ConfigProto in text format. Flags that "
        "are set count more than it.",
    )
    tensorflow_intra_op_parallelism: int = flag(
        0,
        "Number of threads that share one operation. 0: what measurements show to be fast.",
        int32,
    )
    tensorflow_inter_op_parallelism: int = flag(
        0,
        "Number of operations that run at a time. 0: what is fast for the way in which the "
        "model is run.",
        int32,
    )
    use_alts_credentials: bool = flag(
        False, "Use Google's ALTS on the gRPC port. Not together with --ssl_config_file."
    )
    ssl_config_file: str = flag(
        "",
        "File with keys and certificates for TLS on the gRPC port: SSLConfig in text format. "
        "Empty: no TLS.",
    )
    platform_config_file: str = flag(
        "",
        "File with the settings of TensorFlow models: PlatformConfigMap in text format. It "
        "replaces all flags about them.",
    )
    per_process_gpu_memory_fraction: float = flag(
        0.0,
        "Share of a GPU's memory that this process takes, from 0 to 1. 0: what TensorFlow chooses.",
        at_least(0),
    )
    saved_model_tags: str = flag(
        "serve", "Tags of the meta graph that is loaded from a SavedModel, separated by commas."
    )
    grpc_channel_arguments: str = flag(
        "",
        "Arguments of gRPC's server channel: key=value, separated by commas.",
        are_channel_arguments,
    )
    grpc_max_threads: int = flag(
        _four_each_cpu, "Number of threads that answer calls where grpcio is the transport.", count
    )
    enable_model_warmup: bool = flag(
        True, "Replay the calls that are recorded in a version's folder before it serves."
    )
    num_request_iterations_for_warmup: int = flag(
        0, "How often each recorded call is replayed. 0 or below: once.", int32
    )
    version: bool = flag(False, "Print the versions of servingd and TensorFlow, and exit.")
    monitoring_config_file: str = flag(
        "",
        "File that says where Prometheus finds the metrics on the HTTP port: "
        "MonitoringConfig in text format. /metrics is there in any case.",
    )
    remove_unused_fields_from_bundle_metagraph: bool = flag(
        True,
        "Keep only the signatures of a model's meta graph in memory.",
        no_effect="nothing else is kept in any case",
    )
    prefer_tflite_model: bool = flag(
        False, "Serve a version's model.tflite, if it has one, instead of its SavedModel."
    )
    num_tflite_pools: int = flag(
        _each_cpu, "Number of pools of interpreters of a TF Lite model.", count
    )
    num_tflite_interpreters_per_pool: int = flag(
        1, "Number of TF Lite interpreters in each pool.", count
    )
    enable_signature_method_name_check: bool = flag(
        False, "Refuse calls of a signature whose method name is for another kind of call."
    )
    xla_cpu_compilation_enabled: bool = flag(
        False, "Let models be compiled with XLA on CPUs.", no_effect=_XLA
    )
    xla_gpu_compilation_enabled: bool = flag(
        False, "Let models be compiled with XLA on GPUs.", no_effect=_XLA
    )
    enable_profiler: bool = flag(True, "Serve TensorFlow's profiler on the gRPC port.")
    thread_pool_factory_config_file: str = flag(
        "",
        "File that configures a factory of thread pools: ThreadPoolFactoryConfig in text "
        "format. No factory can be registered here, so any value is an error.",
    )
    mixed_precision: str = flag(
        "",
        "Precision to which a graph's floats are lowered: bfloat16.",
        no_effect="graphs run with the precision that they were exported with",
    )
    skip_initialize_tpu: bool = flag(
        False, "Do not initialise TPUs.", no_effect="TPUs are never initialized"
    )
    enable_grpc_healthcheck_service: bool = flag(
        False,
        "Serve grpc.health.v1, the health service of gRPC.",
        no_effect="the health service is always there",
    )
    enable_serialization_as_tensor_content: bool = flag(
        False, "Send the tensors of Predict's answers in tensor_content instead of in typed fields."
    )
