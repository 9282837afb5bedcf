"""The catalogs of models: those of a configuration, or the subfolders of a repository."""

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
    """Says which models there are. Used by one thread at a time."""

    def models(self) -> tuple[ModelConfig, ...]:
        """Return all models now. Raises OSError if they cannot be listed."""
        ...

    def watched(self) -> str | None:
        """Return the folder whose entries are the models, to be watched; None if there is none."""
        ...


class ConfiguredCatalog:
    """The models of a configuration, which may be replaced. From any thread."""

    def __init__(self, configured: tuple[ModelConfig, ...]) -> None:
        self._configured = configured  # replaced whole; readers take the reference

    def models(self) -> tuple[ModelConfig, ...]:
        """Return all of them."""
        return self._configured

    def replace(self, configured: tuple[ModelConfig, ...]) -> None:
        """Take other models; the next scan finds them."""
        self._configured = configured

    def watched(self) -> str | None:
        """Return None: no folder changes the answer."""
        return None


@dataclass(slots=True)
class RepositoryCatalog:
    """A model per subfolder of a folder, unless its name begins with a dot or underscore.

    `servingd.yaml` may set options of these models, and add others.
    """

    folder: str
    entries: tuple[ModelEntry, ...] = ()
    """The models in `servingd.yaml`. Replaced whole, from any thread."""
    _ignored: set[str] = field(default_factory=set)
    """Folders that were logged as ignored. Harmless if two threads log one."""

    def models(self) -> tuple[ModelConfig, ...]:
        """Return the models now. Raises OSError."""
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
            problem = f"expected {expected}" if expected else ""
        except OSError as error:  # such as a link to itself: it must not hide the others
            problem = str(error)
        if problem and entry.name not in self._ignored:
            self._ignored.add(entry.name)
            _log.warning("%r in %s is passed over: %s", entry.name, self.folder, problem)
        return not problem

    def watched(self) -> str | None:
        """Return the repository itself."""
        return self.folder

    def reread(self, servingd_yaml: str) -> tuple[ModelConfig, ...]:
        """Read `servingd.yaml` again; return all models now.

        Raises NotFound, InvalidConfig or OSError, with nothing changed.
        """
        entries = read_servingd_yaml(servingd_yaml).models
        models = self._merged(entries)
        self.entries = entries
        return models


def make_catalog(config: ServerConfig) -> ModelCatalog:
    """Make the catalog of a configuration. Reads files; raises NotFound or InvalidConfig."""
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
    """Return the models that are there; none where they cannot be listed."""
    try:
        return catalog.models()
    except OSError:
        return ()


def listed_models(catalog: ModelCatalog) -> tuple[ModelConfig, ...]:
    """Return the models that a configuration lists by name; none of a repository."""
    return catalog.models() if isinstance(catalog, ConfiguredCatalog) else ()
