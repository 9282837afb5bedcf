"""Decide which requests are kept to warm up a model's next version, and at which batch sizes.

A first run is slow for shapes and dtypes that a model has not met before. So the requests that are
kept differ in form where they can, else in content; newer ones replace older ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from servingd.core.batching.merge import kind_of, rows_of
from servingd.core.types import Signature, Tensors, TensorSpec
from servingd.errors import InvalidArgument

Array: TypeAlias = np.ndarray[Any, Any]

_ARRAY_BYTES = 128
"""Bytes that an array takes besides its elements."""

_TEXT_BYTES = 33
"""Bytes that a string takes besides its characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleLimits:
    """How many requests, and how many bytes of them, are kept."""

    per_signature: int = 4
    """The most requests of one signature."""
    request_bytes: int = 4 << 20
    """Bytes of the largest request that is kept."""
    model_bytes: int = 16 << 20
    total_bytes: int = 64 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """A copy of one request's inputs."""

    inputs: Tensors
    specs: Mapping[str, TensorSpec]
    """The specs of its inputs in the signature that it was sent to."""
    size: int
    """Bytes that it takes."""


def sample_of(inputs: Tensors, signature: Signature, most: int) -> Sample | None:
    """Return a copy of a request; None if it takes more than `most` bytes."""
    if sum(array.nbytes for array in inputs.values()) > most:
        return None  # before the strings of a large array are counted for nothing
    size = sum(map(_bytes_of, inputs.values()))
    if size > most:
        return None
    specs = {alias: signature.inputs[alias] for alias in inputs}
    return Sample({alias: np.array(a, order="C") for alias, a in inputs.items()}, specs, size)


def _bytes_of(array: Array) -> int:
    texts = sum(_TEXT_BYTES + len(text) for text in array.flat) if array.dtype == object else 0
    return _ARRAY_BYTES + array.nbytes + texts


class Samples:
    """The kept requests of all models. Not thread-safe: the caller holds a lock."""

    def __init__(self, limits: SampleLimits) -> None:
        self.limits = limits
        self._kept: dict[str, list[tuple[str, Sample]]] = {}  # by model; the oldest first
        self._bytes: dict[str, int] = {}

    @property
    def total_bytes(self) -> int:
        """Bytes that all kept requests take."""
        return sum(self._bytes.values())

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Return how many requests of each model are kept, and the bytes that they take."""
        return {name: (len(of), self._bytes[name]) for name, of in self._kept.items() if of}

    def keep_only(self, models: Iterable[str]) -> None:
        """Forget the requests of other models, and ignore new ones of them from now on."""
        wanted = set(models)
        self._kept = {name: self._kept.get(name, []) for name in wanted}
        self._bytes = {name: self._bytes.get(name, 0) for name in wanted}

    def add(self, model: str, signature: str, sample: Sample) -> None:
        """Keep a model's newest request; drop others where a limit would be exceeded."""
        limits = self.limits
        if model not in self._kept or sample.size > limits.request_bytes:
            return
        alike = [other for name, other in self._kept[model] if name == signature]
        same = next((other for other in alike if _same(other.inputs, sample.inputs)), None)
        if same is not None:
            self._drop(model, same)
        elif len(alike) >= limits.per_signature:
            self._drop(model, _replaceable(alike, sample))
        self._kept[model].append((signature, sample))
        self._bytes[model] += sample.size
        while self._bytes[model] > limits.model_bytes:
            self._drop(model, self._kept[model][0][1])
        while self.total_bytes > limits.total_bytes:
            # The model that has most loses one, so that a busy model takes nothing from quiet ones.
            largest = max(self._bytes, key=lambda name: self._bytes[name])
            self._drop(largest, self._kept[largest][0][1])

    def of(self, model: str) -> dict[str, list[Sample]]:
        """Return the kept requests of a model by signature, the newest first."""
        found: dict[str, list[Sample]] = {}
        for signature, sample in reversed(self._kept.get(model, [])):
            found.setdefault(signature, []).append(sample)
        return found

    def _drop(self, model: str, sample: Sample) -> None:
        self._kept[model] = [entry for entry in self._kept[model] if entry[1] is not sample]
        self._bytes[model] -= sample.size


def _form(inputs: Tensors) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    return tuple((alias, array.dtype.str, array.shape) for alias, array in inputs.items())


def _same(one: Tensors, other: Tensors) -> bool:
    return _form(one) == _form(other) and all(
        np.array_equal(array, other[alias]) for alias, array in one.items()
    )


def _replaceable(kept: Sequence[Sample], new: Sample) -> Sample:
    """Return the oldest sample whose form another one has as well; else the oldest of all."""
    forms = [_form(sample.inputs) for sample in (*kept, new)]
    twice = (s for s, form in zip(kept, forms[:-1], strict=True) if forms.count(form) > 1)
    return next(twice, kept[0])


def fitting(sample: Sample, signature: Signature) -> Tensors | None:
    """Return a kept request as inputs of another version's signature, in its order.

    An input that is new in that signature gets its default. None: the request does not fit.
    """
    if not sample.inputs.keys() <= signature.inputs.keys():
        return None
    inputs: dict[str, Array] = {}
    for alias, spec in signature.inputs.items():
        array = sample.inputs.get(alias)
        if array is None:
            if alias not in signature.defaults:
                return None
            array = signature.defaults[alias]
        elif not _still_fits(sample.specs[alias], spec, array.shape):
            return None
        inputs[alias] = array
    return inputs


def _still_fits(before: TensorSpec, now: TensorSpec, shape: tuple[int, ...]) -> bool:
    """Return whether a tensor that one spec took can be fed to another one.

    A shape that the new spec does not take is still fine where both specs name the same shape.
    """
    same = before.shape == now.shape
    return before.data_type == now.data_type and (same or now.takes(shape))


def batches(requests: Sequence[Tensors], rows: Iterable[int], most: int) -> list[Tensors]:
    """Return batches of so many rows, made of the first request of each kind; the smallest first.

    Left out are sizes that requests have by themselves, and batches of more than `most` bytes.
    """
    by_kind: dict[Any, tuple[Tensors, set[int]]] = {}
    for inputs in requests:
        try:
            own = rows_of(inputs)
        except InvalidArgument:
            continue  # it is never merged
        if own:
            by_kind.setdefault(kind_of(inputs), (inputs, set()))[1].add(own)
    return [
        resized(inputs, size)
        for size in sorted(set(rows))
        for inputs, own in by_kind.values()
        if size not in own and _bytes_at(inputs, size) <= most
    ]


def resized(inputs: Tensors, rows: int) -> dict[str, Array]:
    """Return a request with so many rows: its own ones, repeated."""
    return {alias: array[np.arange(rows) % array.shape[0]] for alias, array in inputs.items()}


def _bytes_at(inputs: Tensors, rows: int) -> int:
    return rows * sum(_bytes_of(array) for array in inputs.values()) // rows_of(inputs)
