"""What is told of devices, in the metrics, over HTTP and by the command."""

from __future__ import annotations

import json

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from servingd.cli.operating import devices as command
from servingd.core.lifecycle.harness import LoadPlan, PlannedVersion
from servingd.core.lifecycle.states import HarnessState
from servingd.core.resources.placement import ObservedDevices, ReplicaReport
from servingd.core.types import CPU_0, NO_BYTES, Device, Placement, Resources, ServableId
from servingd.frontends.admin.device_page import describe_devices, describe_placement
from servingd.observability.placements import Placements
from servingd.servables.saved_model.session.devices import LocalDevice

MIB = 1 << 20
GPU_0 = Device("GPU", 0)
M1, N1 = ServableId("m", 1), ServableId("n", 1)
MOVED = {"CPU:0": {"HashTableV2": 1, "LookupTableFindV2": 2}}
ON_GPU = ReplicaReport(
    GPU_0, "serving", "plain", 1, ObservedDevices({"GPU:0": 9, "CPU:0": 3}, MOVED, ("s",))
)
OUT = ReplicaReport(CPU_0, "out", "optimised", 2)


class Machine:
    """A host and a GPU."""

    known = (LocalDevice(CPU_0, 0, "the host"), LocalDevice(GPU_0, 90 * MIB, "a GPU"))

    def in_use(self):
        return {GPU_0: 33 * MIB}


def planned(servable, *devices, held=NO_BYTES, growth=NO_BYTES):
    return PlannedVersion(
        servable, HarnessState.READY, None, Placement(devices), held, growth, True, "it fits"
    )


@pytest.fixture
def placements():
    found = Placements()
    plan = LoadPlan(
        Resources(100 * MIB, {CPU_0: 0, GPU_0: 90 * MIB}),
        {},
        (
            planned(M1, GPU_0, CPU_0, held=Resources(2 * MIB, {GPU_0: 5 * MIB, CPU_0: MIB})),
            planned(N1, CPU_0, held=Resources(MIB, {CPU_0: MIB}), growth=Resources(7 * MIB)),
        ),
    )
    found.watch(lambda: plan, Machine())
    found.report(M1, [ON_GPU, OUT])
    return found


def test_the_page_shows_devices_who_holds_them_and_where_everybody_is(placements):
    page = describe_devices(placements)
    assert page["ram"] == {
        "budget_bytes": 100 * MIB,
        "held_bytes": 3 * MIB,
        "reserved_for_optimising_bytes": 7 * MIB,
    }
    host, gpu = page["devices"]
    assert host == {
        "name": "CPU:0",
        "description": "the host",
        "budget_bytes": None,
        "held_bytes": 2 * MIB,
        "in_use_bytes": None,
        "replicas": 2,
    }
    assert (gpu["budget_bytes"], gpu["in_use_bytes"]) == (90 * MIB, 33 * MIB)
    m, n = page["versions"]
    assert (m["model"], m["planned"], m["measured"]) == ("m", ["GPU:0", "CPU:0"], True)
    assert [(r["device"], r["state"]) for r in m["replicas"]] == [
        ("GPU:0", "serving"),
        ("CPU:0", "out"),
    ]
    assert m["replicas"][0]["moved_operations"] == MOVED
    assert m["replicas"][0]["signatures_not_traced"] == ["s"]
    assert m["replicas"][1]["operations_by_device"] is None, "nobody looked"
    assert n["replicas"] == []
    json.dumps(page)


def test_before_anything_is_known_the_page_is_empty():
    page = describe_devices(Placements())
    assert (page["devices"], page["versions"]) == ([], [])
    assert describe_placement(Placements(), M1) == {"replicas": []}


def test_metrics(placements):
    registry = CollectorRegistry()
    registry.register(placements)
    lines = generate_latest(registry).decode().splitlines()
    shown = {line for line in lines if not line.startswith("#")}
    assert 'servingd_device_bytes{device="RAM",kind="limit"} 1.048576e+08' in shown
    assert 'servingd_device_bytes{device="GPU:0",kind="in_use"} 3.4603008e+07' in shown
    labels = 'device="CPU:0",model="m",state="out",version="1"'
    assert f"servingd_replicas{{{labels}}} 1.0" in shown
    labels = 'device="GPU:0",model="m",operation="LookupTableFindV2",runs_on="CPU:0",version="1"'
    assert f"servingd_moved_operations{{{labels}}} 2.0" in shown
    placements.report(M1, ())
    assert b'model="m"' not in generate_latest(registry)


# The command ------------------------------------------------------------------------------------


def test_the_command_shows_what_matters(placements, capsys):
    command.show(describe_devices(placements))
    out = capsys.readouterr().out
    for text in ("GPU:0", "90.0 MiB", "33.0 MiB", "a GPU", "CPU:0 optimised (out)", "CPU:0: 3"):
        assert text in out
    assert "AVAILABLE" in out
