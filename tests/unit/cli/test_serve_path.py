"""What `servingd serve PATH` serves is told by looking."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from servingd.cli.serve_path import look_at
from servingd.errors import InvalidConfig


def version(folder: Path, file: str = "saved_model.pb") -> None:
    folder.mkdir(parents=True)
    (folder / file).touch()


def test_a_folder_of_versions(tmp_path: Path) -> None:
    version(tmp_path / "m" / "1")
    assert look_at(f"{tmp_path}/m/").flags == {
        "model_name": "m",
        "model_base_path": f"{tmp_path}/m",
        "model_platform": "auto",
    }


def test_a_folder_of_models(tmp_path: Path) -> None:
    version(tmp_path / "all" / "m" / "1")
    (tmp_path / "all" / "README.md").touch()
    assert look_at(str(tmp_path / "all")).flags == {"model_repository": f"{tmp_path}/all"}


@pytest.mark.parametrize(
    ("below", "file", "name", "number"),
    [
        ("m/7", "saved_model.pb", "m", "7"),
        ("export", "saved_model.pb", "export", "1"),
        ("table", "table.csv", "table", "1"),
        ("net", "resnet.onnx", "net", "1"),
    ],
)
def test_one_version(tmp_path: Path, below: str, file: str, name: str, number: str) -> None:
    version(tmp_path / below, file)
    served = look_at(str(tmp_path / below))
    try:
        assert served.flags["model_name"] == name
        base_path = served.flags["model_base_path"]
        assert base_path == f"{served.temporary}/{name}"
        assert os.listdir(base_path) == [number]
        assert os.path.realpath(f"{base_path}/{number}") == str(tmp_path / below)
    finally:
        shutil.rmtree(served.temporary)


@pytest.mark.parametrize("what", ["nothing", "empty", "file"])
def test_anything_else_is_an_error_that_says_what_is_there(tmp_path: Path, what: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(InvalidConfig, match="PATH: expected a SavedModel"):
        look_at(str(tmp_path / what))
    with pytest.raises(InvalidConfig, match="gs:// is not read here"):
        look_at("gs://bucket/m")
