"""Large tables that are gathered from are mapped from a file beside the optimised graph."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from servingd.config.saved_model import SavedModelOptions
from servingd.core.types import ANYWHERE, CPU_0, Device, Placement, ServableId, VersionData
from servingd.errors import DataLoss
from servingd.servables.saved_model.files import weights
from servingd.servables.saved_model.files.mapped_weights import FILE, MappedWeights
from servingd.servables.saved_model.files.meta_graph import read_meta_graph
from servingd.servables.saved_model.files.weights import find_damage
from servingd.servables.saved_model.listener import NullListener
from servingd.servables.saved_model.optimise import child as child_module
from servingd.servables.saved_model.optimise.graph_cache import GraphCache
from servingd.servables.saved_model.optimise.report import Report, read_report
from servingd.servables.saved_model.platform import SavedModelPlatform
from servingd.servables.saved_model.session import c_api
from servingd.servables.saved_model.session.opening import open_optimised, open_plain
from servingd.servables.saved_model.session.options import ONE_THREAD
from servingd.servables.synthetic_inputs import synthetic_inputs
from tests.placed import Outcome

pytestmark = pytest.mark.tf

TAGS = ("serve",)
TIMEOUT = 60
ID = ServableId("m", 1)
ROWS, WIDTH = 10_000, 64
TABLE_BYTES = ROWS * WIDTH * 4
FROM_BYTES = 1 << 16
SIGNATURE = "serving_default"


# Models ------------------------------------------------------------------------------------------


def export(path: Path, function: Callable[[Any, Any], Any], **more: Any) -> Path:
    """A signature that is `function(module, x)`; the module has a large table and a layer."""
    import tensorflow as tf

    module = tf.Module()
    module.t = tf.Variable(tf.random.uniform([ROWS, WIDTH], seed=1), name="t")
    module.w = tf.Variable(tf.random.uniform([WIDTH, 8], seed=2), name="w")
    for name, value in more.items():
        setattr(module, name, value)
    x = tf.TensorSpec([None], tf.int32, name="x")
    module.f = tf.function(lambda x: {"y": function(module, x)}, input_signature=[x])
    tf.saved_model.save(module, str(path), signatures={SIGNATURE: module.f})
    return path


def as_it_lies(m: Any, x: Any) -> Any:
    import tensorflow as tf

    return tf.gather(m.t, x) @ m.w


def read_first(m: Any, x: Any) -> Any:
    import tensorflow as tf

    return tf.gather(tf.convert_to_tensor(m.t), x) @ m.w


def by_pairs(m: Any, x: Any) -> Any:
    """`ResourceGatherNd`."""
    import tensorflow as tf

    pairs = tf.stack([x, tf.zeros_like(x)], 1)
    return tf.raw_ops.ResourceGatherNd(resource=m.t.handle, indices=pairs, dtype="float32")


def in_branches(m: Any, x: Any) -> Any:
    import tensorflow as tf

    inner = tf.function(lambda x: tf.nn.embedding_lookup(m.t, x))
    return tf.cond(tf.reduce_sum(x) > 1, lambda: inner(x) @ m.w, lambda: tf.gather(m.t, x) @ m.w)


def two_calls(m: Any, x: Any) -> Any:
    import tensorflow as tf

    inner = tf.function(lambda x: tf.nn.embedding_lookup(m.t, x))
    return inner(x) @ m.w + tf.gather(m.t, x + 1) @ m.w


def within_its_shape(m: Any, x: Any) -> Any:
    """As Keras 3 does, with a read that nobody uses once the shape is known."""
    import tensorflow as tf

    table = tf.convert_to_tensor(m.t)
    rows = tf.raw_ops.Shape(input=table)[0] + tf.raw_ops.VariableShape(input=m.t.handle)[0]
    tf.raw_ops.ReadVariableOp(resource=m.t.handle, dtype="float32")
    return tf.gather(table, x % rows) @ m.w


def multiplied_as_well(m: Any, x: Any) -> Any:
    """As a model that predicts words does: what is gathered from is a layer, too."""
    import tensorflow as tf

    return tf.gather(m.t, x) @ tf.transpose(m.t[:8])


def handed_out(m: Any, x: Any) -> Any:
    import tensorflow as tf

    return tf.gather(m.t, x)[:, :1] + tf.convert_to_tensor(m.t)[:1]


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    return export(tmp_path_factory.mktemp("table") / "m", as_it_lies)


def made(path: Path, folder: Path, map_from_bytes: int = FROM_BYTES) -> Report:
    """What the child makes, in this process: which has mapped the original of the file since."""
    original = folder.parent / f"original of {folder.name}"
    original.mkdir()
    report = child_module._optimise(str(path), str(original), TAGS, map_from_bytes)
    (original / "report.json").write_text(json.dumps(report))
    shutil.copytree(original, folder)
    return read_report(folder)


def opened(path: Path, folder: Path, report: Report) -> Any:
    signatures = read_meta_graph(str(path), TAGS).signatures
    assert report.weights is not None
    graph = str(folder / "graph.pb")
    return open_optimised(
        graph, str(path), report.initialiser, ONE_THREAD, signatures, report.weights
    )


def operations(folder: Path) -> list[str]:
    from tensorflow.core.framework import graph_pb2

    graph = graph_pb2.GraphDef.FromString((folder / "graph.pb").read_bytes())
    bodies = [graph.node, *(f.node_def for f in graph.library.function)]
    return [node.op for body in bodies for node in body]


def mapped_bytes(folder: Path, pid: str = "self") -> int:
    found = 0
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if str(folder) in line and FILE in line:
            start, end = (int(each, 16) for each in line.split()[0].split("-"))
            assert line.split()[1] == "r--s", "shared, and not writable"
            found += end - start
    return found


# What the child makes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function", [as_it_lies, read_first, by_pairs, within_its_shape, in_branches, two_calls]
)
def test_what_is_only_gathered_from_is_mapped_and_answers_the_same(tmp_path, function):
    path = export(tmp_path / "m", function)
    report = made(path, tmp_path / "made")
    if function is in_branches:  # what a branch does with a variable is not followed
        assert report.weights is None
        return
    (tensor,) = report.weights.tensors
    assert (tensor.shape, tensor.size) == ((ROWS, WIDTH), TABLE_BYTES)
    assert not {"ResourceGather", "ResourceGatherNd"} & set(operations(tmp_path / "made"))
    meta_graph = read_meta_graph(str(path), TAGS)
    plain = open_plain(str(path), TAGS, ONE_THREAD, meta_graph, {SIGNATURE: True})
    mapped = opened(path, tmp_path / "made", report)
    for seed in range(3):
        x = {"x": np.random.default_rng(seed).integers(0, ROWS - 1, 7).astype(np.int32)}
        wanted = plain.calls[SIGNATURE].run(x)["y"]
        assert np.array_equal(mapped.calls[SIGNATURE].run(x)["y"], wanted)
    too_far = {"x": np.int32([ROWS + 5])}
    errors = []
    for session in (plain, mapped):
        with pytest.raises(Exception, match="indices") as caught:
            session.calls[SIGNATURE].run(too_far)
        errors.append(type(caught.value))
    assert errors[0] is errors[1]
    plain.close()
    mapped.close()


@pytest.mark.parametrize("function", [multiplied_as_well, handed_out])
def test_what_is_used_otherwise_too_becomes_a_constant(tmp_path, function):
    path = export(tmp_path / "m", function)
    report = made(path, tmp_path / "made")
    assert report.weights is None
    assert not (tmp_path / "made" / FILE).exists()
    assert "VarHandleOp" not in operations(tmp_path / "made")


def test_an_embedding_of_keras_is_mapped(tmp_path):
    import keras

    layers = keras.layers
    embedding = layers.Embedding(ROWS, WIDTH, mask_zero=True)
    model = keras.Sequential(
        [keras.Input((5,), dtype="int32"), embedding, layers.GlobalAveragePooling1D()]
    )
    model.export(str(tmp_path / "m"), verbose=False)
    (tensor,) = made(tmp_path / "m", tmp_path / "made").weights.tensors
    assert tensor.size == TABLE_BYTES


def test_the_file_holds_the_variable(table, tmp_path):
    import tensorflow as tf

    (tensor,) = made(table, tmp_path / "made").weights.tensors
    content = (tmp_path / "made" / FILE).read_bytes()[tensor.offset :][: tensor.size]
    reader = tf.train.load_checkpoint(str(table / "variables" / "variables"))
    assert content == reader.get_tensor("t/.ATTRIBUTES/VARIABLE_VALUE").tobytes()


def test_small_variables_and_all_of_them_without_the_flag_become_constants(table, tmp_path):
    assert made(table, tmp_path / "small", TABLE_BYTES + 1).weights is None
    assert made(table, tmp_path / "off", 0).weights is None
    assert "VarHandleOp" not in operations(tmp_path / "off")


def test_nothing_is_mapped_from_another_machine(table, tmp_path, monkeypatch):
    monkeypatch.setattr(child_module, "is_local", lambda folder: False)
    assert made(table, tmp_path / "made").weights is None


def test_in_a_large_model_all_large_variables_are_mapped(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "MAX_WEIGHT_BYTES", 1 << 20)
    for module in (weights, child_module):
        monkeypatch.setattr(module, "KEPT_BYTES", 1 << 16)
    path = export(tmp_path / "m", multiplied_as_well)
    report = made(path, tmp_path / "made")
    assert [tensor.size for tensor in report.weights.tensors] == [TABLE_BYTES]
    assert not report.reads
    session = opened(path, tmp_path / "made", report)
    assert session.calls[SIGNATURE].run({"x": np.int32([3])})["y"].shape == (1, 8)
    session.close()


def test_too_little_memory_for_an_array_is_no_property_of_the_model(table, tmp_path, monkeypatch):
    """TensorFlow calls it an internal error; a report would decline the model for good."""
    import tensorflow as tf

    def fail(*_: Any, **__: Any) -> None:
        raise tf.errors.InternalError(None, None, "Could not allocate ndarray")

    monkeypatch.setattr(child_module, "optimise", fail)
    with pytest.raises(MemoryError):
        child_module._optimise(str(table), str(tmp_path), TAGS)


# Sessions ----------------------------------------------------------------------------------------


def test_a_session_maps_the_file_and_its_end_unmaps_it(table, tmp_path):
    report = made(table, tmp_path / "made")
    session = opened(table, tmp_path / "made", report)
    assert session.mapped == (TABLE_BYTES,)
    assert mapped_bytes(tmp_path / "made") >= TABLE_BYTES
    x = {"x": np.int32([0, 7, ROWS - 1])}
    first = session.calls[SIGNATURE].run(x)["y"]
    (tmp_path / "made" / FILE).unlink()  # as the cache does when it is full
    assert np.array_equal(session.calls[SIGNATURE].run(x)["y"], first)
    session.close()
    assert mapped_bytes(tmp_path / "made") == 0
    files = {str(each.resolve()) for each in Path("/proc/self/fd").iterdir()}
    assert not [each for each in files if str(tmp_path / "made") in each]


@pytest.mark.parametrize("change", [{"name": "no such"}, {"shape": (ROWS, WIDTH, 2)}])
def test_a_tensor_that_does_not_fit_is_an_error_and_leaves_no_mapping(table, tmp_path, change):
    report = made(table, tmp_path / "made")
    backend = c_api.load_graph_def(str(tmp_path / "made/graph.pb"), ONE_THREAD, optimised=True)
    (tensor,) = report.weights.tensors
    with (tmp_path / "made" / FILE).open("rb") as file, pytest.raises(DataLoss):
        backend.assign_mapped(file.fileno(), [tensor, tensor._replace(**change)], "servingd_assign")
    backend.close()
    assert mapped_bytes(tmp_path / "made") == 0


def test_memory_of_tensors_that_were_freed_goes_back(tmp_path):
    """In a process of its own: what TensorFlow's allocator keeps is anybody's."""
    program = """
