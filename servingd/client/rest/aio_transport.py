"""Calls within asyncio: over HTTP, by threads that wait for its sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from servingd.client.address import Address
from servingd.client.calls import Send
from servingd.client.rest.transport import Cancellation, RestParts, RestTransport, deadline_of
from servingd.client.settings import Settings
from servingd.errors import FailedPrecondition

R = TypeVar("R")

_MOST_THREADS = 64
"""Calls over HTTP at a time; more wait for their turn, and their deadlines pass meanwhile."""
_CLOSED = "the client is closed"


class AsyncRestTransport:
    """See `AsyncTransport`. A call that is cancelled closes its connection."""

    def __init__(self, address: Address, settings: Settings) -> None:
        self._transport = RestTransport(address, settings)
        self._threads = ThreadPoolExecutor(_MOST_THREADS, "servingd-client")
        self._closed = False

    async def send(self, command: Send) -> Any:
        """Send a call on a thread. Raises as `RestTransport.send` does."""
        call = _Call(command, deadline_of(command), Cancellation())
        answer = await self.run(
            lambda: self._transport.send_until(call.deadline, command, call.cancellation), call
        )
        return AsyncRestParts(self, answer, call) if isinstance(answer, RestParts) else answer

    async def run(self, job: Callable[[], R], call: _Call) -> R:
        """Run a job of a call on a thread; break the call off if nobody waits for it any more.

        Raises what the job raises; DeadlineExceeded, also before it has a thread; or
        FailedPrecondition if the transport is closed.
        """
        if self._closed:
            raise FailedPrecondition(_CLOSED)
        work = self._threads.submit(job)
        future = asyncio.wrap_future(work)
        in_time: set[asyncio.Future[R]] = set()
        try:  # other than awaiting the future, this is cancelled only with whoever waits
            in_time, _ = await asyncio.wait((future,), timeout=call.left_s())
        finally:
            if not in_time:
                call.cancellation.cancel()
                _abandon(work, future)
        if not in_time:
            raise self._transport.failure(TimeoutError(), call.command)
        if future.cancelled():  # by `close`
            raise FailedPrecondition(_CLOSED)
        return future.result()

    async def close(self) -> None:
        """Close all connections."""
        self._closed = True
        self._transport.close()
        self._threads.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class _Call:
    """A call under way."""

    command: Send
    deadline: float | None
    """On the monotonic clock; counted from when the call was made."""
    cancellation: Cancellation

    def left_s(self) -> float | None:
        return None if self.deadline is None else self.deadline - time.monotonic()


class AsyncRestParts:
    """A stream that has begun: an asynchronous iterator over its parts."""

    def __init__(self, transport: AsyncRestTransport, parts: RestParts, call: _Call) -> None:
        self._transport = transport
        self._parts = parts
        self._call = call

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the parts. Raises as `AsyncRestTransport.run` does."""
        parts = iter(self._parts)
        while True:
            part = await self._transport.run(lambda: next(parts, None), self._call)
            if part is None:
                return
            yield part

    def close(self) -> None:
        """End the stream; nothing happens if it has ended."""
        self._call.cancellation.cancel()
        self._parts.close()


def _abandon(work: Future[Any], future: asyncio.Future[Any]) -> None:
    """Let work go that nobody waits for any more; it does not begin if it has not."""
    if not future.cancel() and not future.cancelled():
        future.exception()  # asyncio complains of those that nobody has seen
    work.add_done_callback(_dispose)


def _dispose(work: Future[Any]) -> None:
    """Close what nobody waits for any more."""
    if not work.cancelled() and work.exception() is None:
        answer = work.result()
        if isinstance(answer, RestParts):
            answer.close()
