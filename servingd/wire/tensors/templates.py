"""PredictRequests of one form, parsed once.

What a client sends differs from call to call in the bytes of its tensors and in nothing else. A
template is such a request with these places left open: everything else is its *frame*. The frame
has every tag and every length, so a request of the same length whose frame is the same, byte for
byte, parses as the template did, but for the tensors' numbers. It need not be parsed: the numbers
are read where they lie, all tensors at once, without a copy.

A tensor fits whose numbers lie in one piece, in `tensor_content` or in a packed list of fixed-size
numbers, and may be any bytes. Requests with strings, truth values or varints are parsed.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from servingd.core.types import DataType, ModelSpec
from servingd.errors import ServingError
from servingd.wire.fields import Place, places_of
from servingd.wire.tensors.decoding import decode
from servingd.wire.tensors.types import fixed_list_field

if TYPE_CHECKING:
    from servingd.wire.protos import InputsRequest, InputTensor

MAX_FRAME_BYTES = 32 << 10
"""Of one template."""
MAX_TOTAL_BYTES = 4 << 20
"""Of all frames: if there are more, all templates are dropped. With its dtype a template takes some
ten times its frame."""
MAX_LENGTHS = 256
"""Lengths of requests for which there are templates; if there are more, all are dropped."""
PER_LENGTH = 16
"""Clients may send the inputs of a request in different orders: each order is a template."""

_INPUTS, _KEY, _VALUE = 2, 1, 2
"""Fields of PredictRequest, and of an entry of its map."""
_TENSOR_CONTENT = 4
_UNFIT = frozenset((int(DataType.BOOL), int(DataType.STRING)))
"""Types whose content must be looked at."""


class _Field(NamedTuple):
    """One tensor of a template."""

    alias: str
    place: Place
    data_type: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    elements: int


class Template:
    """All of a PredictRequest but the numbers of its tensors. Immutable but for `plan`."""

    __slots__ = (
        "_back",
        "_frame",
        "_only",
        "_parts",
        "_record",
        "aliases",
        "data_types",
        "fields",
        "frame_bytes",
        "front",
        "output_filter",
        "plan",
        "spec",
    )

    def __init__(
        self,
        payload: bytes,
        fields: Sequence[_Field],
        spec: ModelSpec,
        output_filter: Sequence[str],
    ) -> None:
        self.spec = spec
        self.output_filter = tuple(output_filter)
        self.aliases: Mapping[str, None] = dict.fromkeys(field.alias for field in fields)
        self.data_types = {field.alias: field.data_type for field in fields}
        self.fields = {field.alias: f"f{i}" for i, field in enumerate(fields)}
        """The names of the record's fields by alias: numpy takes no empty name."""
        self.plan: Any = None
        """What its reader has worked out for it; replaced whole, from any thread."""
        self._frame = _frame_of(payload, sorted(field.place for field in fields))
        self._parts = self._frame.unpack(payload)
        self.front, self._back = self._parts[0], self._parts[-1]
        self._only = fields[0] if len(fields) == 1 else None
        self.frame_bytes = sum(map(len, self._parts))
        self._record = np.dtype(
            {
                "names": list(self.fields.values()),
                "formats": [(field.dtype, field.shape) for field in fields],
                "offsets": [field.place[0] for field in fields],
                "itemsize": len(payload),
            }
        )

    def fits(self, payload: bytes) -> bool:
        """Whether a request of the template's length is one of this form."""
        if not (payload.startswith(self.front) and payload.endswith(self._back)):
            return False
        return self._only is not None or self._frame.unpack(payload) == self._parts

    def only_array(self, payload: bytes) -> np.ndarray[Any, Any] | None:
        """Return the one tensor of a request that fits; None if it has several.

        It is a read-only view of `payload`, not aligned in memory. To make a record of one field
        takes four times as long.
        """
        only = self._only
        if only is None:
            return None
        flat = np.frombuffer(payload, only.dtype, only.elements, only.place[0])
        return flat if len(only.shape) == 1 else flat.reshape(only.shape)

    def record(self, payload: bytes) -> np.ndarray[Any, Any]:
        """Return the tensors of a request that fits, by field name.

        Each is a read-only view of `payload`, not aligned in memory.
        """
        return np.ndarray((), self._record, payload)


