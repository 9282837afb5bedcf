"""What control groups pay counts as the cores that there are."""

import os

import pytest

from servingd.machine.cpus import cpus


@pytest.fixture(autouse=True)
def many_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))


@pytest.fixture
def machine(tmp_path):
    """Write a process's groups and their files; how many cores count then."""

    def write(cgroup, files):
        (tmp_path / "proc" / "self").mkdir(parents=True)
        (tmp_path / "proc" / "self" / "cgroup").write_text(cgroup)
        for path, text in files.items():
            file = tmp_path / "groups" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return cpus(str(tmp_path / "proc"), str(tmp_path / "groups"))

    return write


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("max 100000\n", 16),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("1000 100000\n", 1),
        ("9900000 100000\n", 16),
        ("200000 0\n", 16),
        ("nonsense\n", 16),
    ],
)
def test_a_quota_of_the_second_version_is_rounded_up(machine, text, cores):
    assert machine("0::/\n", {"cpu.max": text}) == cores


@pytest.mark.parametrize(("quota", "cores"), [("-1\n", 16), ("250000\n", 3), ("10000\n", 1)])
@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_a_quota_of_the_first_version_is_rounded_up(machine, mount, quota, cores):
    files = {
        f"{mount}/pod/me/cpu.cfs_quota_us": quota,
        f"{mount}/pod/me/cpu.cfs_period_us": "100000\n",
    }
    assert machine("4:memory:/x\n3:cpu,cpuacct:/pod/me\n", files) == cores


def test_the_smallest_quota_on_the_way_up_counts(machine):
    files = {"pod/me/cpu.max": "800000 100000", "pod/cpu.max": "300000 100000"}
    assert machine("0::/pod/me\n", files) == 3


def test_without_groups_the_cores_that_may_be_used_count(tmp_path):
    assert cpus(str(tmp_path), str(tmp_path)) == 16
