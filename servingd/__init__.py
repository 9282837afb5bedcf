"""servingd: a TensorFlow-Serving-compatible model server.

Here: one package per concern, and what joins them: `server.py` makes the control plane
(`control.py`), the data plane (`worker.py`) and the ports. `errors.py` has the errors of all.
Not here: code that runs on import: this package and `servingd.client` load neither the server nor
TensorFlow. Start with the tour in `DESIGN.md`, then `server.py`.
"""

import importlib
from typing import Any

__version__ = "0.3.0"


def __getattr__(name: str) -> Any:
    """Import the server when it is asked for: a client needs none of it."""
    if name == "Server":
        return importlib.import_module("servingd.embedded").Server
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
