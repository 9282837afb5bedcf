"""Folders that were meant otherwise than they were named: what they look like, and what to type."""

from __future__ import annotations

from collections.abc import Callable, Collection

from servingd.core.lifecycle.versions import versions_in

Names = Callable[[str], Collection[str]]
"""The names in a folder; none where it cannot be read, or is none."""

_OF_A_VERSION = frozenset(
    ("saved_model.pb", "saved_model.pbtxt", "variables", "table.csv", "table.json", "model.tflite")
)
_LOOKED_AT = 20
"""Of the entries of a folder so many are looked into."""


def why_no_versions(base_path: str, names: Collection[str], look: Names) -> str:
    """What a base path without versions seems to be, and what would serve it; empty: no idea."""
    if _is_version(names):
        folder, _, number = base_path.rpartition("/")
        if versions_in([number]):
            return f"it is a version itself: serve its model by --model_base_path={folder}"
        return f"it is a model without a version folder: move its files to {base_path}/1"
    for name in sorted(names)[:_LOOKED_AT]:
        inside = look(f"{base_path}/{name}")
        if _is_version(inside):
            return (
                f"{name} holds a model, but its name is no version number: rename it to "
                f"{base_path}/1, or move its files to "
                f"{base_path}/{name}/1 and serve --model_repository={base_path}"
            )
        if any(_is_version(look(f"{base_path}/{name}/{n}")) for n in _versions(inside)):
            return f"it is a folder of models: serve it by --model_repository={base_path}"
    return ""


def why_no_repository(folder: str, names: Collection[str], look: Names) -> str:
    """Why a folder is not one of models, and what would serve it; empty where it may be one."""
    parent, _, name = folder.rpartition("/")
    if _is_version(names):
        if versions_in([name]):
            serve = _serve(parent.rpartition("/")[2], parent)
            return f"{folder} is one version of a model: serve the model by {serve}"
        serve = _serve(name, folder)
        return f"{folder} is one model: move its files to {folder}/1 and serve it by {serve}"
    numbers = _versions(names)
    if numbers and any(_is_version(look(f"{folder}/{number}")) for number in numbers):
        return f"{folder} is one model with versions: serve it by {_serve(name, folder)}"
    return ""


def _serve(name: str, folder: str) -> str:
    return f"--model_name={name} --model_base_path={folder}"


def _is_version(names: Collection[str]) -> bool:
    return not _OF_A_VERSION.isdisjoint(names)


def _versions(names: Collection[str]) -> list[str]:
    found = versions_in(list(names))
    return [found[version] for version in sorted(found)][:_LOOKED_AT]
