"""Keras files as versions: the names and answers of `model.export()`, and what is refused."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from servingd.config.saved_model import Extensions, SavedModelOptions
from servingd.core.types import ServableId, VersionData
from servingd.errors import Cancelled, FailedPrecondition, NotFound, PermissionDenied
from servingd.servables.keras.exports import Export, Exporter, ExportJob
from servingd.servables.registry import Platforms
from servingd.testing.contract import run
from tests.side_by_side import made_once

pytestmark = pytest.mark.tf

ID = ServableId("m", 1)
CUSTOM = """
import keras

@keras.saving.register_keras_serializable("mine")
class Twice(keras.layers.Layer):
    def call(self, x):
        return x * 2
"""


def make_models(root: Path) -> None:
    """One folder for each file, and the export of the first."""
    import keras

    layers = keras.layers
    image, text = keras.Input((4, 4, 1), name="image"), keras.Input((3,), name="text")
    both = layers.concatenate([layers.Flatten()(layers.Conv2D(2, 3)(image)), text])
    out = {"score": layers.Dense(1)(both), "kind": layers.Dense(3, activation="softmax")(both)}
    model = keras.Model({"image": image, "text": text}, out)
    code = keras.Sequential([keras.Input((2,), name="x"), layers.Lambda(lambda x: x + 1)])
    namespace = {}
    exec(CUSTOM, namespace)
    custom = keras.Sequential([keras.Input((2,), name="x"), namespace["Twice"]()])
    for name, made, file in (
        ("keras", model, "model.keras"),
        ("h5", model, "any_name.h5"),
        ("code", code, "model.keras"),
        ("code_h5", code, "model.h5"),
        ("custom", custom, "model.keras"),
    ):
        (root / name).mkdir()
        made.save(root / name / file)
    model.export(str(root / "exported"), verbose=False)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    return made_once(tmp_path_factory.getbasetemp(), "keras_models", make_models)


def load(path: Path, name: str = "keras", cache_dir: str = "", code: bool = False, **options):
    options = {"options": options}
    saved = SavedModelOptions(optimize_models="off", cache_dir=cache_dir)
    platforms = Platforms(saved, allow_code=code)
    loader = platforms.loader(ID, VersionData(str(path), name, **options))
    return loader, loader.load()


def inputs_of(rows: int):
    rng = np.random.default_rng(rows)
    return {
        "image": rng.random((rows, 4, 4, 1), np.float32),
        "text": rng.random((rows, 3), np.float32),
    }


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize("kind", ["keras", "h5"])
def test_a_file_is_served_as_its_export_is(models, cache, kind):
    _, wanted = load(models / "exported", "tensorflow")
    loader, servable = load(models / kind, cache_dir=cache if kind == "keras" else "")
    assert servable.signatures.keys() == wanted.signatures.keys()
    for name, signature in wanted.signatures.items():
        ours = servable.signatures[name]
        assert ours.inputs.keys() == signature.inputs.keys()
        assert {a: (s.data_type, s.shape) for a, s in ours.outputs.items()} == {
            a: (s.data_type, s.shape) for a, s in signature.outputs.items()
        }
        for rows in (1, 5):
            theirs = run(wanted, signature, inputs_of(rows))
            for alias, array in run(servable, ours, inputs_of(rows)).items():
                np.testing.assert_allclose(array, theirs[alias], rtol=1e-6)
    folder = loader._export.path
    assert Path(folder, "saved_model.pb").exists()
    loader.unload(servable)
    assert Path(folder).exists() == (kind == "keras"), "nothing is kept without a cache"


def test_what_was_exported_once_is_not_exported_again(models, cache, monkeypatch):
    first, servable = load(models / "keras", cache_dir=cache)
    first.unload(servable)
    ran = []
    monkeypatch.setattr(ExportJob, "run", lambda *args: ran.append(args))
    second, servable = load(models / "keras", cache_dir=cache)
    (folder,) = Path(cache, ".keras").iterdir()
    assert (second._export.path, ran) == (str(folder), [])
    assert run(servable, servable.signatures["serving_default"], inputs_of(2))
    second.unload(servable)
    assert (folder / "saved_model.pb").exists()


@pytest.mark.parametrize("kind", ["code", "code_h5"])
def test_code_in_a_model_is_refused_unless_model_and_server_allow_it(models, kind):
    with pytest.raises(PermissionDenied, match="--allow_python_models"):
        load(models / kind, allow_code=True)
    with pytest.raises(FailedPrecondition, match=r"Lambda layer.*--allow_python_models"):
        load(models / kind, code=True)  # the model's options do not say so


def test_code_that_is_allowed_runs(models):
    loader, servable = load(models / "code", code=True, allow_code=True)
    signature = servable.signatures["serving_default"]
    (found,) = run(servable, signature, {"x": np.array([[1, 2]], np.float32)}).values()
    assert found.tolist() == [[2, 3]]
    loader.unload(servable)


def test_a_class_of_its_own_is_told_and_served_once_its_module_is_named(
    models, tmp_path, monkeypatch
):
    with pytest.raises(FailedPrecondition, match="Twice") as caught:
        load(models / "custom")
    assert "--python_imports" in caught.value.message
    (tmp_path / "my_layers.py").write_text(CUSTOM)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    exporter = Exporter("", Extensions(python_imports=("my_layers",)))
    made = exporter.export(models / "custom" / "model.keras", False, ExportJob())
    assert Path(made.path, "saved_model.pb").exists()
    made.discard()


def test_a_load_that_is_cancelled_ends_its_child_and_leaves_nothing(models, tmp_path):
    exporter, job = Exporter(str(tmp_path), Extensions()), ExportJob()
    ended = []

    def export() -> None:
        try:
            ended.append(exporter.export(models / "keras" / "model.keras", False, job))
        except Cancelled as error:
            ended.append(error)

    thread = threading.Thread(target=export)
    thread.start()
    deadline = time.monotonic() + 30
    while job._child is None and time.monotonic() < deadline:
        time.sleep(0.01)  # the child tells nobody that it runs
    job.cancel()
    thread.join(30)
    (outcome,) = ended
    assert isinstance(outcome, Cancelled)
    assert list((tmp_path / ".keras").iterdir()) == []
    with pytest.raises(Cancelled):
        exporter.export(models / "keras" / "model.keras", False, job)


def test_two_models_or_weights_alone_are_no_version(tmp_path):
    platform = Platforms()["keras"]
    from servingd.sources.listing import DiskListing

    (tmp_path / "model.weights.h5").write_bytes(b"")
    assert not platform.recognises(DiskListing(str(tmp_path)))
    for name in ("a.keras", "b.h5"):
        (tmp_path / name).write_bytes(b"")
    assert platform.recognises(DiskListing(str(tmp_path)))
    assert "only one" in platform.missing(DiskListing(str(tmp_path)))
    with pytest.raises(NotFound, match="only one"):
        platform.loader(ID, VersionData(str(tmp_path), "keras")).load()


def test_an_estimate_has_the_child_at_its_peak_and_the_optimiser_as_growth(models):
    data = VersionData(str(models / "keras"), "keras")
    found = Platforms(SavedModelOptions()).loader(ID, data).estimate()
    assert found.peak.shared - found.steady.shared > 1 << 30
    assert found.growth.replica > 512 << 20
    off = SavedModelOptions(optimize_models="off")
    assert not Platforms(off).loader(ID, data).estimate().growth.replica


def test_an_export_that_is_shared_is_not_discarded(tmp_path):
    Export(str(tmp_path), is_ours=False).discard()
    assert tmp_path.exists()
