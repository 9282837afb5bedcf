"""Changes a configuration file that a running server reads, and applies it: both or neither."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator

from servingd.config.models import ModelConfig
from servingd.errors import FailedPrecondition, InvalidConfig, ServingError


def edit_file(
    path: str,
    change: Callable[[str], str],
    read: Callable[[str], tuple[ModelConfig, ...]],
    apply: Callable[[tuple[ModelConfig, ...]], None],
) -> None:
    """Replace a file by what `change` makes of its text, once `apply` has taken its models.

    `read` returns the models of a file at a path. The file is replaced by one rename; its owner,
    permissions and comments stay. Raises ServingError with nothing changed: by `change`, `read` or
    `apply`, or FailedPrecondition for a file that cannot be written. Not thread-safe.
    """
    real = os.path.realpath(path)  # a link goes on pointing to the file
    text = change(_text(real))
    with _new_file(real, text) as new:
        try:
            models = read(new)
        except InvalidConfig as error:
            raise InvalidConfig(error.message.replace(new, path)) from None
        try:
            apply(models)
            os.replace(new, real)
            read(path)  # later errors name this file, not the new one
        except (ServingError, OSError) as error:
            with contextlib.suppress(ServingError, OSError):
                apply(read(path))
            raise error if isinstance(error, ServingError) else _not_written(real, error) from error


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return file.read()
    except (OSError, ValueError) as error:
        raise FailedPrecondition(f"{path} cannot be read: {error}") from error


@contextlib.contextmanager
def _new_file(path: str, text: str) -> Iterator[str]:
    """Write a file beside `path`, complete on disk; remove it, unless it was renamed."""
    folder, name = os.path.split(path)
    try:
        handle, new = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
    except OSError as error:
        raise _not_written(path, error) from error
    try:
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="") as out:
                out.write(text)
                out.flush()
                os.fsync(out.fileno())
            shutil.copymode(path, new)
            there = os.stat(path)
            with contextlib.suppress(PermissionError):
                os.chown(new, there.st_uid, there.st_gid)
        except OSError as error:
            raise _not_written(path, error) from error
        yield new
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)


def _not_written(path: str, error: OSError) -> FailedPrecondition:
    return FailedPrecondition(f"{path} cannot be changed from here: {error.strerror or error}")
