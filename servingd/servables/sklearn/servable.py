"""A fitted estimator that answers calls."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from servingd.core.batching.merge import merge
from servingd.core.call_protocols import Completion
from servingd.core.shapes import explained
from servingd.core.types import Signature, Tensors
from servingd.errors import ServingError, Unavailable
from servingd.servables.plugin import Servable
from servingd.servables.rows_worth import ENOUGH_ROWS, rows_worth_merging, seconds_of
from servingd.servables.sklearn.inputs import Inputs
from servingd.servables.sklearn.methods import Method, methods_of, signatures_of
from servingd.servables.synthetic_inputs import synthetic_inputs


class SklearnServable(Servable):
    """One signature for each method; see `servables.plugin.Servable`."""

    def __init__(self, estimator: Any, inputs: Inputs, not_merged: str) -> None:
        """`not_merged` says why calls are not merged; empty: they are."""
        # Columns without a name are as good as named ones: they come in their order.
        warnings.filterwarnings("ignore", "X does not have valid feature names", UserWarning)
        self._methods: Mapping[str, Method] = methods_of(estimator, inputs)
        self.signatures = signatures_of(estimator, self._methods)
        self._not_merged = not_merged
        self._rows_worth = {
            name: 0 if not_merged else _rows_worth(method, self.signatures[name])
            for name, method in self._methods.items()
        }

    def rows_worth_merging(self, signature: str) -> int:
        """Return up to how many rows merging pays, as measured when it was loaded."""
        return self._rows_worth.get(signature, 0)

    def why_not_merged(self, signature: str) -> str:
        """Return which part of the estimator may look at several rows."""
        return self._not_merged

    def may_be_repeated(self, signature: str) -> bool:
        """Return True: estimators learn nothing from what they are asked."""
        return True

    def run(self, signature: Signature, inputs: Tensors, done: Completion) -> None:
        """Run in this thread. Raises ServingError."""
        method = self._methods.get(signature.name)
        if method is None:
            raise Unavailable("the servable is closed")
        try:
            outputs = method.run(inputs)
        except ServingError as error:
            raise explained(error, signature, inputs) from error
        done.succeed(outputs)

    def close(self) -> None:
        """Drop the estimator."""
        self._methods = {}


def _rows_worth(method: Method, signature: Signature) -> int:
    """Measure a method.

    Of one that refuses made-up rows it is taken that, as of most, a call costs more than its rows.
    """
    one = synthetic_inputs(signature, 1)
    if one is None:
        return 1
    try:
        return rows_worth_merging(
            lambda rows: seconds_of(lambda: method.run(merge([one] * rows).inputs)), ENOUGH_ROWS
        )
    except ServingError:
        return ENOUGH_ROWS
