"""Read paths as TensorFlow does: local ones, plain or as `file://` addresses."""

from __future__ import annotations

import re

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/]*)(.*)", re.DOTALL)


class NotLocal(ValueError):
    """An address of another kind; the text says what was expected."""


def local_path(text: str) -> str:
    """Return the path that a text means. Raises NotLocal for other addresses, such as `gs://`."""
    if "\0" in text:
        raise NotLocal("a path without NUL bytes")
    address = _ADDRESS.fullmatch(text)
    if address is None:
        return text
    scheme, host, path = address.groups()
    if scheme.lower() != "file":
        raise NotLocal(f"a path or a file:// address: {scheme}:// is not read here")
    if host not in ("", "localhost") or not path:
        raise NotLocal("a file:// address of this machine, such as file:///models/m")
    return path
