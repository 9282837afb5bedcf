"""Read inputs from files: told by the ending of their names."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from servingd.errors import InvalidArgument, NotFound

_IMAGES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp")
_STDIN = "-"


def is_file(typed: str) -> bool:
    """Return whether what was typed is `@FILE`, or `-` for stdin."""
    return typed == _STDIN or typed.startswith("@")


def read_file(typed: str) -> Any:
    """Return what a file holds: a mapping of inputs, rows, or the value of the only input.

    JSON as it is; JSON lines as rows; CSV by its first line's names; .npy and .npz as arrays; an
    image as its bytes, in a row; any other file as its lines. stdin is JSON. Raises NotFound, or
    InvalidArgument naming the file.
    """
    if typed == _STDIN:
        return _json(sys.stdin.read(), "stdin")
    path = Path(typed[1:])
    read = _READERS.get(path.suffix.lower(), _lines)
    try:
        return read(path)
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None
    except (OSError, ValueError, EOFError) as error:
        raise InvalidArgument(f"{path}: {error}") from error


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidArgument(f"{where}: expected JSON: {error}") from None


def _json_lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def _csv(path: Path) -> Mapping[str, list[Any]]:
    with path.open(newline="") as file:
        head, *rows = list(csv.reader(file)) or [[]]
    if not head or not rows:
        raise ValueError("expected a line of names, and lines of values")
    for number, row in enumerate(rows, 2):
        if len(row) != len(head):
            raise ValueError(f"line {number}: expected {len(head)} values, got {len(row)}")
    return {
        name: _column([row[at] for row in rows]) for at, name in enumerate(map(str.strip, head))
    }


def _column(cells: list[str]) -> list[Any]:
    """Return whole numbers, else numbers, else texts: what all cells are."""
    for kind in (int, float):
        try:
            return [kind(cell) for cell in cells]
        except ValueError:
            continue
    return cells


def _npz(path: Path) -> Mapping[str, Any]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _image(path: Path) -> list[bytes]:
    return [path.read_bytes()]


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


_READERS: Mapping[str, Callable[[Path], Any]] = {
    ".json": lambda path: json.loads(path.read_text()),
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".csv": _csv,
    ".npy": lambda path: np.load(path, allow_pickle=False),
    ".npz": _npz,
    **dict.fromkeys(_IMAGES, _image),
}
