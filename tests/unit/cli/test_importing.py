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


NO_FOLDER_NAMES = ("../../x", "/x", "a/b", ".", "..", "a\nb")


@pytest.mark.parametrize("name", NO_FOLDER_NAMES)
def test_a_name_that_is_no_folder_name_is_left_out(triton: Path, tmp_path: Path, name: str) -> None:
    text = TRITON.replace('"net"', json.dumps(name), 1)
    (triton / "net" / "config.pbtxt").write_text(text)
    _sklearn(tmp_path / "other" / "iris", name=name)
    for imported in (read_triton(triton), read_mlserver(tmp_path / "other")):
        assert name not in {model.name for model in imported.models}
        assert any(note.startswith(f"{name!r} is left out: ") for note in imported.notes)
    assert not imported.flags  # no model needs --allow_python_models


def test_a_second_model_of_a_name_is_left_out(triton: Path, tmp_path: Path) -> None:
    """Its links would go through those of the first, into the repository itself."""
    (triton / "told" / "1").mkdir()
    (triton / "told" / "1" / "model.onnx").touch()
    (triton / "told" / "config.pbtxt").write_text('name: "net" backend: "onnxruntime"')
    imported = read_triton(triton)
    imported.write(tmp_path / "out")
    assert [model.name for model in imported.models] == ["net"]
    assert any(note.startswith("'net' is left out: ") for note in imported.notes)
    assert not list(triton.rglob("net/**/model.onnx"))


@pytest.mark.parametrize("end", ["\n", "\r", "\x85", "\u2028", "\n\n"])
def test_a_key_with_a_line_break_stays_a_comment(tmp_path: Path, end: str) -> None:
    key = f"x{end}port: 1{end}\x1b[31m\x00\ud800"
    _sklearn(tmp_path / "iris", **{key: 1})
    (tmp_path / "settings.json").write_text(json.dumps({key: 1}))
    imported = read_mlserver(tmp_path)
    file = imported.write(tmp_path / "out")
    assert yaml.safe_load(file.read_text()).keys() == {"allow_python_models", "models"}
    shown = "x port: 1 \\x1b[31m\\x00\\ud800"
    assert f"iris: {shown}: has no counterpart" in imported.notes
    assert f"settings.json: {shown}: not taken over" in imported.notes


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"name": 5}, "name"),
        ({"name": 0}, "name"),
        ({"name": ["x"]}, "name"),
        ({"implementation": {}}, "implementation"),
        ({"parameters": [1]}, "parameters"),
        ({"parameters": "x"}, "parameters"),
        ({"parameters": False}, "parameters"),
        ({"parameters": {"uri": None}}, "parameters.uri"),
        ({"parameters": {"uri": 5}}, "parameters.uri"),
    ],
)
def test_settings_of_other_types_are_named(
    tmp_path: Path, settings: dict[str, object], field: str
) -> None:
    _sklearn(tmp_path / "iris", **settings)
    with pytest.raises(InvalidArgument, match=rf"iris/model-settings\.json: {field}: expected "):
        read_mlserver(tmp_path)


@pytest.mark.parametrize("content", [b"name: 5", b'name: "\\377"', b'name: "\xff"', b"\xff"])
def test_a_name_that_is_no_text_is_an_error_of_its_file(triton: Path, content: bytes) -> None:
    (triton / "net" / "config.pbtxt").write_bytes(content)
    with pytest.raises(InvalidArgument, match=r"net/config\.pbtxt: "):
        read_triton(triton)


def test_a_model_in_the_folder_itself_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _sklearn(tmp_path / "iris")
    monkeypatch.chdir(tmp_path / "iris")
    assert [model.name for model in read_mlserver(Path()).models] == ["iris"]


def _sklearn(folder: Path, **settings: object) -> None:
    """Write a model of MLServer's, with more settings."""
    folder.mkdir(parents=True)
    (folder / "model.joblib").touch()
    content = {"implementation": "mlserver_sklearn.SKLearnModel", **settings}
    (folder / "model-settings.json").write_text(json.dumps(content))
