"""Marks of what each thread runs, as the supervisor reads them after a death."""

import mmap
import threading

import pytest

from servingd.core.types import ServableId
from servingd.supervisor.processes.run_marks import SIZE, MarkedRuns, RunMarks, code_of, known

A, B = ServableId("a", 1), ServableId("b", 1)
SLOTS = SIZE // 16


@pytest.fixture
def memory():
    with mmap.mmap(-1, SIZE) as memory:
        yield memory


@pytest.fixture
def marks(memory):
    marks = RunMarks(memory)
    yield marks
    marks._words.release()


@pytest.fixture
def reader(memory):
    """The other process."""
    reader = RunMarks(memory)
    yield reader
    reader._words.release()


def test_what_runs_is_marked_until_it_ends(marks, reader):
    runs = MarkedRuns(marks, A)
    assert reader.running() == frozenset()
    runs[7] = "a run"
    assert reader.running() == {code_of(A)}
    assert runs[7] == "a run"
    del runs[7]
    assert reader.running() == frozenset()


def test_the_thread_that_crashed_tells_which_of_several_it_was(marks, reader):
    MarkedRuns(marks, A)[7] = "a run"
    MarkedRuns(marks, B)[8] = "a run"
    assert reader.running(7) == {code_of(A)}
    assert reader.running(8) == {code_of(B)}
    assert reader.running(9) == reader.running() == {code_of(A), code_of(B)}


def test_each_thread_keeps_its_slot(marks):
    for _ in range(3 * SLOTS):
        marks.begin(7, 1)
        marks.end(7)
    assert len(marks._slots) == 1


def test_more_threads_than_slots_do_no_harm(marks, reader):
    """Slots of threads that have ended are used again."""
    for thread in range(1, 3 * SLOTS):
        marks.begin(thread, code_of(A))
        assert reader.running(thread) == {code_of(A)}
        marks.end(thread)
    assert reader.running() == frozenset()


def test_threads_that_live_keep_their_slots(marks, reader):
    me = threading.get_ident()
    marks.begin(me, code_of(B))
    for thread in range(1, 3 * SLOTS):
        marks.begin(thread, code_of(A))
        marks.end(thread)
    assert reader.running(me) == {code_of(B)}


def test_runs_of_threads_at_the_same_time(marks, reader):
    def run(servable_id):
        runs = MarkedRuns(marks, servable_id)
        me = threading.get_ident()
        for _ in range(200):
            runs[me] = "a run"
            assert reader.running(me) == {code_of(servable_id)}
            del runs[me]

    failures = []

    def guarded(servable_id):
        try:
            run(servable_id)
        except BaseException as error:
            failures.append(error)

    ids = [ServableId("m", version) for version in range(8)]
    threads = [threading.Thread(target=guarded, args=(i,)) for i in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not failures
    assert reader.running() == frozenset()


def test_codes_stand_for_versions():
    assert code_of(A) == code_of(ServableId("a", 1)) != 0
    assert known([code_of(A), 5], [B, A]) == [A]
    assert code_of(ServableId("\udc80", 1)) != code_of(A)
