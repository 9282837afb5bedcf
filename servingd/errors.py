"""The errors that servingd raises on purpose, each with one canonical status code.

Only `frontends/status_codes.py` knows what a code looks like on a wire.
"""

from __future__ import annotations

import enum
from typing import ClassVar


class Code(enum.IntEnum):
    """Canonical status codes: the same numbers in gRPC, Abseil and `tensorflow.error.Code`."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class ServingError(Exception):
    """Base of all errors raised on purpose; `code` is the canonical status, `message` the text."""

    code: ClassVar[Code] = Code.INTERNAL

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s: float | None = None
        """When it may be worth while to try again, where that is known."""


class InvalidArgument(ServingError):
    """The request is wrong, whatever the state of the server."""

    code = Code.INVALID_ARGUMENT


class NotFound(ServingError):
    """Nothing under that name or version, and nobody wants it to be there."""

    code = Code.NOT_FOUND


class FailedPrecondition(ServingError):
    """The request is well formed, but the system is not in the state it needs."""

    code = Code.FAILED_PRECONDITION


class Unavailable(ServingError):
    """Not now: the servable is not ready, or the server is stopping. A retry may succeed."""

    code = Code.UNAVAILABLE


class DeadlineExceeded(ServingError):
    """The caller's deadline passed before the answer was there."""

    code = Code.DEADLINE_EXCEEDED


class Cancelled(ServingError):
    """The caller, or a newer statement of what ought to be loaded, took the request back."""

    code = Code.CANCELLED


class ResourceExhausted(ServingError):
    """A limit (bytes, rows, memory) would be exceeded."""

    code = Code.RESOURCE_EXHAUSTED


class Unimplemented(ServingError):
    """The call, or the kind of data in it, is not served here."""

    code = Code.UNIMPLEMENTED


class UnknownError(ServingError):
    """A failure of no known kind; the text says what came."""

    code = Code.UNKNOWN


class Internal(ServingError):
    """Our fault."""

    code = Code.INTERNAL


class DataLoss(ServingError):
    """Data on disk is damaged."""

    code = Code.DATA_LOSS


class OutOfRange(ServingError):
    """A position past the end of what is there."""

    code = Code.OUT_OF_RANGE


class Aborted(ServingError):
    """Stopped by a conflict."""

    code = Code.ABORTED


class AlreadyExists(ServingError):
    """It is there already."""

    code = Code.ALREADY_EXISTS


class PermissionDenied(ServingError):
    """Not allowed."""

    code = Code.PERMISSION_DENIED


class Unauthenticated(ServingError):
    """Who is asking is not known."""

    code = Code.UNAUTHENTICATED


class InvalidConfig(InvalidArgument):
    """A flag, a configuration file or one of its fields is wrong; start-up ends with it."""


_BY_CODE: dict[int, type[ServingError]] = {
    kind.code: kind
    for kind in (
        Cancelled,
        UnknownError,
        InvalidArgument,
        DeadlineExceeded,
        NotFound,
        AlreadyExists,
        PermissionDenied,
        ResourceExhausted,
        FailedPrecondition,
        Aborted,
        OutOfRange,
        Unimplemented,
        Internal,
        Unavailable,
        DataLoss,
        Unauthenticated,
    )
}


def error_from_code(code: int, message: str) -> ServingError:
    """The error for a canonical code; a number that is none becomes UNKNOWN."""
    return _BY_CODE.get(code, UnknownError)(message)


def as_serving_error(error: BaseException) -> ServingError:
    """`error` itself if it is ours, else INTERNAL with its type and text."""
    if isinstance(error, ServingError):
        return error
    return Internal(f"{type(error).__name__}: {error}")
