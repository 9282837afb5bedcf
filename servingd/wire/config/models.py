"""The models to serve, from flags and from ModelServerConfig files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from servingd.config.models import DEFAULT_PLATFORM, ModelConfig, check_unique
from servingd.config.paths import NotLocal, local_path
from servingd.config.request_log import LoggingConfig, PerTaskSampling
from servingd.config.server import ServerConfig, no_models
from servingd.config.yaml.document import merge_models, read_servingd_yaml
from servingd.core.lifecycle.versions import All, Latest, Specific, VersionPolicy
from servingd.errors import FailedPrecondition, InvalidConfig, ServingError
from servingd.wire import protos
from servingd.wire.config.files import parse_text

if TYPE_CHECKING:
    from servingd.wire.protos import ModelConfig as ModelConfigMessage
    from servingd.wire.protos import ModelServerConfig

_TENSORFLOW, _OTHER = 1, 2  # enum ModelType


def configured_models(
    config: ServerConfig, now: tuple[ModelConfig, ...] = ()
) -> tuple[ModelConfig, ...]:
    """Return the models that flags and files name, but not those of a repository. Reads files.

    `now` are those that are served already. Raises NotFound, InvalidConfig naming the file and the
    field, or FailedPrecondition for a file that is empty now: it may be half written.
    """
    yaml = config.servingd_config_file
    file = read_servingd_yaml(yaml) if yaml else None
    entries = file.models if file else ()
    if config.model_config_file:
        listed = read_models(config.model_config_file, may_be_unset=not now)
    elif config.model_base_path and not config.model_repository:
        path = os.path.abspath(_local("model_base_path", config.model_base_path))
        platform = "" if config.model_platform == "auto" else config.model_platform
        listed = (ModelConfig(name=config.model_name, base_path=path, platform=platform),)
    else:
        listed = ()
    elsewhere = config.model_config_file or config.model_repository
    if not (elsewhere or listed or (file and file.lists_models)):
        raise no_models(f"{yaml} names no models either.")
    return merge_models(listed, entries, others_may_come=bool(config.model_repository))


def _local(flag: str, text: str) -> str:
    try:
        return local_path(text)
    except NotLocal as error:
        raise InvalidConfig(f"--{flag}: expected {error}, got {text!r}") from None


def read_models(path: str, may_be_unset: bool = True) -> tuple[ModelConfig, ...]:
    """Read the models of a configuration file; none if it is empty and `may_be_unset`.

    Raises NotFound, InvalidConfig naming the file and the field, or FailedPrecondition.
    """
    message: ModelServerConfig = parse_text(path, protos.ModelServerConfig)
    if message.WhichOneof("config") is None and not may_be_unset:
        raise FailedPrecondition(
            "Cannot transition to requested config. It is only legal to transition from one "
            "ModelConfigList to another."
        )
    try:
        return models_from_message(message)
    except ServingError as error:
        raise InvalidConfig(f"{path}: {error.message}") from error


def models_from_message(message: ModelServerConfig, where: str = "") -> tuple[ModelConfig, ...]:
    """Return the models of a message; `where` stands before the names of fields in errors.

    Raises InvalidConfig; where TensorFlow Serving has a text for the error, it is that text alone.
    """
    before = f"{where}." if where else ""
    if message.HasField("custom_model_config"):
        raise InvalidConfig(
            f"{before}custom_model_config: only model_config_list is supported here"
        )
    models = tuple(
        _model(entry, f"{before}model_config_list.config[{index}]")
        for index, entry in enumerate(message.model_config_list.config)
    )
    check_unique(models)
    return models


def _model(entry: ModelConfigMessage, place: str) -> ModelConfig:
    if not entry.name:
        raise InvalidConfig(
            f"{place}.name: a model needs one; its base_path is {entry.base_path!r}"
        )
    return ModelConfig(
        name=entry.name,
        base_path=entry.base_path,
        platform=_platform(entry),
        version_policy=_version_policy(entry),
        version_labels=dict(entry.version_labels),
        logging=_logging(entry, f"{place}.logging_config"),
    )


def _platform(entry: ModelConfigMessage) -> str:
    if entry.model_type and entry.model_platform:
        raise InvalidConfig(
            "Illegal setting both ModelServerConfig::model_type (deprecated) and "
            f"ModelServerConfig::model_platform, model name is {entry.name}"
        )
    if entry.model_type == _OTHER:
        raise InvalidConfig(f"ModelServerConfig::model_type choice {_OTHER} not supported.")
    if entry.model_type == _TENSORFLOW:
        return DEFAULT_PLATFORM
    if not entry.model_platform:
        raise InvalidConfig(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            f"ModelServerConfig::model_platform, model name is {entry.name}"
        )
    return entry.model_platform


def _version_policy(entry: ModelConfigMessage) -> VersionPolicy:
    policy = entry.model_version_policy
    match policy.WhichOneof("policy_choice"):
        case "all":
            return All()
        case "specific":
            return Specific(tuple(policy.specific.versions))
        case _:
            return Latest(policy.latest.num_versions or 1)


def _logging(entry: ModelConfigMessage, place: str) -> LoggingConfig | None:
    if not entry.HasField("logging_config"):
        return None
    message = entry.logging_config
    if message.HasField("custom_logging_config"):
        raise InvalidConfig(f"{place}.custom_logging_config: not supported here")
    sampling = message.sampling_config
    try:
        return LoggingConfig(
            type=message.log_collector_config.type,
            filename_prefix=message.log_collector_config.filename_prefix,
            sampling_rate=sampling.sampling_rate,
            attributes=sampling.attributes,
            per_task=tuple(
                PerTaskSampling(
                    dc=task.dc,
                    task_index=task.task_index if task.HasField("task_index") else None,
                    sampling_rate=task.sampling_rate,
                )
                for task in sampling.per_task_sampling_configs
            ),
        )
    except InvalidConfig as error:
        raise InvalidConfig(f"{place}.{error.message}") from error
