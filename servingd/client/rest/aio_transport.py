"""Calls within asyncio: over HTTP, by threads that wait for its sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from servingd.client.address import Address
from servingd.client.calls import Send
from servingd.client.rest.transport import Cancellation, RestParts, RestTransport
from servingd.client.settings import Settings

R = TypeVar("R")

_MOST_THREADS = 64
"""Calls over HTTP at a time; more wait for their turn, and their deadlines pass meanwhile."""


class AsyncRestTransport:
    """See `AsyncTransport`. A call that is cancelled closes its connection."""

    def __init__(self, address: Address, settings: Settings) -> None:
        self._transport = RestTransport(address, settings)
        self._threads = ThreadPoolExecutor(_MOST_THREADS, "servingd-client")

    async def send(self, command: Send) -> Any:
        """Send a call on a thread."""
        cancellation = Cancellation()
        answer = await self.run(lambda: self._transport.send(command, cancellation), cancellation)
        if isinstance(answer, RestParts):
            return AsyncRestParts(self, answer, cancellation)
        return answer

    async def run(self, job: Callable[[], R], cancellation: Cancellation) -> R:
        """Run a job on a thread; break it off if whoever waits for it is cancelled."""
        future = asyncio.get_running_loop().run_in_executor(self._threads, job)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            cancellation.cancel()
            future.add_done_callback(_dispose)
            raise

    async def close(self) -> None:
        """Close all connections."""
        self._transport.close()
        self._threads.shutdown(wait=False, cancel_futures=True)


class AsyncRestParts:
    """A stream that has begun: an asynchronous iterator over its parts."""

    def __init__(
        self, transport: AsyncRestTransport, parts: RestParts, cancellation: Cancellation
    ) -> None:
        self._transport = transport
        self._parts = parts
        self._cancellation = cancellation

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the parts."""
        parts = iter(self._parts)
        while True:
            part = await self._transport.run(lambda: next(parts, None), self._cancellation)
            if part is None:
                return
            yield part

    def close(self) -> None:
        """End the stream; nothing happens if it has ended."""
        self._cancellation.cancel()
        self._parts.close()


def _dispose(future: asyncio.Future[Any]) -> None:
    """Close what nobody waits for any more."""
    if not future.cancelled() and future.exception() is None:
        answer = future.result()
        if isinstance(answer, RestParts):
            answer.close()
