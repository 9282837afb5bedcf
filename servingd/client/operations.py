"""What a client does, as pure generators of commands, which the two clients carry out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar
from urllib.parse import quote

import numpy as np

from servingd.client.answers import ModelMetadata, Signature, VersionStatus
from servingd.client.calls import Api, Array, Call, Operation, Outdated, Pause, Send
from servingd.client.inputs import about, arrays_of, have_types, misfit
from servingd.client.settings import Headers, Settings, check_header, check_priority
from servingd.client.stream_signatures import stream_signature
from servingd.core.types import ModelSpec
from servingd.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    ServingError,
    Unimplemented,
)

S = TypeVar("S")
R = TypeVar("R")
_Types: TypeAlias = dict[str, np.dtype[Any]]
_Key: TypeAlias = tuple[ModelSpec, bool]
"""Which signature, and whether it is that of a stream."""

_DEFAULT_SIGNATURE = "serving_default"
_RELIED_ON_S = 60.0
"""Seconds after which REST's answers of the latest, or a label's, version are read anew: numbers
fit several types, so that they do not tell when it has become another.
"""
_MOST_LEARNED = 4096
"""Signatures that are kept; beyond, all are learned anew."""


class Given(NamedTuple):
    """What a caller says of one operation besides its arguments."""

    timeout_s: float | None = None
    """None: the client's."""
    priority: str | None = None
    """None: the client's."""
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Begun(Generic[S]):
    """A stream that has begun, and how its parts are read."""

    stream: S
    read: Callable[[bytes], dict[str, Array]]


