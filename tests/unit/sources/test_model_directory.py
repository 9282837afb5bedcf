"""What a version is said to lack, where its type is named wrongly."""

from __future__ import annotations

import pytest

from servingd.config.models import ModelConfig
from servingd.servables.registry import Platforms
from servingd.sources.model_directory import ModelDirectory


@pytest.mark.parametrize(
    ("file", "other"),
    [("model.keras", "keras"), ("model.onnx", "onnx"), ("model.skops", "sklearn"), ("a", None)],
)
def test_a_version_that_looks_like_another_type_is_told_so(tmp_path, file, other):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / file).write_bytes(b"")
    named = ModelConfig(name="m", base_path=str(tmp_path), platform="tensorflow")
    (reason,) = ModelDirectory(named, Platforms()).scan().incomplete.values()
    assert reason.startswith("saved_model.pb is not there")
    assert (f"looks like a version of type {other}" in reason) == (other is not None)
    assert ("--model_repository" in reason) == (other is not None)
