"""Decide when waiting calls are dispatched as a batch, and which of them.

A queue stands in front of one signature. Calls of different kinds (dtypes, shapes after the first
dimension) never share a batch, so that an odd client harms nobody. The caller passes the time, in
monotonic seconds; rows are counted along the first dimension.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from servingd.core.batching.batch_limits import BatchLimits, BatchRules
from servingd.errors import InvalidArgument, Unavailable

P = TypeVar("P")


class Priority(enum.IntEnum):
    """The order in which waiting calls run; lower priorities are refused sooner."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


@dataclass(slots=True)
class Piece(Generic[P]):
    """Rows of one call, from its row `start` on."""

    payload: P
    start: int
    rows: int


@dataclass(slots=True)
class Batch(Generic[P]):
    """Calls that run together, and calls that were dropped because nobody waits for them."""

    pieces: list[Piece[P]]
    rows: int
    reason: str
    oldest: float
    """When its oldest call arrived, in monotonic seconds."""
    dropped: list[P] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Item(Generic[P]):
    """A waiting call, and how many of its rows have been dispatched (`taken`)."""

    payload: P
    rows: int
    arrived_at: float
    size: int = 0
    taken: int = 0


class _Line(Generic[P]):
    """Waiting calls of one kind, by priority and then in order of arrival."""

    __slots__ = ("closed", "items", "open_rows", "rows")

    def __init__(self) -> None:
        self.items: tuple[deque[_Item[P]], ...] = (deque(), deque(), deque())  # by Priority
        self.rows = 0
        # TensorFlow Serving's way to count: full batches (`closed`), and the rows of the next one.
        self.closed = 0
        self.open_rows = 0

    def heads(self) -> Iterator[_Item[P]]:
        return (line[0] for line in self.items if line)

    def oldest(self) -> float:
        return min(item.arrived_at for item in self.heads())


def _is_alive(call: object) -> bool:
    return True


