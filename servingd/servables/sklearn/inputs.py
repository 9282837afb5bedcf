"""What a fitted estimator takes: a matrix, a list of texts, or columns with names."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from servingd.core.types import DataType, Tensors, TensorSpec
from servingd.errors import FailedPrecondition, InvalidArgument

DEFAULT = "features"
_TYPES = {
    "float32": DataType.FLOAT,
    "float64": DataType.DOUBLE,
    "int32": DataType.INT32,
    "int64": DataType.INT64,
    "bool": DataType.BOOL,
    "string": DataType.STRING,
}


@dataclass(frozen=True, slots=True)
class Inputs:
    """How a call's tensors become what an estimator takes."""

    specs: Mapping[str, TensorSpec]
    form: Literal["matrix", "texts", "columns", "frame"]
    """One tensor [rows, features] or [rows]; columns side by side, or as a pandas.DataFrame."""

    def samples(self, inputs: Tensors) -> Any:
        """Return what the estimator takes. Raises InvalidArgument for strings that are no UTF-8."""
        columns = {name: _decoded(name, inputs[name]) for name in self.specs}
        if self.form in ("matrix", "texts"):
            return next(iter(columns.values()))
        if self.form == "frame":
            import pandas

            return pandas.DataFrame(columns)
        if len({len(column) for column in columns.values()}) > 1:
            raise InvalidArgument("inputs: the columns have different numbers of rows")
        if any(column.dtype.kind == "O" for column in columns.values()):
            return np.column_stack([column.astype(object) for column in columns.values()])
        return np.column_stack(list(columns.values()))


def inputs_of(estimator: Any, types: Mapping[str, str]) -> Inputs:
    """Return the inputs of a fitted estimator; `types` are those that the options name.

    Raises InvalidArgument where they do not fit, FailedPrecondition where pandas is needed.
    """
    names = [str(name) for name in getattr(estimator, "feature_names_in_", ())]
    count = getattr(estimator, "n_features_in_", None)
    if unknown := sorted(types.keys() - set(names)) if names else []:
        raise InvalidArgument(f"inputs: it has no column {unknown[0]!r}; it has {', '.join(names)}")
    if not names and len(types) > 1:
        if count is not None and count != len(types):
            raise InvalidArgument(f"inputs: it takes {count} columns, not {len(types)}")
        names = list(types)
    if names:
        specs = {name: _spec(name, types.get(name, "float64"), (None,)) for name in names}
        return Inputs(specs, "frame" if _selects_by_name(estimator) else "columns")
    ((name, kind),) = types.items() or ((DEFAULT, "float64" if count is not None else "string"),)
    shape = (None, count) if count is not None else (None,)
    return Inputs({name: _spec(name, kind, shape)}, "matrix" if count is not None else "texts")


def _spec(name: str, kind: str, shape: tuple[int | None, ...]) -> TensorSpec:
    if kind not in _TYPES:
        raise InvalidArgument(f"inputs: {name}: expected one of {', '.join(_TYPES)}, got {kind!r}")
    return TensorSpec(_TYPES[kind], shape, f"{name}:0")


def _decoded(name: str, array: Any) -> Any:
    if array.dtype.kind != "O":
        return array
    texts = np.empty(array.shape, object)
    try:
        texts.ravel()[:] = [value.decode() for value in array.ravel()]
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"input {name}: strings are UTF-8: {error}") from error
    return texts


def _selects_by_name(estimator: Any) -> bool:
    """Whether a part of it picks columns by their names, for which it asks pandas.

    Raises FailedPrecondition where that is not installed.
    """
    parts = [estimator, *(step for _, step in getattr(estimator, "steps", ()))]
    parts.append(getattr(estimator, "best_estimator_", None))
    picked = [
        columns for part in parts for _, _, columns in getattr(part, "transformers_", ()) if part
    ]
    by_name = any(
        isinstance(each, str) or (isinstance(each, list) and each and isinstance(each[0], str))
        for each in picked
    )
    if by_name and importlib.util.find_spec("pandas") is None:
        raise FailedPrecondition(
            "it picks columns by their names, which scikit-learn does with pandas alone: "
            "pip install pandas"
        )
    return by_name
