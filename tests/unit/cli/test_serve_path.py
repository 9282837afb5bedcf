"""What `servingd serve PATH` serves is told by looking."""

from __future__ import annotations

import os
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from servingd.cli.configuration import configuration_of
from servingd.cli.serve_path import look_at
from servingd.errors import InvalidConfig, ServingError


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
    with closing(look_at(str(tmp_path / below))) as served:
        assert served.flags["model_name"] == name
        base_path = served.flags["model_base_path"]
        assert base_path == f"{served.temporary}/{name}"
        assert os.listdir(base_path) == [number]
        assert os.path.realpath(f"{base_path}/{number}") == str(tmp_path / below)
    assert not os.path.exists(served.temporary)
    assert os.path.exists(tmp_path / below / file)


@pytest.mark.parametrize("what", ["nothing", "empty", "file"])
def test_anything_else_is_an_error_that_says_what_is_there(tmp_path: Path, what: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(InvalidConfig, match="PATH: expected a SavedModel"):
        look_at(str(tmp_path / what))
    with pytest.raises(InvalidConfig, match="gs:// is not read here"):
        look_at("gs://bucket/m")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


def test_a_configuration_holds_its_temporary_folder(tmp_path: Path, temporary: Path) -> None:
    version(tmp_path / "m")
    with configuration_of("servingd validate", [str(tmp_path / "m")]) as config:
        assert os.listdir(config.model_base_path) == ["1"]
        assert os.path.dirname(config.model_base_path) in map(str, temporary.iterdir())
    assert list(temporary.iterdir()) == []


def test_nothing_is_left_where_flags_are_wrong(tmp_path: Path, temporary: Path) -> None:
    version(tmp_path / "m")
    arguments = [str(tmp_path / "m"), "--port=70000"]
    with pytest.raises(ServingError, match="70000"), configuration_of("validate", arguments):
        pass
    assert list(temporary.iterdir()) == []


def test_nothing_is_left_where_no_link_can_be_made(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("servingd.cli.serve_path.names_in", lambda folder: ["saved_model.pb"])
    with pytest.raises(OSError, match="exists"):
        look_at("/")  # its name is empty
    assert list(temporary.iterdir()) == []
