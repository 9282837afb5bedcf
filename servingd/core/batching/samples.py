"""Requests that are kept to warm up a model's next version: which, how many, and at which sizes.

What makes a first run slow are shapes and types that a model has not met before. So what is kept
differs in form if it can, and in content else; the newest counts.
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
"""What an array takes besides its elements."""

_TEXT_BYTES = 33
"""What a text takes besides its characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleLimits:
    """How much is kept."""

    per_signature: int = 4
    """Requests of one signature."""
    request_bytes: int = 4 << 20
    """A larger request is not kept."""
    model_bytes: int = 16 << 20
    total_bytes: int = 64 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One request, in memory of its own."""

    inputs: Tensors
    specs: Mapping[str, TensorSpec]
    """What its inputs were by the signature that took them."""
    size: int
    """Bytes."""


def sample_of(inputs: Tensors, signature: Signature, most: int) -> Sample | None:
    """A copy of a request; None if it takes more than `most` bytes."""
    if sum(array.nbytes for array in inputs.values()) > most:
        return None  # at once: the texts of a large array are not counted for nothing
    size = sum(map(_bytes_of, inputs.values()))
    if size > most:
        return None
    specs = {alias: signature.inputs[alias] for alias in inputs}
    return Sample({alias: np.array(a, order="C") for alias, a in inputs.items()}, specs, size)


def _bytes_of(array: Array) -> int:
    texts = sum(_TEXT_BYTES + len(text) for text in array.flat) if array.dtype == object else 0
    return _ARRAY_BYTES + array.nbytes + texts


class Samples:
    """What is kept of the requests of all models. For one thread at a time."""

    def __init__(self, limits: SampleLimits) -> None:
        self.limits = limits
        self._kept: dict[str, list[tuple[str, Sample]]] = {}  # by model; the oldest first
        self._bytes: dict[str, int] = {}

    @property
    def total_bytes(self) -> int:
        """What all take."""
        return sum(self._bytes.values())

    def sizes(self) -> dict[str, tuple[int, int]]:
        """How many requests of each model are kept, and what they take."""
        return {name: (len(of), self._bytes[name]) for name, of in self._kept.items() if of}

    def keep_only(self, models: Iterable[str]) -> None:
        """Forget what is kept of other models, and take nothing of them from now on."""
        wanted = set(models)
        self._kept = {name: self._kept.get(name, []) for name in wanted}
        self._bytes = {name: self._bytes.get(name, 0) for name in wanted}

    def add(self, model: str, signature: str, sample: Sample) -> None:
        """Keep the newest request of a model, and give others up for it where it must be."""
        limits = self.limits
        if model not in self._kept or sample.size > limits.request_bytes:
            return
        alike = [other for name, other in self._kept[model] if name == signature]
        same = next((other for other in alike if _same(other.inputs, sample.inputs)), None)
        if same is not None:
            self._drop(model, same)
        elif len(alike) >= limits.per_signature:
            self._drop(model, _least_missed(alike, sample))
        self._kept[model].append((signature, sample))
        self._bytes[model] += sample.size
        while self._bytes[model] > limits.model_bytes:
            self._drop(model, self._kept[model][0][1])
        while self.total_bytes > limits.total_bytes:
            # Who has most loses: a busy model takes nothing from those that are called rarely.
            largest = max(self._bytes, key=lambda name: self._bytes[name])
            self._drop(largest, self._kept[largest][0][1])

    def of(self, model: str) -> dict[str, list[Sample]]:
        """What is kept of a model by signature, the newest first."""
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


def _least_missed(kept: Sequence[Sample], new: Sample) -> Sample:
    """The oldest of those whose form is there twice with the new one; else the oldest of all."""
    forms = [_form(sample.inputs) for sample in (*kept, new)]
    twice = (s for s, form in zip(kept, forms[:-1], strict=True) if forms.count(form) > 1)
    return next(twice, kept[0])


def fitting(sample: Sample, signature: Signature) -> Tensors | None:
    """A kept request as inputs of another version's signature, in its order; None: it is no such.

    An input that is new there, and may be left out, has its default.
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
        elif not _goes_on(sample.specs[alias], spec, array.shape):
            return None
        inputs[alias] = array
    return inputs


def _goes_on(before: TensorSpec, now: TensorSpec, shape: tuple[int, ...]) -> bool:
    """Whether what one spec took is something for another one.

    A shape that neither names is, if they name the same.
    """
    same = before.shape == now.shape
    return before.data_type == now.data_type and (same or now.takes(shape))


def batches(requests: Sequence[Tensors], rows: Iterable[int], most: int) -> list[Tensors]:
    """Batches of so many rows, of the first request of each kind; the smallest first.

    Left out are sizes that the requests have by themselves, and batches of more than `most` bytes.
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
    """So many rows of a request: its own, again and again."""
    return {alias: array[np.arange(rows) % array.shape[0]] for alias, array in inputs.items()}


def _bytes_at(inputs: Tensors, rows: int) -> int:
    return rows * sum(_bytes_of(array) for array in inputs.values()) // rows_of(inputs)
