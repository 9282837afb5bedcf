"""What all tests share: SavedModels, exported once per run, and the environment of servers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from tests import absent, exports, placed, side_by_side

# TensorFlow imports these two where they are, for nothing that servingd does: almost two seconds of
# every start. An installation of servingd has them not; only its demo and its tests need them.
os.environ["PYTHONPATH"] = absent.HIDDEN

# No test is timed: machines are noisy.
settings.register_profile("servingd", deadline=None)
settings.load_profile("servingd")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return side_by_side.Groups(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: side_by_side.turn_of(item.nodeid))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    """Outside of every timeout, wait for one's turn, if there are other processes."""
    if not hasattr(item.config, "workerinput"):
        return (yield)
    with side_by_side.in_the_room(alone=item.get_closest_marker("alone") is not None):
        return (yield)


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """A folder of version folders, by the name of their export."""
    return side_by_side.made_once(tmp_path_factory.getbasetemp(), "exports", _export)


def _export(root: Path) -> None:
    for export in (
        exports.half_plus_two,
        exports.echo,
        exports.slow,
        exports.counter,
        exports.endless,
        exports.tf1_with_table,
        exports.examples,
        exports.keras_saved_plainly,
        exports.keras_exported,
    ):
        export(root / export.__name__)
    exports.half_plus_two(root / "half_plus_three", 3.0)


@pytest.fixture(scope="session")
def more(tmp_path_factory) -> Path:
    """Those that are hard to place."""
    root = tmp_path_factory.mktemp("placed")
    for export in (placed.loop_and_branch, placed.stubborn):
        export(root / export.__name__)
    return root


@pytest.fixture(scope="session")
def tflite_models(tmp_path_factory) -> Path:
    """The same of TF Lite models: apart, since they are versions only where they are preferred."""
    root = tmp_path_factory.mktemp("tflite")
    for export in (
        exports.tflite,
        exports.tflite_without_signatures,
        exports.tflite_with_signature_defs,
    ):
        export(root / export.__name__)
    return root
