"""Who uses a thing that is to be closed: counted on every request, so without a lock."""

from __future__ import annotations

from collections.abc import Callable


class RefCount:
    """A count of users that says once, after `close`, that none is left.

    From any thread. It rests on `list.append` and `list.pop` being atomic and on their order being
    the same for all threads, as in CPython: a user counts itself before it looks whether closing
    has begun, and closing begins before the count is looked at; so one of the two sees the other.
    """

    __slots__ = ("_closing", "_on_idle", "_once", "_users")

    def __init__(self, on_idle: Callable[[], None]) -> None:
        self._on_idle = on_idle
        self._users: list[None] = []
        self._once: list[None] = [None]
        self._closing = False

    def enter(self) -> bool:
        """Become a user; False once closing has begun."""
        self._users.append(None)
        if self._closing:
            self.leave()
            return False
        return True

    def leave(self) -> None:
        """Be a user no more; the last one, after `close`, calls `on_idle` on its thread."""
        self._users.pop()
        if self._closing and not self._users:
            self._tell()

    def close(self) -> None:
        """Let nobody in any more; calls `on_idle` at once if nobody is there."""
        self._closing = True
        if not self._users:
            self._tell()

    def _tell(self) -> None:
        if self._once:
            try:
                self._once.pop()
            except IndexError:  # another thread was faster
                return
            self._on_idle()
