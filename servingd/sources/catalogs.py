"""Which models there are: those of a configuration, or whatever a folder holds."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from typing import Protocol

from servingd.config.models import ModelConfig, is_model_name
from servingd.config.paths import NotLocal, local_path
from servingd.config.server import ServerConfig
from servingd.config.yaml.document import ModelEntry, merge_models, read_servingd_yaml
from servingd.errors import InvalidConfig
from servingd.sources.listing import names_in
from servingd.sources.lookalikes import why_no_repository
from servingd.wire.config.models import configured_models

_log = logging.getLogger(__name__)


class ModelCatalog(Protocol):
    """Says which models there are."""

    def models(self) -> tuple[ModelConfig, ...]:
        """All models now. Raises OSError if that cannot be told; then the last answer stands."""
        ...

    def watched(self) -> str | None:
        """A folder whose entries change the answer."""
        ...


class ConfiguredCatalog:
    """The models of a configuration, which may be replaced; from any thread."""

    def __init__(self, configured: tuple[ModelConfig, ...]) -> None:
        self._configured = configured  # replaced whole; readers take the reference

    def models(self) -> tuple[ModelConfig, ...]:
        """All of them."""
        return self._configured

    def replace(self, configured: tuple[ModelConfig, ...]) -> None:
        """Others from the next look on."""
        self._configured = configured

    def watched(self) -> str | None:
        """Nothing."""
        return None


@dataclass(slots=True)
class RepositoryCatalog:
    """Every subfolder of a folder is a model, unless its name begins with a dot or underscore.

    What `servingd.yaml` says of one of them counts, and its other models are served besides.
    """

    folder: str
    entries: tuple[ModelEntry, ...] = ()
    """Replaced whole, from any thread."""
    _passed_over: set[str] = field(default_factory=set)
    """Folders that are told of once. Harmless if two threads tell of one."""

    def models(self) -> tuple[ModelConfig, ...]:
        """The subfolders now."""
        return self._merged(self.entries)

    def _merged(self, entries: tuple[ModelEntry, ...]) -> tuple[ModelConfig, ...]:
        found = tuple(
            ModelConfig(name=entry.name, base_path=os.path.abspath(entry.path), platform="")
            for entry in sorted(os.scandir(self.folder), key=lambda e: e.name)
            if not entry.name.startswith((".", "_")) and self._may_be_a_model(entry)
        )
        return merge_models(found, entries, others_may_come=True)

    def _may_be_a_model(self, entry: os.DirEntry[str]) -> bool:
        try:
            if not entry.is_dir():
                return False
            expected = is_model_name(entry.name)
            trouble = f"expected {expected}" if expected else ""
        except OSError as error:  # such as a link to itself: it must not hide the others
            trouble = str(error)
        if trouble and entry.name not in self._passed_over:
            self._passed_over.add(entry.name)
            _log.warning("%r in %s is passed over: %s", entry.name, self.folder, trouble)
        return not trouble

    def watched(self) -> str | None:
        """The folder itself."""
        return self.folder

    def reread(self, servingd_yaml: str) -> tuple[ModelConfig, ...]:
        """Take what `servingd.yaml` says by now; all models now.

        Raises NotFound, InvalidConfig or OSError, with nothing changed.
        """
        entries = read_servingd_yaml(servingd_yaml).models
        models = self._merged(entries)
        self.entries = entries
        return models


def make_catalog(config: ServerConfig) -> ModelCatalog:
    """The catalog that a configuration means. Reads files; raises NotFound or InvalidConfig."""
    if config.model_repository and not config.model_config_file:
        yaml = config.servingd_config_file
        try:
            folder = local_path(config.model_repository)
        except NotLocal as error:
            raise InvalidConfig(
                f"--model_repository: expected {error}, got {config.model_repository!r}"
            ) from None
        if not os.path.isdir(folder):
            raise InvalidConfig(f"--model_repository: expected a folder, got {folder!r}")
        if reason := why_no_repository(os.path.abspath(folder), names_in(folder), names_in):
            raise InvalidConfig(f"--model_repository: expected a folder of models: {reason}")
        entries = read_servingd_yaml(yaml).models if yaml else ()
        return RepositoryCatalog(os.path.abspath(folder), entries)
    return ConfiguredCatalog(configured_models(config))


def known_models(catalog: ModelCatalog) -> tuple[ModelConfig, ...]:
    """The models that are there; none where that cannot be told."""
    try:
        return catalog.models()
    except OSError:
        return ()


def listed_models(catalog: ModelCatalog) -> tuple[ModelConfig, ...]:
    """The models that a configuration lists by name."""
    return catalog.models() if isinstance(catalog, ConfiguredCatalog) else ()
