"""What is kept of jobs, for how long, and who is told."""

from __future__ import annotations

import threading
import time

import pytest

from servingd.errors import Code, NotFound, ResourceExhausted
from servingd.runtime.jobs import _MOST_WAITING, _OVERHEAD_BYTES, JobStore, Result
from tests.threads.fakes import TIMEOUT

ROOM = 10 * _OVERHEAD_BYTES
DONE = Result(Code.OK, body=b"x" * 100, content_type="text/x")


@pytest.fixture
def make():
    stores = []

    def begin(max_bytes=ROOM, age_s=3600.0):
        stores.append(JobStore(max_bytes, age_s))
        stores[-1].start()
        return stores[-1]

    yield begin
    for store in stores:
        store.stop()


class Told:
    def __init__(self):
        self.times, self.came = 0, threading.Event()

    def __call__(self):
        self.times += 1
        self.came.set()


def gone(store, job):
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            store.find(job.id)
        except NotFound:
            return
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_result_is_kept_and_can_be_read_again(make):
    store = make()
    job = store.open(50)
    assert store.find(job.id).result is None
    assert store.finish(job, DONE)
    assert store.find(job.id).result == DONE
    assert store.find(job.id).result == DONE
    assert not store.finish(job, Result(Code.INTERNAL, "late"))
    assert store.size == _OVERHEAD_BYTES + 100, "the request counts no more"


def test_ids_cannot_be_guessed_and_strange_ones_are_not_found(make):
    store = make()
    ids = {store.open(0).id for _ in range(5)}
    assert {len(i) for i in ids} == {32}
    assert len(ids) == 5
    with pytest.raises(NotFound, match="there is no job 'x'"):
        store.find("x")


def test_a_full_store_refuses_new_jobs_and_keeps_the_old(make):
    store = make()
    jobs = [store.open(0) for _ in range(10)]
    with pytest.raises(ResourceExhausted, match="10 jobs take") as refused:
        store.open(0)
    assert refused.value.retry_after_s
    assert all(store.find(job.id) is job for job in jobs)
    store.forget(jobs[0].id)
    store.open(0)


def test_a_result_without_room_becomes_an_error(make):
    store = make()
    job = store.open(1)
    assert store.finish(job, Result(Code.OK, body=bytes(ROOM)))
    assert job.result.code is Code.RESOURCE_EXHAUSTED
    assert "no room for the job's result" in job.result.message
    assert store.size == _OVERHEAD_BYTES


def test_whoever_waits_is_told_once(make):
    store = make()
    job, told = store.open(0), [Told() for _ in range(3)]
    store.when_done(job, 60, told[0])
    store.when_done(job, 0, told[1])
    assert (told[0].times, told[1].times) == (0, 1)
    store.finish(job, DONE)
    store.when_done(job, 60, told[2])
    assert [t.times for t in told] == [1, 1, 1]


def test_only_so_many_wait_for_one_job(make):
    store = make()
    job, told = store.open(0), [Told() for _ in range(_MOST_WAITING + 1)]
    for one in told:
        store.when_done(job, 60, one)
    assert [one.times for one in told] == [0] * _MOST_WAITING + [1]


def test_one_that_has_waited_long_enough_is_told(make):
    store = make()
    job, told, patient = store.open(0), Told(), Told()
    store.when_done(job, 60, patient)
    store.when_done(job, 0.01, told)
    assert told.came.wait(TIMEOUT)
    assert job.result is None
    store.finish(job, DONE)
    assert (told.times, patient.times) == (1, 1)


def test_a_job_that_is_forgotten_keeps_no_result(make):
    store = make()
    job, told = store.open(100), Told()
    store.when_done(job, 60, told)
    assert store.forget(job.id)
    assert told.times == 1
    assert job.cancelled
    assert not store.finish(job, DONE)
    assert not store.forget(job.id)
    assert store.size == 0


def test_a_job_that_takes_too_long_fails_and_goes(make):
    store = make(age_s=0.05)
    job, told = store.open(0), Told()
    store.when_done(job, 60, told)
    assert told.came.wait(TIMEOUT)
    assert job.result.code is Code.DEADLINE_EXCEEDED
    gone(store, job)
    assert store.size == 0


def test_a_result_goes_when_its_time_is_over(make):
    store = make(age_s=0.05)
    for _ in range(2):  # the second one comes when there was none
        job = store.open(0)
        store.finish(job, DONE)
        gone(store, job)
    assert store.size == 0


def test_at_the_stop_nobody_waits(make):
    store = make()
    job, told, late = store.open(0), Told(), Told()
    store.when_done(job, 60, told)
    store.tell_all()
    assert told.times == 1
    store.when_done(job, 60, late)
    assert late.times == 1
