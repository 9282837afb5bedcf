"""Folders that are named as something that they are not: what the error says of them."""

from __future__ import annotations

from collections.abc import Callable, Collection

import pytest

from servingd.sources.lookalikes import why_no_repository, why_no_versions

MODEL = ["saved_model.pb", "variables"]


def tree(folders: dict[str, list[str]]) -> Callable[[str], Collection[str]]:
    return lambda path: folders.get(path, [])


@pytest.mark.parametrize(
    ("folders", "says"),
    [
        ({"/m": []}, ""),
        ({"/m": ["notes.txt", "x"], "/m/x": ["y"]}, ""),
        ({"/m": MODEL}, "it is a model without a version folder: move its files to /m/1"),
        (
            {"/m": ["v1"], "/m/v1": MODEL},
            "v1 holds a model, but its name is no version number: rename it to /m/1, or move its "
            "files to /m/v1/1 and serve --model_repository=/m",
        ),
        (
            {"/m": ["a"], "/m/a": ["1"], "/m/a/1": MODEL},
            "it is a folder of models: serve it by --model_repository=/m",
        ),
    ],
)
def test_a_base_path_without_versions(folders: dict[str, list[str]], says: str) -> None:
    look = tree(folders)
    assert why_no_versions("/m", look("/m"), look) == says


def test_a_base_path_that_is_a_version() -> None:
    says = "it is a version itself: serve its model by --model_base_path=/m"
    assert why_no_versions("/m/7", MODEL, tree({})) == says


@pytest.mark.parametrize(
    ("folder", "folders", "says"),
    [
        ("/r", {"/r": []}, ""),
        ("/r", {"/r": ["1"], "/r/1": []}, ""),
        ("/r", {"/r": ["1"], "/r/1": ["1"], "/r/1/1": MODEL}, ""),  # a model that is called 1
        ("/r", {"/r": ["a"], "/r/a": MODEL}, ""),
        (
            "/r/m",
            {"/r/m": ["1", "2"], "/r/m/2": ["table.csv"]},
            "/r/m is one model with versions: serve it by --model_name=m --model_base_path=/r/m",
        ),
        (
            "/r/m",
            {"/r/m": MODEL},
            "/r/m is one model: move its files to /r/m/1 and serve it by --model_name=m "
            "--model_base_path=/r/m",
        ),
        (
            "/r/m/1",
            {"/r/m/1": MODEL},
            "/r/m/1 is one version of a model: serve the model by --model_name=m "
            "--model_base_path=/r/m",
        ),
    ],
)
def test_a_repository_that_is_one_model(
    folder: str, folders: dict[str, list[str]], says: str
) -> None:
    look = tree(folders)
    assert why_no_repository(folder, look(folder), look) == says
