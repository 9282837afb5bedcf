"""Graphs without the devices that their makers named, and where their operations really run.

A graph names devices in its nodes and in the bodies of its functions. They are cleared, and the
replica's device is the default at import: what a function's body leaves open runs where its caller
does. With soft placement on, an operation without a kernel for that device runs on another one,
silently. So a warm-up run is traced, which shows where each operation ran.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from servingd.core.resources.placement import ObservedDevices
from servingd.core.types import Device

_NAMED = (b"/device:", b"/job:", b"/cpu:", b"/gpu:", b"/CPU:", b"/GPU:")
"""Parts of the names of devices in graphs."""
_HOST = (b"/device:CPU:0", b"/device:CPU:*")
"""Names of the host, which TensorFlow writes into every graph that it saves."""

_NOT_COUNTED = frozenset(
    {"NoOp", "_Arg", "_Retval", "_Send", "_Recv", "_HostSend", "_HostRecv", "_DeviceArg"}
    | {"_DeviceRetval", "_ScopedAllocator", "_Nop"}
)
"""Types of operations that are not counted: feeds, fetches, transfers between devices."""

_TYPE = re.compile(r" = ([\w>.]+)\(")
"""The operation's type in a trace's label."""


def device_name(device: Device) -> str:
    """Return a device as graphs name it."""
    return f"/device:{device.name}"


def has_device_names(graph_def: bytes) -> bool:
    """Return whether a serialised graph may name a device other than the host."""
    named = sum(graph_def.count(text) for text in _NAMED)
    return named > sum(graph_def.count(text) for text in _HOST)


def clear_devices(graph_def: Any) -> None:
    """Let every node of a `tensorflow.GraphDef`, and of its functions, run anywhere."""
    for nodes in (graph_def.node, *(f.node_def for f in graph_def.library.function)):
        for node in nodes:
            node.device = ""


def assign_device(graph_def: Any, device: Device) -> None:
    """Let every node of a `tensorflow.GraphDef` run on a device, and functions where called."""
    clear_devices(graph_def)
    for node in graph_def.node:
        node.device = device_name(device)


def graph_without_devices(graph_def: bytes) -> bytes:
    """Return a serialised graph without names of devices; the same object if it had none."""
    if not any(text in graph_def for text in _NAMED):
        return graph_def
    from tensorflow.core.framework import graph_pb2

    parsed = graph_pb2.GraphDef.FromString(graph_def)
    clear_devices(parsed)
    cleared: bytes = parsed.SerializeToString()
    return cleared


def observe_devices(
    traces: Iterable[Any], planned: Device, unseen: Iterable[str]
) -> ObservedDevices:
    """Return where a replica's operations ran, from traces (`tensorflow.RunMetadata`).

    An operation that several of them show, as in a loop, is counted once.
    """
    seen = {
        (stats.device.rpartition("device:")[2], node.node_name, _type_of(node))
        for trace in traces
        for stats in trace.step_stats.dev_stats
        if "stream" not in stats.device  # the same once more, as the driver sees it
        for node in stats.node_stats
    }
    counts: Counter[str] = Counter()
    moved: dict[str, Counter[str]] = {}
    for device, _, kind in seen:
        if kind in _NOT_COUNTED:
            continue
        counts[device] += 1
        if device != planned.name:
            moved.setdefault(device, Counter())[kind] += 1
    return ObservedDevices(dict(sorted(counts.items())), _plain(moved), tuple(sorted(unseen)))


def _type_of(node: Any) -> str:
    found = _TYPE.search(node.timeline_label)
    return found[1] if found else node.timeline_label or node.node_name


def _plain(moved: Mapping[str, Mapping[str, int]]) -> Mapping[str, Mapping[str, int]]:
    return {device: dict(sorted(kinds.items())) for device, kinds in sorted(moved.items())}
