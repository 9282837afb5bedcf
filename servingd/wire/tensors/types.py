"""How elements of each type travel in a `tensorflow.TensorProto`, and their numpy dtypes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from servingd.core.types import DataType
from servingd.errors import InvalidArgument, Unimplemented

BOOL = np.dtype(bool)
OBJECT = np.dtype(object)


@dataclass(frozen=True, slots=True)
class Form:
    """How elements of one type travel: the list field's name and number, and two dtypes.

    `listed` is what the list field holds; `item` is what the array is made of when it goes into
    the list or comes from it (bit patterns of halves, parts of complex numbers). The list of a type
    that is `fixed` is its memory (a truth value is a varint of one byte), that of another consists
    of varints.
    """

    dtype: np.dtype[Any]
    field: str
    number: int
    listed: np.dtype[Any]
    item: np.dtype[Any]
    fixed: bool


def _form(
    dtype: Any, field: str, number: int, listed: Any = None, item: Any = None, fixed: bool = False
) -> Form:
    dtype = np.dtype(dtype)
    item = dtype if item is None else np.dtype(item)
    return Form(dtype, field, number, item if listed is None else np.dtype(listed), item, fixed)


FORMS: dict[int, Form] = {
    DataType.FLOAT: _form("<f4", "float_val", 5, fixed=True),
    DataType.DOUBLE: _form("<f8", "double_val", 6, fixed=True),
    DataType.INT32: _form("<i4", "int_val", 7),
    DataType.INT16: _form("<i2", "int_val", 7, listed="<i4"),
    DataType.INT8: _form("i1", "int_val", 7, listed="<i4"),
    DataType.UINT16: _form("<u2", "int_val", 7, listed="<i4"),
    DataType.UINT8: _form("u1", "int_val", 7, listed="<i4"),
    DataType.STRING: _form(object, "string_val", 8),
    DataType.COMPLEX64: _form("<c8", "scomplex_val", 9, item="<f4", fixed=True),
    DataType.INT64: _form("<i8", "int64_val", 10),
    DataType.BOOL: _form("?", "bool_val", 11, fixed=True),
    DataType.COMPLEX128: _form("<c16", "dcomplex_val", 12, item="<f8", fixed=True),
    DataType.HALF: _form("<f2", "half_val", 13, listed="<i4", item="<u2"),
    DataType.BFLOAT16: _form(ml_dtypes.bfloat16, "half_val", 13, listed="<i4", item="<u2"),
    DataType.UINT32: _form("<u4", "uint32_val", 16),
    DataType.UINT64: _form("<u8", "uint64_val", 17),
}
_KNOWN = frozenset(map(int, DataType))
_DATA_TYPES = {form.dtype: DataType(number) for number, form in FORMS.items()}


def numpy_dtype(data_type: DataType) -> np.dtype[Any]:
    """Return the dtype of arrays of `data_type`; strings are objects (`bytes`).

    Raises:
        InvalidArgument: it is INVALID, or no number of a type.
        Unimplemented: it is a type that is not served here (quantised, 8 bits and less, handles).
    """
    return form_of(data_type).dtype


def data_type_of(dtype: np.dtype[Any]) -> DataType:
    """Return the type of arrays of `dtype`, in any byte order; texts and objects are STRING.

    Raises:
        Unimplemented: there is none.
    """
    if dtype.kind in "OSU":
        return DataType.STRING
    found = _DATA_TYPES.get(dtype.newbyteorder("<"))
    if found is None:
        raise Unimplemented(f"arrays of {dtype} are not served")
    return found


def fixed_list_field(data_type: int) -> int | None:
    """The number of the list field whose packed bytes are the array's memory; None: there is none.

    Bytes of such a list may be any; those of a truth value may not, and it has none.
    """
    form = FORMS.get(data_type)
    return form.number if form is not None and form.fixed and form.dtype is not BOOL else None


def type_name(data_type: int) -> str:
    """Return TensorFlow's name of a type in error texts: `float`; also for an unknown number."""
    try:
        return DataType(data_type).name.lower()
    except ValueError:
        return f"unknown dtype enum ({data_type})"


def form_of(data_type: int) -> Form:
    """Return how elements of a type travel; raises as `numpy_dtype`."""
    form = FORMS.get(data_type)
    if form is not None:
        return form
    if data_type not in _KNOWN or data_type == DataType.INVALID:
        raise InvalidArgument(f"{type_name(data_type)} is not a type of tensors")
    raise Unimplemented(f"tensors of type {type_name(data_type)} are not served")
