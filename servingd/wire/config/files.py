"""Configuration files in protobuf's text format."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from google.protobuf import text_format
from google.protobuf.message import DecodeError, Message

from servingd.config.batching import BatchingParameters
from servingd.config.paths import NotLocal, local_path
from servingd.config.saved_model import SavedModelOptions
from servingd.config.tls_and_monitoring import DEFAULT_METRICS_PATH, MonitoringConfig, SSLConfig
from servingd.errors import InvalidConfig, NotFound, Unimplemented
from servingd.wire import protos
from servingd.wire.protos import POOL

if TYPE_CHECKING:
    from google.protobuf.any_pb2 import Any as AnyMessage
    from google.protobuf.descriptor import FieldDescriptor

    from servingd.wire.protos import BatchingParameters as BatchingParametersMessage
    from servingd.wire.protos import SessionBundleConfig

M = TypeVar("M", bound=Message)

_PLATFORM = "tensorflow"

_WITHOUT_EFFECT = (
    "in_graph_batching_parameters",
    "session_run_load_threadpool_index",
    "experimental_transient_ram_bytes_during_load",
    "experimental_fixed_input_tensors",
    "enable_session_metadata",
    "remove_unused_fields_from_bundle_metagraph",
    "resource_estimation_uses_validation_result",
    "num_tflite_interpreters",
    "wrap_session_with_no_threading_params",
    "mixed_precision",
)
"""Fields of SessionBundleConfig that are legal and change nothing here; each is logged."""

_log = logging.getLogger(__name__)


def parse_text(path: str, message_class: type[M], *, secret: bool = False) -> M:
    """Parse the message in a file; a file of white space is an empty message.

    Errors show nothing of the contents of a file that is `secret`.

    Raises:
        NotFound: there is no such file.
        InvalidConfig: it cannot be read or parsed; the text names the file, the line and the field.
    """
    try:
        text = Path(local_path(path)).read_text(encoding="utf-8")
    except NotLocal as error:
        raise InvalidConfig(f"Invalid protobuf file: expected {error}, got {path!r}") from None
    except FileNotFoundError:
        raise NotFound(f"{path}; No such file or directory") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"Invalid protobuf file: '{path}': {error}") from error
    try:
        message: M = text_format.Parse(text, message_class(), descriptor_pool=POOL)
    except (text_format.ParseError, RecursionError) as error:
        raise InvalidConfig(
            f"Invalid protobuf file: '{path}': Error parsing text-format "
            f"{message_class.DESCRIPTOR.full_name}: {_reason(error, secret)}"
        ) from (None if secret else error)
    return message


def _reason(error: text_format.ParseError | RecursionError, secret: bool) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if secret:
        line, column = error.GetLine(), error.GetColumn()
        return f"{line}:{column} : not shown, as the file may hold a key"
    return str(error)


def read_batching(path: str) -> BatchingParameters:
    """Read the file of --batching_parameters_file, or a version's `batching_params.pbtxt`.

    Raises NotFound, or InvalidConfig naming the file and the field.
    """
    message = parse_text(path, protos.BatchingParameters)
    with _errors_name(path):
        return batching_from_message(message)


def batching_from_message(message: BatchingParametersMessage) -> BatchingParameters:
    """Return a message's parameters; fields left out have defaults. Raises InvalidConfig."""
    given = {field.name: value.value for field, value in message.ListFields() if _is_wrapper(field)}
    return BatchingParameters(
        **given,
        allowed_batch_sizes=tuple(message.allowed_batch_sizes),
        pad_variable_length_inputs=message.pad_variable_length_inputs,
    )


def read_monitoring(path: str) -> MonitoringConfig:
    """Read the file of --monitoring_config_file. Raises NotFound or InvalidConfig."""
    message = parse_text(path, protos.MonitoringConfig)
    prometheus = message.prometheus_config
    with _errors_name(path):
        return MonitoringConfig(
            enabled=prometheus.enable, path=prometheus.path or DEFAULT_METRICS_PATH
        )


def read_tls(path: str) -> SSLConfig:
    """Read a file of --ssl_config_file or --rest_ssl_config_file.

    Raises NotFound or InvalidConfig.
    """
    message = parse_text(path, protos.SSLConfig, secret=True)
    with _errors_name(path):
        return SSLConfig(
            server_key=message.server_key,
            server_cert=message.server_cert,
            custom_ca=message.custom_ca,
            client_verify=message.client_verify,
        )


