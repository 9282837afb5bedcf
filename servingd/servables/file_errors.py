"""What it means for a servable when one of its files cannot be read."""

from __future__ import annotations

from servingd.errors import Internal, NotFound, PermissionDenied, ServingError


def error_of_file(error: OSError) -> ServingError:
    """A failure of the file system as ours; its text names the file."""
    match error:
        case FileNotFoundError() | NotADirectoryError():
            return NotFound(str(error))
        case PermissionError():
            return PermissionDenied(str(error))
        case _:
            return Internal(str(error))