class Operations:
    """All operations of a client. Thread-safe: each is a generator of its own.

    The types of a model's inputs are learned once and kept by model, version or label, and
    signature. They are learned anew when a call does not fit them any more.
    """

    def __init__(
        self,
        api: Api,
        settings: Settings,
        clock: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        """`clock` returns monotonic seconds, `chance` numbers from 0 to 1."""
        self._api = api
        self._settings = settings
        self._clock = clock
        self._chance = chance
        self._learned: dict[
            _Key, tuple[Signature, float]
        ] = {}  # each access is one operation of Python

    # Inference ------------------------------------------------------------------------------------

    def predict(
        self, spec: ModelSpec, inputs: Any, outputs: Sequence[str], given: Given
    ) -> Operation[dict[str, Array]]:
        """Return the outputs."""

        def read(answer: bytes, signature: Signature | None) -> dict[str, Array]:
            return self._api.read_predict(answer, signature, outputs)

        call = _Prediction(spec, inputs, outputs, is_stream=False)
        return self._fitted(call, self._known(call.key), self._begin(given), read)

    def stream(
        self, spec: ModelSpec, inputs: Any, outputs: Sequence[str], given: Given
    ) -> Operation[Begun[Any]]:
        """Return a stream that has begun."""
        call = _Prediction(spec, inputs, outputs, is_stream=True)
        terms = self._begin(given)
        known = self._known(call.key)
        if self._api.needs_signature:  # once it has begun, it is too late to learn anew
            known = yield from self._learn(call.key, terms)

        def read(answer: Any, signature: Signature | None) -> Begun[Any]:
            return Begun(answer, lambda part: self._part(part, signature, outputs))

        return (yield from self._fitted(call, known, terms, read))

    def classify(
        self, spec: ModelSpec, examples: Sequence[Mapping[str, Any]], given: Given
    ) -> Operation[list[list[tuple[str, float]]]]:
        """Return label and score of each class, for each example."""
        answer = yield from self._send(self._api.classify(spec, examples), self._begin(given))
        return self._api.read_classify(answer)

    def regress(
        self, spec: ModelSpec, examples: Sequence[Mapping[str, Any]], given: Given
    ) -> Operation[Array]:
        """Return the values, float32 [examples]."""
        answer = yield from self._send(self._api.regress(spec, examples), self._begin(given))
        return self._api.read_regress(answer)

    def _part(
        self, part: bytes, signature: Signature | None, outputs: Sequence[str]
    ) -> dict[str, Array]:
        try:
            return self._api.read_predict(part, signature, outputs)
        except Outdated:
            raise FailedPrecondition(
                "a part of the stream does not fit the model's signature: another version took over"
            ) from None

    # What the server says of models and itself ----------------------------------------------------

    def metadata(self, spec: ModelSpec, given: Given) -> Operation[ModelMetadata]:
        """Return a model's signatures."""
        return self._metadata(spec, self._begin(given))

    def signature(self, spec: ModelSpec, given: Given) -> Operation[Signature]:
        """Return one signature, as the server has it now."""
        return self._learn((spec, False), self._begin(given))

    def versions(self, spec: ModelSpec, given: Given) -> Operation[list[VersionStatus]]:
        """Return the states of a model's versions; of a label's version, by what it is now."""
        terms = self._begin(given)
        if spec.label is not None:  # which servers ignore here
            labelled = yield from self._metadata(spec, terms)
            spec = spec._replace(version=labelled.version, label=None)
        answer = yield from self._send(self._api.status(spec), terms)
        return self._api.read_status(answer)

    def labels(self, model: str, given: Given) -> Operation[dict[str, int]]:
        """Return the versions that labels stand for."""
        path = f"/servingd/v1/models/{quote(model, safe='')}"
        page = yield from self.page(path, None, None, given)
        if not isinstance(page, Mapping) or not isinstance(page.get("labels"), Mapping):
            raise Unimplemented("the server does not tell labels: servingd's own page does")
        return {label: int(version) for label, version in page["labels"].items()}

    def reload(self, models: Any, given: Given) -> Operation[None]:
        """Replace the server's models."""
        answer = yield from self._send(self._api.reload(models), self._begin(given))
        self._api.read_reload(answer)

    def health(self, service: str, given: Given) -> Operation[str]:
        """Return the state of a service."""
        call, terms = self._api.health(service), self._begin(given)
        try:
            answer = yield from self._send(call, terms)
        except (InvalidArgument, NotFound) as error:
            if service:
                if not error.message:
                    error = NotFound(f"the server knows no service {service}")
                raise error
            raise Unimplemented(
                f"the server has no page for its health; ask for a model's status ({error.message})"
            ) from error
        return self._api.read_health(answer, service)

    def page(self, path: str, body: Any, method: str | None, given: Given) -> Operation[Any]:
        """Return one of servingd's own pages, or the answer to an action."""
        call = self._api.page(path, body, method)
        answer = yield from self._send(call, self._begin(given))
        return self._api.read_page(answer)

    # How ------------------------------------------------------------------------------------------

    def _begin(self, given: Given) -> _Terms:
        check_priority(given.priority)
        settings = self._settings
        timeout_s = settings.timeout_s if given.timeout_s is None else given.timeout_s
        headers = settings.headers
        priority = given.priority or settings.priority
        if priority is not None:
            headers = (*headers, ("x-servingd-priority", priority))
        if given.request_id is not None:
            check_header("request_id", given.request_id)
            headers = (*headers, ("x-request-id", given.request_id))
        return _Terms(None if timeout_s is None else self._clock() + timeout_s, timeout_s, headers)

    def _send(self, call: Call, terms: _Terms) -> Operation[Any]:
        """Send a call until it is answered, or not worth another attempt."""
        attempt = 1
        while True:
            left_s = terms.left_s(self._clock())
            if left_s is not None and left_s <= 0:
                raise DeadlineExceeded(f"no answer within {terms.timeout_s:g} s")
            authorization = self._settings.authorization()
            headers = terms.headers
            if authorization is not None:
                headers = (*headers, ("authorization", authorization))
            try:
                return (yield Send(call, headers, left_s))
            except ServingError as error:
                left_s = terms.left_s(self._clock())
                retry = self._settings.retry
                pause = None
                if call.may_repeat:
                    pause = retry.pause_s(attempt, error, left_s, self._chance())
                if pause is None:
                    raise
            yield Pause(pause)
            attempt += 1

    def _metadata(self, spec: ModelSpec, terms: _Terms) -> Operation[ModelMetadata]:
        answer = yield from self._send(self._api.metadata(spec), terms)
        return self._api.read_metadata(answer)

    def _learn(self, key: _Key, terms: _Terms) -> Operation[Signature]:
        """Ask for a signature, and keep it. Raises NotFound if the model has no such."""
        spec, is_stream = key
        found = yield from self._metadata(spec, terms)
        name = spec.signature_name or _DEFAULT_SIGNATURE
        signature = stream_signature(name, found.signatures) if is_stream else None
        signature = signature or found.signatures.get(name)
        if signature is None:
            self._learned.pop(key, None)
            there = ", ".join(found.signatures) or "none"
            raise NotFound(f"model {spec.name} has no signature {name}; there are: {there}")
        if len(self._learned) >= _MOST_LEARNED:
            self._learned.clear()
        self._learned[key] = signature, self._clock()
        return signature

    def _known(self, key: _Key) -> Signature | None:
        """Return the signature that was learned, if it is still to be relied on."""
        signature, learned_at = self._learned.get(key, (None, 0.0))
        if self._api.needs_signature and key[0].version is None:  # the version may be another now
            is_old = self._clock() - learned_at > _RELIED_ON_S
            return None if is_old else signature
        return signature

    def _fitted(
        self,
        call: _Prediction,
        signature: Signature | None,
        terms: _Terms,
        read: Callable[[Any, Signature | None], R],
    ) -> Operation[R]:
        """Send a prediction with inputs as the signature wants them; learn that where necessary."""
        spec, is_fresh = call.spec, False
        refused: _Types | None = None
        failure: InvalidArgument | Outdated | None = None
        if signature is None and (self._api.needs_signature or not have_types(call.inputs)):
            signature = yield from self._learn_if_told(call, terms)
            is_fresh = True
        while True:
            arrays: dict[str, Array] = {}
            try:
                arrays = arrays_of(spec.name, call.inputs, signature)
                if failure is not None and _types_of(arrays) == refused:
                    raise failure  # to send the same again would not help
                request = self._api.predict(spec, arrays, call.outputs, call.is_stream)
                answer = yield from self._send(request, terms)
                return read(answer, signature)
            except (InvalidArgument, Outdated) as error:
                failure = error
            if is_fresh:
                raise _explained(spec, failure, arrays, signature) from failure
            refused = None if isinstance(failure, Outdated) else _types_of(arrays)
            try:
                latest = yield from self._learn(call.key, terms)
            except ServingError:
                raise _explained(spec, failure, arrays, signature) from failure
            if latest == signature:
                raise _explained(spec, failure, arrays, latest) from failure
            signature, is_fresh = latest, True

    def _learn_if_told(self, call: _Prediction, terms: _Terms) -> Operation[Signature | None]:
        """Learn a signature; None if the server has no metadata and the call can do without."""
        try:
            return (yield from self._learn(call.key, terms))
        except Unimplemented:
            if self._api.needs_signature or not isinstance(call.inputs, Mapping):
                raise
            return None


class _Terms(NamedTuple):
    """What all calls of one operation share."""

    deadline: float | None
    timeout_s: float | None
    headers: Headers

    def left_s(self, now: float) -> float | None:
        return None if self.deadline is None else self.deadline - now


@dataclass(frozen=True, slots=True)
class _Prediction:
    """A call of predict or stream."""

    spec: ModelSpec
    inputs: Any
    outputs: Sequence[str]
    is_stream: bool

    @property
    def key(self) -> _Key:
        return self.spec, self.is_stream


def _types_of(arrays: Mapping[str, Array]) -> _Types:
    return {name: array.dtype for name, array in arrays.items()}


def _explained(
    spec: ModelSpec,
    failure: InvalidArgument | Outdated,
    arrays: Mapping[str, Array],
    signature: Signature | None,
) -> ServingError:
    """Return the error of a call, with the input that does not fit behind the server's text."""
    if isinstance(failure, Outdated):
        return Internal(f"the answer of model {spec.name} does not fit its own metadata")
    if failure.field is not None or not arrays or signature is None:
        return failure
    found = misfit(arrays, signature)
    if found is None:
        return failure
    field, why = found
    error = about(field, f"{failure.message} ({why})")
    error.request_id = failure.request_id
    return error


def spec_of(model: str, version: int | None, label: str | None, signature: str = "") -> ModelSpec:
    """Return what a caller asks for. Raises InvalidArgument for a version and a label."""
    if version is not None and label is not None:
        raise InvalidArgument(f"model {model}: give a version or a label, not both")
    return ModelSpec(model, version, label, signature)


def names_of(outputs: str | Iterable[str]) -> tuple[str, ...]:
    """Return the names of outputs; one may be given as it is."""
    return (outputs,) if isinstance(outputs, str) else tuple(outputs)
