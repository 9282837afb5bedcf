"""Find servable types that are not in the table: by flag, or by an installed package's entry point.

A reference is `module:Class`, or `path/file.py:Class` for a file of one's own.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from servingd.errors import FailedPrecondition, InvalidConfig
from servingd.servables.plugin import Platform

GROUP = "servingd.platforms"
"""The group of entry points whose names are those of servable types."""


@cache
def installed() -> Mapping[str, EntryPoint]:
    """Return the types that installed packages offer, by name. Imports none of them."""
    return {point.name: point for point in sorted(entry_points(group=GROUP))}


def imported(reference: str) -> Any:
    """Return what a reference names. Raises ImportError, AttributeError or what the module does."""
    module, _, name = reference.rpartition(":")
    return getattr(
        _file(module) if module.endswith(".py") else importlib.import_module(module), name
    )


def _file(path: str) -> Any:
    """Return the module in a file, imported once under a name of its own."""
    where = Path(path).resolve()
    name = f"servingd_plugin_{where.stem}"
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) == str(where):
        return known
    spec = importlib.util.spec_from_file_location(name, where)
    if spec is None or spec.loader is None or not where.is_file():
        raise ImportError(f"there is no file {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def flagged(reference: str) -> type[Platform]:
    """Return the type that a flag names. Raises InvalidConfig if it cannot be imported."""
    try:
        found = imported(reference)
    except (Exception, SystemExit) as error:
        raise InvalidConfig(
            f"--plugin: {reference} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    try:
        return platform_type(found)
    except FailedPrecondition as error:
        raise InvalidConfig(f"--plugin: {reference}: {error.message}") from None


def of_package(point: EntryPoint) -> type[Platform]:
    """Return the type of an entry point. Raises FailedPrecondition if it cannot be used."""
    package = point.dist.name if point.dist is not None else "?"
    where = f"servable type {point.name} of the package {package}"
    try:
        found = point.load()
    except (Exception, SystemExit) as error:
        raise FailedPrecondition(
            f"{where} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    try:
        kind = platform_type(found)
    except FailedPrecondition as error:
        raise FailedPrecondition(f"{where}: {error.message}") from None
    if kind.name != point.name:
        raise FailedPrecondition(f"{where}: expected a Platform of that name, got {kind.name!r}")
    return kind


def platform_type(found: Any) -> type[Platform]:
    """Return a class if it can be used as a servable type. Raises FailedPrecondition."""
    if not (isinstance(found, type) and issubclass(found, Platform)):
        raise FailedPrecondition(
            f"expected a subclass of servingd.servables.plugin.Platform, got {found!r}"
        )
    if not (isinstance(found.name, str) and found.name):
        raise FailedPrecondition(f"name of {found.__name__}: expected a text, got {found.name!r}")
    return found
