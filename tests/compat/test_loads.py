"""Every reason for which a version is not loaded here, and what TensorFlow's C++ loader does."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from servingd.config.saved_model import SavedModelOptions
from servingd.core.types import ServableId, VersionData
from servingd.errors import Code, ServingError
from servingd.servables.saved_model.listener import NullListener
from servingd.servables.saved_model.platform import SavedModelPlatform
from servingd.servables.tensorflow_runtime.runtime import clean
from tests import exports
from tests.compat.models import by_function, edited, half, tf1
from tests.compat.ours import ours_of
from tests.compat.truth import loaded_by_cpp

pytestmark = pytest.mark.tf

LOADS = "loads"
TAGS = "it names the tags that there are"
WAITS = "it may be a copy that goes on, so it waits and says for what (DESIGN 004)"


@dataclass(frozen=True)
class Row:
    """A damage, what TensorFlow does with it, and what we do."""

    name: str
    export: Callable[[Path], None]
    damage: Callable[[Path], None]
    theirs: Code | str
    """A code, or `loads`."""
    ours: Code | str = ""
    """A code, `loads`, or part of what it waits for; empty: as TensorFlow."""
    why: str = ""
    """Why it differs."""
    tags: tuple[str, ...] = ("serve",)
    own_words: str = ""
    """Why our text is not TensorFlow's where the code is."""


def nothing(path: Path) -> None:
    """It is as it was exported."""


def cut(name: str, keep: float) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        (file,) = path.glob(name)
        content = file.read_bytes()
        file.write_bytes(content[: int(len(content) * keep)])

    return damage


def write(name: str, content: bytes) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)

    return damage


