"""Requests that are kept, and new versions that answer them before they serve."""

import logging
import threading

import numpy as np
import pytest

from servingd.core.batching.samples import SampleLimits
from servingd.core.types import DataType, ServableId, Signature, TensorSpec, VersionData
from servingd.errors import Cancelled, InvalidArgument
from servingd.runtime.batching.dispatcher import Dispatcher
from servingd.runtime.batching.options import DispatchOptions
from servingd.runtime.warm_up.recorded import WarmUp
from servingd.runtime.warm_up.self_warm_up import SelfWarmUp
from tests.threads.fakes import TIMEOUT, FakeServable, RecordingCompletion, echo, inputs

M1, M2 = ServableId("m", 1), ServableId("m", 2)


class Answered:
    """A servable's body that remembers what it was asked."""

    def __init__(self, then=echo):
        self.shapes = []
        self._then = then

    def __call__(self, inputs, done):
        self.shapes.append(inputs["x"].shape)
        self._then(inputs, done)

    def once(self):
        """The shapes in order, without repetitions."""
        return list(dict.fromkeys(self.shapes))


@pytest.fixture
def reports():
    return []


@pytest.fixture
def rows_in_use():
    """Sizes of batches by signature; a test fills it in."""
    return {}


@pytest.fixture
def kept(reports, rows_in_use):
    made = SelfWarmUp(
        lambda model: rows_in_use,
        lambda signature, rows: {"x": np.zeros(rows, np.float32)},
        lambda servable, outcomes: reports.append((servable, dict(outcomes))),
    )
    made.keep_only({"m"})
    return made


@pytest.fixture
def serve(kept):
    """Open a runner of version 1: `serve(servable, **options)`."""
    opened = []

    def begin(servable=None, store=kept, **options):
        dispatcher = Dispatcher(DispatchOptions(self_warm_up=store, **options))
        opened.append(dispatcher)
        return dispatcher.open(M1, servable or FakeServable())["serving_default"]

    yield begin
    for dispatcher in opened:
        dispatcher.close(M1)


def call(runner, *sizes):
    """Calls that are all sampled: each as if the next sample were due."""
    for size in sizes:
        runner._sampler.due = -1.0
        done = RecordingCompletion()
        runner.run(inputs(size), done)
        assert done.outcome is not None


def warmed(kept, body=None, **servable):
    """What a second version was asked before it served."""
    answered = body or Answered()
    version = FakeServable(body=answered)
    for name, value in servable.items():
        setattr(version, name, value)
    kept(M2, version)
    return answered.once()


@pytest.mark.parametrize("inline_below_s", [0.0, 10.0])
def test_a_new_version_answers_what_the_old_one_did_newest_first(
    kept, serve, reports, inline_below_s
):
    call(serve(inline_below_s=inline_below_s), 1, 2, 3, 3, 3)
    assert warmed(kept) == [(3,), (2,), (1,)]
    assert reports == [(M2, {"answered": 3})]


def test_it_answers_them_at_the_batch_sizes_in_use(kept, serve, rows_in_use, caplog):
    rows_in_use["serving_default"] = (2, 8)
    call(serve(), 1, 3)
    with caplog.at_level(logging.INFO):
        assert warmed(kept) == [(3,), (1,), (2,), (8,)]
    (line,) = caplog.messages
    assert line.startswith(
        "{name: m version: 2} is warmed with 2 kept requests (0 failed, 0 skipped), "
        "batch sizes [2, 8], in "
    )


def test_without_a_kept_request_made_up_ones_stand_in_at_the_batch_sizes(
    kept, rows_in_use, reports
):
    rows_in_use["serving_default"] = (1, 4)
    assert warmed(kept) == [(1,), (4,)]
    assert reports == []


def test_nothing_is_run_where_nothing_is_known(kept, reports):
    assert warmed(kept) == []
    assert reports == []


def test_what_does_not_fit_the_new_version_is_skipped(kept, serve, reports):
    call(serve(), 2)
    other = Signature("serving_default", {"x": TensorSpec(DataType.FLOAT, (None, 3))}, {})
    assert warmed(kept, signatures={"serving_default": other}) == []
    assert warmed(kept, signatures={}) == []
    assert reports == [(M2, {"skipped": 1})] * 2


def refuse(inputs, done):
    raise InvalidArgument("the secret in this request is not known")


def crash(inputs, done):
    raise ValueError("neither is this secret")


@pytest.mark.parametrize("then", [refuse, crash])
def test_a_request_that_fails_is_told_without_its_content_and_fails_nothing(
    kept, serve, reports, caplog, then
):
    call(serve(), 1, 2)
    with caplog.at_level(logging.INFO):
        assert warmed(kept, Answered(then)) == [(2,), (1,)]
    assert reports == [(M2, {"failed": 2})]
    assert "a kept request of signature serving_default fails with IN" in caplog.text
    assert "secret" not in caplog.text


def test_a_call_that_fails_is_not_kept(kept, serve):
    call(serve(FakeServable(body=refuse)), 1)
    assert warmed(kept) == []


