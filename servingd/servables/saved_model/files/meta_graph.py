"""Reads a SavedModel's meta graph, without TensorFlow unless it is in text format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf import text_format
from google.protobuf.message import DecodeError

from servingd.core.types import Signature
from servingd.errors import DataLoss, NotFound
from servingd.servables.files.file_errors import error_of_file
from servingd.servables.tensorflow_runtime.runtime import tensorflow
from servingd.wire import protos
from servingd.wire.signatures import signature_from_def

if TYPE_CHECKING:
    from servingd.wire.protos import MetaGraph as MetaGraphTwin

FILE = "saved_model.pb"
TEXT_FILE = "saved_model.pbtxt"
"""The file in text format: read where there is no binary one."""
_INTERNAL = "__saved_model"
"""Signatures with this prefix are TensorFlow's own: shown in the metadata, never called."""
_INIT = "__saved_model_init_op"


@dataclass(frozen=True, slots=True)
class Initialiser:
    """What a new session over the graph must run first: an operation, fed the assets' paths."""

    operation: str = ""
    assets: Mapping[str, str] = field(default_factory=dict)
    """By tensor, the name of the file whose path it is fed."""


@dataclass(frozen=True, slots=True)
class MetaGraph:
    """One meta graph: how it may be called, and its graph as serialised `tensorflow.GraphDef`."""

    signatures: Mapping[str, Signature]
    internal_signatures: Mapping[str, Signature]
    graph_def: bytes
    initialiser: Initialiser = Initialiser()
    restores: str = ""
    """The operation that restores the variables."""
    restores_from: str = ""
    """The tensor that is fed the path of the variables."""

    def graph(self) -> protos.Graph:
        """Parse the graph, as far as `servingd.Graph` has its fields. Raises DataLoss."""
        try:
            graph: protos.Graph = protos.Graph.FromString(self.graph_def)
        except DecodeError as error:
            raise DataLoss(f"the graph does not parse: {error}") from error
        return graph


def read_meta_graph(path: str, tags: tuple[str, ...]) -> MetaGraph:
    """Return the meta graph under `path` whose tags are exactly `tags`.

    Raises NotFound (no SavedModel there, or no such meta graph), PermissionDenied, or DataLoss (it
    does not parse).
    """
    file = Path(path, FILE)
    if not file.exists() and Path(path, TEXT_FILE).exists():
        file = Path(path, TEXT_FILE)
    try:
        content = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(
            "Specified file path does not appear to contain a SavedModel bundle (should have a "
            f"file called `{FILE}`)\nSpecified file path: {path}"
        ) from None
    except OSError as error:
        raise error_of_file(error) from error
    try:
        saved_model = protos.SavedModel.FromString(
            content if file.name == FILE else _from_text(content, file)
        )
    except DecodeError as error:
        raise DataLoss(f"{file} does not parse as a SavedModel: {error}") from error
    for meta_graph in saved_model.meta_graphs:
        if set(meta_graph.meta_info_def.tags) == set(tags):
            return _from_twin(meta_graph)
    known = "; ".join(",".join(sorted(m.meta_info_def.tags)) for m in saved_model.meta_graphs)
    raise NotFound(
        f"Could not find meta graph def matching supplied tags: {{ {' '.join(tags)} }} in {path}; "
        f"there are: {known or 'none'}"
    )


def node_name(tensor: str) -> str:
    """Return the name of the node that a tensor, or a control input (`^node`), belongs to."""
    return tensor.removeprefix("^").split(":", 1)[0]


def _from_text(content: bytes, file: Path) -> bytes:
    """Serialise a SavedModel in text format; TensorFlow alone knows all of its messages."""
    tensorflow()
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        message = text_format.Parse(content, saved_model_pb2.SavedModel())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise DataLoss(f"{file} does not parse as a SavedModel: {error}") from error
    serialised: bytes = message.SerializeToString()
    return serialised


def _from_twin(twin: MetaGraphTwin) -> MetaGraph:
    all_signatures = {
        name: signature_from_def(name, definition)
        for name, definition in twin.signature_def.items()
    }
    return MetaGraph(
        {n: s for n, s in all_signatures.items() if not n.startswith(_INTERNAL)},
        {n: s for n, s in all_signatures.items() if n.startswith(_INTERNAL)},
        twin.graph_def,
        _initialiser(twin),
        twin.saver_def.restore_op_name,
        twin.saver_def.filename_tensor_name,
    )


def _initialiser(twin: MetaGraphTwin) -> Initialiser:
    """Return the init operation, by TensorFlow's three conventions, and the assets it reads."""
    operation = ""
    if _INIT in twin.signature_def:
        operation = twin.signature_def[_INIT].outputs[_INIT].name
    else:
        for collection in ("saved_model_main_op", "legacy_init_op"):
            names = twin.collection_def[collection].node_list.value
            if names:
                operation = names[0]
                break
    return Initialiser(operation, {a.tensor_info.name: a.filename for a in _assets(twin)})


def _assets(twin: MetaGraphTwin) -> list[protos.AssetFileDef]:
    """Return the AssetFileDefs, from where TensorFlow 2 stores them, or TensorFlow 1."""
    if twin.asset_file_def or "saved_model_assets" not in twin.collection_def:
        return list(twin.asset_file_def)
    packed = twin.collection_def["saved_model_assets"].any_list.value
    return [protos.AssetFileDef.FromString(asset.value) for asset in packed]
