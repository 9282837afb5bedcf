"""Shapes that a signature does not name: what fits, and what is said of what does not."""

import numpy as np
import pytest

from servingd.core.shapes import explained, fits, misfit
from servingd.core.types import DataType, Signature, TensorSpec
from servingd.errors import DeadlineExceeded, Internal, InvalidArgument
from servingd.inference.checks import check_shapes


def signature(**shapes):
    specs = {alias: TensorSpec(DataType.FLOAT, shape) for alias, shape in shapes.items()}
    return Signature("s", specs, {}, defaults={"d": np.zeros((9,), np.float32)})


def zeros(*shape):
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("wanted", "came", "said"),
    [
        ((None, 1), (3, 1), ""),
        (None, (3, 1), ""),
        ((), (), ""),
        ((None, 1), (3,), "input x: expected a tensor of shape [-1,1], got [3]"),
        ((1,), (3,), "input x: expected a tensor of shape [1], got [3]"),
        ((), (3,), "input x: expected a tensor of shape [], got [3]"),
        ((None, 3), (2, 5), "input x: expected a tensor of shape [-1,3], got [2,5]"),
    ],
)
def test_a_misfit_is_told_with_both_shapes(wanted, came, said):
    inputs = {"x": zeros(*came)}
    assert misfit(signature(x=wanted), inputs) == said
    assert fits(signature(x=wanted), inputs) is (not said)


def test_all_misfits_are_told():
    told = misfit(signature(x=(1,), y=(None,), z=()), {a: zeros(2) for a in "xyz"})
    assert told == (
        "input x: expected a tensor of shape [1], got [2]; "
        "input z: expected a tensor of shape [], got [2]"
    )


@pytest.mark.parametrize("kind", [InvalidArgument, Internal])
def test_a_failure_is_explained_by_the_shapes(kind):
    made = explained(kind("Matrix size-incompatible"), signature(x=(None, 3)), {"x": zeros(2, 5)})
    assert type(made) is kind
    assert made.message == (
        "Matrix size-incompatible (input x: expected a tensor of shape [-1,3], got [2,5])"
    )


def test_a_failure_that_shapes_cannot_cause_stays_as_it_is():
    late = DeadlineExceeded("too late")
    assert explained(late, signature(x=(1,)), {"x": zeros(2)}) is late
    fitting = InvalidArgument("a value")
    assert explained(fitting, signature(x=(1,)), {"x": zeros(1)}) is fitting


def test_a_strict_check_blames_callers_and_not_the_models_own_defaults():
    strict = signature(x=(1,), d=(1,))
    check_shapes(strict, {"x": zeros(1), "d": strict.defaults["d"]})
    with pytest.raises(InvalidArgument, match=r"input x: expected .* \[1\], got \[2\]$"):
        check_shapes(strict, {"x": zeros(2), "d": strict.defaults["d"]})
