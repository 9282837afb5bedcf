"""Synthetic inputs as varied as clients': to check that two ways of running a signature agree.

A trial on them is a second check and proves nothing by itself. So they are nasty: texts of many
lengths and scripts, Examples with and without their features, lengths above one, rows of very
different scale. A model may refuse what it cannot take, such as ids beyond its vocabulary; those
that follow are milder.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from servingd.core.types import DataType, Signature, Tensors
from servingd.servables.saved_model.trials.images import varied_images
from servingd.servables.synthetic_inputs import MAX_BYTES, input_shape
from servingd.wire import protos
from servingd.wire.tensors.decoding import decode
from servingd.wire.tensors.types import numpy_dtype

SEEDS = 6
"""How many kinds of inputs there are; each is nasty in its own way."""

_LENGTHS = (3, 7, 1, 5, 2, 4)
_INTEGERS = ((0, 9), (0, 1), (0, 99), (1, 1), (0, 2), (1, 4))
"""The smallest and the largest. A number may be a row's length: at least one, and no larger than
that of the other inputs.
"""
_SCALES = (1e-3, 1.0, 30.0, 300.0)
_TEXTS = (
    "",
    "good film",
    "a",
    "one, two; three: four five six seven eight nine ten eleven twelve",
    "\u00fcber \u6f22\u5b57 \u043f\u0440\u0438\u0432\u0435\u0442 \u2603",
    "  spaces   and\ttabs ",
    "12.5",
    "UPPER lower MiXeD",
)


_IMAGE_DECODERS = ("DecodeAndCropJpeg", "DecodeImage", "DecodeJpeg", "DecodePng")


class ExampleFeature(NamedTuple):
    """One feature that a graph reads from Examples."""

    key: str
    data_type: int
    values: int | None
    """How many values it must have; None: any number."""


class Strings(NamedTuple):
    """What a graph takes strings for, as far as its operations tell."""

    features: Sequence[ExampleFeature] = ()
    """Of Examples; empty: strings are no Examples."""
    images: bool = False
    """Whether it decodes images."""


TEXTS = Strings()


def varied_inputs(
    signature: Signature, rows: int, seed: int, strings: Strings = TEXTS
) -> Tensors | None:
    """Make inputs of `rows` rows, of kind `seed`; None if they would be too large.

    Dimensions other than the first that may vary are all of one length.
    """
    rng = np.random.default_rng(seed)
    length = _LENGTHS[seed % SEEDS]
    inputs: dict[str, np.ndarray[Any, Any]] = {}
    for alias, spec in signature.inputs.items():
        shape = input_shape(spec, rows, length)
        if math.prod(shape) * 16 > MAX_BYTES:
            return None
        inputs[alias] = _values(spec.data_type, shape, rng, seed, strings)
    return inputs


def _values(
    data_type: DataType,
    shape: tuple[int, ...],
    rng: np.random.Generator,
    seed: int,
    strings: Strings,
) -> np.ndarray[Any, Any]:
    if data_type is DataType.STRING:
        made = _examples(strings, rng, seed) if strings.features else _bytes(strings, rng, seed)
        flat = np.empty(math.prod(shape), object)
        flat[:] = [next(made) for _ in range(flat.size)]
        return flat.reshape(shape)
    dtype = numpy_dtype(data_type)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(dtype)
    if dtype.kind in "iu":
        return _integers(rng, seed, shape).astype(dtype)
    values = rng.normal(size=shape)
    if seed % 2 == 0 and shape:
        scales = rng.choice(_SCALES, shape[0])
        values = values * scales.reshape(-1, *(1,) * (len(shape) - 1))
    return values.astype(dtype)


def _integers(rng: np.random.Generator, seed: int, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    smallest, largest = _INTEGERS[seed % SEEDS]
    return rng.integers(smallest, largest + 1, shape)


def _bytes(strings: Strings, rng: np.random.Generator, seed: int) -> Iterator[bytes]:
    return varied_images(rng, seed) if strings.images else _texts(rng)


def _texts(rng: np.random.Generator) -> Iterator[bytes]:
    while True:
        yield _TEXTS[rng.integers(len(_TEXTS))].encode()


def _examples(strings: Strings, rng: np.random.Generator, seed: int) -> Iterator[bytes]:
    """Yield serialised Examples; of every second kind some features are missing."""
    while True:
        example = protos.Example()
        for feature in strings.features:
            if seed % 2 == 0 or rng.random() < 0.7:
                content = _bytes(strings, rng, seed)
                _fill(example.features.feature[feature.key], feature, content, rng, seed)
        yield example.SerializeToString()


def _fill(
    target: protos.Feature,
    feature: ExampleFeature,
    content: Iterator[bytes],
    rng: np.random.Generator,
    seed: int,
) -> None:
    count = int(rng.integers(0, 5)) if feature.values is None else feature.values
    if feature.data_type == DataType.STRING:
        target.bytes_list.value.extend(next(content) for _ in range(count))
    elif feature.data_type == DataType.INT64:
        target.int64_list.value.extend(_integers(rng, seed, (count,)).tolist())
    else:
        target.float_list.value.extend(rng.normal(size=count).tolist())


def strings_of(graph: protos.Graph) -> Strings:
    """Return what a graph and its functions take strings for."""
    nodes = (graph.node, *(f.node_def for f in graph.library.function))
    images = any(node.op in _IMAGE_DECODERS for body in nodes for node in body)
    return Strings(example_features(graph), images)


def example_features(graph: protos.Graph) -> list[ExampleFeature]:
    """Return the features that a graph and its functions read, where their keys are constants."""
    found: list[ExampleFeature] = []
    for nodes in (graph.node, *(f.node_def for f in graph.library.function)):
        by_name = {node.name: node for node in nodes}
        for node in nodes:
            if node.op == "ParseExampleV2":
                found += _of_parser(node, by_name)
            elif node.op == "ParseExample":
                found += _of_old_parser(node, by_name)
    return found


def _of_parser(node: protos.Node, nodes: Mapping[str, protos.Node]) -> Iterator[ExampleFeature]:
    sparse, dense, ragged = (_strings(nodes, name) for name in node.input[2:5])
    yield from _features(node, sparse, dense)
    for key, data_type in zip(ragged, node.attr["ragged_value_types"].list.type, strict=False):
        yield ExampleFeature(key, data_type, None)


def _of_old_parser(node: protos.Node, nodes: Mapping[str, protos.Node]) -> Iterator[ExampleFeature]:
    sparse, dense = node.attr["Nsparse"].i, node.attr["Ndense"].i
    keys = [key for name in node.input[2 : 2 + sparse + dense] for key in _strings(nodes, name)]
    yield from _features(node, keys[:sparse], keys[sparse:])


def _features(
    node: protos.Node, sparse: Sequence[str], dense: Sequence[str]
) -> Iterator[ExampleFeature]:
    for key, data_type in zip(sparse, node.attr["sparse_types"].list.type, strict=False):
        yield ExampleFeature(key, data_type, None)
    types, shapes = node.attr["Tdense"].list.type, node.attr["dense_shapes"].list.shape
    for key, data_type, shape in zip(dense, types, shapes, strict=False):
        sizes = [dim.size for dim in shape.dim]
        yield ExampleFeature(key, data_type, None if -1 in sizes else math.prod(sizes))


def _strings(nodes: Mapping[str, protos.Node], reference: str) -> list[str]:
    """Return the texts of a constant; none where it is something else."""
    node = nodes.get(reference.split(":", 1)[0])
    if node is None or node.op != "Const":
        return []
    array = decode(protos.TensorProto.FromString(node.attr["value"].tensor), "keys")
    return [text.decode(errors="replace") for text in array.reshape(-1)]
