"""Call a model server, with arrays in and out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, TypeVar, cast

from servingd.client.address import Address, parse_address
from servingd.client.answers import ModelMetadata, VersionStatus
from servingd.client.calls import Api, Array, Operation, Send, Transport
from servingd.client.operations import Begun, Given, Operations, names_of, spec_of
from servingd.client.settings import Retry, Settings, Tls, Token, settings_of
from servingd.errors import ServingError

T = TypeVar("T")


class Client:
    """Connections to servingd, or to TensorFlow Serving. Thread-safe; close it when done.

    Args:
        server: `host:8500` or `grpc://host:8500`, `grpcs://` (encrypted), a target of gRPC's such
            as `unix:/run/serving.sock`; or `http://host:8501`, `https://` for REST, with a path
            before all of the API's if there is one.
        tls: how to encrypt; True: with the certificates that the system trusts.
        token: sent as `Authorization: Bearer TOKEN`; a function is asked before each attempt.
        timeout_s: seconds for a call that names none; it holds for all attempts together, and for
            a stream from start to end. None: no limit.
        retry: what is tried again.
        connections: how many are opened and used in turns. Of several workers of a server, each
            connection has one. REST has at least as many as calls at a time.
        compression: `gzip` compresses requests and asks for compressed answers.
        keepalive_s: seconds after which a silent connection is checked; 0: never. For gRPC calls of
            several minutes say 300 or 0: servers that keep gRPC's rules, as TensorFlow Serving
            does, end a connection that is checked more often during one call.
        priority: `high`, `normal` or `low`, for a call that names none.
        headers: what every call has as well.

    Every method raises the ServingError of the server's status (`servingd.errors`), with the
    server's text and what it said of trying again; Unavailable where it cannot be reached;
    DeadlineExceeded when time is up; InvalidArgument before anything is sent, where that is enough.

    What the keywords of a call mean is told at `predict`; they mean the same everywhere.
    """

    def __init__(
        self,
        server: str = "localhost:8500",
        *,
        tls: Tls | bool = False,
        token: Token | None = None,
        timeout_s: float | None = 30.0,
        retry: Retry = Retry(),  # noqa: B008  # it is immutable
        connections: int = 1,
        compression: Literal["gzip"] | None = None,
        keepalive_s: float = 30.0,
        priority: str | None = None,
        headers: Mapping[str, str] = {},  # and so is what nobody changes
    ) -> None:
        self._address = parse_address(server)
        settings = settings_of(
            tls,
            self._address.encrypted,
            headers,
            token=token,
            timeout_s=timeout_s,
            retry=retry,
            connections=connections,
            compression=compression,
            keepalive_s=keepalive_s,
            priority=priority,
        )
        self._transport = _opened(self._address, settings)
        self._operations = Operations(api_of(self._address), settings, time.monotonic, chance)

    @property
    def server(self) -> str:
        """The address, with its scheme."""
        return str(self._address)

    @property
    def transport(self) -> str:
        """What carries calls: `grpc` or `rest`."""
        return self._address.transport

    # Inference ------------------------------------------------------------------------------------

    def predict(
        self,
        model: str,
        inputs: Any,
        *,
        version: int | None = None,
        label: str | None = None,
        signature: str = "",
        outputs: str | Sequence[str] = (),
        timeout_s: float | None = None,
        priority: str | None = None,
        request_id: str | None = None,
    ) -> dict[str, Array]:
        """Run a model.

        Args:
            model: its name.
            inputs: values by input name, or the value alone for a model of one input. A value is an
                array, a number, a text, `bytes`, a nested list of these, or an image: a
                `pathlib.Path` (the bytes of its file) or an image of Pillow (the bytes of a file
                for an input of strings, else its pixels, [height, width, channels]). Values are
                cast to the types of the signature, if no value changes by that; numbers in lists
                are rounded to the nearest float.
            version: a version's number.
            label: a version's label; without version and label, the latest is meant.
            signature: its name; empty: `serving_default`.
            outputs: the names of those that are wanted; empty: all.
            timeout_s: seconds until DeadlineExceeded, for all attempts; None: the client's.
            priority: `high`, `normal` or `low`, for servingd; None: the client's.
            request_id: is repeated by servingd in its answer and in its log.

        Returns:
            Arrays by output name, of the signature's dtypes and the model's shapes. Texts are
            object arrays of `bytes`. An array may be read-only.

        Raises:
            InvalidArgument: the server refused an input; `field` names it where that is known.
        """
        spec = spec_of(model, version, label, signature)
        given = Given(timeout_s, priority, request_id)
        return self._run(self._operations.predict(spec, inputs, names_of(outputs), given))

    def stream(
        self,
        model: str,
        inputs: Any,
        *,
        version: int | None = None,
        label: str | None = None,
        signature: str = "",
        outputs: str | Sequence[str] = (),
        timeout_s: float | None = None,
        priority: str | None = None,
        request_id: str | None = None,
    ) -> Iterator[dict[str, Array]]:
        """Run a model that answers in parts, as servingd does; yield the outputs of each part.

        The arguments are those of `predict`. Nothing is sent before the first part is asked for.
        `timeout_s` holds for the whole stream. Closing the iterator (`close()`, or the end of its
        life) cancels the stream.
        """
        spec = spec_of(model, version, label, signature)
        given = Given(timeout_s, priority, request_id)
        operation = self._operations.stream(spec, inputs, names_of(outputs), given)
        return self._parts(operation)

    def classify(
        self,
        model: str,
        examples: Sequence[Mapping[str, Any]],
        *,
        version: int | None = None,
        label: str | None = None,
        signature: str = "",
        timeout_s: float | None = None,
        priority: str | None = None,
        request_id: str | None = None,
    ) -> list[list[tuple[str, float]]]:
        """Return (label, score) of each class, for each example.

        An example maps features to a number, text or `bytes`, or to a flat list of these. Whole
        numbers are int64: a feature that is parsed as floats is given `2.0`.
        """
        spec = spec_of(model, version, label, signature)
        given = Given(timeout_s, priority, request_id)
        return self._run(self._operations.classify(spec, examples, given))

    def regress(
        self,
        model: str,
        examples: Sequence[Mapping[str, Any]],
        *,
        version: int | None = None,
        label: str | None = None,
        signature: str = "",
        timeout_s: float | None = None,
        priority: str | None = None,
        request_id: str | None = None,
    ) -> Array:
        """Return the value of each example, float32 [examples]; examples are as in `classify`."""
        spec = spec_of(model, version, label, signature)
        given = Given(timeout_s, priority, request_id)
        return self._run(self._operations.regress(spec, examples, given))

    # What the server says of models and itself ----------------------------------------------------

    def metadata(
        self,
        model: str,
        version: int | None = None,
        label: str | None = None,
        *,
        timeout_s: float | None = None,
    ) -> ModelMetadata:
        """Return the signatures of a model's version, with the types and shapes of tensors."""
        spec = spec_of(model, version, label)
        return self._run(self._operations.metadata(spec, Given(timeout_s)))

    def inputs(
        self,
        model: str,
        *,
        version: int | None = None,
        label: str | None = None,
        signature: str = "",
        timeout_s: float | None = None,
    ) -> dict[str, str]:
        """Return the inputs of a signature by name, each with its type's name, such as `FLOAT`."""
        spec = spec_of(model, version, label, signature)
        found = self._run(self._operations.signature(spec, Given(timeout_s)))
        return {name: one.dtype for name, one in found.inputs.items()}

    def versions(
        self,
        model: str,
        version: int | None = None,
        label: str | None = None,
        *,
        timeout_s: float | None = None,
    ) -> list[VersionStatus]:
        """Return the states of a model's versions, with their errors."""
        spec = spec_of(model, version, label)
        return self._run(self._operations.versions(spec, Given(timeout_s)))

    def status(
        self,
        model: str,
        version: int | None = None,
        label: str | None = None,
        *,
        timeout_s: float | None = None,
    ) -> dict[int, str]:
        """Return the states of a model's versions: `AVAILABLE`, `LOADING` and so on."""
        found = self.versions(model, version, label, timeout_s=timeout_s)
        return {one.version: one.state for one in found}

    def labels(self, model: str, *, timeout_s: float | None = None) -> dict[str, int]:
        """Return the versions that a model's labels stand for; from servingd, at its HTTP port."""
        return self._run(self._operations.labels(model, Given(timeout_s)))

    def health(self, service: str = "", *, timeout_s: float | None = None) -> str:
        """Return `SERVING` or `NOT_SERVING`, of the server or, by its name, of a model."""
        return self._run(self._operations.health(service, Given(timeout_s)))

    # What administrators do -----------------------------------------------------------------------

    def reload(
        self, models: str | Sequence[Mapping[str, Any]], *, timeout_s: float | None = None
    ) -> None:
        """Replace all models of the server; by gRPC alone.

        Args:
            models: the text of a `models.config`, or a mapping for each model with the fields of
                TensorFlow Serving's ModelConfig: `name`, `base_path`, `model_version_policy`, ...;
                `model_platform` is `tensorflow` unless it is named.
            timeout_s: as everywhere; the server answers when the new models are available.
        """
        self._run(self._operations.reload(models, Given(timeout_s)))

    def page(
        self,
        path: str,
        body: Any = None,
        method: str | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Any:
        """Return the JSON of one of servingd's own pages or actions; of others their text.

        Args:
            path: such as `/servingd/v1/models`.
            body: what is sent as JSON; None: nothing.
            method: HTTP's; None: GET without a body, else POST.
            timeout_s: as everywhere.

        Raises:
            FailedPrecondition: the client speaks to the gRPC port; the text says what to use.
        """
        return self._run(self._operations.page(path, body, method, Given(timeout_s)))

    # ----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close all connections; calls under way fail."""
        self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, operation: Operation[T]) -> T:
        """Carry out an operation's commands."""
        try:
            command = next(operation)
            while True:
                try:
                    result = None
                    if isinstance(command, Send):
                        result = self._transport.send(command)
                    else:
                        time.sleep(command.seconds)
                except ServingError as error:
                    command = operation.throw(error)
                else:
                    command = operation.send(result)
        except StopIteration as end:
            return cast(T, end.value)

    def _parts(self, operation: Operation[Begun[Any]]) -> Iterator[dict[str, Array]]:
        begun = self._run(operation)
        try:
            for part in begun.stream:
                yield begun.read(part)
        finally:
            begun.stream.close()


def chance() -> float:
    """Return a number from 0 to 1, at random."""
    import random  # on first use: few calls are ever tried again

    return random.random()


def api_of(address: Address) -> Api:
    """Return what calls mean at an address."""
    if address.transport == "grpc":
        from servingd.client.grpc.api import GrpcApi

        return GrpcApi(str(address))
    from servingd.client.rest.api import RestApi

    return RestApi()


def _opened(address: Address, settings: Settings) -> Transport:
    """Return a transport; what the other one needs is not imported."""
    if address.transport == "grpc":
        from servingd.client.grpc.transport import GrpcTransport

        return GrpcTransport(address.target, settings)
    from servingd.client.rest.transport import RestTransport

    return RestTransport(address, settings)
