"""Folders that count as complete load, with TensorFlow's own reader as the judge."""

import shutil

import numpy as np
import pytest

from servingd.servables.saved_model.files.completeness import INDEX, table_entries, what_is_missing
from servingd.sources.listing import DiskListing
from tests.tables import PLAIN, SNAPPY, table

pytestmark = pytest.mark.tf
TAGS = ("serve",)


@pytest.mark.parametrize("kind", [PLAIN, SNAPPY])
def test_an_index_is_read_as_tensorflow_reads_it(models, tmp_path, kind):
    import tensorflow as tf

    folder = tmp_path / "1"
    shutil.copytree(models / "keras_exported", folder)
    plain = (folder / INDEX).read_bytes()
    (folder / INDEX).write_bytes(table(list(table_entries(plain)), kind=kind))
    assert what_is_missing(DiskListing(str(folder)), TAGS) is None

    served = tf.saved_model.load(str(folder)).signatures["serve"]
    original = tf.saved_model.load(str(models / "keras_exported")).signatures["serve"]
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 8, 8, 1)), tf.float32)
    for key, value in original(x).items():
        np.testing.assert_array_equal(served(x)[key], value)


def test_a_model_with_a_saver_and_no_variables_loads_without_their_folder(tmp_path):
    import tensorflow as tf

    module = tf.Module()
    spec = tf.TensorSpec([None], tf.float32, name="x")
    module.f = tf.function(lambda x: {"y": 0.5 * x + 2.0}, input_signature=[spec])
    folder = tmp_path / "1"
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.f})
    shutil.rmtree(folder / "variables")
    assert what_is_missing(DiskListing(str(folder)), TAGS) is None
