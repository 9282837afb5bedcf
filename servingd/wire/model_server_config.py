"""ModelServerConfig in text format, as the models that we serve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servingd.config.models import DEFAULT_PLATFORM, ModelConfig, check_unique
from servingd.core.versions import All, Latest, Specific, VersionPolicy
from servingd.errors import InvalidConfig, ServingError
from servingd.wire import protos
from servingd.wire.config_files import parse_text

if TYPE_CHECKING:
    from servingd.wire.protos import ModelConfig as ModelConfigMessage
    from servingd.wire.protos import ModelServerConfig

_TENSORFLOW, _OTHER = 1, 2  # enum ModelType


def read_models(path: str) -> tuple[ModelConfig, ...]:
    """The models of a configuration file. Raises NotFound or InvalidConfig naming the field."""
    message: ModelServerConfig = parse_text(path, protos.ModelServerConfig)
    if message.HasField("custom_model_config"):
        raise InvalidConfig(
            f"{path}: custom_model_config: only model_config_list is supported here"
        )
    try:
        models = tuple(_model(entry) for entry in message.model_config_list.config)
        check_unique(models)
    except ServingError as error:
        raise InvalidConfig(f"{path}: {error.message}") from error
    return models


def _model(entry: ModelConfigMessage) -> ModelConfig:
    return ModelConfig(
        name=entry.name,
        base_path=entry.base_path,
        platform=_platform(entry),
        version_policy=_version_policy(entry),
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
