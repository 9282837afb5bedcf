"""Servables that wait for what they are made of."""

from __future__ import annotations

import threading

import pytest

from servingd.core.types import DataType, ModelSpec, TensorSpec
from servingd.errors import InvalidArgument
from servingd.servables.assembled.parts import Parts
from tests.unit.servables.assembled.composite.fakes import FakePart

X = {"x": TensorSpec(DataType.FLOAT, None)}


class LabelledLater:
    """Models one of whose labels is there at the second look."""

    def __init__(self) -> None:
        self.part = FakePart(None, X, X)
        self.looks = 0

    def acquire(self, spec: ModelSpec) -> FakePart:
        self.looks += 1
        if self.looks == 1:
            raise InvalidArgument(f"Unrecognized servable version label: {spec.label}")
        self.part.held += 1
        return self.part


def test_a_label_is_waited_for_since_it_comes_with_its_version():
    parts = Parts()
    parts.models = models = LabelledLater()
    spec = ModelSpec("a", None, "stable", "")
    assert parts.wait("c", [spec], threading.Event()) == {spec: models.part}
    assert models.looks == 2


def test_other_wrong_specs_are_errors_of_the_load():
    parts = Parts()
    parts.models = LabelledLater()
    with pytest.raises(InvalidArgument):
        parts.wait("c", [ModelSpec("", None, None, "")], threading.Event())