def read_session_config(path: str) -> bytes:
    """Read the file of --tensorflow_session_config_file as a serialised `tensorflow.ConfigProto`.

    Raises NotFound or InvalidConfig, the latter also for a field that we do not know.
    """
    message = parse_text(path, protos.ConfigProto)
    content: bytes = message.SerializeToString(deterministic=True)
    return content


def read_platform(path: str) -> SavedModelOptions:
    """Read the file of --platform_config_file: how SavedModels are loaded, whatever the flags say.

    A field that the file leaves out has protobuf's default, not the flag's: no warm-up, say.
    Raises NotFound, InvalidConfig, or Unimplemented for what TensorFlow Serving lacks as well.
    """
    message = parse_text(path, protos.PlatformConfigMap)
    with _errors_name(path):
        others = sorted(set(message.platform_configs) - {_PLATFORM})
        if others:
            raise InvalidConfig(
                f"platform_configs: expected {_PLATFORM} alone, got {', '.join(others)}"
            )
        if _PLATFORM not in message.platform_configs:
            raise InvalidConfig(f"PlatformConfigMap has no entry for platform {_PLATFORM}")
        adapter = _adapter(message.platform_configs[_PLATFORM].source_adapter_config)
        return _options(adapter.legacy_config, path)


def _adapter(packed: AnyMessage) -> protos.SavedModelBundleSourceAdapterConfig:
    """Return the message in a platform's entry, with TensorFlow Serving's errors for others."""
    wanted = protos.SavedModelBundleSourceAdapterConfig
    _, slash, name = packed.type_url.rpartition("/")
    if not (slash and name):
        raise InvalidConfig(f"Supplied config's type_url could not be parsed: {packed.type_url}")
    try:
        POOL.FindMessageTypeByName(name)
    except KeyError:
        raise InvalidConfig(f"Unable to find compiled-in proto descriptor of type {name}") from None
    if name != wanted.DESCRIPTOR.full_name:
        raise InvalidConfig(f"Couldn't find factory for config proto message type {name}")
    try:
        adapter: protos.SavedModelBundleSourceAdapterConfig = wanted.FromString(packed.value)
    except DecodeError as error:
        raise InvalidConfig(
            f"source_adapter_config.value: expected a serialised {name}: {error}"
        ) from error
    return adapter


def _options(message: SessionBundleConfig, path: str) -> SavedModelOptions:
    if message.enable_saved_model_config:
        raise Unimplemented(
            "legacy_config.enable_saved_model_config: Saved model config functionality is not "
            "implemented."
        )
    if message.session_target:
        raise InvalidConfig(
            "legacy_config.session_target: sessions run in this process, got "
            f"{message.session_target!r}"
        )
    for field, _ in message.ListFields():
        if field.name in _WITHOUT_EFFECT:
            _log.warning("%s: legacy_config.%s has no effect here", path, field.name)
    session, warm_up = message.session_config, message.model_warmup_options
    return SavedModelOptions(
        tags=tuple(message.saved_model_tags) or ("serve",),
        intra_op_threads=session.intra_op_parallelism_threads,
        inter_op_threads=session.inter_op_parallelism_threads,
        gpu_memory_fraction=session.gpu_options.per_process_gpu_memory_fraction,
        session_config=session.SerializeToString(deterministic=True),
        enable_model_warmup=message.enable_model_warmup,
        warmup_iterations=max(1, warm_up.num_request_iterations.value),
        warmup_threads=max(1, warm_up.num_model_warmup_threads.value),
        prefer_tflite_model=message.prefer_tflite_model,
        num_tflite_pools=max(0, message.num_tflite_pools),
        num_tflite_interpreters_per_pool=max(1, message.num_tflite_interpreters_per_pool),
        batching=batching_from_message(message.batching_parameters)
        if message.HasField("batching_parameters")
        else None,
        enable_per_model_batching=message.enable_per_model_batching_params,
    )


def _is_wrapper(field: FieldDescriptor) -> bool:
    return field.message_type is not None


@contextmanager
def _errors_name(path: str) -> Iterator[None]:
    """Put the file's name before the errors of what it says."""
    try:
        yield
    except (InvalidConfig, Unimplemented) as error:
        raise type(error)(f"{path}: {error.message}") from error
