"""The decision tables of both policies, from TensorFlow Serving's own tests."""

import pytest

from servingd.core.lifecycle.policies import (
    Load,
    Snapshot,
    Unload,
    availability_preserving,
    resource_preserving,
)
from servingd.core.lifecycle.states import HarnessState

STATES = {state.value: state for state in HarnessState}


def snapshots(table: str) -> list[Snapshot]:
    """`1:ready,t 2:error,f` as snapshots."""
    result = []
    for histogram in table.split():
        version, rest = histogram.split(":")
        state, aspired = rest.split(",")
        result.append(Snapshot(int(version), STATES[state], aspired == "t"))
    return result


@pytest.mark.parametrize(
    ("table", "action"),
    [
        ("1:unloading,f 2:error,f 3:ready,t 4:new,t 5:new,t", Load(5)),
        ("1:unloading,f 2:error,f 3:ready,f 4:ready,t 5:new,t", Unload(3)),
        ("1:disabled,f 2:ready,f 3:error,f", Unload(2)),
        ("1:ready,t 2:error,t 3:loading,t 4:unloading,f 5:disabled,f", None),
        ("1:ready,f 2:loading,t", None),
        ("1:ready,f 2:error,t", None),
        ("1:ready,f 2:loading,t 3:ready,t", Unload(1)),
        ("1:ready,f 2:error,t 3:ready,t", Unload(1)),
        ("2:ready,f 1:ready,f 3:error,t 4:loading,t", Unload(1)),
        # the rows of the table that no such test covers
        ("1:new,t 2:new,t", Load(2)),
        ("", None),
        ("1:ready,f 2:new,t", Load(2)),
        ("1:ready,f", Unload(1)),
        ("1:quiescing,f 2:new,t", Load(2)),
    ],
)
def test_availability_preserving(table, action):
    assert availability_preserving(snapshots(table)) == action


@pytest.mark.parametrize(
    ("table", "action"),
    [
        ("1:unloading,f 2:ready,t 3:ready,f 4:new,t 5:ready,f", Unload(3)),
        ("1:ready,t 2:loading,t 3:new,t 4:disabled,f 5:new,t", Load(5)),
        ("1:ready,t 2:error,t 3:loading,t 4:unloading,f 5:disabled,f", None),
        ("1:quiescing,f 2:new,t", None),
        ("1:error,f 2:new,t", Load(2)),
        ("1:error,f 2:quiescing,f 3:new,t", None),
        ("1:error,f 2:disabled,f 3:new,t", Load(3)),
        ("1:loading,f 2:new,t", None),
        ("", None),
    ],
)
def test_resource_preserving(table, action):
    assert resource_preserving(snapshots(table)) == action
