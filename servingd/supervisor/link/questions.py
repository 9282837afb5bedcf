"""Questions that one process asks the other, and their answers."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable
from typing import TypeAlias

from servingd.errors import ServingError, Unavailable
from servingd.supervisor.link.messages import Answer, Ask

_ANSWER_S = 5.0
"""Seconds after which a question about figures is given up."""

Answered: TypeAlias = Callable[[Answer], None]

_log = logging.getLogger(__name__)


class Questions:
    """Questions under way to the other process. Thread-safe."""

    def __init__(self, send: Callable[[object], object]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._waiting: dict[int, Answered] = {}  # guarded by _lock
        self._gone: ServingError | None = None  # guarded by _lock

    def ask(self, what: str, body: bytes, answered: Answered) -> int:
        """Ask; `answered` is called once, on the thread that receives the answer."""
        with self._lock:
            number = next(self._numbers)
            gone = self._gone
            if gone is None:
                self._waiting[number] = answered
        if gone is not None:
            answered(Answer(number, error=gone))
            return number
        self._send(Ask(number, what, body))
        return number

    def ask_and_wait(self, what: str, body: bytes = b"", timeout_s: float = _ANSWER_S) -> bytes:
        """Ask, and return the answer. Raises its ServingError, or Unavailable after the timeout."""
        came, answers = threading.Event(), list[Answer]()

        def take(answer: Answer) -> None:
            answers.append(answer)
            came.set()

        number = self.ask(what, body, take)
        if not came.wait(timeout_s):
            self.forget(number)
            raise Unavailable(f"the supervisor did not answer within {timeout_s:g} s")
        if answers[0].error is not None:
            raise answers[0].error
        return answers[0].body

    def forget(self, number: int) -> None:
        """Wait no more for an answer."""
        with self._lock:
            self._waiting.pop(number, None)

    def answer(self, answer: Answer) -> None:
        """Hand an answer to whoever asked; one that nobody waits for is dropped."""
        with self._lock:
            answered = self._waiting.pop(answer.number, None)
        if answered is not None:
            answered(answer)

    def fail_all(self, error: ServingError) -> None:
        """Answer every question with an error: the other process is gone."""
        with self._lock:
            waiting, self._waiting = self._waiting, {}
            self._gone = error
        for number, answered in waiting.items():
            try:
                answered(Answer(number, error=error))
            except BaseException:  # the others are to be told as well
                _log.exception("a question could not be ended")
