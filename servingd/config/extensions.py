"""What an operator has TensorFlow load besides, before any model."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


class Extensions(NamedTuple):
    """Libraries and modules that register operations. Said by flags alone: they run code."""

    op_libraries: tuple[str, ...] = ()
    """Files with operations, as `tf.load_op_library` takes them."""
    python_imports: tuple[str, ...] = ()
    """Modules that register operations when they are imported."""


NO_EXTENSIONS = Extensions()


def extensions(op_libraries: str, python_imports: str) -> Extensions:
    """From two texts with commas."""
    return Extensions(_parts(op_libraries), _parts(python_imports))


def are_libraries(text: str) -> str | None:
    """Paths of files, with commas."""
    for path in _parts(text):
        if not os.path.isfile(path):
            return f"files, with commas ({path} is none)"
    return None


def are_modules(text: str) -> str | None:
    """Names of modules, with commas."""
    for name in _parts(text):
        if not _MODULE.fullmatch(name):
            return f"names of modules, with commas ({name!r} is none)"
    return None


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part for part in (each.strip() for each in text.split(",")) if part)
