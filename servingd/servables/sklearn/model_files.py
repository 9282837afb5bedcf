"""The files of estimators: skops archives, which are data, and joblib's, which are code."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from servingd.errors import DataLoss, FailedPrecondition
from servingd.servables.files.source import AsStream, Source
from servingd.servables.files.whole_files import damage_of_zip

SKOPS, JOBLIB = "model.skops", "model.joblib"
_PIECE = 1 << 20
_OPENERS: Mapping[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
    b"\x5d\x00": lzma.open,
}


def damage_of_skops(source: Source) -> str | None:
    """Return why a file is no whole skops archive; None if it is one."""
    return damage_of_zip(source, ("schema.json",))


def damage_of_joblib(source: Source) -> str | None:
    """Return why a file is not whole; None if it seems to be.

    A pickle ends with a full stop, and so does one of 256 that were cut off. A compressed one says
    where it ends.
    """
    head = source.read(0, 6)
    try:
        for magic, opener in _OPENERS.items():
            if head.startswith(magic):
                with opener(AsStream(source)) as stream:
                    while stream.read(_PIECE):
                        pass
                return None
        if head[:1] == b"\x78":
            return _damage_of_zlib(source)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        return f"is not whole ({source.size} bytes): {error}"
    if not source.size or source.read(source.size - 1, 1) != b".":
        return f"does not end as a pickle does ({source.size} bytes)"
    return None


def _damage_of_zlib(source: Source) -> str | None:
    stream = zlib.decompressobj()
    for offset in range(0, source.size, _PIECE):
        stream.decompress(source.read(offset, _PIECE))
    return None if stream.eof else f"is not whole ({source.size} bytes)"


def load_skops(path: Path, trusted: Sequence[str]) -> Any:
    """Return the estimator in a file. Raises FailedPrecondition naming types that are not trusted.

    Nothing of a type that is not trusted is made. What skops trusts cannot run code, nor read where
    it should not: trees, whose arrays are places in memory, are not among it.
    """
    try:
        import skops.io

        found = skops.io.get_untrusted_types(file=path)
        if unknown := sorted(set(found) - set(trusted)):
            raise FailedPrecondition(
                f"{path.name} has types that are not trusted: {', '.join(unknown)}. If you trust "
                "whoever made it, name them in servingd.yaml, as platform_options: "
                f"{{trusted_types: [{', '.join(unknown)}]}}"
            )
        return skops.io.load(path, trusted=sorted(set(found)))
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        raise DataLoss(f"{path.name} is no skops archive: {error}") from error
    except (ImportError, AttributeError, TypeError) as error:
        raise FailedPrecondition(f"{path.name} cannot be loaded: {error}") from error


def load_joblib(path: Path) -> Any:
    """Return the estimator in a file, whose code runs meanwhile. Raises FailedPrecondition."""
    import joblib

    try:
        return joblib.load(path)
    except FileNotFoundError:
        raise
    except Exception as error:  # a pickle may raise anything
        text = f"{path.name} cannot be loaded: {type(error).__name__}: {error}"
        raise FailedPrecondition(text) from error