import os, sys
import numpy as np
from servingd.servables.saved_model.session import c_api
from servingd.servables.tensorflow_runtime.runtime import tensorflow
from servingd.servables.saved_model.session.options import ONE_THREAD
SIZE = 200 << 20
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE")
def filled():
    tf1 = tensorflow().compat.v1
    with tensorflow().Graph().as_default() as graph:
        handle = tensorflow().raw_ops.VarHandleOp(dtype="uint8", shape=[SIZE], name="v")
        value = tensorflow().fill([SIZE], tensorflow().constant(7, "uint8"))
        tensorflow().raw_ops.AssignVariableOp(resource=handle, value=value, name="a")
        definition = graph.as_graph_def()
    session = c_api.load_graph_def(definition.SerializeToString(), ONE_THREAD, optimised=True)
    session.make_call([], [], ["a"])()
    session.close()
c_api.is_sound()
before = resident()
filled()
kept = resident() - before
c_api.give_back_tensors([SIZE])
print(kept >> 20, (resident() - before) >> 20)
os._exit(0)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    kept, left = map(int, done.stdout.split()[-2:])
    print(f"{kept} MiB are kept, {left} afterwards")
    assert left < 50


# Servers -----------------------------------------------------------------------------------------


class Served(NullListener):
    """One model, loaded by a platform of its own, which waits for its optimised graph."""

    def __init__(
        self, path: Path, cache: Path, placement: Placement = ANYWHERE, **more: Any
    ) -> None:
        self.states: list[str] = []
        self.damaged = threading.Event()
        options = SavedModelOptions(
            optimize_models="wait", cache_dir=str(cache), **{"map_from_bytes": FROM_BYTES, **more}
        )
        self.platform = SavedModelPlatform(options, self)
        self.loader: Any = self.platform.loader(ID, VersionData(str(path), "tensorflow"))
        self.servable: Any = self.loader.load(placement)

    def graph_state_changed(self, servable_id: ServableId, state: str) -> None:
        self.states.append(state)
        if state == "damaged weights":
            self.damaged.set()

    def ask(self) -> np.ndarray[Any, Any]:
        signature, outcome = self.servable.signatures[SIGNATURE], Outcome()
        inputs = synthetic_inputs(signature, 3, seed=3)
        assert inputs is not None
        self.servable.run(signature, inputs, outcome)
        return np.asarray(outcome.outputs["y"])

    def unload(self) -> None:
        self.loader.unload(self.servable)
        self.servable = None

    def close(self) -> None:
        if self.servable:
            self.unload()
        self.platform.stop()


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    with contextlib.ExitStack() as stack:

        def start(*arguments: Any, **more: Any) -> Served:
            served = Served(*arguments, **more)
            stack.callback(served.close)
            return served

        yield start


