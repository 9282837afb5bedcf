"""The request log with its real thread and real files."""

import logging
import os
import re
import resource
import signal
import stat
import threading

import pytest

from servingd.config.models import ModelConfig
from servingd.config.request_log import LoggingConfig, PerTaskSampling
from servingd.core.types import ServableId
from servingd.errors import Code
from servingd.inference.replay import replay
from servingd.runtime.request_log.files import LogFiles
from servingd.runtime.request_log.logs import MAX_WAITING, MAX_WAITING_BYTES, RequestLogs
from servingd.wire import protos
from servingd.wire.records.prediction_logs import recorded_request
from servingd.wire.records.tf_records import frame, read_records
from tests.threads.fakes import TIMEOUT, FakeServable

M1 = ServableId("m", 1)
NAME = re.compile(r"m-\d{8}T\d{6}Z-\d+-\d+\.tfrecord")


def model(prefix, rate=1.0, name="m", **fields):
    logged = LoggingConfig(filename_prefix=str(prefix), sampling_rate=rate, **fields)
    return ModelConfig(name=name, base_path="/m", logging=logged)


def exchange(text="a"):
    """A PredictRequest and its response, told apart by their signature."""
    request, response = protos.PredictRequest(), protos.PredictResponse()
    for spec in (request.model_spec, response.model_spec):
        spec.name, spec.signature_name = "m", text
    return request.SerializeToString(), response.SerializeToString()


class Counts:
    """How sampled calls fared; waits for so many of them."""

    def __init__(self):
        self._changed = threading.Condition()
        self.all = []

    def __call__(self, model, code):
        with self._changed:
            self.all.append((model, code))
            self._changed.notify_all()

    def wait(self, number):
        with self._changed:
            found = self._changed.wait_for(lambda: len(self.all) >= number, TIMEOUT)
        assert found, self.all
        return self.all


class Log:
    """A request log, its folder and what it counted."""

    def __init__(self, folder, max_bytes=1 << 20, max_files=10):
        self.folder = folder
        self.counts = Counts()
        self.logs = RequestLogs(max_bytes, max_files, self.counts, ("serve", "gpu"))
        self.running = False

    def start(self):
        self.logs.start()
        self.running = True
        return self

    def stop(self, timeout_s=TIMEOUT):
        self.running = False
        self.logs.stop(timeout_s)

    def write(self, text="a", servable=M1):
        self.logs.write(servable, "predict_log", *exchange(text))

    def files(self):
        """The files that are there, in the order in which they were made."""
        return sorted(self.folder.glob("*.tfrecord"), key=lambda f: int(f.stem.rsplit("-", 1)[1]))

    def records(self):
        return [record for file in self.files() for record in read_records(str(file))]

    def texts(self):
        parsed = map(protos.PredictionLog.FromString, self.records())
        return [log.predict_log.request.model_spec.signature_name for log in parsed]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "logs"


@pytest.fixture
def build(folder):
    made = []

    def make(**options):
        made.append(Log(folder, **options))
        return made[-1]

    yield make
    for log in made:
        if log.running:
            log.stop()


@pytest.fixture
def log(build, folder):
    log = build().start()
    log.logs.configure([model(folder / "m")])
    return log


# Sampling ---------------------------------------------------------------------------------------


def test_only_models_with_a_log_are_sampled(log, folder):
    logs = log.logs
    others = ModelConfig(name="plain", base_path="/p")
    never = model(folder / "n", rate=0.0, name="never")
    nowhere = ModelConfig(name="nowhere", base_path="/p", logging=LoggingConfig())
    logs.configure([model(folder / "m"), never, others, nowhere])
    assert logs.samples("m")
    assert not any(map(logs.samples, ["never", "plain", "nowhere", "unknown", ""]))


def test_about_the_share_that_was_asked_for_is_sampled(log, folder):
    log.logs.configure([model(folder / "m", rate=0.25)])
    found = sum(log.logs.samples("m") for _ in range(10_000))
    assert 2000 < found < 3000


def test_an_entry_for_every_task_decides(log, folder):
    log.logs.configure([model(folder / "m", per_task=(PerTaskSampling(sampling_rate=0.0),))])
    assert not log.logs.samples("m")


# Records ----------------------------------------------------------------------------------------


def test_a_call_becomes_a_record_in_a_private_file(log, folder):
    log.write("one")
    log.counts.wait(1)
    (file,) = log.files()
    assert NAME.fullmatch(file.name)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    parsed = protos.PredictionLog.FromString(log.records()[0])
    request, response = exchange("one")
    assert parsed.predict_log.request.SerializeToString() == request
    assert parsed.predict_log.response.SerializeToString() == response
    metadata = parsed.log_metadata
    spec = metadata.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("m", 1, "one")
    assert list(metadata.saved_model_tags) == ["serve", "gpu"]
    assert metadata.sampling_config.sampling_rate == 1.0
    assert metadata.timestamp_secs > 1_600_000_000
    assert log.counts.all == [("m", Code.OK)]


