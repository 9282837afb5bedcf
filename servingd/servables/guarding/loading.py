"""Loads of other people's types: what comes of them is checked, and guarded."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from collections.abc import (
    Callable,
    Mapping,
)
from typing import Any, TypeVar

from servingd.core.callbacks import nothing
from servingd.core.resources.footprints import Estimate, Footprint
from servingd.core.servable import Servable
from servingd.core.types import ANYWHERE, Placement, ServableId, Signature, TensorSpec
from servingd.errors import (
    FailedPrecondition,
)
from servingd.servables.guarding.guard import GuardedServable, marked
from servingd.wire.tensors.types import numpy_dtype

_UNLOAD_S = 5.0
"""Seconds that a servable may take to end."""

_log = logging.getLogger(__name__)

T = TypeVar("T")


class GuardedLoader:
    """A loader of other people's; what it loads is guarded. See `core.servable.Loader`."""

    def __init__(
        self,
        servable_id: ServableId,
        loader: Any,
        runs: dict[int, Any],
        loaded: Callable[[GuardedServable], None] = nothing,
    ) -> None:
        """`runs` records the threads that run the version, for whoever finds the process dead.

        `loaded` is told of each servable that is loaded.
        """
        self._id = servable_id
        self._loader = loader
        self._loaded = loaded
        self._runs = runs

    def estimate(self) -> Estimate:
        """Return what the loader says, in whole bytes. Raises FailedPrecondition for anything else.

        It is sent to another process, which takes no other numbers.
        """
        return checked_estimate(self._loader.estimate())

    def load(self, placement: Placement = ANYWHERE) -> Servable:
        """Load and check the servable. Raises ServingError."""
        with marked(self._runs, self):
            loaded = self._loader.load(placement)
        try:
            check_signatures(loaded)
            servable = GuardedServable(self._id, loaded, self._runs)
            self._loaded(servable)
            return servable
        except BaseException:
            with contextlib.suppress(BaseException):
                self._loader.unload(loaded)
            raise

    def cancel(self) -> None:
        """Tell the loader, and do not wait: whoever commands it commands all others."""
        self._thread("cancel-guarded", self._tell, "cancel")

    def grow(self) -> None:
        """Tell the loader, and do not wait."""
        self._thread("grow-guarded", self._tell, "grow")

    def unload(self, servable: Servable) -> None:
        """Let the loader unload what it loaded; one that hangs is left behind."""
        assert isinstance(servable, GuardedServable)
        servable.end()
        thread = self._thread("unload-guarded", self._unload, servable.guarded)
        thread.join(_UNLOAD_S)
        if thread.is_alive():
            _log.error("%s has not ended within %g s; its memory may be lost", self._id, _UNLOAD_S)

    def _unload(self, servable: Any) -> None:
        try:
            self._loader.unload(servable)
        except BaseException:  # other people's code may even raise SystemExit
            _log.exception("Unloading servable: %s failed", self._id)

    def _tell(self, command: str) -> None:
        try:
            getattr(self._loader, command)()
        except BaseException:  # other people's code may even raise SystemExit
            _log.exception("%s of the loader of %s failed", command, self._id)

    def _thread(self, name: str, target: Callable[..., None], *arguments: Any) -> threading.Thread:
        thread = threading.Thread(target=target, args=arguments, name=name, daemon=True)
        thread.start()
        return thread


def checked_estimate(found: Any) -> Estimate:
    """Return an estimate in whole bytes. Raises FailedPrecondition if it is none."""
    try:
        return Estimate(
            steady=_in_bytes(found.steady),
            peak=_in_bytes(found.peak),
            growth=_in_bytes(found.growth),
            grown=_in_bytes(found.grown),
            least=_in_bytes(found.least),
            on_devices=bool(found.on_devices),
            measurable=bool(found.measurable),
        )
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise FailedPrecondition(f"expected an Estimate in bytes, got {found!r}: {error}") from None


def _in_bytes(found: Any) -> Footprint:
    own = found.on_accelerator
    return Footprint(
        math.ceil(found.shared), math.ceil(found.replica), None if own is None else math.ceil(own)
    )


def check_signatures(servable: Any) -> None:
    """Raise FailedPrecondition if a servable's signatures are not what they must be.

    Raises Unimplemented for data types that cannot be served.
    """
    signatures = servable.signatures
    if not isinstance(signatures, Mapping) or not signatures:
        raise FailedPrecondition(
            f"signatures of {type(servable).__name__}: expected a mapping of names to Signature, "
            f"got {signatures!r}"
        )
    for name, each in signatures.items():
        if not isinstance(each, Signature) or each.name != name:
            raise FailedPrecondition(
                f"signature {name!r} of {type(servable).__name__}: expected a Signature of that "
                f"name, got {each!r}"
            )
        for alias, spec in (*each.inputs.items(), *each.outputs.items()):
            if not isinstance(spec, TensorSpec):
                raise FailedPrecondition(
                    f"signature {name!r}, {alias}: expected a TensorSpec, got {spec!r}"
                )
            numpy_dtype(spec.data_type)