def _frame_of(payload: bytes, places: Sequence[Place]) -> struct.Struct:
    """What takes all bytes out of a request that lie in none of the places."""
    form, at = "", 0
    for start, end in places:
        form += f"{start - at}s{end - start}x"
        at = end
    return struct.Struct(f"<{form}{len(payload) - at}s")


class RequestTemplates:
    """The templates of the requests that arrive. From any thread."""

    def __init__(self) -> None:
        self._by_length: dict[int, tuple[Template, ...]] = {}  # values are replaced, never changed
        self._lock = threading.Lock()
        self._seen: dict[int, int] = {}  # guarded by _lock: requests without a template, by length
        self._bytes = 0  # guarded by _lock; of all frames

    def find(self, payload: bytes) -> Template | None:
        """Return the template that a request fits, if one has been learnt."""
        for template in self._by_length.get(len(payload), ()):
            if template.fits(payload):
                return template
        return None

    def learn(self, payload: bytes, request: InputsRequest, spec: ModelSpec) -> None:
        """Take note of a request that fitted none; its form is learnt when it arrives again."""
        with self._lock:
            if len(self._seen) > 4 * MAX_LENGTHS:
                self._seen.clear()
            seen = self._seen[len(payload)] = self._seen.get(len(payload), 0) + 1
        if seen & (seen - 1) or seen == 1:  # at the 2nd, 4th, 8th ...: trying is not free
            return
        template = _template_of(payload, request, spec)
        if template is None:
            return
        with self._lock:
            self._bytes += template.frame_bytes
            if len(self._by_length) > MAX_LENGTHS or self._bytes > MAX_TOTAL_BYTES:
                self._by_length.clear()
                self._bytes = template.frame_bytes
            others = self._by_length.get(len(payload), ())
            self._by_length[len(payload)] = (template, *others)[:PER_LENGTH]


def _template_of(payload: bytes, request: InputsRequest, spec: ModelSpec) -> Template | None:
    """Return the template of a request, if all its tensors fit and it is not too large."""
    try:
        fields = _fields_of(payload, request)
    except (ServingError, ValueError):
        return None
    if not fields:
        return None
    frame = len(payload) - sum(end - start for start, end in (field.place for field in fields))
    if frame > MAX_FRAME_BYTES:
        return None
    return Template(payload, fields, spec, request.output_filter)


def _fields_of(payload: bytes, request: InputsRequest) -> list[_Field]:
    """Return where each tensor's numbers lie; nothing if one does not fit.

    Raises ValueError or ServingError where the request, or one of its tensors, is not regular.
    """
    inputs: Mapping[str, InputTensor] = request.inputs
    entries = list(places_of(payload, (0, len(payload)), _INPUTS))
    if len(entries) != len(inputs):
        return []  # an entry of an alias that is there twice would not count
    fields = []
    for entry in entries:
        keys = list(places_of(payload, entry, _KEY))
        values = list(places_of(payload, entry, _VALUE))
        if len(keys) != 1 or len(values) != 1:
            return []
        alias = payload[slice(*keys[0])].decode()
        field = _field_of(payload, values[0], alias, inputs[alias])
        if field is None:
            return []
        fields.append(field)
    return fields


def _field_of(payload: bytes, place: Place, alias: str, tensor: InputTensor) -> _Field | None:
    data_type = int(tensor.dtype)
    if data_type in _UNFIT:
        return None
    number = _TENSOR_CONTENT if tensor.tensor_content else fixed_list_field(data_type)
    if number is None:
        return None
    found = list(places_of(payload, place, number))
    if len(found) != 1:
        return None
    array = decode(tensor, alias)
    if not array.size or array.tobytes() != payload[slice(*found[0])]:
        return None
    return _Field(alias, found[0], data_type, array.dtype, array.shape, array.size)
