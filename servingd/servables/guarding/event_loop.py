"""An asyncio event loop on a thread of its own, for the coroutines of one version."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

_log = logging.getLogger(__name__)

T = TypeVar("T")

_STOP_S = 2.0


class EventLoop:
    """Owns one thread, which is started with the first coroutine. From any thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None  # guarded by _lock
        self._thread: threading.Thread | None = None  # guarded by _lock
        self._stopped = threading.Event()  # of the current loop; guarded by _lock

    def begin(self, coroutine: Coroutine[Any, Any, None]) -> Callable[[], None]:
        """Run a coroutine; return what cancels it."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._running())

        def cancel() -> None:
            future.cancel()

        return cancel

    def result(self, awaitable: Awaitable[T]) -> T:
        """Await something on the loop's thread, and return its result here, or raise its error."""

        async def awaited() -> T:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(awaited(), self._running()).result()

    def stop(self) -> None:
        """Cancel what runs and end the thread; a coroutine that blocks it is left behind."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
            self._stopped.set()
        if loop is None or thread is None:
            return
        with contextlib.suppress(RuntimeError):  # it has just seen that it is stopped, and closed
            loop.call_soon_threadsafe(loop.stop)
        thread.join(_STOP_S)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._stopped = threading.Event()
                self._thread = threading.Thread(
                    target=_run, args=(self._loop, self._stopped), name=self._name, daemon=True
                )
                self._thread.start()
            return self._loop


def _run(loop: asyncio.AbstractEventLoop, stopped: threading.Event) -> None:
    """Run a loop until it is stopped, then cancel what is left; the thread's main loop.

    A task that exits ends the loop's run, not the loop: other calls are under way in it.
    """
    asyncio.set_event_loop(loop)
    try:
        while not stopped.is_set():
            try:
                loop.run_forever()
            except BaseException:
                _log.exception("a task of %s has exited", threading.current_thread().name)
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    finally:
        loop.close()
