"""Calls over gRPC within asyncio."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from servingd.client.calls import Send
from servingd.client.grpc.transport import (
    metadata_of,
    method_of,
    open_channel,
    refused,
    translate,
)
from servingd.client.settings import Settings


class GrpcAioTransport:
    """A pool of channels for one event loop, used in turns."""

    def __init__(self, target: str, settings: Settings) -> None:
        """Connect at the first call. Made within the loop."""
        self._channels = [
            open_channel(grpc.aio, target, settings) for _ in range(settings.connections)
        ]
        self._turn = itertools.count()

    async def send(self, command: Send) -> Any:
        """Send a call; return its answer, or a stream whose first part has come.

        Raises the ServingError of the call's status. Cancelling it cancels the call.
        """
        channel = self._channels[next(self._turn) % len(self._channels)]
        try:
            call = method_of(channel, command.call)(
                command.call.body, timeout=command.timeout_s, metadata=metadata_of(command)
            )
            if not command.call.is_stream:
                return await call
            return GrpcAioParts(call, await call.read())
        except grpc.RpcError as error:
            raise translate(error) from error
        except (ValueError, grpc.aio.UsageError) as error:
            raise refused(error) from error

    async def close(self) -> None:
        """Close all connections; calls under way fail with CANCELLED."""
        for channel in self._channels:
            await channel.close()


class GrpcAioParts:
    """A stream that has begun: an asynchronous iterator over its parts."""

    def __init__(self, call: Any, first: Any) -> None:
        """`first` is what was read first: a part, or gRPC's mark of the end."""
        self._call = call
        self._first = first

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the parts. Raises the ServingError of the call's status."""
        part = self._first
        try:
            while part is not grpc.aio.EOF:
                yield part
                part = await self._call.read()
        except grpc.RpcError as error:
            raise translate(error) from error

    def close(self) -> None:
        """End the stream; nothing happens if it has ended."""
        self._call.cancel()
