"""What is answered when no version is ready."""

import pytest

from servingd.core.lifecycle.lookup_errors import lookup_error, not_found
from servingd.core.lifecycle.states import PublicState, ServableState
from servingd.core.types import ModelSpec, ServableId
from servingd.errors import Cancelled, Code, DataLoss, InvalidArgument

FAILED = DataLoss("a shard is short")
CANCELLED = Cancelled("Loading of servable cancelled")
LATEST, THIRD = ModelSpec("m"), ModelSpec("m", version=3)
LATEST_NOT_FOUND = "Servable not found for request: Latest(m)"
THIRD_NOT_FOUND = "Servable not found for request: Specific(m, 3)"
FAILED_TEXT = "Servable {name: m version: 3} failed to load: DATA_LOSS: a shard is short"


def of(version, state, error=None):
    return ServableState(ServableId("m", version), PublicState[state], error)


def waiting(version, state):
    return f"Servable {{name: m version: {version}}} is not ready: its state is {state}"


@pytest.mark.parametrize(
    ("spec", "configured", "states", "code", "text"),
    [
        # Nothing is known.
        (LATEST, False, [], Code.NOT_FOUND, LATEST_NOT_FOUND),
        (THIRD, False, [], Code.NOT_FOUND, THIRD_NOT_FOUND),
        (
            LATEST,
            True,
            [],
            Code.UNAVAILABLE,
            "Model m is configured, but no version of it is available",
        ),
        (THIRD, True, [], Code.NOT_FOUND, THIRD_NOT_FOUND),
        # It may still come, or is just going: then it is as good as gone.
        (LATEST, True, [of(3, "START")], Code.UNAVAILABLE, waiting(3, "START")),
        (THIRD, True, [of(3, "LOADING")], Code.UNAVAILABLE, waiting(3, "LOADING")),
        (
            THIRD,
            False,
            [of(3, "UNLOADING")],
            Code.NOT_FOUND,
            "Servable not found for request: Specific(m, 3)",
        ),
        (THIRD, True, [of(4, "LOADING")], Code.NOT_FOUND, THIRD_NOT_FOUND),
        # It failed.
        (LATEST, True, [of(3, "END", FAILED)], Code.UNAVAILABLE, FAILED_TEXT),
        (THIRD, False, [of(3, "END", FAILED)], Code.UNAVAILABLE, FAILED_TEXT),
        # The newest failure is told.
        (
            LATEST,
            True,
            [of(3, "END", FAILED), of(2, "END", InvalidArgument("x"))],
            Code.UNAVAILABLE,
            FAILED_TEXT,
        ),
        # What may still come counts before what failed.
        (
            LATEST,
            True,
            [of(3, "END", FAILED), of(2, "LOADING")],
            Code.UNAVAILABLE,
            waiting(2, "LOADING"),
        ),
        (THIRD, True, [of(3, "END", FAILED), of(2, "LOADING")], Code.UNAVAILABLE, FAILED_TEXT),
        # It ended as it was told to.
        (LATEST, False, [of(3, "END")], Code.NOT_FOUND, LATEST_NOT_FOUND),
        (LATEST, False, [of(3, "END", CANCELLED)], Code.NOT_FOUND, LATEST_NOT_FOUND),
        (THIRD, True, [of(3, "END", CANCELLED)], Code.NOT_FOUND, THIRD_NOT_FOUND),
        (
            LATEST,
            True,
            [of(3, "END")],
            Code.UNAVAILABLE,
            "Model m is configured, but no version of it is available",
        ),
    ],
)
def test_lookup_error(spec, configured, states, code, text):
    error = lookup_error(spec, configured, states)
    assert (error.code, error.message) == (code, text)


def test_not_found_keeps_a_version_of_zero():
    assert not_found(ModelSpec("m", version=0)).message.endswith("Specific(m, 0)")
