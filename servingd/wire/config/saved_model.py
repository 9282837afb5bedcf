"""How SavedModels are loaded and run, from the flags and the files that they name."""

from __future__ import annotations

import dataclasses

from servingd.config.batching import DEFAULT_POOL_WITHOUT_FILE, BatchingParameters
from servingd.config.saved_model import MAP_FROM_BYTES, SavedModelOptions, extensions
from servingd.config.server import ServerConfig
from servingd.wire import protos
from servingd.wire.config.files import read_batching, read_platform, read_session_config


def saved_model_options(config: ServerConfig) -> SavedModelOptions:
    """Return the options of the platform `tensorflow`. Reads files.

    A platform file replaces the flags that it stands for, and servingd's own flags count as well.
    Raises NotFound or InvalidConfig, naming the file and the field.
    """
    options = (
        read_platform(config.platform_config_file)
        if config.platform_config_file
        else _from_flags(config)
    )
    return dataclasses.replace(
        options,
        optimize_models=config.optimize_models,
        cache_dir=config.cache_dir,
        map_from_bytes=MAP_FROM_BYTES if config.map_large_weights == "auto" else 0,
        merge_waiting_calls=config.merge_waiting_calls,
        virtual_cpu_devices=config.virtual_cpu_devices,
        extensions=extensions(config.op_libraries, config.python_imports),
    )


def _from_flags(config: ServerConfig) -> SavedModelOptions:
    session = _session(config)
    return SavedModelOptions(
        tags=tuple(tag for tag in config.saved_model_tags.split(",") if tag),
        intra_op_threads=session.intra_op_parallelism_threads,
        inter_op_threads=session.inter_op_parallelism_threads,
        gpu_memory_fraction=session.gpu_options.per_process_gpu_memory_fraction,
        session_config=session.SerializeToString(deterministic=True),
        enable_model_warmup=config.enable_model_warmup,
        warmup_iterations=max(1, config.num_request_iterations_for_warmup),
        prefer_tflite_model=config.prefer_tflite_model,
        num_tflite_pools=config.num_tflite_pools,
        num_tflite_interpreters_per_pool=config.num_tflite_interpreters_per_pool,
        batching=_batching(config),
        enable_per_model_batching=(
            config.enable_batching and config.enable_per_model_batching_parameters
        ),
    )


def _session(config: ServerConfig) -> protos.ConfigProto:
    """Return the session file's ConfigProto with the flags set in it.

    TensorFlow Serving overwrites the file's thread counts and memory share even with flags that
    nobody set; here what the file says stays.
    """
    session = protos.ConfigProto()
    if config.tensorflow_session_config_file:
        session.MergeFromString(read_session_config(config.tensorflow_session_config_file))
    intra, inter = (
        config.tensorflow_intra_op_parallelism,
        config.tensorflow_inter_op_parallelism,
    )
    if intra <= 0 and inter <= 0:
        intra = intra or config.tensorflow_session_parallelism
        inter = inter or config.tensorflow_session_parallelism
    if intra:
        session.intra_op_parallelism_threads = intra
    if inter:
        session.inter_op_parallelism_threads = inter
    if config.per_process_gpu_memory_fraction:
        session.gpu_options.per_process_gpu_memory_fraction = config.per_process_gpu_memory_fraction
    return session


def _batching(config: ServerConfig) -> BatchingParameters | None:
    if not config.enable_batching:
        return None
    if config.batching_parameters_file:
        return read_batching(config.batching_parameters_file)
    return BatchingParameters(thread_pool_name=DEFAULT_POOL_WITHOUT_FILE)
