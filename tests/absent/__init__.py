"""Hides from the processes that tests start what comes with the tests, not with servingd.

The modules of this folder raise what Python raises where there are none of their names.
"""

from __future__ import annotations

import os
from pathlib import Path

_HERE = str(Path(__file__).parent)
_PATH = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p not in ("", _HERE)]

SEEN = os.pathsep.join(_PATH)
"""The PYTHONPATH of a process that needs them."""
HIDDEN = os.pathsep.join((_HERE, *_PATH))
"""That of one that has to do without."""
