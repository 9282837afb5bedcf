"""The scripts in models/: what they write, and when they write nothing."""

import csv
import functools
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytestmark = pytest.mark.tf

SCRIPTS = Path(__file__).resolve().parents[2] / "models"


@pytest.fixture(scope="module")
def scripts() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        patch.setattr(sys, "dont_write_bytecode", True)
        yield importlib.import_module("make_demo_models")


@pytest.fixture(scope="module")
def makers(scripts: ModuleType) -> dict:
    return {**scripts.MAKERS, "mnist": functools.partial(scripts.make_mnist, epochs=1)}


@pytest.fixture(scope="module")
def repository(scripts: ModuleType, makers: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    assert scripts.make_missing(folder, makers) == ("digit_names", "half_plus_two", "mnist")
    return folder


def signature(version: Path) -> tuple[dict, dict]:
    """The inputs and outputs of `serving_default` as {name: (type, shape)}."""
    from tensorflow.core.framework import types_pb2
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes())
    found = saved.meta_graphs[0].signature_def["serving_default"]

    def described(tensors: dict) -> dict:
        return {
            name: (types_pb2.DataType.Name(t.dtype), [d.size for d in t.tensor_shape.dim])
            for name, t in tensors.items()
        }

    return described(found.inputs), described(found.outputs)


def test_a_repository_holds_one_version_of_each_and_nothing_half_made(repository: Path) -> None:
    found = sorted(str(p.relative_to(repository)) for p in repository.glob("*/*"))
    assert found == ["digit_names/1", "half_plus_two/1", "mnist/1"]
    assert len(list(repository.iterdir())) == 3


def test_half_plus_two_has_the_signature_of_tensorflow_servings_own(repository: Path) -> None:
    inputs, outputs = signature(repository / "half_plus_two" / "1")
    assert inputs == {"x": ("DT_FLOAT", [-1])}
    assert outputs == {"y": ("DT_FLOAT", [-1])}


def test_half_plus_two_computes(repository: Path) -> None:
    import tensorflow as tf

    model = tf.saved_model.load(str(repository / "half_plus_two" / "1"))
    y = model.signatures["serving_default"](x=tf.constant([1.0, 2.0, 5.0]))["y"]
    assert y.numpy().tolist() == [2.5, 3.0, 4.5]


def test_mnist_takes_images_and_gives_probabilities_and_a_digit(repository: Path) -> None:
    inputs, outputs = signature(repository / "mnist" / "1")
    assert inputs == {"image": ("DT_FLOAT", [-1, 28, 28, 1])}
    assert outputs == {"probabilities": ("DT_FLOAT", [-1, 10]), "digit": ("DT_INT64", [-1])}


def test_mnist_has_learnt_something_after_one_epoch(scripts: ModuleType, repository: Path) -> None:
    import tensorflow as tf

    train_mnist = importlib.import_module("train_mnist")
    digits = train_mnist.load(train_mnist.SPLITS[0])
    model = tf.saved_model.load(str(repository / "mnist" / "1"))
    answer = model.signatures["serving_default"](image=tf.constant(digits.test_images))
    probabilities, digit = answer["probabilities"].numpy(), answer["digit"].numpy()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert (digit == probabilities.argmax(axis=1)).all()
    assert (digit == digits.test_labels.argmax(axis=1)).mean() > 0.5


def test_the_network_has_the_layers_that_its_description_names(scripts: ModuleType) -> None:
    model = importlib.import_module("train_mnist").build()
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == ["Conv2D", "Conv2D", "MaxPooling2D", "Dropout", "Flatten", "Dense"]
    assert [model.layers[i].filters for i in (0, 1)] == [64, 128]
    assert model.layers[3].rate == 0.33


def test_splits_are_stratified_and_disjoint(scripts: ModuleType) -> None:
    train_mnist = importlib.import_module("train_mnist")
    tests = [train_mnist.load(split) for split in train_mnist.SPLITS]
    assert len(tests) == 3
    assert not np.array_equal(tests[0].test_images, tests[1].test_images)
    for digits in tests:
        assert len(digits.train_images) + len(digits.test_images) == 1797
        assert digits.test_labels.sum(axis=0).min() >= 34  # of 174 to 183 scans of each digit
        assert 0 <= digits.train_images.min() < digits.train_images.max() <= 1


def test_digit_names_is_a_table_of_two_columns_without_a_header(repository: Path) -> None:
    with (repository / "digit_names" / "1" / "table.csv").open(newline="") as lines:
        rows = list(csv.reader(lines))
    assert {len(row) for row in rows} == {2}
    assert [row[0] for row in rows] == [str(n) for n in range(10)]
    assert (rows[0][1], rows[9][1]) == ("zero", "nine")


def test_a_second_run_makes_nothing(scripts: ModuleType, makers: dict, repository: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in repository.rglob("*")}
    assert scripts.make_missing(repository, makers) == ()
    assert {p: p.stat().st_mtime_ns for p in repository.rglob("*")} == before


def test_force_replaces_and_only_the_missing_one_is_made_without_it(
    scripts: ModuleType, tmp_path: Path
) -> None:
    makers = {"digit_names": scripts.make_digit_names, "other": scripts.make_digit_names}
    scripts.make_missing(tmp_path, {"other": scripts.make_digit_names})
    assert scripts.make_missing(tmp_path, makers) == ("digit_names",)
    (tmp_path / "other" / "1" / "table.csv").write_text("old")
    assert scripts.make_missing(tmp_path, makers, force=True) == ("digit_names", "other")
    assert (tmp_path / "other" / "1" / "table.csv").read_text().startswith("0,zero\n")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["digit_names", "other"]


def test_a_version_that_fails_half_way_leaves_nothing(scripts: ModuleType, tmp_path: Path) -> None:
    def broken(folder: Path, report: object) -> str:
        folder.mkdir()
        (folder / "saved_model.pb").touch()
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        scripts.make_missing(tmp_path, {"m": broken})
    assert list(tmp_path.iterdir()) == []