@pytest.fixture(scope="module")
def left(table: Path, tmp_path_factory) -> tuple[Path, np.ndarray[Any, Any]]:
    """A cache as a server has left it, and the answer that it gave; not to be changed."""
    cache = tmp_path_factory.mktemp("left") / "cache"
    served = Served(table, cache)
    assert served.states == ["plain", "optimising", "optimised"]
    assert mapped_bytes(cache) >= TABLE_BYTES
    answer = served.ask()
    served.close()
    assert mapped_bytes(cache) == 0
    return cache, answer


@pytest.fixture
def cache(left, tmp_path) -> Path:
    return Path(shutil.copytree(left[0], tmp_path / "cache"))


def logged(caplog, text: str) -> list[str]:
    return [r.getMessage() for r in caplog.records if text in r.getMessage()]


def test_a_start_on_a_kept_graph_maps_at_once_and_an_unload_leaves_nothing(table, left, serve):
    cache, answer = left
    again = serve(table, cache)
    assert again.states == ["optimised"], "no plain session was opened"
    assert again.servable.session.mapped == (TABLE_BYTES,)
    assert mapped_bytes(cache) >= TABLE_BYTES
    assert np.array_equal(again.ask(), answer)
    again.unload()
    assert mapped_bytes(cache) == 0


