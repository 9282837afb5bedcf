"""The models to serve, and their settings."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from servingd.config.flag_fields import Check
from servingd.config.loads import are_devices, are_replicas, is_transition
from servingd.config.paths import NotLocal, local_path
from servingd.config.request_log import LoggingConfig
from servingd.core.lifecycle.versions import Latest, VersionPolicy
from servingd.errors import InvalidConfig

DEFAULT_PLATFORM = "tensorflow"
MERGING = ("auto", "always", "never")

LOAD_CHECKS: Mapping[str, Check] = MappingProxyType(
    {"device": are_devices, "replicas": are_replicas, "transition": is_transition}
)
"""The checks of the fields that decide how a model is loaded."""


def is_model_name(name: str) -> str | None:
    """Check for a Unicode text without control characters: it goes into protos, logs and paths."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return "a name of Unicode characters"
    if any(unicodedata.category(character) == "Cc" for character in name):
        return "a name without control characters"
    return None if name else "a name that is not empty"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """One model: TensorFlow Serving's `ModelConfig`."""

    name: str
    """The name that callers use; unique."""

    base_path: str
    """The folder whose numeric children are the versions: absolute, or a `file://` address."""

    platform: str = DEFAULT_PLATFORM
    """The servable type; empty: recognised by the contents of its versions."""

    version_policy: VersionPolicy = field(default_factory=Latest)
    """Which of the existing versions should be loaded."""

    version_labels: Mapping[str, int] = field(default_factory=dict, hash=False)
    """Versions by label; several labels may name the same version."""

    logging: LoggingConfig | None = None
    """The request log; None: requests are not logged."""

    latency_goal_ms: float = 0.0
    """Milliseconds that its calls should take at most, by which batches are made; 0: no goal."""

    merging: str = "auto"
    """Whether waiting calls are merged: `auto` (where it is proven to be correct), `always` (the
    operator knows that it is correct) or `never`.
    """

    platform_options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Options of its servable type, as plain data; the type checks them."""

    device: str = ""
    """The devices to load it on: `auto`, a kind, or names with commas; empty: the server's."""

    replicas: str = ""
    """The number of replicas, or `per_device`; empty: the server's setting."""

    transition: str = ""
    """How a new version replaces the old one; empty: the server's setting."""

    def __post_init__(self) -> None:
        if not self.name:
            raise InvalidConfig(f"name: a model needs one; its base_path is {self.base_path!r}")
        if (expected := is_model_name(self.name)) is not None:
            raise InvalidConfig(f"name of a model: expected {expected}, got {self.name!r}")
        try:
            object.__setattr__(self, "base_path", local_path(self.base_path))
        except NotLocal as error:
            raise InvalidConfig(
                f"base_path of model {self.name}: expected {error}, got {self.base_path!r}"
            ) from None
        if not self.base_path.startswith("/"):
            raise InvalidConfig(
                f"Expected model {self.name} to have an absolute path or URI; "
                f"got base_path()={self.base_path}"
            )
        if self.merging not in MERGING:
            raise InvalidConfig(
                f"merging: expected one of {', '.join(MERGING)}, got {self.merging!r}"
            )
        if not 0 <= self.latency_goal_ms < float("inf"):
            raise InvalidConfig(
                f"latency_goal_ms: expected a number of at least 0, got {self.latency_goal_ms}"
            )
        for name, check in LOAD_CHECKS.items():
            value = getattr(self, name)
            expected = check(value) if value else None
            if expected is not None:
                raise InvalidConfig(f"{name}: expected {expected}, got {value!r}")
        object.__setattr__(self, "version_labels", MappingProxyType(dict(self.version_labels)))
        object.__setattr__(self, "platform_options", MappingProxyType(dict(self.platform_options)))


def check_unique(models: tuple[ModelConfig, ...]) -> None:
    """Raise InvalidConfig if two models have the same name."""
    seen: set[str] = set()
    for model in models:
        if model.name in seen:
            raise InvalidConfig(f"Illegal to list model {model.name} multiple times in config list")
        seen.add(model.name)


def check_transition(old: tuple[ModelConfig, ...], new: tuple[ModelConfig, ...]) -> None:
    """Raise InvalidConfig if a model that stays would change its platform."""
    platforms = {model.name: model.platform for model in old}
    for model in new:
        before = platforms.get(model.name, model.platform)
        if before != model.platform:
            raise InvalidConfig(
                f"Illegal to change a model's platform. For model {model.name} platform was "
                f"{before} and new platform requested is {model.platform}"
            )
