"""A SavedModel that can be called: three ways to open it, one way to run it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from servingd.core.types import Signature, Tensors
from servingd.core.users import Users
from servingd.errors import FailedPrecondition, InvalidArgument, Unimplemented
from servingd.servables.saved_model import c_api
from servingd.servables.saved_model.meta_graph import MetaGraph
from servingd.servables.saved_model.parity import agree
from servingd.servables.saved_model.python_session import ObjectModel, PythonSession
from servingd.servables.saved_model.tensorflow import SessionOptions, translate
from servingd.servables.saved_model.warm_up import synthetic_inputs

_log = logging.getLogger(__name__)

_WRONG_VARIABLES = "Could not find variable"
_WARM_RUNS = 3
_WARM_S = 0.5
"""A signature is run so often to warm and measure it, or for so long."""


class _Openable(Protocol):
    def make_call(
        self, feeds: list[str], fetches: list[str], targets: list[str] | None = None
    ) -> Callable[..., list[Any]]: ...

    def close(self) -> None: ...


class SignatureCall:
    """A signature's callable: arrays in the order of its inputs, values in that of its outputs."""

    __slots__ = ("_call", "_outputs", "_run")

    def __init__(self, call: Callable[..., list[Any]], outputs: tuple[str, ...]) -> None:
        self._call = call  # keeps what `_run` points to
        self._run = c_api.without_wrapper(call)
        self._outputs = outputs

    def run(self, inputs: Tensors) -> dict[str, Any]:
        """All outputs, for all inputs, in the signature's order. Raises TensorFlow's errors."""
        return dict(zip(self._outputs, self._run(tuple(inputs.values()), None), strict=False))


class RunningSession:
    """A session with one private callable per signature, and a count of the runs under way.

    Its owner may replace it while it is in use: `close` waits for the runs that have begun.
    """

    __slots__ = (
        "_body",
        "_idle",
        "_users",
        "calls",
        "enter",
        "leave",
        "rows_worth",
        "slowest_s",
        "threads",
    )

    def __init__(
        self, body: _Openable | ObjectModel, signatures: Mapping[str, Signature], threads: int
    ) -> None:
        self._body = body
        self.threads = threads
        try:
            self.calls = {name: _signature_call(body, s) for name, s in signatures.items()}
        except BaseException:
            body.close()
            raise
        self.slowest_s = 0.0  # of the signatures' fastest runs while warming; 0: none was measured
        self.rows_worth: dict[str, int] = {}  # of signatures that are proven to work row by row
        self._idle = threading.Event()
        self._users = Users(self._idle.set)
        # Begin a run (False once closing has begun: take the newer session), and end it.
        self.enter = self._users.enter
        self.leave = self._users.leave

    def close(self, timeout_s: float = 60.0) -> None:
        """Wait for the runs under way, then free the session."""
        self._users.close()
        if not self._idle.wait(timeout_s):
            _log.error("a session is not freed: a run goes on after %.0f s", timeout_s)
            return
        self.calls.clear()
        self._body.close()


def _signature_call(body: _Openable | ObjectModel, signature: Signature) -> SignatureCall:
    inputs, outputs = tuple(signature.inputs), tuple(signature.outputs)
    feeds = [signature.inputs[alias].tensor_name for alias in inputs]
    fetches = [signature.outputs[alias].tensor_name for alias in outputs]
    if isinstance(body, ObjectModel):
        call = body.make_signature_call(signature.name, list(inputs), list(outputs))
    elif "" in feeds or "" in fetches:
        call = _cannot_be_called(signature.name)
    else:
        call = body.make_call(feeds, fetches)
    return SignatureCall(call, outputs)


def _cannot_be_called(name: str) -> Callable[..., list[Any]]:
    """In the place of a callable for a signature with a sparse or composite tensor."""

    def call(*arrays: Any) -> list[Any]:
        raise Unimplemented(f"signature {name} has a sparse or composite tensor: not served here")

    return call


