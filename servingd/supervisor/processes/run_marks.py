"""Marks in shared memory: which version each thread of a worker runs. They outlive the worker.

The request path writes them, so a mark is one store of eight bytes, without a lock: each thread has
a slot of its own. A worker has few threads that run models; one that finds no slot marks nothing.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

from servingd.core.types import ServableId

_SLOTS = 512
SIZE = 16 * _SLOTS
"""Bytes of the shared memory: a thread's id and a version's code for each slot."""


def code_of(servable_id: ServableId) -> int:
    """Return a number for a version; the same in every process, and never 0."""
    text = f"{servable_id.name}\0{servable_id.version}".encode(errors="surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest()) or 1


class RunMarks:
    """The slots. One process writes, another reads once that has died."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._words = memoryview(memory).cast("Q")
        self._lock = threading.Lock()
        self._slots: dict[int, int] = {}  # by thread; replaced entries under _lock

    def begin(self, thread: int, code: int) -> None:
        """Mark that this thread runs a version."""
        slot = self._slots.get(thread)
        if slot is None:
            slot = self._new_slot(thread)
        self._words[slot] = code

    def end(self, thread: int) -> None:
        """Mark that this thread runs nothing."""
        self._words[self._slots[thread]] = 0

    def _new_slot(self, thread: int) -> int:
        """Return a free slot, or that of a thread that has ended; the last one is nobody's."""
        with self._lock:
            taken = {self._slots[t] for t in self._slots}
            free = next((s for s in range(1, 2 * _SLOTS - 2, 2) if s not in taken), None)
            if free is None:
                alive = {t.ident for t in threading.enumerate()}
                ended = next((t for t in self._slots if t not in alive), None)
                free = 2 * _SLOTS - 1 if ended is None else self._slots.pop(ended)
            self._words[free - 1] = thread
            self._slots = {**self._slots, thread: free}
            return free

    def running(self, thread: int | None = None) -> frozenset[int]:
        """Return the codes of what ran: in one thread if it ran something, else in all."""
        words = self._words
        marks = [(words[i], words[i + 1]) for i in range(0, 2 * _SLOTS, 2) if words[i + 1]]
        own = frozenset(code for of, code in marks if of == thread)
        return own or frozenset(code for _, code in marks)

    def close(self) -> None:
        """Unmap the memory."""
        self._words.release()
        self._memory.close()


class MarkedRuns(dict[int, Any]):
    """The runs under way in one session, by thread; each is marked while it is in here."""

    def __init__(self, marks: RunMarks, servable_id: ServableId) -> None:
        super().__init__()
        self._marks = marks
        self._code = code_of(servable_id)

    def __setitem__(self, thread: int, owner: Any) -> None:
        self._marks.begin(thread, self._code)
        super().__setitem__(thread, owner)

    def __delitem__(self, thread: int) -> None:
        super().__delitem__(thread)
        self._marks.end(thread)


def known(codes: Iterable[int], versions: Iterable[ServableId]) -> list[ServableId]:
    """Return the versions that codes stand for."""
    wanted = frozenset(codes)
    return [servable_id for servable_id in versions if code_of(servable_id) in wanted]
