"""Count the users of something that will be closed, without a lock: it is done on every request."""

from __future__ import annotations

from collections.abc import Callable


class RefCount:
    """A count of users. After `close` it reports once, by `on_idle`, that no user is left.

    Thread-safe. It relies on `list.append` and `list.pop` being atomic, and on all threads seeing
    them in the same order, as in CPython. A user counts itself before it checks whether closing has
    begun; closing begins before the count is checked. So one of the two sees the other.
    """

    __slots__ = ("_closing", "_on_idle", "_once", "_users")

    def __init__(self, on_idle: Callable[[], None]) -> None:
        self._on_idle = on_idle
        self._users: list[None] = []
        self._once: list[None] = [None]
        self._closing = False

    def enter(self) -> bool:
        """Become a user; return False once closing has begun."""
        self._users.append(None)
        if self._closing:
            self.leave()
            return False
        return True

    def leave(self) -> None:
        """Stop being a user. After `close` the last user calls `on_idle`, on its own thread."""
        self._users.pop()
        if self._closing and not self._users:
            self._report_idle()

    def close(self) -> None:
        """Admit no more users. Calls `on_idle` at once if there is no user."""
        self._closing = True
        if not self._users:
            self._report_idle()

    def _report_idle(self) -> None:
        if self._once:
            try:
                self._once.pop()
            except IndexError:  # another thread was faster
                return
            self._on_idle()