def remove(*names: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        for name in names:
            for file in path.glob(name):
                file.unlink()

    return damage


def flip(name: str) -> Callable[[Path], None]:
    """Other bytes, as many."""

    def damage(path: Path) -> None:
        (file,) = path.glob(name)
        file.write_bytes(bytes(255 - byte for byte in file.read_bytes()))

    return damage


def both(*damages: Callable[[Path], None]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        for one in damages:
            one(path)

    return damage


def graph(change: Callable[[Any], None], export: Any = half) -> Callable[[Path], None]:
    """An export whose first meta graph is changed."""
    return edited(export, lambda path, message: change(message.meta_graphs[0]))


def _unknown_operation(meta_graph: Any) -> None:
    meta_graph.graph_def.node.add(name="odd", op="OperationOfTheFuture")


def _unknown_attribute(meta_graph: Any) -> None:
    meta_graph.graph_def.node[0].attr["of_the_future"].i = 7


def _no_such_input(meta_graph: Any) -> None:
    meta_graph.graph_def.node.add(name="odd", op="NoOp").input.append("^nowhere")


def _twice(meta_graph: Any) -> None:
    meta_graph.graph_def.node.add().CopyFrom(meta_graph.graph_def.node[0])


def _of_the_future(meta_graph: Any) -> None:
    meta_graph.graph_def.versions.min_consumer = 10**6


def _no_restore(meta_graph: Any) -> None:
    meta_graph.saver_def.restore_op_name = "nowhere"


def _initialiser_nowhere(meta_graph: Any) -> None:
    info = meta_graph.signature_def["__saved_model_init_op"].outputs["__saved_model_init_op"]
    info.name = "nowhere"


def _no_type(meta_graph: Any) -> None:
    meta_graph.signature_def["serving_default"].inputs["x"].dtype = 0


def _no_shape_that_is(meta_graph: Any) -> None:
    shape = meta_graph.signature_def["serving_default"].inputs["x"].tensor_shape
    shape.dim[0].size = -5


def _odd_device(meta_graph: Any) -> None:
    for node in meta_graph.graph_def.node:
        node.device = "/job:worker/task:3/device:GPU:7"


def _empty_signature(meta_graph: Any) -> None:
    meta_graph.signature_def["empty"].method_name = "tensorflow/serving/predict"


def _no_graph(meta_graph: Any) -> None:
    meta_graph.ClearField("graph_def")


def _no_meta_graph(path: Path, message: Any) -> None:
    message.ClearField("meta_graphs")


def _twice_the_tags(path: Path, message: Any) -> None:
    message.meta_graphs.add().CopyFrom(message.meta_graphs[0])


def _bad_table(path: Path) -> None:
    """Its vocabulary has a word twice: the initialiser fails."""
    exports.tf1_with_table(path)
    (asset,) = (path / "assets").iterdir()
    asset.write_text("cat\ncat\n")


def _unused_asset(tf: Any) -> Any:
    x = tf.compat.v1.placeholder(tf.float32, [None], name="x")
    return {"serving_default": ({"x": x}, {"y": x + 1.0})}


def _add_asset(path: Path, message: Any) -> None:
    asset = message.meta_graphs[0].asset_file_def.add(filename="gone.txt")
    asset.tensor_info.name = "x:0"


constant = by_function(lambda x, v: {"y": x + 1.0}, variables=False)

INVALID, FAILED, LOST = Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION, Code.DATA_LOSS

ROWS = [
    Row("whole", half, nothing, LOADS),
    # saved_model.pb
    Row(
        "no graph file",
        half,
        remove("saved_model.pb"),
        Code.NOT_FOUND,
        "saved_model.pb is not",
        WAITS,
    ),
    Row(
        "empty graph file",
        half,
        write("saved_model.pb", b""),
        Code.NOT_FOUND,
        "holds no meta graph",
        WAITS,
    ),
    Row(
        "graph file cut off",
        half,
        cut("saved_model.pb", 0.6),
        Code.OUT_OF_RANGE,
        "does not parse",
        WAITS,
    ),
    Row("garbage", half, write("saved_model.pb", b"\xff" * 99), LOST, "does not parse", WAITS),
    Row(
        "no meta graph",
        edited(half, _no_meta_graph),
        nothing,
        Code.NOT_FOUND,
        "holds no meta graph",
        WAITS,
    ),
    Row(
        "text is damaged",
        half,
        both(remove("saved_model.pb"), write("saved_model.pbtxt", b"meta_graphs { what: 7 }")),
        LOST,
        own_words="it names the line",
    ),
    Row("binary before text", half, write("saved_model.pbtxt", b"nonsense"), LOADS),
    Row("other tags", half, nothing, Code.NOT_FOUND, tags=("serve", "gpu"), own_words=TAGS),
    Row("no tags", half, nothing, Code.NOT_FOUND, tags=(), own_words=TAGS),
    Row("tags twice", edited(half, _twice_the_tags), nothing, LOADS),
    Row("no graph in it", graph(_no_graph), nothing, INVALID),
    Row("unknown operation", graph(_unknown_operation), nothing, Code.NOT_FOUND),
    Row("unknown attribute", graph(_unknown_attribute), nothing, LOADS),
    Row("input from nowhere", graph(_no_such_input), nothing, INVALID),
    Row("a node twice", graph(_twice), nothing, INVALID),
    Row("a graph of the future", graph(_of_the_future), nothing, INVALID),
    Row("restored by nothing", graph(_no_restore), nothing, Code.NOT_FOUND),
    Row("initialised by nothing", graph(_initialiser_nowhere), nothing, Code.NOT_FOUND),
    Row("initialiser fails", _bad_table, nothing, FAILED),
    Row("type of no number", graph(_no_type), nothing, LOADS),
    Row("size of no number", graph(_no_shape_that_is), nothing, LOADS),
    Row("devices that are not here, unplanned", graph(_odd_device), nothing, INVALID),
    Row("signature of nothing", graph(_empty_signature), nothing, LOADS),
    # variables
    Row(
        "no index", half, remove("variables/*.index"), LOADS, "variables.index is not there", WAITS
    ),
    Row("no index, nor variables", constant, remove("variables/*"), LOADS),
    Row("index cut off", half, cut("variables/*.index", 0.7), LOST, "do not end as a table", WAITS),
    Row(
        "index is empty",
        half,
        write("variables/variables.index", b""),
        LOST,
        "has 0 bytes of",
        WAITS,
    ),
    Row("index is damaged", half, flip("variables/*.index"), LOST, "do not end as a table", WAITS),
    Row("no shard", half, remove("variables/*.data*"), Code.NOT_FOUND, "is not there", WAITS),
    Row("shard cut off", half, cut("variables/*.data*", 0.2), Code.OUT_OF_RANGE, "bytes", WAITS),
    Row("shard is damaged", half, flip("variables/*.data*"), LOST),
    # assets and what lies beside
    Row("no asset", exports.tf1_with_table, remove("assets/*"), Code.NOT_FOUND, "assets/", WAITS),
    Row(
        "no asset, unused",
        edited(tf1(_unused_asset), _add_asset),
        nothing,
        LOADS,
        "assets/gone.txt",
        WAITS,
    ),
    Row("damaged fingerprint", half, write("fingerprint.pb", b"\xff" * 9), LOADS),
    Row(
        "damaged saved_model_config.pb",
        half,
        write("assets.extra/saved_model_config.pb", b"\xff" * 9),
        LOADS,
    ),
    Row("damaged warm-up file", half, write("assets.extra/other", b"\xff" * 9), LOADS),
]


def verdict(refused: Any) -> Code | str:
    return LOADS if refused is None else Code(refused.code)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name.replace(" ", "_"))
def test_a_load_ends_as_in_tensorflow(row, tmp_path):
    path = tmp_path / "1"
    row.export(path)
    row.damage(path)
    theirs = loaded_by_cpp(path, row.tags)
    assert verdict(theirs) == row.theirs, theirs
    ours = ours_of(path, row.tags)
    try:
        if ours.waits:
            assert row.ours, ours.waits
            assert str(row.ours) in ours.waits
            assert row.why
            return
        assert verdict(ours.refused) == (row.ours or row.theirs), ours.refused
        if row.ours:
            assert row.why
        elif theirs is not None and not row.own_words:
            assert clean(theirs.text).splitlines()[0][:60] in ours.refused.message
    finally:
        ours.close()


def test_each_load_is_told_with_its_outcome(tmp_path):
    half(tmp_path / "1")
    graph(_unknown_operation)(tmp_path / "2")
    told = []

    class Listener(NullListener):
        def load_attempted(self, path, seconds, succeeded):
            told.append((path, succeeded))

    platform = SavedModelPlatform(SavedModelOptions(optimize_models="off"), Listener())
    for version in (1, 2):
        path = str(tmp_path / str(version))
        loader = platform.loader(ServableId("m", version), VersionData(path, "tensorflow"))
        with contextlib.suppress(ServingError):
            loader.unload(loader.load())
    assert told == [(str(tmp_path / "1"), True), (str(tmp_path / "2"), False)]
