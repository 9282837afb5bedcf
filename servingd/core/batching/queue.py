"""When calls that wait leave together, and which of them.

A queue stands in front of one signature. Calls of different kinds (shapes beyond the first
dimension, types) never share a batch, so that an odd client harms nobody. Time is given from
outside, in seconds; rows are counted along the first dimension.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from servingd.errors import InvalidArgument, Unavailable

P = TypeVar("P")


class Priority(enum.IntEnum):
    """Who goes first; what is lower is refused sooner."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRules:
    """Limits of a queue; the meaning is TensorFlow Serving's `BatchingParameters`."""

    max_request_rows: int
    """Rows of the largest request."""
    max_batch_rows: int
    """Rows of the largest batch. A larger request leaves alone, unless it may be split."""
    max_enqueued_batches: int
    """Batches of one kind that may wait."""
    splits: bool = False
    """Whether a request may be spread over several batches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """How long a batch that is not full is held."""

    full_rows: int
    """A batch of so many rows leaves at once."""
    hold_s: float = 0.0
    """Another leaves when its oldest call has waited so long."""
    may_overlap: bool = True
    """Whether it may leave while a batch of this queue runs; else it is what comes next."""
    most_rows: int = 0
    """What waits leaves in batches of so many rows; 0: of `full_rows`."""
    reason: str = "idle"
    """What leaving unfilled is called: `idle` (nobody had to wait), `timer` or `goal`."""


@dataclass(slots=True)
class Piece(Generic[P]):
    """Rows of one call, from `start` on."""

    payload: P
    start: int
    rows: int


@dataclass(slots=True)
class Batch(Generic[P]):
    """What runs together, and what nobody waits for any more."""

    pieces: list[Piece[P]]
    rows: int
    reason: str
    oldest: float
    """When its oldest call came."""
    dropped: list[P] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Item(Generic[P]):
    payload: P
    rows: int
    arrived_at: float
    size: int = 0
    taken: int = 0


class _Line(Generic[P]):
    """Calls of one kind, by priority and then in order of arrival."""

    __slots__ = ("closed", "items", "open_rows", "rows")

    def __init__(self) -> None:
        self.items: tuple[deque[_Item[P]], ...] = (deque(), deque(), deque())  # by Priority
        self.rows = 0
        # As TensorFlow Serving counts what waits: batches that are closed, rows of the open one.
        self.closed = 0
        self.open_rows = 0

    def heads(self) -> Iterator[_Item[P]]:
        return (line[0] for line in self.items if line)

    def oldest(self) -> float:
        return min(item.arrived_at for item in self.heads())


class BatchQueue(Generic[P]):
    """The calls that wait for one signature. For one thread at a time."""

    def __init__(self, rules: BatchRules) -> None:
        self.rules = rules
        self.rows = 0
        """Rows that wait."""
        self.calls = 0
        """Calls that wait."""
        self.size = 0
        """Bytes of their inputs."""
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
        """Let a call wait whose inputs take `size` bytes.

        Raises InvalidArgument (more rows than a request may have) or Unavailable (full), with
        TensorFlow Serving's texts.
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
        alive: Callable[[P], bool] = lambda call: True,
        idle_workers: int = 1,
    ) -> Batch[P] | None:
        """The batch that leaves now, if one does; `running` ones of this queue are under way.

        A call that is not `alive` when its turn comes is dropped: it takes no room. Threads that
        are idle share what waits, as far as that is worth a batch each.
        """
        due = [
            (line.oldest(), kind, reason)
            for kind, line in self._lines.items()
            if (reason := _why(line, now, running, limits))
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
        """How long until `next` gives a batch if nothing else happens; None: it never does."""
        waits = [
            0.0 if line.rows >= limits.full_rows else max(0.0, line.oldest() + limits.hold_s - now)
            for line in self._lines.values()
            if line.rows >= limits.full_rows or limits.may_overlap or running == 0
        ]
        return min(waits, default=None)

    def drop(self, alive: Callable[[P], bool]) -> list[P]:
        """Take out all that nobody waits for any more; what has begun to run in part stays."""
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
                        self._less(line, item.rows, item.size)
                items.clear()
                items.extend(stay)
            if not any(line.items):
                del self._lines[kind]
            elif len(dropped) > before:
                self._count_anew(line)
        return dropped

    def drain(self) -> list[P]:
        """Take all calls out."""
        found = [
            item.payload for line in self._lines.values() for items in line.items for item in items
        ]
        self._lines.clear()
        self.rows = self.calls = self.size = 0
        return found

    def _pack(self, line: _Line[P], rows: int) -> None:
        """Count a call's rows into batches; raises Unavailable if there would be too many."""
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
        """Count what waits into batches, in the order in which it came."""
        line.closed = line.open_rows = 0
        for item in sorted((i for items in line.items for i in items), key=lambda i: i.arrived_at):
            self._count(line, item.rows - item.taken)

    def _take(self, kind: Hashable, batch: Batch[P], most: int, alive: Callable[[P], bool]) -> None:
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
        """Move calls from the front of a line into a batch of at most so many rows."""
        while items:
            item = items[0]
            left, room = item.rows - item.taken, most - batch.rows
            if item.taken == 0 and not alive(item.payload):
                self._leave(line, items, left)
                batch.dropped.append(item.payload)
                continue
            rows = min(left, room) if self.rules.splits else left
            if rows == 0 or (rows > room and batch.rows):
                return
            batch.pieces.append(Piece(item.payload, item.taken, rows))
            batch.rows += rows
            if rows == left:
                self._leave(line, items, rows)
            else:
                item.taken += rows
                line.rows -= rows
                self.rows -= rows
                return

    def _leave(self, line: _Line[P], items: deque[_Item[P]], rows: int) -> None:
        self._less(line, rows, items.popleft().size)

    def _less(self, line: _Line[P], rows: int, size: int) -> None:
        line.rows -= rows
        self.rows -= rows
        self.calls -= 1
        self.size -= size


def _why(line: _Line[P], now: float, running: int, limits: BatchLimits) -> str:
    """Why a line's batch leaves now; empty if it does not."""
    if line.rows >= limits.full_rows:
        return "full"
    if (limits.may_overlap or running == 0) and now >= line.oldest() + limits.hold_s:
        return limits.reason
    return ""
