"""What the server needs beyond the client and the tools, and how to install it."""

from __future__ import annotations

import importlib.util

from servingd.errors import FailedPrecondition

_MODULES = ("cramjam", "google_crc32c", "httptools", "msgspec", "orjson", "prometheus_client")
_TENSORFLOW = "tensorflow"


def missing_modules() -> list[str]:
    """Return the modules of the server that are not installed."""
    return [name for name in _MODULES if importlib.util.find_spec(name) is None]


def has_tensorflow() -> bool:
    """Return whether TensorFlow is installed; it is not imported."""
    return importlib.util.find_spec(_TENSORFLOW) is not None


def check_needs() -> None:
    """Raise FailedPrecondition, with the command that helps, if the server is not installed."""
    missing = missing_modules()
    if missing:
        raise FailedPrecondition(
            f"the server is not installed (there is no {', '.join(missing)}): "
            'pip install "servingd[cpu]", or "servingd[gpu]"; "servingd[server]" without TensorFlow'
        )