def test_a_record_can_be_replayed(log):
    def content(alias):
        request = protos.PredictRequest()
        request.inputs[alias].dtype = 1
        request.inputs[alias].float_val.append(1.0)
        request.inputs[alias].tensor_shape.dim.add(size=1)
        return request.SerializeToString()

    log.logs.write(M1, "predict_log", content("x"), b"")
    log.counts.wait(1)
    found = recorded_request(log.records()[0])
    body = FakeServable()
    replay(body, found)
    assert len(body.ran_on) == 1


def test_records_stand_in_order_and_are_readable_while_more_come(log):
    for n in range(50):
        log.write(str(n))
    log.counts.wait(50)
    assert log.texts() == [str(n) for n in range(50)]


def test_models_may_share_files(log, folder):
    log.logs.configure([model(folder / "m", name="a"), model(folder / "m", name="b")])
    log.write("1", ServableId("a", 1))
    log.write("2", ServableId("b", 1))
    log.counts.wait(2)
    assert len(log.files()) == 1
    assert log.texts() == ["1", "2"]


# Rotation ---------------------------------------------------------------------------------------


def test_a_file_that_would_be_too_large_is_followed_by_another(build, folder):
    log = build(max_bytes=200).start()
    log.logs.configure([model(folder / "m")])
    for n in range(9):
        log.write(str(n))
    log.counts.wait(9)
    assert len(log.files()) > 2
    assert all(file.stat().st_size <= 200 for file in log.files())
    assert log.texts() == [str(n) for n in range(9)]


def test_a_record_larger_than_a_file_may_be_has_a_file_of_its_own(build, folder):
    log = build(max_bytes=10).start()
    log.logs.configure([model(folder / "m")])
    for text in ("a", "b"):
        log.write(text)
    log.counts.wait(2)
    assert len(log.files()) == 2
    assert log.texts() == ["a", "b"]


def test_only_so_many_files_are_kept_and_nothing_else_is_removed(build, folder):
    folder.mkdir()
    old = folder / "m-20200101T000000Z-7-3.tfrecord"
    strangers = [
        "m-20200101T000000Z-7.tfrecord",
        "m-20200101T000000Z-7-3.tfrecord.gz",
        "m2-20200101T000000Z-7-3.tfrecord",
        "am-20200101T000000Z-7-3.tfrecord",
        "m-x-20200101T000000Z-7-3.tfrecord",
        "notes",
    ]
    for name in [old.name, *strangers]:
        (folder / name).write_bytes(b"")
    (folder / "m-20200101T000000Z-8-3.tfrecord").mkdir()
    os.symlink(folder / "notes", folder / "m-20200101T000000Z-9-3.tfrecord")
    strangers += ["m-20200101T000000Z-8-3.tfrecord", "m-20200101T000000Z-9-3.tfrecord"]
    log = build(max_bytes=10, max_files=2).start()
    log.logs.configure([model(folder / "m")])
    for text in "abcde":
        log.write(text)
    log.counts.wait(5)
    left = {entry.name for entry in folder.iterdir()}
    assert set(strangers) < left
    ours = left - set(strangers)
    assert len(ours) == 2
    assert old.name not in ours
    kept = [r for n in ours for r in read_records(str(folder / n))]
    parsed = map(protos.PredictionLog.FromString, kept)
    assert {p.predict_log.request.model_spec.signature_name for p in parsed} == {"d", "e"}


def test_all_files_are_kept_where_that_is_asked_for(build, folder):
    log = build(max_bytes=10, max_files=0).start()
    log.logs.configure([model(folder / "m")])
    for n in range(20):
        log.write(str(n))
    log.counts.wait(20)
    assert len(log.files()) == 20


def test_two_logs_with_one_prefix_never_write_to_the_same_file(folder):
    one, other = (LogFiles(str(folder / "m"), 1 << 20, 0) for _ in range(2))
    for files, text in ((one, b"1"), (other, b"2"), (one, b"3")):
        files.write(frame(text))
    one.close()
    other.close()
    found = sorted(b"".join(read_records(str(f))) for f in folder.iterdir())
    assert found == [b"13", b"2"]


# Trouble ----------------------------------------------------------------------------------------


def test_a_file_that_somebody_removed_is_followed_by_another(log):
    log.write("a")
    log.counts.wait(1)
    log.files()[0].unlink()
    log.write("b")
    log.counts.wait(2)
    assert log.texts() == ["b"]


