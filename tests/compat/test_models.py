"""What TensorFlow answers is answered here, model by model, each called with five shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from servingd.errors import Code, ServingError
from servingd.servables.tensorflow_runtime.runtime import clean
from tests.compat.models import MODELS, Model, inputs_for
from tests.compat.ours import ours_of
from tests.compat.truth import Refusal, truth_of

pytestmark = pytest.mark.tf


def calls_of(model: Model, signatures: Any) -> list[tuple[str, list[str]]]:
    if model.calls:
        return [(name, list(wanted)) for name, wanted in model.calls]
    return [(name, list(signature.outputs)) for name, signature in signatures.items()]


def differences(model: Model, truth: Any, ours: Any) -> list[str]:
    found = []
    for name, wanted in calls_of(model, ours.servable.signatures):
        signature = ours.servable.signatures[name]
        for number, shape in enumerate(model.shapes):
            inputs = inputs_for(model, signature, shape, number)
            theirs = truth.run(name, inputs, wanted)
            mine = ours.run(name, inputs, wanted)
            differs = model.differs
            if differs and (not differs.outputs or {*differs.outputs} & {*wanted}):
                wrong = known_difference(differs.how, theirs, mine)
            else:
                wrong = difference(theirs, mine)
            if wrong:
                found.append(f"{name}{list(shape)} -> {','.join(wanted)}: {wrong}")
    return found


def difference(theirs: Any, mine: Any) -> str:
    """Nothing if both are the same answer, or the same code and text."""
    if isinstance(theirs, Refusal):
        if not isinstance(mine, ServingError):
            return f"answered, TensorFlow says {theirs.code} {theirs.text[:200]}"
        text = clean(theirs.text).splitlines()[0]
        if mine.code != theirs.code or text not in mine.message:
            return f"{mine.code} {mine.message[:300]}, TensorFlow: {theirs.code} {text[:300]}"
        return ""
    if isinstance(mine, ServingError):
        return f"refused with {mine.code} {mine.message[:300]}, TensorFlow answers"
    for alias, value in theirs.items():
        there, here = np.asarray(value), mine[alias]
        if there.dtype != here.dtype or there.shape != here.shape:
            return f"{alias}: {here.dtype}{here.shape}, TensorFlow: {there.dtype}{there.shape}"
        if there.tobytes() != here.tobytes() and there.tolist() != here.tolist():
            return f"{alias}: {here}, TensorFlow: {there}"
    return ""


def known_difference(how: str, theirs: Any, mine: Any) -> str:
    """Nothing if the two differ as it was said."""
    if how == "answered":
        if isinstance(theirs, Refusal) and not isinstance(mine, ServingError):
            return ""
    elif isinstance(mine, ServingError) and mine.code is Code.UNIMPLEMENTED:
        return ""
    return f"{mine}, TensorFlow: {theirs}; not {how}"


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_answers_are_those_of_tensorflow(model, tmp_path):
    model.export(tmp_path / "1")
    truth = truth_of(tmp_path / "1", model.tags)
    ours = ours_of(tmp_path / "1", model.tags)
    try:
        assert truth.refused is None
        assert (ours.waits, ours.refused) == ("", None)
        assert not differences(model, truth, ours)
    finally:
        ours.close()
