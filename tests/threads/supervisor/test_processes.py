"""The end of child processes, learnt by waiting for them."""

import os
import queue
import signal
import subprocess
import sys
from dataclasses import dataclass

import pytest

from servingd.supervisor.processes.deaths import Death
from servingd.supervisor.processes.process import Reaper
from tests.threads.fakes import TIMEOUT

SLEEP = "import time; time.sleep(60)"


@dataclass
class Child:
    pid: int


def spawn(code: str) -> Child:
    return Child(
        os.posix_spawn(sys.executable, [sys.executable, "-S", "-c", code], dict(os.environ))
    )


def begin(reaper, code: str) -> int:
    return reaper.begin(lambda: spawn(code)).pid


@pytest.fixture
def ends():
    return queue.SimpleQueue()


@pytest.fixture
def reaper(ends):
    reaper = Reaper(lambda pid, death: ends.put((pid, death)))
    reaper.start()
    yield reaper
    reaper.stop()
    reaper._thread.join(TIMEOUT)
    assert not reaper._thread.is_alive()


def test_an_exit_status_is_told(reaper, ends):
    pid = begin(reaper, "raise SystemExit(3)")
    assert ends.get(timeout=TIMEOUT) == (pid, Death(status=3))


def test_a_child_that_ends_at_once_is_told(reaper, ends):
    def begun():
        child = spawn("")
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        return child

    pid = reaper.begin(begun).pid
    assert ends.get(timeout=TIMEOUT) == (pid, Death())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_signal_is_told(reaper, ends, number):
    pid = begin(reaper, SLEEP)
    os.kill(pid, number)
    found, death = ends.get(timeout=TIMEOUT)
    assert (found, death.signal_number, death.status) == (pid, number, 0)


def test_of_two_at_once_each_is_told(reaper, ends):
    pids = {begin(reaper, SLEEP), begin(reaper, SLEEP)}
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert {ends.get(timeout=TIMEOUT)[0] for _ in pids} == pids


def test_the_end_of_others_children_does_not_hide_that_of_ours():
    """As process 1 of a container it gets the orphans of others. In a process of its own."""
    program = """
import os, queue, signal, time
from tests.threads.supervisor import test_processes as t
ends = queue.SimpleQueue()
reaper = t.Reaper(lambda pid, death: ends.put(pid), adopts=True)
reaper.start()
strangers = [t.spawn("") for _ in range(3)]
ours = t.begin(reaper, t.SLEEP)
deadline = time.monotonic() + t.TIMEOUT
while any(os.path.exists(f"/proc/{s.pid}") for s in strangers):
    assert time.monotonic() < deadline
    time.sleep(0.01)
assert ends.empty()
os.kill(ours, signal.SIGKILL)
assert ends.get(timeout=t.TIMEOUT) == ours
reaper.stop()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_child_that_was_waited_for_elsewhere_has_ended_too(ends):
    reaper = Reaper(lambda pid, death: ends.put((pid, death)))
    child = spawn("")
    os.waitpid(child.pid, 0)
    reaper.begin(lambda: child)
    reaper.start()
    assert ends.get(timeout=TIMEOUT) == (child.pid, Death())
    reaper.stop()
    reaper._thread.join(TIMEOUT)
    assert not reaper._thread.is_alive()


def test_a_child_that_cannot_be_begun_is_not_waited_for(reaper):
    def spawn():
        raise OSError("no memory")

    with pytest.raises(OSError, match="no memory"):
        reaper.begin(spawn)


def test_a_child_of_this_process_that_is_waited_for_elsewhere_does_no_harm(reaper, ends):
    assert subprocess.run([sys.executable, "-S", "-c", ""], check=False).returncode == 0
    pid = begin(reaper, "")
    assert ends.get(timeout=TIMEOUT)[0] == pid