def test_what_keeps_state_is_neither_kept_nor_repeated(kept, serve):
    counter = FakeServable()
    counter.keeps_state = True
    runner = serve(counter)
    assert not runner._sampler.due < float("inf")
    call(serve(), 1)
    assert warmed(kept, keeps_state=True) == []


def test_a_cancelled_version_answers_no_more(kept, serve):
    def cancelled(inputs, done):
        raise Cancelled("the version is unloaded")

    call(serve(), 1, 2, 3)
    answered = Answered(cancelled)
    kept.again(M2, FakeServable(body=answered))
    assert answered.shapes == [(3,)]


def test_a_body_that_takes_over_answers_them_again_and_quietly(kept, serve, reports, caplog):
    call(serve(), 1, 2)
    answered = Answered()
    with caplog.at_level(logging.INFO):
        kept.again(M2, FakeServable(body=answered))
    assert answered.once() == [(2,), (1,)]
    assert (reports, caplog.messages) == ([], [])


def test_a_servable_that_answers_from_another_thread_is_waited_for(kept, serve, reports):
    call(serve(), 1)

    def later(inputs, done):
        thread = threading.Thread(target=done.succeed, args=(inputs,))
        thread.start()
        threads.append(thread)

    threads = []
    warmed(kept, Answered(later))
    for thread in threads:
        thread.join(TIMEOUT)
    assert reports == [(M2, {"answered": 1})]


def test_a_load_is_not_made_longer_without_end(reports, serve):
    kept = SelfWarmUp(
        warmed=lambda servable, outcomes: reports.append(dict(outcomes)), budget_s=0.01
    )
    kept.keep_only({"m"})
    call(serve(store=kept), 1, 2)
    assert warmed(kept, Answered(lambda inputs, done: None)) == [(2,)]  # it never answers
    assert reports == [{"failed": 1, "skipped": 1}]


def test_a_model_that_is_removed_leaves_nothing(kept, serve):
    runner = serve()
    call(runner, 1)
    kept.keep_only({"another"})
    call(runner, 2)
    kept.keep_only({"m"})
    assert warmed(kept) == []


def test_a_request_over_the_limit_is_not_kept(serve):
    kept = SelfWarmUp(limits=SampleLimits(request_bytes=1000))
    kept.keep_only({"m"})
    call(serve(store=kept), 10_000, 10)
    assert warmed(kept) == [(10,)]


def test_what_is_kept_outlives_the_requests_memory(kept, serve):
    array = np.ones(3, np.float32)
    runner = serve()
    done = RecordingCompletion()
    runner.run({"x": array}, done)
    assert done.outcome is not None
    array[:] = 7
    seen = []
    warmed(kept, Answered(lambda inputs, done: (seen.append(inputs["x"].tolist()), done.fail)))
    assert seen[0] == [1, 1, 1]


def test_samples_are_taken_ever_more_rarely(serve):
    runner = serve()
    sampler, done = runner._sampler, RecordingCompletion()
    gaps = []
    for _ in range(20):
        assert sampler.watch(inputs(), done, 100.0) is not done
        gaps.append(sampler.due - 100.0)
    assert gaps[:3] == pytest.approx([0.01, 0.02, 0.04])
    assert gaps[-1] == 10.0


def test_switched_off_nothing_is_watched_or_run(serve, rows_in_use):
    off = SelfWarmUp(lambda model: {"serving_default": (2,)}, lambda s, n: inputs(n), enabled=False)
    off.keep_only({"m"})
    call(serve(store=off), 1)
    assert warmed(off) == []
    answered = Answered()
    off.again(M2, FakeServable(body=answered))
    assert answered.shapes == []


def test_the_first_call_of_a_warmed_version_runs_in_its_callers_thread(kept, serve):
    call(serve(), 5)
    version = FakeServable()
    kept(M2, version)
    dispatcher = Dispatcher(DispatchOptions(self_warm_up=kept, inline_below_s=10.0))
    runner = dispatcher.open(M2, version)["serving_default"]
    done = RecordingCompletion()
    runner.run(inputs(5), done)
    assert done.outcome is not None
    assert version.ran_on[-1] is threading.current_thread()
    dispatcher.close(M2)


def test_it_follows_the_file(kept, serve, tmp_path, reports):
    call(serve(), 1)
    version = FakeServable()
    data = VersionData(str(tmp_path), "fake")
    WarmUp(lambda body, request: None, kept=kept)(M2, data, version)
    assert reports == [(M2, {"answered": 1})]
    ran = len(version.ran_on)
    WarmUp(lambda body, request: None, enabled=False, kept=kept).again(M2, data, version)
    assert len(version.ran_on) > ran


def test_large_requests_are_kept_by_another_thread_and_not_many_at_a_time(serve):
    jobs = []
    store = SelfWarmUp(later=jobs.append)
    store.keep_only({"m"})
    runner = serve(store=store, inline_below_s=0.0)
    call(runner, 20_000, 1, *range(30_000, 30_010))
    assert [store.sizes()["m"][0], len(jobs)] == [1, 4]
    for job in jobs:
        job()
    assert store.sizes()["m"][0] == 4
    call(runner, 20_000)
    assert len(jobs) == 5
