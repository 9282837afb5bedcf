"""The values that all packages share. Frozen, comparable, free of TensorFlow."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from servingd.errors import ServingError

Tensors: TypeAlias = Mapping[str, np.ndarray[Any, Any]]
"""Tensors by alias. Strings are object arrays of `bytes`. An input may be a read-only view that is
not aligned in memory. Never write to an output: it can be the model's own memory.
"""


class DataType(enum.IntEnum):
    """`tensorflow.DataType`, by number; names without the prefix `DT_`."""

    INVALID = 0
    FLOAT = 1
    DOUBLE = 2
    INT32 = 3
    UINT8 = 4
    INT16 = 5
    INT8 = 6
    STRING = 7
    COMPLEX64 = 8
    INT64 = 9
    BOOL = 10
    QINT8 = 11
    QUINT8 = 12
    QINT32 = 13
    BFLOAT16 = 14
    QINT16 = 15
    QUINT16 = 16
    UINT16 = 17
    COMPLEX128 = 18
    HALF = 19
    RESOURCE = 20
    VARIANT = 21
    UINT32 = 22
    UINT64 = 23
    FLOAT8_E5M2 = 24
    FLOAT8_E4M3FN = 25
    FLOAT8_E4M3FNUZ = 26
    FLOAT8_E4M3B11FNUZ = 27
    FLOAT8_E5M2FNUZ = 28
    INT4 = 29
    UINT4 = 30
    INT2 = 31
    UINT2 = 32
    FLOAT4_E2M1FN = 33


@dataclass(frozen=True, slots=True, order=True)
class ServableId:
    """One version of one model."""

    name: str
    version: int

    def __str__(self) -> str:
        """Return TensorFlow Serving's spelling, which operators grep for."""
        return f"{{name: {self.name} version: {self.version}}}"


class ModelSpec(NamedTuple):
    """What a caller asks for: a model, and a version, a label, or neither (the latest version)."""

    name: str
    version: int | None = None
    label: str | None = None
    signature_name: str = ""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a signature.

    `shape` has None for a dimension that may vary and is itself None where the rank is unknown;
    `tensor_name` is the servable's own name for it (TensorFlow: `op:0`).
    """

    data_type: DataType
    shape: tuple[int | None, ...] | None
    tensor_name: str = ""

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Return whether a tensor of this shape matches the spec."""
        wanted = self.shape
        if wanted is None:
            return True
        if len(shape) != len(wanted):
            return False
        for size, fixed in zip(shape, wanted, strict=False):  # at every call: no generator
            if size != fixed and fixed is not None:
                return False
        return True


@dataclass(frozen=True, slots=True)
class Signature:
    """One way to call a servable: named inputs to named outputs.

    `defaults` are the values of inputs that a caller may leave out. `definition` is the serialised
    `tensorflow.SignatureDef` where the model brought one; else it is made from the specs.
    """

    name: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    method_name: str = "tensorflow/serving/predict"
    defaults: Tensors = field(default_factory=dict)
    definition: bytes = b""
    unserved: Mapping[str, str] = field(default_factory=dict)
    """Inputs and outputs that metadata shows but that cannot be fed or fetched, with reasons."""


@dataclass(frozen=True, slots=True)
class VersionData:
    """Where a version lies, its type, and a digest of its files' names, sizes and times."""

    path: str
    platform: str
    fingerprint: str = ""
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """The model's `platform_options`, as plain data; its type knows what they mean."""


@dataclass(frozen=True, slots=True, order=True)
class Device:
    """A device that computes: `CPU:0`, `GPU:1`."""

    kind: str
    index: int

    @property
    def name(self) -> str:
        """The name in configurations and in TensorFlow."""
        return f"{self.kind}:{self.index}"

    @property
    def is_host(self) -> bool:
        """Whether its memory is the host's; several CPUs share it."""
        return self.kind == "CPU"

    def __str__(self) -> str:
        return self.name


CPU_0 = Device("CPU", 0)


@dataclass(frozen=True, slots=True)
class Placement:
    """The devices of a version's replicas: one device each."""

    devices: tuple[Device, ...] = ()
    """Empty: nothing was planned; one replica, wherever the servable chooses."""

    may_grow: bool = True
    """Whether there is room at once for the growth that the estimate names."""

    may_start_grown: bool = False
    """Whether it may start as one that has grown, without room for its growth: it takes no more."""

    def __str__(self) -> str:
        return ", ".join(device.name for device in self.devices) or "anywhere"


ANYWHERE = Placement()


@dataclass(frozen=True, slots=True)
class Resources:
    """Bytes of the host's memory, and bytes on each device.

    What lies on a CPU is the host's memory, and counts in both.
    """

    ram: int = 0
    devices: Mapping[Device, int] = field(default_factory=dict)

    def __add__(self, other: Resources) -> Resources:
        both = [*self.devices, *(d for d in other.devices if d not in self.devices)]
        return Resources(
            self.ram + other.ram, {device: self.on(device) + other.on(device) for device in both}
        )

    def on(self, device: Device) -> int:
        """Return the bytes on a device."""
        return self.devices.get(device, 0)


NO_BYTES = Resources()


@dataclass(frozen=True, slots=True)
class AspiredVersion:
    """One version that should be loaded, or the reason why it cannot be."""

    version: int
    data: VersionData | None = None
    error: ServingError | None = None


@dataclass(frozen=True, slots=True)
class AspiredVersions:
    """All versions of one model that a source wants to be loaded.

    It replaces the last one; omission means unload (TensorFlow Serving's rule). `incomplete` names
    the versions that are on disk but not complete, each with the reason; they are not aspired.
    """

    name: str
    versions: tuple[AspiredVersion, ...]
    incomplete: Mapping[int, str] = field(default_factory=dict)
