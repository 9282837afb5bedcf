"""Folders of other model servers, as `servingd.yaml` and links."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from servingd.cli.importing.mlserver import read_mlserver
from servingd.cli.importing.triton import read_triton
from servingd.config.yaml.document import read_servingd_yaml
from servingd.errors import AlreadyExists, InvalidArgument, NotFound

TRITON = """
name: "net"   # a comment { with a brace
platform: "tensorflow_savedmodel"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "y{" data_type: TYPE_FP32 dims: [ -1 ] } ]
instance_group [ { count: 2 kind: KIND_GPU gpus: [ 0, 1 ] } ]
version_policy: { specific { versions: [1, 3] } }
dynamic_batching { max_queue_delay_microseconds: 100 }
parameters { key: "k" value: { string_value: "v" } }
something_new: 7
"""


@pytest.fixture
def triton(tmp_path: Path) -> Path:
    for version in ("1", "3"):
        (tmp_path / "repo" / "net" / version / "model.savedmodel").mkdir(parents=True)
        (tmp_path / "repo" / "net" / version / "model.savedmodel" / "saved_model.pb").touch()
    (tmp_path / "repo" / "net" / "config.pbtxt").write_text(TRITON)
    (tmp_path / "repo" / "told" / "2").mkdir(parents=True)
    (tmp_path / "repo" / "told" / "2" / "model.onnx").touch()
    (tmp_path / "repo" / "torch" / "1").mkdir(parents=True)
    (tmp_path / "repo" / "torch" / "config.pbtxt").write_text('backend: "pytorch"')
    return tmp_path / "repo"


def test_a_repository_of_triton(triton: Path, tmp_path: Path) -> None:
    imported = read_triton(triton)
    file = imported.write(tmp_path / "out")
    written = yaml.safe_load(file.read_text())
    assert written["models"] == [
        {
            "name": "net",
            "base_path": f"{tmp_path}/out/net",
            "platform": "tensorflow",
            "version_policy": {"specific": [1, 3]},
            "device": "GPU:0,GPU:1",
            "replicas": 4,
        },
        {"name": "told", "base_path": f"{tmp_path}/out/told", "platform": "onnx"},
    ]
    assert (tmp_path / "out" / "net" / "3" / "saved_model.pb").exists()
    assert (tmp_path / "out" / "told" / "2" / "model.onnx").exists()
    assert len(read_servingd_yaml(str(file)).models) == 2
    noted = {note.partition(": ")[2].partition(":")[0] for note in imported.notes if ": " in note}
    assert {"dynamic_batching", "parameters", "something_new"} <= noted
    assert "torch is left out: pytorch is not served here" in imported.notes
    assert all(f"# {note}" in file.read_text() for note in imported.notes)
    with pytest.raises(AlreadyExists, match="is there already"):
        imported.write(tmp_path / "out")


def test_what_triton_would_not_read_either(triton: Path, tmp_path: Path) -> None:
    (triton / "net" / "config.pbtxt").write_text("name: {")
    with pytest.raises(InvalidArgument, match=r"config\.pbtxt"):
        read_triton(triton)
    for folder in (tmp_path / "nothing", triton / "net" / "1"):
        with pytest.raises(NotFound, match=r"has no folder with config\.pbtxt"):
            read_triton(folder)


def test_models_of_mlserver(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(json.dumps({"http_port": 8080, "debug": True}))
    (tmp_path / "iris").mkdir()
    (tmp_path / "iris" / "model.joblib").touch()
    settings = {
        "name": "flowers",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": "./model.joblib", "version": "v2"},
        "max_batch_size": 4,
    }
    (tmp_path / "iris" / "model-settings.json").write_text(json.dumps(settings))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model-settings.json").write_text('{"implementation": "mine.Model"}')
    imported = read_mlserver(tmp_path)
    file = imported.write(tmp_path / "out")
    assert yaml.safe_load(file.read_text()) == {
        "rest_api_port": 8080,
        "allow_python_models": True,
        "models": [
            {
                "name": "flowers",
                "base_path": f"{tmp_path}/out/flowers",
                "platform": "sklearn",
                "platform_options": {"allow_pickle": True},
            }
        ],
    }
    assert (tmp_path / "out" / "flowers" / "2" / "model.joblib").exists()
    assert any(note.startswith("mine is left out: mine.Model") for note in imported.notes)
    assert any(note.startswith("settings.json: debug") for note in imported.notes)
    assert any(note.startswith("flowers: max_batch_size") for note in imported.notes)


@pytest.mark.parametrize("content", ["{", "[]", '{"implementation": "%s"}'])
def test_settings_that_cannot_be_read_are_named(tmp_path: Path, content: str) -> None:
    text = content.replace("%s", "mlserver_sklearn.SKLearnModel")
    (tmp_path / "model-settings.json").write_text(text)
    with pytest.raises(InvalidArgument, match=r"model-settings\.json"):
        read_mlserver(tmp_path)
    with pytest.raises(NotFound):
        read_mlserver(tmp_path / "nothing")
