"""The configuration in force: flags, `servingd.yaml`, the environment and defaults together."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from servingd.config.flags.notes import notes
from servingd.config.flags.parser import make_config
from servingd.config.server import ServerConfig
from servingd.config.yaml.document import read_servingd_yaml

_log = logging.getLogger(__name__)


def configure(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> ServerConfig:
    """Merge flags, `servingd.yaml`, the environment and the defaults, in order of precedence.

    Logs which flags have no effect. Raises InvalidConfig or NotFound naming flag, file and field.
    """
    path = given.get("servingd_config_file")
    file = read_servingd_yaml(path).flags if path else {}
    config = _with_environment(make_config(given, file, defaults))
    for line in notes(config, given.keys() | file.keys()):
        _log.warning("%s", line)
    return config


def _with_environment(config: ServerConfig) -> ServerConfig:
    """Set the folder of optimised graphs from the environment if no flag sets it."""
    if config.cache_dir:
        return config
    folder = os.environ.get("SERVINGD_CACHE_DIR")
    if folder is None:
        base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
        folder = str(Path(base, "servingd"))
    return dataclasses.replace(config, cache_dir=folder)
