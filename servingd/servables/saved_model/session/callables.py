"""The callables of a session: one per signature, with all of its outputs or with some of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from servingd.core.types import Signature, Tensors
from servingd.errors import Code, Internal, ServingError, Unimplemented
from servingd.servables.saved_model.session import c_api
from servingd.servables.saved_model.session.python_session import ObjectModel
from servingd.servables.saved_model.session.timed_runs import TimedRuns
from servingd.servables.tensorflow_runtime.runtime import translate

_SIGNATURE_ERRORS = (
    Code.INVALID_ARGUMENT,
    Code.NOT_FOUND,
    Code.UNIMPLEMENTED,
    Code.OUT_OF_RANGE,
)
"""TensorFlow's codes for a signature that names a tensor the graph lacks, or cannot run here."""

_log = logging.getLogger(__name__)


class SessionBackend(Protocol):
    """A TensorFlow session, through whichever API it was opened; see `c_api.CApiSession`."""

    def make_call(
        self,
        feeds: list[str],
        fetches: list[str],
        targets: list[str] | None = None,
        timeout_s: float | None = None,
    ) -> Callable[..., list[Any]]:
        """Return a callable: arrays in the order of `feeds` in, values in that of `fetches` out."""
        ...

    def trace(self, feeds: list[str], fetches: list[str], arrays: Iterable[Any]) -> Any:
        """Run once; return the `tensorflow.RunMetadata` that says where each operation ran."""
        ...

    def interrupt(self) -> None:
        """End the runs under way, from any thread. The session answers no more calls."""
        ...

    def close(self) -> None:
        """Free the session; no callable may be running."""
        ...


class SignatureCallable:
    """A signature's callable: arrays in the order of its inputs, values in that of its outputs."""

    __slots__ = ("_call", "_outputs", "_run", "_timed")

    def __init__(
        self, call: Callable[..., list[Any]] | TimedRuns, outputs: tuple[str, ...]
    ) -> None:
        self._call = call  # keeps what `_run` points to
        self._timed = isinstance(call, TimedRuns)
        self._run: Callable[[tuple[Any, ...], Any], list[Any]]
        self._run = call if isinstance(call, TimedRuns) else c_api.without_wrapper(call)
        self._outputs = outputs

    def run(self, inputs: Tensors, deadline: float | None = None) -> dict[str, Any]:
        """Return the outputs by alias. Raises TensorFlow's errors.

        `inputs` hold every input, in the signature's order. A session whose runs are timed ends the
        run soon after `deadline` (monotonic seconds); other sessions ignore it.
        """
        values = self._run(tuple(inputs.values()), deadline if self._timed else None)
        return dict(zip(self._outputs, values, strict=False))


class PassThroughCallable(SignatureCallable):
    """The callable of a signature some of whose outputs are inputs: a run cannot fetch a feed."""

    __slots__ = ("_all_outputs", "_passed_through")

    def __init__(
        self,
        call: Callable[..., list[Any]] | TimedRuns,
        fetched: tuple[str, ...],
        outputs: tuple[str, ...],
        passed_through: Mapping[str, str],
    ) -> None:
        """`fetched` are the outputs of the run; `passed_through` maps the others to their input."""
        super().__init__(call, fetched)
        self._all_outputs = outputs
        self._passed_through = passed_through

    def run(self, inputs: Tensors, deadline: float | None = None) -> dict[str, Any]:
        """Return the outputs by alias; see `SignatureCallable.run`."""
        found = super().run(inputs, deadline) if self._outputs else {}
        found |= {output: inputs[alias] for output, alias in self._passed_through.items()}
        return {alias: found[alias] for alias in self._all_outputs}


def make_callables(
    backend: SessionBackend | ObjectModel, signatures: Mapping[str, Signature], timed: bool
) -> dict[str, SignatureCallable]:
    """Make a callable per signature. Raises a ServingError.

    A signature that cannot be called does not cost the others: its callable raises the reason.
    """
    calls: dict[str, SignatureCallable] = {}
    for name, signature in signatures.items():
        try:
            calls[name] = make_callable(backend, signature, timed)
        except Exception as error:
            failure = translate(error)
            if failure.code not in _SIGNATURE_ERRORS:
                raise failure from error
            _log.warning("signature %s cannot be called: %s", name, failure.message)
            calls[name] = SignatureCallable(_failing_call(failure), ())
    return calls


def make_callable(
    backend: SessionBackend | ObjectModel, signature: Signature, timed: bool
) -> SignatureCallable:
    """Make a signature's callable; `timed` ones end at a call's deadline.

    Raises TensorFlow's errors.
    """
    unserved = [alias for alias in signature.inputs if alias in signature.unserved]
    if unserved:  # such calls are refused before they come here: see `check_served`
        return SignatureCallable(_failing_call(Unimplemented(signature.unserved[unserved[0]])), ())
    outputs = tuple(alias for alias in signature.outputs if alias not in signature.unserved)
    if isinstance(backend, ObjectModel):
        inputs = list(signature.inputs)
        return SignatureCallable(
            backend.make_signature_call(signature.name, inputs, list(outputs)), outputs
        )
    feeds, fetches = fed_and_fetched(signature)
    passed_through = _passed_through(signature)
    call: Callable[..., list[Any]] | TimedRuns
    if not fetches:
        call = _failing_call(Internal("nothing to run"))
    elif timed:
        call = TimedRuns(lambda timeout_s: backend.make_call(feeds, fetches, None, timeout_s))
    else:
        call = backend.make_call(feeds, fetches)
    if not passed_through:
        return SignatureCallable(call, outputs)
    fetched = tuple(alias for alias in outputs if alias not in passed_through)
    return PassThroughCallable(call, fetched, outputs, passed_through)


def fed_and_fetched(signature: Signature) -> tuple[list[str], list[str]]:
    """Return the names of the tensors that a run feeds and fetches, in the signature's order."""
    passed_through = _passed_through(signature)
    feeds = [spec.tensor_name for spec in signature.inputs.values()]
    fetches = [
        spec.tensor_name
        for alias, spec in signature.outputs.items()
        if alias not in passed_through and alias not in signature.unserved
    ]
    return feeds, fetches


def _passed_through(signature: Signature) -> dict[str, str]:
    """Map each output that is one of the inputs to that input's alias."""
    fed = {_with_output_index(spec.tensor_name): alias for alias, spec in signature.inputs.items()}
    return {
        output: fed[_with_output_index(spec.tensor_name)]
        for output, spec in signature.outputs.items()
        if _with_output_index(spec.tensor_name) in fed and output not in signature.unserved
    }


def _with_output_index(tensor: str) -> str:
    return tensor if ":" in tensor else f"{tensor}:0"


def _failing_call(error: ServingError) -> Callable[..., list[Any]]:
    """Return a callable that raises `error` whatever it is given."""

    def call(*arrays: Any) -> list[Any]:
        raise error

    return call
