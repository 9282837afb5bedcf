"""A version's recorded requests are run before it serves, and fail its load if they fail."""

import logging
import os
import threading

import pytest

from servingd.core.types import ServableId, VersionData
from servingd.errors import Code, DataLoss, InvalidArgument, ServingError, Unimplemented
from servingd.runtime.warm_up.recorded import MAX_RECORDS, WarmUp
from servingd.wire import protos
from servingd.wire.records.prediction_logs import WARM_UP_FILE
from servingd.wire.records.tf_records import frame
from tests.threads.fakes import TIMEOUT, FakeServable

M1 = ServableId("m", 1)


def record(kind="predict_log", signature="s"):
    log = protos.PredictionLog()
    getattr(log, kind).request.model_spec.signature_name = signature
    return log.SerializeToString()


def write(path, *records):
    path.write_bytes(b"".join(map(frame, records)))


class Replayer:
    """Remembers what it ran; fails from the `fails_at`-th request on."""

    def __init__(self, fails_at=None, failure=None):
        self.requests = []
        self.bodies = set()
        self.fails_at = fails_at
        self.failure = failure or Unimplemented("not this one")

    def __call__(self, body, request):
        self.requests.append(request)
        self.bodies.add(body)
        if self.fails_at is not None and len(self.requests) >= self.fails_at:
            raise self.failure


class Reports(list):
    def __call__(self, servable, path, seconds, records):
        assert seconds >= 0
        self.append((servable, path, records))


@pytest.fixture
def version(tmp_path):
    (tmp_path / "assets.extra").mkdir()
    return tmp_path


@pytest.fixture
def file(version):
    return version / WARM_UP_FILE


@pytest.fixture
def data(version):
    return VersionData(str(version), "fake")


def failure(warm_up, data):
    with pytest.raises(ServingError) as caught:
        warm_up(M1, data, FakeServable())
    return caught.value.code, caught.value.message


def test_every_record_is_run_and_reported(file, data):
    write(file, record(signature="a"), record("classify_log", "b"), record("regress_log", "c"))
    replayer, reports, body = Replayer(), Reports(), FakeServable()
    WarmUp(replayer, reports)(M1, data, body)
    assert [r.kind for r in replayer.requests] == ["predict_log", "classify_log", "regress_log"]
    request = protos.PredictRequest.FromString(replayer.requests[0].content)
    assert request.model_spec.signature_name == "a"
    assert replayer.bodies == {body}
    assert reports == [(M1, data.path, 3)]


def test_each_record_is_run_as_often_as_asked(file, data):
    write(file, record(signature="a"), record(signature="b"))
    replayer, reports = Replayer(), Reports()
    WarmUp(replayer, reports, iterations=3)(M1, data, FakeServable())
    specs = [protos.PredictRequest.FromString(r.content).model_spec for r in replayer.requests]
    assert "".join(s.signature_name for s in specs) == "aaabbb"
    assert reports == [(M1, data.path, 2)]


def test_a_version_without_a_file_is_fine_and_not_reported(data, caplog):
    reports = Reports()
    with caplog.at_level(logging.INFO):
        WarmUp(Replayer(), reports)(M1, data, FakeServable())
    assert reports == []
    assert f"No warmup data file found at {data.path}/{WARM_UP_FILE}" in caplog.messages


def test_an_empty_file_is_fine(file, data, caplog):
    write(file)
    reports = Reports()
    with caplog.at_level(logging.INFO):
        WarmUp(Replayer(), reports)(M1, data, FakeServable())
    assert reports == [(M1, data.path, 0)]
    start, end = caplog.messages
    assert start.startswith(f"Starting to read warmup data for model at {data.path} with ")
    assert end.startswith(
        f"Finished reading warmup data for model at {data.path}. "
        "Number of warmup records read: 0. Elapsed time (microseconds): "
    )


def test_it_can_be_switched_off(file, data):
    file.write_bytes(b"garbage")
    warm_up = WarmUp(Replayer(), Reports(), enabled=False)
    warm_up(M1, data, FakeServable())
    warm_up.again(M1, data, FakeServable())


