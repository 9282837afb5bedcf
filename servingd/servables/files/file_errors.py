"""Errors of the file system as a servable's errors."""

from __future__ import annotations

from servingd.errors import Internal, NotFound, PermissionDenied, ServingError


def error_of_file(error: OSError) -> ServingError:
    """Return the ServingError for an error of the file system; its text names the file."""
    match error:
        case FileNotFoundError() | NotADirectoryError():
            return NotFound(str(error))
        case PermissionError():
            return PermissionDenied(str(error))
        case _:
            return Internal(str(error))
