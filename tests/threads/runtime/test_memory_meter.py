"""What can be told of the memory of a process that everybody shares."""

import pytest

from servingd.core.resources.footprints import Measured
from servingd.core.types import Device, Resources
from servingd.machine.memory import ram_budget
from servingd.runtime.versions.memory_meter import MemoryMeter

GB = 1 << 30
GPU_0 = Device("GPU", 0)


class Process:
    """A process's status, as a test says it is."""

    def __init__(self):
        self.now = {"VmRSS": 1000, "VmHWM": 5000}
        self.devices = {GPU_0: 10}
        self.meter = MemoryMeter(lambda: dict(self.devices), self.now.__getitem__)

    def load(self, platform="t"):
        return self.meter.start(platform)


@pytest.fixture
def process():
    process = Process()
    process.meter.stop(process.load())  # the first of its type is never measured
    return process


def test_the_first_load_of_a_type_is_not_measured_the_second_is(process):
    assert process.meter.stop(process.load("u")) is None
    span = process.load("u")
    process.now.update(VmRSS=1300, VmHWM=1700)
    process.devices[GPU_0] = 60
    measured = process.meter.stop(span)
    assert measured.steady == Resources(300, {GPU_0: 50})
    assert measured.peak == Resources(700, {GPU_0: 50})


def test_loads_that_overlap_are_not_measured(process):
    first = process.load()
    second = process.load()
    assert process.meter.stop(first) is None
    assert process.meter.stop(second) is None
    assert process.meter.stop(process.load()) is not None


def test_nor_is_one_that_overlaps_with_an_unload(process):
    load, unload = process.load(), process.meter.start()
    process.meter.stop(unload)
    assert process.meter.stop(load) is None


def test_once_something_was_unloaded_only_devices_tell(process):
    """What an unload leaves to the allocator, the next load uses again."""
    process.meter.stop(process.meter.start())
    span = process.load()
    process.now.update(VmRSS=1001, VmHWM=1001)
    process.devices[GPU_0] = 60
    devices = Resources(0, {GPU_0: 50})
    assert process.meter.stop(span) == Measured(devices, devices)
    process.devices.clear()
    assert process.meter.stop(process.load()) is None


def test_a_process_that_shrank_says_nothing(process):
    span = process.load()
    process.now.update(VmRSS=900, VmHWM=900)
    assert process.meter.stop(span).steady.ram == 0


def test_a_system_that_does_not_tell_says_nothing(process):
    process.now["VmRSS"] = 0
    assert process.meter.stop(process.load()) is None


def test_the_real_process_tells():
    meter = MemoryMeter()
    meter.stop(meter.start("t"))
    measured = meter.stop(meter.start("t"))
    assert measured is None or measured.peak.ram >= measured.steady.ram >= 0


def test_a_driver_that_does_not_answer_fails_nothing(process):
    def fail():
        raise OSError("the driver does not answer")

    meter = MemoryMeter(fail, process.now.__getitem__)
    meter.stop(meter.start("t"))
    assert meter.stop(meter.start("t")) is None


# Budgets ----------------------------------------------------------------------------------------


@pytest.fixture
def machine(tmp_path):
    """`machine(megabytes, {group: limit}, membership)`, then its budget."""

    def make(total, limits, membership=""):
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/meminfo").write_text(f"MemFree: 1 kB\nMemTotal: {total >> 10} kB\n")
        (tmp_path / "proc/self/cgroup").write_text(membership)
        for name, limit in limits.items():
            file = tmp_path / "groups" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{limit}\n")
        return ram_budget(str(tmp_path / "proc"), str(tmp_path / "groups"))

    return make


def budget(limit):
    return max(limit // 2, limit * 9 // 10 - GB)


@pytest.mark.parametrize(
    ("total", "limits", "membership", "limit"),
    [
        (16 * GB, {}, "", 16 * GB),
        (16 * GB, {"memory.max": "max"}, "0::/\n", 16 * GB),
        (16 * GB, {"memory.max": 4 * GB}, "0::/\n", 4 * GB),
        (16 * GB, {"a/b/memory.max": 8 * GB, "a/memory.max": 6 * GB}, "0::/a/b\n", 6 * GB),
        (16 * GB, {"memory/a/memory.limit_in_bytes": 2 * GB}, "4:memory:/a\n", 2 * GB),
        (16 * GB, {"memory/memory.limit_in_bytes": 2**63 - 4096}, "4:memory:/x\n", 16 * GB),
        (16 * GB, {"memory/memory.limit_in_bytes": 3 * GB}, "3:cpu:/a\n4:memory:/x\n", 3 * GB),
    ],
)
def test_the_lowest_limit_counts(machine, total, limits, membership, limit):
    assert machine(total, limits, membership) == budget(limit)


def test_a_small_machine_gives_half():
    assert budget(GB) == GB // 2


def test_a_system_without_either_sets_no_budget(tmp_path):
    assert ram_budget(str(tmp_path), str(tmp_path)) == 0
