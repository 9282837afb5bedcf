"""The catalogs of models: those of a configuration, or the subfolders of a repository."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

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


class _Listed(NamedTuple):
    """What a repository's models were made from, and the models: most scans find the same."""

    folders: list[str]
    entries: tuple[ModelEntry, ...]
    models: tuple[ModelConfig, ...]


@dataclass(slots=True)
class RepositoryCatalog:
    """A model per subfolder of a folder, unless its name begins with a dot or underscore.

    `servingd.yaml` may set options of these models, and add others.
    """

    folder: str
    entries: tuple[ModelEntry, ...] = ()
    """The models in `servingd.yaml`. Replaced whole, from any thread."""
    _last: _Listed | None = field(default=None, init=False)
    """The last answer. Replaced whole, from any thread."""
    _ignored: set[str] = field(default_factory=set)
    """Folders that were logged as ignored. Harmless if two threads log one."""

    def models(self) -> tuple[ModelConfig, ...]:
        """Return the models now. Raises OSError."""
        return self._merged(self.entries)

    def _merged(self, entries: tuple[ModelEntry, ...]) -> tuple[ModelConfig, ...]:
        with os.scandir(self.folder) as found:
            folders = sorted(entry.name for entry in found if self._may_be_a_folder(entry))
        last = self._last
        if last is not None and last.folders == folders and last.entries is entries:
            return last.models
        models = merge_models(
            tuple(
                ModelConfig(
                    name=name,
                    base_path=os.path.abspath(os.path.join(self.folder, name)),
                    platform="",
                )
                for name in folders
                if self._may_be_a_name(name)
            ),
            entries,
            others_may_come=True,
        )
        self._last = _Listed(folders, entries, models)
        return models

    def _may_be_a_folder(self, entry: os.DirEntry[str]) -> bool:
        try:
            return not entry.name.startswith((".", "_")) and entry.is_dir()
        except OSError as error:  # such as a link to itself: it must not hide the others
            self._pass_over(entry.name, str(error))
            return False

    def _may_be_a_name(self, name: str) -> bool:
        expected = is_model_name(name)
        if expected:
            self._pass_over(name, f"expected {expected}")
        return not expected

    def _pass_over(self, name: str, problem: str) -> None:
        if name not in self._ignored:
            self._ignored.add(name)
            _log.warning("%r in %s is passed over: %s", name, self.folder, problem)

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