def test_a_kept_graph_needs_no_room_for_a_child(table, left, tmp_path, serve):
    small = Placement(may_grow=False, may_start_grown=True)
    assert serve(table, left[0], small).states == ["optimised"]
    assert serve(table, tmp_path, small).states == ["plain"], "there is none"


def test_replicas_on_several_devices_share_the_file(table, tmp_path, serve):
    devices = (CPU_0, Device("CPU", 1))
    for expected in (["plain", "optimising", "optimised"], ["optimised"]):
        served = serve(table, tmp_path, Placement(devices), virtual_cpu_devices=2)
        assert served.states == expected
        assert mapped_bytes(tmp_path) >= 2 * TABLE_BYTES
        assert served.ask().shape == (3, 8)
        served.unload()
        assert mapped_bytes(tmp_path) == 0


OTHER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from tests.tensorflow import test_mapped_weights as tests
served = tests.Served(Path(sys.argv[1]), Path(sys.argv[2]))
tests.touch(served)
print(served.states, flush=True)
sys.stdin.read()
served.close()
"""


def test_processes_share_the_pages(table, cache, serve):
    """The proportional size of the mapping: each of two processes has half of it."""
    served = serve(table, cache)
    touch(served)
    alone = proportional(cache)
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", OTHER, str(table), str(cache), root],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == "['optimised']"
        shared = proportional(cache)
        other.communicate("")
    print(f"{alone >> 10} KiB alone, {shared >> 10} beside another")
    assert alone >= TABLE_BYTES
    assert shared <= 0.6 * alone


def touch(served: Served) -> None:
    """Look every row up, so that all pages are mapped."""
    served.servable.session.calls[SIGNATURE].run({"x": np.arange(ROWS, dtype=np.int32)})


def proportional(folder: Path) -> int:
    """Bytes of the mappings of a file in this process, each page shared by all that map it."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = str(folder) in line and FILE in line
        elif inside and line.startswith("Pss:"):
            found += int(line.split()[1]) << 10
    return found


