"""Devices in graphs, as bytes and as messages, and what traces tell."""

from types import SimpleNamespace

import pytest

from servingd.core.resources.placement import ObservedDevices
from servingd.core.types import CPU_0, Device
from servingd.servables.saved_model.session.device_assignment import (
    has_device_names,
    observe_devices,
)


@pytest.mark.parametrize(
    ("graph", "names"),
    [
        (b"no device", False),
        (b"..\x0d/device:CPU:0*..", False),
        (b"/device:CPU:*...../device:CPU:0", False),
        (b"/device:CPU:0...../device:GPU:0", True),
        (b"/device:CPU:1", True),
        (b"/gpu:0", True),
        (b"/job:worker/replica:0/task:0/device:CPU:0", True),
    ],
)
def test_a_graph_that_names_another_device_than_the_host_is_found(graph, names):
    assert has_device_names(graph) is names


def trace(**devices):
    """By device (with _ for what names cannot have), nodes as (name, label)."""
    return SimpleNamespace(
        step_stats=SimpleNamespace(
            dev_stats=[
                SimpleNamespace(
                    device=device.replace("_", ":").replace("SLASH", "/"),
                    node_stats=[
                        SimpleNamespace(node_name=name, timeline_label=label)
                        for name, label in nodes
                    ],
                )
                for device, nodes in devices.items()
            ]
        )
    )


def node(name, kind):
    return name, f"{name} = {kind}(a, b)"


def test_operations_are_counted_once_and_those_elsewhere_by_type():
    first = trace(
        device_GPU_0=[node("x", "MatMul"), node("x", "MatMul"), node("y", "my>Op")],
        device_CPU_0=[node("t", "HashTableV2"), node("a", "_Arg"), node("r", "_Retval")],
    )
    second = trace(device_GPU_0=[node("x", "MatMul")], device_CPU_0=[node("u", "HashTableV2")])
    assert observe_devices([first, second], Device("GPU", 0), ["s"]) == ObservedDevices(
        {"CPU:0": 2, "GPU:0": 2}, {"CPU:0": {"HashTableV2": 2}}, ("s",)
    )


def test_what_the_driver_tells_once_more_is_left_out():
    found = trace(device_GPU_0=[node("x", "MatMul")], device_GPU_0SLASHstream_all=[node("x", "k")])
    assert observe_devices([found], Device("GPU", 0), []).devices == {"GPU:0": 1}


def test_a_label_without_a_type_counts_as_itself():
    found = trace(device_CPU_0=[("x", ""), ("y", "something")])
    assert observe_devices([found], CPU_0, []) == ObservedDevices({"CPU:0": 2}, {}, ())
