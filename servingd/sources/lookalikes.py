"""Base paths and repositories that hold something else: what it looks like, and what to type."""

from __future__ import annotations

from collections.abc import Callable, Collection

from servingd.core.lifecycle.versions import versions_in

ListNames = Callable[[str], Collection[str]]
"""Return the names in a folder; none where it cannot be read, or is none."""

_FILES_OF_A_VERSION = frozenset(
    (
        "saved_model.pb",
        "saved_model.pbtxt",
        "variables",
        "model.tflite",
        "table.csv",
        "table.json",
        "table.parquet",
        "model.skops",
        "model.joblib",
        "model.py",
        "composite.yaml",
        "shards.yaml",
    )
)
_SUFFIXES = (".onnx", ".keras", ".h5")
_MAX_LISTED = 20
"""Entries of a folder that are listed in turn: a guess must not walk a large tree."""


def why_no_versions(base_path: str, names: Collection[str], list_names: ListNames) -> str:
    """Return what a base path without versions seems to be, and how to serve it; empty: no idea."""
    if holds_version(names):
        folder, _, number = base_path.rpartition("/")
        if versions_in([number]):
            return f"it is a version itself: serve its model by --model_base_path={folder}"
        return f"it is a model without a version folder: move its files to {base_path}/1"
    for name in sorted(names)[:_MAX_LISTED]:
        inside = list_names(f"{base_path}/{name}")
        if holds_version(inside):
            return (
                f"{name} holds a model, but its name is no version number: rename it to "
                f"{base_path}/1, or move its files to "
                f"{base_path}/{name}/1 and serve --model_repository={base_path}"
            )
        if any(holds_version(list_names(f"{base_path}/{name}/{n}")) for n in _versions(inside)):
            return f"it is a folder of models: serve it by --model_repository={base_path}"
    return ""


def why_no_repository(folder: str, names: Collection[str], list_names: ListNames) -> str:
    """Return why a folder is no repository of models, and how to serve it; empty: it may be one."""
    parent, _, name = folder.rpartition("/")
    if holds_version(names):
        if versions_in([name]):
            serve = _serve(parent.rpartition("/")[2], parent)
            return f"{folder} is one version of a model: serve the model by {serve}"
        serve = _serve(name, folder)
        return f"{folder} is one model: move its files to {folder}/1 and serve it by {serve}"
    numbers = _versions(names)
    if numbers and any(holds_version(list_names(f"{folder}/{number}")) for number in numbers):
        return f"{folder} is one model with versions: serve it by {_serve(name, folder)}"
    return ""


def _serve(name: str, folder: str) -> str:
    return f"--model_name={name} --model_base_path={folder}"


def holds_version(names: Collection[str]) -> bool:
    """Return whether a folder with these names looks like one version of a model."""
    return any(name in _FILES_OF_A_VERSION or name.endswith(_SUFFIXES) for name in names)


def _versions(names: Collection[str]) -> list[str]:
    found = versions_in(list(names))
    return [found[version] for version in sorted(found)][:_MAX_LISTED]
