"""The errors that servingd raises on purpose, each with one canonical status code.

`frontends/status_codes.py` maps codes to HTTP and gRPC, and says what the one exception is.
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
        """Seconds after which it may be worth trying again; None where that is not known."""
        self.request_id: str | None = None
        """The id of the request that failed, where a server's answer repeated it."""
        self.field: str | None = None
        """The input that is wrong, where that is known."""


class InvalidArgument(ServingError):
    """The request is wrong, whatever the state of the server."""

    code = Code.INVALID_ARGUMENT


class NotFound(ServingError):
    """No such model or version is configured."""

    code = Code.NOT_FOUND


class FailedPrecondition(ServingError):
    """The request is well formed, but the system is not in the state it needs."""

    code = Code.FAILED_PRECONDITION


class Unavailable(ServingError):
    """The servable is not ready, the server is stopping, or a queue is full; retry later."""

    code = Code.UNAVAILABLE


class DeadlineExceeded(ServingError):
    """The caller's deadline passed before the call was answered."""

    code = Code.DEADLINE_EXCEEDED


class Cancelled(ServingError):
    """The caller cancelled the call, or a newer configuration cancelled the load."""

    code = Code.CANCELLED


class ResourceExhausted(ServingError):
    """A limit (bytes, rows, memory) would be exceeded."""

    code = Code.RESOURCE_EXHAUSTED


class Unimplemented(ServingError):
    """This server does not support the call, or the kind of data in it."""

    code = Code.UNIMPLEMENTED


class UnknownError(ServingError):
    """A failure of unknown kind; the message has the details."""

    code = Code.UNKNOWN


class Internal(ServingError):
    """A fault of the server."""

    code = Code.INTERNAL


class DataLoss(ServingError):
    """Data on disk is damaged."""

    code = Code.DATA_LOSS


class OutOfRange(ServingError):
    """A position is past the end of the data."""

    code = Code.OUT_OF_RANGE


class Aborted(ServingError):
    """A conflict with another operation."""

    code = Code.ABORTED


class AlreadyExists(ServingError):
    """The thing to be made exists already."""

    code = Code.ALREADY_EXISTS


class PermissionDenied(ServingError):
    """The caller may not do this."""

    code = Code.PERMISSION_DENIED


class Unauthenticated(ServingError):
    """The caller's identity is not known."""

    code = Code.UNAUTHENTICATED


class InvalidConfig(InvalidArgument):
    """A flag, a configuration file or one of its fields is wrong; the server does not start."""


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
    """Return the error for a canonical code; for any other number, an UnknownError."""
    return _BY_CODE.get(code, UnknownError)(message)


def as_serving_error(error: BaseException) -> ServingError:
    """Return `error` itself if it is a ServingError, else an Internal with its type and text."""
    if isinstance(error, ServingError):
        return error
    return Internal(f"{type(error).__name__}: {error}")
