"""The configuration file: read at an interval, or when somebody asks."""

import threading

import pytest

from servingd.errors import FailedPrecondition, InvalidConfig
from servingd.sources.config_file import ConfigFilePoll
from tests.threads.fakes import TIMEOUT

NEVER = 0.0


class File:
    """What is read, who takes it, and how each reading ended."""

    def __init__(self):
        self.content = ("a",)
        self.applied = []
        self.refuses = None
        self.ended = []
        self.read = threading.Event()

    def __call__(self):
        if isinstance(self.content, Exception):
            raise self.content
        return self.content

    def apply(self, models):
        if self.refuses is not None:
            raise self.refuses
        self.applied.append(models)

    def end(self, succeeded):
        self.ended.append(succeeded)
        self.read.set()


@pytest.fixture
def file():
    return File()


@pytest.fixture
def poll(file):
    poll = ConfigFilePoll(file, file.apply, NEVER, file.end)
    poll.start()
    yield poll
    poll.stop()


def ask(poll, file):
    file.read.clear()
    poll.read_now()
    assert file.read.wait(TIMEOUT)


def test_without_an_interval_it_is_read_when_somebody_asks(poll, file):
    assert not file.applied
    ask(poll, file)
    file.content = ("b",)
    ask(poll, file)
    assert file.applied == [("a",), ("b",)]
    assert file.ended == [True, True]


def test_at_an_interval_it_is_read_again_and_again(file):
    poll = ConfigFilePoll(file, file.apply, 0.001, file.end)
    poll.start()
    for _ in range(3):
        file.read.clear()
        assert file.read.wait(TIMEOUT)
    poll.stop()
    assert len(file.applied) >= 3


def test_what_cannot_be_read_or_applied_is_told_each_time_somebody_asks(poll, file, caplog):
    file.content = InvalidConfig("line 3")
    ask(poll, file)
    ask(poll, file)
    assert caplog.text.count("Failed to read ModelServerConfig file: line 3") == 2
    file.content = ("a",)
    file.refuses = FailedPrecondition("no")
    ask(poll, file)
    assert "PollFilesystemAndReloadConfig failed to ReloadConfig: no" in caplog.text
    assert file.ended == [False, False, False]


def test_a_fault_of_ours_does_not_end_the_polling(poll, file):
    file.content = RuntimeError("boom")
    ask(poll, file)
    file.content = ("a",)
    ask(poll, file)
    assert file.ended == [False, True]


def test_a_job_that_fails_ends_nothing(poll, file, caplog):
    def fail():
        raise ValueError("why")

    poll.submit(fail)
    ask(poll, file)
    assert file.applied == [("a",)]
    assert "a change of the configuration failed" in caplog.text
