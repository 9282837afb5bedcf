"""What `servingd serve PATH` serves: told by looking at the folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any, NamedTuple

from servingd.config.paths import NotLocal, local_path
from servingd.core.lifecycle.versions import versions_in
from servingd.errors import InvalidConfig
from servingd.sources.listing import names_in
from servingd.sources.lookalikes import holds_version

_EXPECTED = (
    "expected a SavedModel (a folder with saved_model.pb) or another model's files, a folder of "
    "versions (1, 2, ...), or a folder of such folders"
)


class ServedPath(NamedTuple):
    """How a path is served; to be closed at the end, such as by `contextlib.closing`."""

    flags: Mapping[str, Any]
    temporary: str = ""
    """A folder that `close` removes; empty: none."""

    def close(self) -> None:
        """Remove the temporary folder, if there is one; from any thread, and more than once."""
        if self.temporary:
            shutil.rmtree(self.temporary, ignore_errors=True)


NOTHING = ServedPath({})


def look_at(path: str) -> ServedPath:
    """Return the flags that serve a path: one version, a folder of versions, or of models.

    A version by itself is served as version 1, or as its own number, of a model with the name of
    its folder. Raises InvalidConfig for anything else, and OSError.
    """
    try:
        folder = os.path.abspath(local_path(path))
    except NotLocal as error:
        raise InvalidConfig(f"PATH: expected {error}, got {path!r}") from None
    if not os.path.isdir(folder):
        raise InvalidConfig(f"PATH: {_EXPECTED}; {path!r} is no folder")
    names = names_in(folder)
    if holds_version(names):
        return _linked(folder)
    if _has_versions(folder, names):
        return ServedPath(_model(os.path.basename(folder), folder))
    if any(
        _has_versions(f"{folder}/{name}", names_in(f"{folder}/{name}")) for name in sorted(names)
    ):
        return ServedPath({"model_repository": folder})
    shown = ", ".join(sorted(names)[:5]) + (", ..." if len(names) > 5 else "")
    raise InvalidConfig(f"PATH: {_EXPECTED}; {path!r} holds {shown or 'nothing'}")


def _has_versions(folder: str, names: list[str]) -> bool:
    found = versions_in(names)
    return any(os.path.isdir(f"{folder}/{name}") for name in found.values())


def _model(name: str, base_path: str) -> Mapping[str, Any]:
    return {"model_name": name, "model_base_path": base_path, "model_platform": "auto"}


def _linked(version: str) -> ServedPath:
    """Return how to serve a version: by a temporary base path with a link to it.

    A base path holds folders with numbers, and this one may have any name.
    """
    parent, number = os.path.split(version)
    is_number = bool(versions_in([number]))
    name = os.path.basename(parent) if is_number else number
    temporary = tempfile.mkdtemp(prefix="servingd-")
    base_path = os.path.join(temporary, name)
    served = ServedPath(_model(name, base_path), temporary)
    try:
        os.mkdir(base_path)
        os.symlink(version, os.path.join(base_path, number if is_number else "1"))
    except OSError:
        served.close()
        raise
    return served
