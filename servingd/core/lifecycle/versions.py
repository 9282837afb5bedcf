"""Decide which directories are versions, and which of them are aspired."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TypeAlias

MAX_VERSION = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Latest:
    """The `num_versions` largest numbers; 0 counts as 1, as in TensorFlow Serving."""

    num_versions: int = 1


@dataclass(frozen=True, slots=True)
class All:
    """Every version there is."""


@dataclass(frozen=True, slots=True)
class Specific:
    """Those of the listed versions that exist."""

    versions: tuple[int, ...]


VersionPolicy: TypeAlias = Latest | All | Specific


def parse_version(name: str) -> int | None:
    """Return the version that a directory name stands for; None if it is no version.

    A version is a decimal number of at most 63 bits; leading zeros are allowed.
    """
    if not (name.isascii() and name.isdigit()):
        return None
    version = int(name) if len(name) <= 64 else MAX_VERSION + 1
    return version if version <= MAX_VERSION else None


def versions_in(children: Iterable[str]) -> dict[int, str]:
    """Return directory names by version; of two spellings of one number the last in order wins."""
    found: dict[int, str] = {}
    for name in sorted(children):
        version = parse_version(name)
        if version is not None:
            found[version] = name
    return found


def aspired(present: Collection[int], policy: VersionPolicy) -> tuple[int, ...]:
    """Return the versions that should be loaded, newest first, of those present and complete."""
    newest_first = sorted(set(present), reverse=True)
    match policy:
        case Latest(num_versions):
            return tuple(newest_first[: max(1, num_versions)])
        case All():
            return tuple(newest_first)
        case Specific(versions):
            return tuple(v for v in newest_first if v in versions)
