"""Call a model server within asyncio, with arrays in and out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, TypeVar, cast

from servingd.client.address import parse_address
from servingd.client.answers import ModelMetadata, VersionStatus
from servingd.client.calls import Array, AsyncTransport, Operation, Send
from servingd.client.client import api_of, chance
from servingd.client.operations import Begun, Given, Operations, names_of, spec_of
from servingd.client.settings import Retry, Tls, Token, settings_of
from servingd.errors import FailedPrecondition, ServingError

T = TypeVar("T")


class AsyncClient:
    """The methods of `Client`, as coroutines; `stream` is an asynchronous iterator.

    The arguments are those of `Client`. It belongs to the event loop of its first call. A call that
    is cancelled is cancelled at the server; whoever leaves a stream early does so within
    `contextlib.aclosing`. Over REST up to 64 calls run at a time, on threads.
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
        self._settings = settings
        self._transport: AsyncTransport | None = None  # made within the event loop
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
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

    async def predict(
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
        """See `Client.predict`."""
        spec = spec_of(model, version, label, signature)
        given = Given(timeout_s, priority, request_id)
        return await self._run(self._operations.predict(spec, inputs, names_of(outputs), given))

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
    ) -> AsyncIterator[dict[str, Array]]:
        """See `Client.stream`."""
        spec = spec_of(model, version, label, signature)
        given = Given(timeout_s, priority, request_id)
        operation = self._operations.stream(spec, inputs, names_of(outputs), given)
        return self._parts(operation)

    async def classify(
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
        """See `Client.classify`."""
        spec = spec_of(model, version, label, signature)
        given = Given(timeout_s, priority, request_id)
        return await self._run(self._operations.classify(spec, examples, given))

    async def regress(
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
        """See `Client.regress`."""
        spec = spec_of(model, version, label, signature)
        given = Given(timeout_s, priority, request_id)
        return await self._run(self._operations.regress(spec, examples, given))

    # What the server says of models and itself ----------------------------------------------------

    async def metadata(
        self,
        model: str,
        version: int | None = None,
        label: str | None = None,
        *,
        timeout_s: float | None = None,
    ) -> ModelMetadata:
        """See `Client.metadata`."""
        spec = spec_of(model, version, label)
        return await self._run(self._operations.metadata(spec, Given(timeout_s)))

    async def inputs(
        self,
        model: str,
        *,
        version: int | None = None,
        label: str | None = None,
        signature: str = "",
        timeout_s: float | None = None,
    ) -> dict[str, str]:
        """See `Client.inputs`."""
        spec = spec_of(model, version, label, signature)
        found = await self._run(self._operations.signature(spec, Given(timeout_s)))
        return {name: one.dtype for name, one in found.inputs.items()}

    async def versions(
        self,
        model: str,
        version: int | None = None,
        label: str | None = None,
        *,
        timeout_s: float | None = None,
    ) -> list[VersionStatus]:
        """See `Client.versions`."""
        spec = spec_of(model, version, label)
        return await self._run(self._operations.versions(spec, Given(timeout_s)))

    async def status(
        self,
        model: str,
        version: int | None = None,
        label: str | None = None,
        *,
        timeout_s: float | None = None,
    ) -> dict[int, str]:
        """See `Client.status`."""
        found = await self.versions(model, version, label, timeout_s=timeout_s)
        return {one.version: one.state for one in found}

    async def labels(self, model: str, *, timeout_s: float | None = None) -> dict[str, int]:
        """See `Client.labels`."""
        return await self._run(self._operations.labels(model, Given(timeout_s)))

    async def health(self, service: str = "", *, timeout_s: float | None = None) -> str:
        """See `Client.health`."""
        return await self._run(self._operations.health(service, Given(timeout_s)))

    # What administrators do -----------------------------------------------------------------------

    async def reload(
        self, models: str | Sequence[Mapping[str, Any]], *, timeout_s: float | None = None
    ) -> None:
        """See `Client.reload`."""
        await self._run(self._operations.reload(models, Given(timeout_s)))

    async def page(
        self,
        path: str,
        body: Any = None,
        method: str | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Any:
        """See `Client.page`."""
        return await self._run(self._operations.page(path, body, method, Given(timeout_s)))

    # ----------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Close all connections; calls under way fail."""
        self._closed = True
        if self._transport is not None:
            await self._transport.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _run(self, operation: Operation[T]) -> T:
        """Carry out an operation's commands."""
        transport = self._opened()
        try:
            command = next(operation)
            while True:
                try:
                    result = None
                    if isinstance(command, Send):
                        result = await transport.send(command)
                    else:
                        await asyncio.sleep(command.seconds)
                except ServingError as error:
                    command = operation.throw(error)
                else:
                    command = operation.send(result)
        except StopIteration as end:
            return cast(T, end.value)

    async def _parts(self, operation: Operation[Begun[Any]]) -> AsyncIterator[dict[str, Array]]:
        begun = await self._run(operation)
        try:
            async for part in begun.stream:
                yield begun.read(part)
        finally:
            begun.stream.close()

    def _opened(self) -> AsyncTransport:
        """Return the transport, made by the first call.

        Raises FailedPrecondition if the client is closed, or belongs to another event loop.
        """
        if self._closed:
            raise FailedPrecondition("the client is closed")
        if self._loop not in (None, asyncio.get_running_loop()):
            raise FailedPrecondition("the client belongs to another event loop: make one in each")
        if self._transport is None:
            self._loop = asyncio.get_running_loop()
            if self.transport == "grpc":
                from servingd.client.grpc.aio_transport import GrpcAioTransport

                self._transport = GrpcAioTransport(self._address.target, self._settings)
            else:
                from servingd.client.rest.aio_transport import AsyncRestTransport

                self._transport = AsyncRestTransport(self._address, self._settings)
        return self._transport