def open_plain(
    path: str,
    tags: tuple[str, ...],
    options: SessionOptions,
    meta_graph: MetaGraph,
    warm: Mapping[str, bool],
) -> RunningSession:
    """Open a SavedModel as it is, warm, by the first way that can run it.

    `warm` tells which signatures may be run with made-up inputs. Raises a ServingError.
    """
    ways: list[tuple[str, Callable[[], _Openable | ObjectModel]]] = [
        ("a session", lambda: PythonSession(path, tags, options)),
        ("an object", lambda: ObjectModel(path, tags)),
    ]
    if c_api.is_sound():
        ways.insert(0, ("the C API", lambda: c_api.load_saved_model(path, tags, options)))
    for last, (name, way) in _with_last(ways):
        try:
            return _open_warm(way, meta_graph.signatures, warm, options.threads)
        except Exception as error:
            translated = translate(error)
            if last or not isinstance(translated, FailedPrecondition):
                raise translated from error
            _log.info("%s cannot be run as %s, trying the next way: %s", path, name, translated)
    raise AssertionError("the last way returns or raises")


def _with_last(ways: list[Any]) -> Iterator[tuple[bool, Any]]:
    for i, way in enumerate(ways):
        yield i == len(ways) - 1, way


def _open_warm(
    way: Callable[[], _Openable | ObjectModel],
    signatures: Mapping[str, Signature],
    warm: Mapping[str, bool],
    threads: int,
) -> RunningSession:
    session = RunningSession(way(), signatures, threads)
    try:
        session.slowest_s = measure(session, signatures, warm)
    except BaseException:
        session.close()
        raise
    return session


def measure(
    session: RunningSession, signatures: Mapping[str, Signature], warm: Mapping[str, bool]
) -> float:
    """Run every signature that may be run on made-up inputs; the seconds of the slowest one.

    0 if none could be measured. Raises a ServingError if this way of opening is the wrong one.
    """
    return max(
        (_warm_up(session, signature) for name, signature in signatures.items() if warm[name]),
        default=0.0,
    )


def _warm_up(session: RunningSession, signature: Signature) -> float:
    """Run a signature on made-up inputs; return the fastest run's seconds, 0 if none succeeded.

    Raises a ServingError if this way of opening is the wrong one.
    """
    inputs = synthetic_inputs(signature, 1)
    times: list[float] = []
    while inputs is not None and len(times) < _WARM_RUNS and sum(times) < _WARM_S:
        started = time.perf_counter()
        try:
            session.calls[signature.name].run(inputs)
        except Exception as error:
            translated = translate(error)
            if _WRONG_VARIABLES in translated.message:
                raise translated from error
            # Made-up inputs may be refused: that proves nothing.
            _log.debug("warm-up of signature %s: %s", signature.name, translated.message)
            break
        times.append(time.perf_counter() - started)
    return min(times, default=0.0)


def open_optimised(
    path: str,
    source: str,
    initialiser: str,
    assets: Mapping[str, str],
    options: SessionOptions,
    signatures: Mapping[str, Signature],
) -> RunningSession:
    """Open an optimised graph and initialise its tables from the model's assets."""
    body = c_api.load_graph_def(path, options, optimised=True)
    try:
        if initialiser:
            call = body.make_call(list(assets), [], [initialiser.split(":", 1)[0]])
            call(*(_path_tensor(f"{source}/assets/{file}") for file in assets.values()))
            del call
    except BaseException:
        body.close()
        raise
    return RunningSession(body, signatures, options.threads)


def _path_tensor(path: str) -> Any:
    return np.array(path.encode(), object)


def same_answers(
    one: RunningSession,
    other: RunningSession,
    signatures: Mapping[str, Signature],
    warm: Mapping[str, bool],
) -> bool:
    """Whether two sessions answer made-up inputs alike; warms both."""
    return all(
        agree(_answer(one, signature), _answer(other, signature))
        for name, signature in signatures.items()
        if warm[name]
    )


def _answer(session: RunningSession, signature: Signature) -> list[Any] | str:
    inputs = synthetic_inputs(signature, 1)
    if inputs is None:
        return "no inputs"
    try:
        return list(session.calls[signature.name].run(inputs).values())
    except Exception as error:
        translated = translate(error)
        if isinstance(translated, InvalidArgument):
            return "InvalidArgument"
        raise translated from error