def test_a_folder_that_cannot_be_made_is_told_once_and_counted_until_it_can(log, folder, caplog):
    folder.write_text("in its place")
    with caplog.at_level(logging.INFO):
        for text in "abc":
            log.write(text)
        log.counts.wait(3)
        folder.unlink()
        log.write("d")
        log.counts.wait(4)
    codes = [code for _, code in log.counts.all]
    assert codes[3] is Code.OK
    assert Code.OK not in codes[:3]
    assert len([m for m in caplog.messages if "requests are not logged to" in m]) == 1
    assert len([m for m in caplog.messages if "are logged to" in m and m.endswith("again")]) == 1
    assert log.texts() == ["d"]


def test_what_a_full_disk_took_in_part_is_taken_back(folder):
    files = LogFiles(str(folder / "m"), 1 << 30, 1)
    files.write(frame(b"first"))
    (path,) = folder.iterdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        for _ in range(3):
            with pytest.raises(OSError, match="too large"):
                files.write(frame(bytes(5000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(folder.iterdir()) == [path]
    files.write(frame(b"second"))
    files.close()
    assert list(read_records(str(path))) == [b"first", b"second"]


def test_an_unknown_kind_is_counted_and_harms_nobody(log):
    log.logs.write(M1, "no_such_log", b"", b"")
    log.write("a")
    assert log.counts.wait(2) == [("m", Code.INTERNAL), ("m", Code.OK)]


# The queue --------------------------------------------------------------------------------------


def test_a_full_queue_drops_and_counts_and_holds_nobody_up(build, folder):
    log = build()  # its thread is not there yet
    log.logs.configure([model(folder / "m")])
    for n in range(MAX_WAITING + 3):
        log.write(str(n))
    assert log.counts.all == [("m", Code.RESOURCE_EXHAUSTED)] * 3
    log.start()
    log.counts.wait(MAX_WAITING + 3)
    assert log.texts() == [str(n) for n in range(MAX_WAITING)]


def test_the_queue_is_limited_by_bytes_as_well(build, folder):
    log = build(max_bytes=1 << 30)
    log.logs.configure([model(folder / "m")])
    half = bytes(MAX_WAITING_BYTES // 2)
    for _ in range(3):
        log.logs.write(M1, "predict_log", half, b"")
    assert log.counts.all == [("m", Code.RESOURCE_EXHAUSTED)]
    log.start()
    log.counts.wait(3)
    log.logs.write(M1, "predict_log", half, b"")
    log.counts.wait(4)
    assert [code for _, code in log.counts.all[1:]] == [Code.OK] * 3


def test_many_threads_may_write_at_once(log):
    def work(thread):
        for n in range(20):
            log.write(f"{thread}-{n}")

    threads = [threading.Thread(target=work, args=(t,)) for t in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    log.counts.wait(160)
    assert sorted(log.texts()) == sorted(f"{t}-{n}" for t in range(8) for n in range(20))


# Reconfigured and stopped -----------------------------------------------------------------------


def test_another_configuration_counts_from_then_on(log, folder):
    log.write("a")
    log.counts.wait(1)
    log.logs.configure([model(folder / "n", name="n")])
    assert not log.logs.samples("m")
    log.write("lost")
    log.write("b", ServableId("n", 1))
    log.counts.wait(2)
    assert log.counts.all == [("m", Code.OK), ("n", Code.OK)]
    assert [file.name[0] for file in sorted(folder.iterdir())] == ["m", "n"]


def test_a_stop_writes_what_waits(build, folder):
    log = build()
    log.logs.configure([model(folder / "m")])
    for n in range(100):
        log.write(str(n))
    log.start()
    log.stop()
    assert log.texts() == [str(n) for n in range(100)]
    log.write("late")
    assert log.counts.all[100:] == [("m", Code.UNAVAILABLE)]


def test_a_stop_without_time_leaves_what_waits_and_counts_it(folder, caplog):
    counts, writing, may_go_on = Counts(), threading.Event(), threading.Event()

    def counted(model, code):
        writing.set()
        assert may_go_on.wait(TIMEOUT)
        counts(model, code)

    logs = RequestLogs(1 << 20, 10, counted)
    logs.configure([model(folder / "m")])
    logs.start()
    logs.write(M1, "predict_log", *exchange())
    assert writing.wait(TIMEOUT)
    for _ in range(10):
        logs.write(M1, "predict_log", *exchange())
    logs.stop(0.0)
    may_go_on.set()
    assert counts.wait(11) == [("m", Code.OK)] + [("m", Code.UNAVAILABLE)] * 10
    assert "10 requests are not logged" in caplog.text


def test_no_thread_and_no_open_file_is_left(build, folder):
    before = set(os.listdir("/proc/self/fd")), threading.active_count()
    log = build().start()
    log.logs.configure([model(folder / "m")])
    log.write()
    log.stop()
    assert (set(os.listdir("/proc/self/fd")), threading.active_count()) == before