class BatchQueue(Generic[P]):
    """The calls that wait for one signature. Not thread-safe: the caller holds a lock."""

    def __init__(self, rules: BatchRules) -> None:
        self.rules = rules
        self.rows = 0
        """Rows of all waiting calls."""
        self.calls = 0
        """The number of waiting calls."""
        self.size = 0
        """Bytes of all waiting calls' inputs."""
        self._lines: dict[Hashable, _Line[P]] = {}

    def add(
        self,
        payload: P,
        rows: int,
        kind: Hashable,
        now: float,
        priority: Priority = Priority.NORMAL,
        size: int = 0,
    ) -> None:
        """Enqueue a call whose inputs take `size` bytes.

        Raises InvalidArgument (more rows than a request may have) or Unavailable (the queue is
        full), with TensorFlow Serving's texts.
        """
        limit = self.rules.max_request_rows
        if rows > limit:
            raise InvalidArgument(
                f"Task size {rows} is larger than maximum input batch size {limit}"
            )
        line = self._lines.get(kind)
        if line is None:
            line = _Line()
        self._pack(line, rows)
        self._lines[kind] = line
        line.items[priority].append(_Item(payload, rows, now, size))
        line.rows += rows
        self.rows += rows
        self.calls += 1
        self.size += size

    def next(
        self,
        now: float,
        running: int,
        limits: BatchLimits,
        alive: Callable[[P], bool] = _is_alive,
        idle_workers: int = 1,
    ) -> Batch[P] | None:
        """Return the batch to dispatch now, or None; `running` batches of this queue are under way.

        A call that is not `alive` when its turn comes is dropped and takes no room in the batch.
        The waiting calls are shared among `idle_workers`, but no share is smaller than `full_rows`.
        """
        due = [
            (line.oldest(), kind, reason)
            for kind, line in self._lines.items()
            if (reason := _dispatch_reason(line, now, running, limits))
        ]
        if not due:
            return None
        oldest, kind, reason = min(due, key=lambda entry: entry[0])
        batch: Batch[P] = Batch([], 0, reason, oldest)
        share = math.ceil(self._lines[kind].rows / max(1, idle_workers))
        most = max(limits.full_rows, min(limits.most_rows, share))
        self._take(kind, batch, min(most, self.rules.max_batch_rows), alive)
        return batch

    def wait_s(self, now: float, running: int, limits: BatchLimits) -> float | None:
        """Return the seconds until `next` gives a batch if nothing else happens; None: never."""
        waits = [
            0.0 if line.rows >= limits.full_rows else max(0.0, line.oldest() + limits.hold_s - now)
            for line in self._lines.values()
            if line.rows >= limits.full_rows or limits.may_overlap or running == 0
        ]
        return min(waits, default=None)

    def drop(self, alive: Callable[[P], bool]) -> list[P]:
        """Remove and return the calls that are not alive; a call that has run in part stays."""
        dropped: list[P] = []
        for kind, line in list(self._lines.items()):
            before = len(dropped)
            for items in line.items:
                stay: list[_Item[P]] = []
                for item in items:
                    if item.taken or alive(item.payload):
                        stay.append(item)
                    else:
                        dropped.append(item.payload)
                        self._subtract(line, item.rows, item.size)
                items.clear()
                items.extend(stay)
            if not any(line.items):
                del self._lines[kind]
            elif len(dropped) > before:
                self._count_anew(line)
        return dropped

    def drain(self) -> list[P]:
        """Remove and return all calls."""
        found = [
            item.payload for line in self._lines.values() for items in line.items for item in items
        ]
        self._lines.clear()
        self.rows = self.calls = self.size = 0
        return found

    def _pack(self, line: _Line[P], rows: int) -> None:
        """Count a call's rows into batches. Raises Unavailable if that makes too many."""
        rules, room = self.rules, self.rules.max_batch_rows
        waiting, allowed = line.closed + 1, rules.max_enqueued_batches
        text = "The batch scheduling queue to which this task was submitted is full; "
        if rules.splits:
            capacity = (allowed - waiting) * room + (room - line.open_rows)
            if rows > capacity:
                raise Unavailable(
                    f"{text}task size is {rows} but scheduling capacity is only {capacity} "
                    f"(num_enqueued_batches={waiting}, max_enqueued_batches={allowed}, "
                    f"open_batch_size={line.open_rows}, max_execution_batch_size={room})"
                )
        elif line.open_rows + rows > room and waiting >= allowed:
            raise Unavailable(
                f"{text}currently {waiting} batches enqueued and max_enqueued_batches is {allowed}"
            )
        self._count(line, rows)

    def _count(self, line: _Line[P], rows: int) -> None:
        """Count a call's rows into batches."""
        room = self.rules.max_batch_rows
        if self.rules.splits:
            total = line.open_rows + rows
            more = max(0, (total - 1) // room)
            line.closed += more
            line.open_rows = total - more * room
        elif line.open_rows + rows > room:
            line.closed += 1
            line.open_rows = rows
        else:
            line.open_rows += rows

    def _count_anew(self, line: _Line[P]) -> None:
        """Count all waiting rows into batches again, in order of arrival."""
        line.closed = line.open_rows = 0
        for item in sorted((i for items in line.items for i in items), key=lambda i: i.arrived_at):
            self._count(line, item.rows - item.taken)

    def _take(self, kind: Hashable, batch: Batch[P], most: int, alive: Callable[[P], bool]) -> None:
        """Fill a batch from the line of this kind, higher priorities first."""
        line = self._lines[kind]
        for items in line.items:
            self._fill(batch, line, items, most, alive)
        if line.closed:
            line.closed -= 1
        else:
            line.open_rows = 0
        if not any(line.items):
            del self._lines[kind]

    def _fill(
        self,
        batch: Batch[P],
        line: _Line[P],
        items: deque[_Item[P]],
        most: int,
        alive: Callable[[P], bool],
    ) -> None:
        """Move calls from the front of a line into a batch of at most `most` rows."""
        while items:
            item = items[0]
            remaining, room = item.rows - item.taken, most - batch.rows
            if item.taken == 0 and not alive(item.payload):
                self._remove_first(line, items, remaining)
                batch.dropped.append(item.payload)
                continue
            rows = min(remaining, room) if self.rules.splits else remaining
            if rows == 0 or (rows > room and batch.rows):
                return
            batch.pieces.append(Piece(item.payload, item.taken, rows))
            batch.rows += rows
            if rows == remaining:
                self._remove_first(line, items, rows)
            else:
                item.taken += rows
                line.rows -= rows
                self.rows -= rows
                return

    def _remove_first(self, line: _Line[P], items: deque[_Item[P]], rows: int) -> None:
        self._subtract(line, rows, items.popleft().size)

    def _subtract(self, line: _Line[P], rows: int, size: int) -> None:
        line.rows -= rows
        self.rows -= rows
        self.calls -= 1
        self.size -= size


def _dispatch_reason(line: _Line[P], now: float, running: int, limits: BatchLimits) -> str:
    """Return why a line's batch is dispatched now; empty if it is not."""
    if line.rows >= limits.full_rows:
        return "full"
    if (limits.may_overlap or running == 0) and now >= line.oldest() + limits.hold_s:
        return limits.reason
    return ""