def remove(file: Path) -> None:
    file.unlink()


def write_anew(file: Path) -> None:
    """Of the same size, at another time: its bytes are not trusted before they are read."""
    content = bytearray(file.read_bytes())
    content[-100_000] ^= 1
    rewrite(file, bytes(content))


def rewrite(file: Path, content: bytes) -> None:
    file.unlink()
    file.write_bytes(content)
    file.chmod(0o400)


@pytest.mark.parametrize("damage", [remove, write_anew])
def test_without_its_file_a_kept_graph_does_not_count_and_is_made_anew(
    table, left, cache, serve, caplog, damage
):
    caplog.set_level(logging.INFO)
    (file,) = cache.glob(f"*/{FILE}")
    damage(file)
    again = serve(table, cache)
    assert again.states == ["plain", "optimising", "optimised"]
    assert np.array_equal(again.ask(), left[1])
    assert len(logged(caplog, "is made anew")) == 1
    (new,) = cache.glob(f"*/{FILE}")
    assert new.stat().st_mode & 0o777 == 0o400
    again.unload()
    assert serve(table, cache).states == ["optimised"]


def test_damage_that_only_reading_shows_is_told_and_the_graph_goes(table, cache, serve, caplog):
    (file,) = cache.glob(f"*/{FILE}")
    times = os.stat(file)
    write_anew(file)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    again = serve(table, cache)
    assert again.damaged.wait(TIMEOUT)
    assert again.states == ["optimised", "damaged weights"]
    assert len(logged(caplog, "that are mapped for")) == 1
    assert list(cache.glob(f"*/{FILE}")) == []


def test_without_the_flag_another_graph_is_kept_beside_it(table, cache, serve):
    off = serve(table, cache, map_from_bytes=0)
    assert off.states == ["plain", "optimising", "optimised"]
    assert off.servable.session.mapped == ()
    assert len(list(cache.glob("*/graph.pb"))) == 2
    off.unload()
    assert serve(table, cache).servable.session.mapped == (TABLE_BYTES,)


def test_a_server_that_is_second_takes_the_file_of_the_first(table, cache, serve, monkeypatch):
    """So that it is in memory once: both had begun when none was kept."""
    (kept,) = [folder for folder in cache.iterdir() if (folder / FILE).exists()]
    hidden = kept.with_name("hidden")
    kept.rename(hidden)
    store = GraphCache.store

    def store_second(self: GraphCache, work_folder: Path, key: str) -> Path:
        hidden.rename(kept)
        return store(self, work_folder, key)

    monkeypatch.setattr(GraphCache, "store", store_second)
    inode = (hidden / FILE).stat().st_ino
    second = serve(table, cache)
    assert second.states == ["plain", "optimising", "optimised"]
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if FILE in line]
    assert {int(line.split()[4]) for line in mapped if str(cache) in line} == {inode}
    assert [folder.name for folder in cache.iterdir() if folder.name.startswith(".new-")] == []


def test_the_weights_behind_a_kept_graph_are_checked_in_pieces(table, tmp_path):
    path = Path(shutil.copytree(table, tmp_path / "m"))
    assert find_damage(str(path), lambda: False) == ""
    (shard,) = path.glob("variables/variables.data-*")
    content = bytearray(shard.read_bytes())
    content[TABLE_BYTES // 2] ^= 1
    shard.write_bytes(content)
    assert "the checksum does not match" in find_damage(str(path), lambda: False)
    shard.write_bytes(content[: TABLE_BYTES // 2])
    assert "ends too early" in find_damage(str(path), lambda: False)


def test_what_is_mapped_is_told_by_the_report(left):
    (kept,) = [folder for folder in left[0].iterdir() if (folder / FILE).exists()]
    found = read_report(kept)
    assert isinstance(found.weights, MappedWeights)
    assert not found.reads