def test_a_record_without_a_kind_is_skipped_and_counted(file, data):
    write(file, b"", record())
    replayer, reports = Replayer(), Reports()
    WarmUp(replayer, reports)(M1, data, FakeServable())
    assert len(replayer.requests) == 1
    assert reports == [(M1, data.path, 2)]


def test_a_record_too_many_is_run_and_fails_the_load(file, data):
    write(file, *[record()] * (MAX_RECORDS + 1))
    replayer, reports = Replayer(), Reports()
    assert failure(WarmUp(replayer, reports), data) == (
        Code.INVALID_ARGUMENT,
        f"Number of warmup records exceeds the maximum (1000) at {file}",
    )
    assert len(replayer.requests) == MAX_RECORDS + 1
    assert reports == []


def test_as_many_records_as_may_be_are_fine(file, data):
    write(file, *[record()] * MAX_RECORDS)
    reports = Reports()
    WarmUp(Replayer(), reports)(M1, data, FakeServable())
    assert reports == [(M1, data.path, MAX_RECORDS)]


def test_a_file_that_is_no_tfrecord_fails_the_load(file, data):
    file.write_bytes(b"this is not a TFRecord file")
    assert failure(WarmUp(Replayer()), data) == (
        Code.DATA_LOSS,
        "corrupted record at 0. Please verify your warmup data is in TFRecord format.",
    )


def test_what_is_no_record_fails_the_load_and_is_shown_in_part(file, data):
    write(file, b"\xff\xff" + b"x" * 5000)
    code, message = failure(WarmUp(Replayer()), data)
    assert code is Code.INVALID_ARGUMENT
    assert message.startswith(r"Failed to parse warmup record: \xff\xffxxx")
    assert message.endswith(f"x from {file}")
    assert len(message) < 500


def test_a_request_that_fails_ends_it(file, data):
    write(file, *[record()] * 3)
    replayer, reports = Replayer(fails_at=2), Reports()
    assert failure(WarmUp(replayer, reports), data) == (Code.UNIMPLEMENTED, "not this one")
    assert len(replayer.requests) == 2
    assert reports == []


def test_a_replayed_data_loss_is_not_taken_for_the_files(file, data):
    write(file, record())
    replayer = Replayer(fails_at=1, failure=DataLoss("the model's own"))
    assert failure(WarmUp(replayer), data) == (Code.DATA_LOSS, "the model's own")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_permission_denied(file, data):
    write(file, record())
    file.chmod(0)
    assert failure(WarmUp(Replayer()), data)[0] is Code.PERMISSION_DENIED


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_in_its_place_is_our_trouble_to_tell(file, data, make):
    make(file)
    code, message = failure(WarmUp(Replayer()), data)
    assert code is Code.INTERNAL
    assert str(file) in message


def test_a_version_that_is_itself_a_file_has_no_warm_up(file):
    file.write_bytes(b"")
    WarmUp(Replayer(fails_at=1))(M1, VersionData(str(file), "fake"), FakeServable())


def test_a_body_that_comes_later_is_warmed_quietly(file, data, caplog):
    write(file, record(), record())
    replayer, reports, later = Replayer(), Reports(), FakeServable()
    with caplog.at_level(logging.INFO):
        WarmUp(replayer, reports).again(M1, data, later)
    assert len(replayer.requests) == 2
    assert replayer.bodies == {later}
    assert (reports, caplog.messages) == ([], [])
    file.unlink()
    WarmUp(replayer, reports).again(M1, data, later)
    assert len(replayer.requests) == 2


def test_several_threads_share_the_records(file, data):
    write(file, *[record()] * 8)
    together = threading.Barrier(4)
    names = set()

    def replay(body, request):
        together.wait(TIMEOUT)
        names.add(threading.current_thread().name)

    reports = Reports()
    WarmUp(replay, reports, threads=4)(M1, data, FakeServable())
    assert len(names) == 4
    assert reports == [(M1, data.path, 8)]


def test_a_failure_in_one_of_several_threads_is_the_loads(file, data):
    write(file, *[record()] * 8)
    reports = Reports()
    warm_up = WarmUp(Replayer(fails_at=3, failure=InvalidArgument("no")), reports, threads=2)
    assert failure(warm_up, data) == (Code.INVALID_ARGUMENT, "no")
    assert reports == []
